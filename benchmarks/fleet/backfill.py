"""A backfill over thousands of small real pairs with known errors, killed again and again while it runs.

    python benchmarks/fleet/backfill.py --from ../shared/data/scenes --pairs 2000 --folder /tmp/backfill

Cuts the pairs (crosstie simulate --from), runs `crosstie backfill` over them, ends all its processes with
SIGKILL at random points, starts it again, and says at the end: whether every pair is committed, whether one
that was committed at a kill has been touched since, how far the offsets are off the known errors, how long
it took. Exit code 1 where one of the first two does not hold, or fewer than 99 % of the offsets are within
0.5 px.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from affine import Affine

SETTINGS = """\
# The errors are known to be small: the coarse search would only take time.
tiles: {coarse_max_offset_m: 0}
backfill: {partition_days: 20}
"""

LIMIT_PX = 0.5
"""How far an offset may be off the known error, px."""

LEAST_SHARE = 0.99
"""Of the offsets that must be within it."""

Marks = dict[str, tuple[int, str]]
"""Of each committed run: time of its `_COMMIT`, ns, and the moment that its correction says it was made."""


@dataclass(slots=True)
class Result:
    """What the benchmark says."""

    pairs: int
    committed: int = 0
    kills: list[int] = field(default_factory=list)
    """Pairs that were committed at each kill."""
    touched: int = 0
    """Pairs committed at a kill that were computed again, or whose files have changed."""
    done_before_last: int = 0
    """Pairs that the last run found done, as it says itself."""
    verdicts: dict[str, int] = field(default_factory=dict)
    within_limit: float = 0.0
    """Share of all pairs whose offset is within `LIMIT_PX` of the known error."""
    offset_error_px: dict[str, float] = field(default_factory=dict)
    """Distance of the median offset from the known error, where one was measured: median, 99 %, largest."""
    left_px: dict[str, float] = field(default_factory=dict)
    """Distance from its true place of the scene's middle after the correction."""
    minutes: float = 0.0
    """Running time of all runs together, starts included."""

    @property
    def pairs_per_minute(self) -> float:
        return self.committed / self.minutes if self.minutes else 0.0

    @property
    def good(self) -> bool:
        resumed = self.done_before_last >= max(self.kills, default=0)
        return (
            self.committed == self.pairs and not self.touched and resumed and self.within_limit >= LEAST_SHARE
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="real", type=Path, default=Path("../shared/data/scenes"))
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="receives pairs, products and logs")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.yaml").write_text(SETTINGS)
    catalog = folder / "pairs" / "catalog.json"
    if not catalog.is_file():
        crosstie = [sys.executable, "-m", "crosstie", "simulate", catalog.parent, "--from", asked.real]
        subprocess.run([*crosstie, "--scenes", str(asked.pairs), "--seed", str(asked.seed)], check=True)
    result = run(folder, catalog, asked.pairs, asked.kills, random.Random(asked.seed))
    print_result(result)
    if asked.json is not None:
        asked.json.write_text(json.dumps({**asdict(result), "pairs_per_minute": result.pairs_per_minute}))
    return 0 if result.good else 1


def run(folder: Path, catalog: Path, pairs: int, kills: int, rng: random.Random) -> Result:
    """Run the backfill to its end, through `kills` kills at random points."""
    products = folder / "products"
    result = Result(pairs)
    points = sorted(rng.sample(range(1, pairs), kills))
    seen: Marks = {}
    for number, point in enumerate([*points, None]):
        begin = time.monotonic()
        with (folder / f"run-{number}.log").open("wb") as log:
            process = subprocess.Popen(command(folder, catalog, products), stdout=log, stderr=log)
            if point is None:
                process.wait()
            else:
                wait_for(process, products, point)
                time.sleep(rng.uniform(0, 3))  # anywhere in a pair
                kill(process)
        result.minutes += (time.monotonic() - begin) / 60
        now = marks(products)
        result.touched += sum(now.get(key) != mark for key, mark in seen.items())
        seen = now
        if point is not None:
            result.kills.append(len(now))
            print(f"killed with {len(now)} of {pairs} pairs committed", flush=True)
    logs = sorted((products / "_runs" / "backfill").glob("*.json"))
    result.done_before_last = json.loads(logs[-1].read_text())["already_done"]
    measure(result, catalog, products)
    return result


