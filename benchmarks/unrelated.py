"""Real chips of different places given as pairs: how many are accepted that have nothing in common?

    python benchmarks/unrelated.py ../shared/data/pairs/3mos --pairs 500 --seed 1

The folder holds chips `<place>_s2.tif` and `<place>_s1.tif`, all on one grid of one size. Every pair goes
through planning, the shipped matcher and estimation with default settings. The true pairs are registered as
well: a method that refuses all of them would accept no wrong one either.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

import crosstie
from crosstie.flows.registration.load_matcher import load_matcher
from crosstie.flows.registration.pipeline import InProcess, register_plan
from crosstie.flows.registration.plan import plan_pair
from crosstie.io.raster import open_pair
from crosstie.matcher.matching import Matcher
from crosstie.types import Estimate


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chips", type=Path)
    parser.add_argument("--pairs", type=int, default=500, help="unrelated ones, drawn without repetition")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    settings = crosstie.Settings()
    matcher = load_matcher(settings)
    names = sorted(path.name.removesuffix("_s2.tif") for path in given.chips.glob("*_s2.tif"))
    for title, pairs in (
        ("of one place", [(name, name) for name in names]),
        ("unrelated", unrelated(names, given.pairs, given.seed)),
    ):
        verdicts: Counter[str] = Counter()
        for optical, sar in pairs:
            found = estimate_of(given.chips, optical, sar, matcher, settings)
            verdicts[found.verdict.code] += 1
            if title == "unrelated" and found.verdict.code != "unreliable":
                print(f"accepted: {optical} with {sar}: {found.verdict.code}")
        print(json.dumps({"pairs": title, "count": len(pairs), **verdicts}))


def unrelated(names: list[str], count: int, seed: int) -> list[tuple[str, str]]:
    """Draw pairs of two different chips."""
    every = [(one, other) for one in names for other in names if one != other]
    chosen = np.random.default_rng(seed).permutation(len(every))[:count]
    return [every[n] for n in chosen]


def estimate_of(
    chips: Path, optical: str, sar: str, matcher: Matcher, settings: crosstie.Settings
) -> Estimate:
    plan = plan_pair(*open_pair(chips / f"{optical}_s2.tif", chips / f"{sar}_s1.tif"), settings)
    return register_plan(plan, InProcess(matcher), settings).estimate


if __name__ == "__main__":
    main()