def command(folder: Path, catalog: Path, products: Path) -> list[str]:
    return [
        sys.executable, "-m", "crosstie", "backfill", "--catalog", str(catalog), "--out", str(products),
        "--config", str(folder / "settings.yaml"), "--start", "2025-01-01", "--end", "2026-12-31",
    ]  # fmt: skip


def wait_for(process: subprocess.Popen[bytes], products: Path, count: int) -> None:
    while process.poll() is None and sum(1 for _ in products.glob("*/*/_COMMIT")) < count:
        time.sleep(0.2)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the run and all that it has started at once, as a machine that loses its power does."""
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.wait()


def marks(products: Path) -> Marks:
    return {
        str(commit.parent.relative_to(products)): (
            commit.stat().st_mtime_ns,
            read(commit.parent)["provenance"]["created_utc"],
        )
        for commit in products.glob("*/*/_COMMIT")
    }


def read(run_folder: Path) -> dict[str, Any]:
    correction: dict[str, Any] = json.loads((run_folder / "correction.json").read_text())
    return correction


def measure(result: Result, catalog: Path, products: Path) -> None:
    """Compare what was found with what is known."""
    truth = {
        (pair["reference"], pair["secondary"]): pair
        for pair in json.loads((catalog.parent / "truth.json").read_text())["pairs"]
    }
    errors, left = [], []
    for commit in products.glob("*/*/_COMMIT"):
        found = read(commit.parent)
        known = truth[found["pair"]["reference"]["id"], found["pair"]["secondary"]["id"]]
        result.committed += 1
        result.verdicts[found["verdict"]] = result.verdicts.get(found["verdict"], 0) + 1
        pixel_m = np.array(known["pixel_m"])
        offset_m = [found["offset_m"][name] for name in ("median_x", "median_y")]
        if None in offset_m:
            errors.append(np.inf)
        else:
            errors.append(float(np.hypot(*(np.subtract(offset_m, known["shift_m"]) / pixel_m))))
        middle = middle_of(commit.parent)
        off_m = np.subtract(Affine(*found["affine"]) @ middle, Affine(*known["true_affine"]) @ middle)
        left.append(float(np.hypot(*(off_m / pixel_m))))
    result.within_limit = sum(error <= LIMIT_PX for error in errors) / result.pairs
    result.offset_error_px = summary(errors)
    result.left_px = summary(left)


def middle_of(run_folder: Path) -> tuple[float, float]:
    """Middle of the secondary as it is, on its map."""
    item = json.loads((run_folder / "item.json").read_text())["properties"]
    rows, cols = item["proj:shape"]
    corrected = Affine(*item["proj:transform"][:6])
    original = ~Affine(*read(run_folder)["affine"]) @ corrected
    x, y = original @ (cols / 2, rows / 2)
    return float(x), float(y)


def summary(values: list[float]) -> dict[str, float]:
    known = [value for value in values if np.isfinite(value)]  # an unreliable pair may have no offset
    quantiles = np.quantile(known, [0.5, 0.99, 1.0]) if known else [np.nan] * 3
    return dict(zip(("median", "p99", "max"), map(float, quantiles), strict=True))


def print_result(result: Result) -> None:
    def told(name: str, what: dict[str, float]) -> None:
        print(f"{name:<34}" + ", ".join(f"{key} {value:.3f}" for key, value in what.items()))

    print(f"{'committed':<34}{result.committed} of {result.pairs}: {result.verdicts}")
    print(f"{'killed at':<34}{', '.join(map(str, result.kills))} pairs")
    print(f"{'done before the last run':<34}{result.done_before_last} pairs")
    print(f"{'computed again or changed':<34}{result.touched}")
    print(f"{'offsets within 0.5 px':<34}{result.within_limit:.2%}")
    told("offset less known error, px", result.offset_error_px)
    told("left after the correction, px", result.left_px)
    print(f"{'running time':<34}{result.minutes:.1f} min, {result.pairs_per_minute:.1f} pairs a minute")


if __name__ == "__main__":
    sys.exit(main())
