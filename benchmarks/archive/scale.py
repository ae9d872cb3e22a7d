"""Seconds and memory of solving a large simulated archive as one network, and of adding scenes to it.

    python benchmarks/archive/scale.py [--scenes 10000] [--edges 100000] [--places 1]

A third of the scenes are references; partners are drawn at random, which fills the normal equations most.
Noise 0.1 px, 5 % of the pairs wrong by 3 px.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from numpy.typing import NDArray

from crosstie.estimation.adjustment import Adjustment, Edges, adjust, extend

NOISE_M, WRONG_M, WRONG_SHARE = 1.0, 30.0, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--edges", type=int, default=100_000)
    parser.add_argument("--places", type=int, default=1, help="parts that no pair ties together")
    parser.add_argument("--add", type=int, default=10, help="scenes added to the solved network")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    scenes = given.scenes // given.places
    truth = rng.normal(0, 5, (given.places, scenes + given.add, 2))
    references = scenes // 3
    partners = round(given.edges / given.places / (scenes - references))
    parts = [
        pairs(rng, truth[p], range(references, scenes), references, partners, f"{p:03d}")
        for p in range(given.places)
    ]
    edges = Edges.concatenate([part for part, _ in parts])
    wrong = np.concatenate([bad for _, bad in parts])
    begun = time.perf_counter(), time.process_time()
    solved = adjust(edges)
    told(f"{len(solved.scenes)} scenes, {len(edges)} edges", solved, wrong, begun)
    more, bad = pairs(rng, truth[0], range(scenes, scenes + given.add), references, partners, "000")
    begun = time.perf_counter(), time.process_time()
    grown = extend(solved, more)
    told(f"{given.add} scenes, {len(more)} edges more", grown, np.r_[wrong, bad], begun)


def pairs(
    rng: np.random.Generator,
    truth_m: NDArray[np.float64],
    secondaries: range,
    references: int,
    partners: int,
    place: str,
) -> tuple[Edges, NDArray[np.bool_]]:
    """Each secondary against `partners` references of its place, and which of the pairs are wrong."""
    secondary = np.repeat(np.array(secondaries), partners)
    reference = np.concatenate([rng.choice(references, partners, replace=False) for _ in secondaries])
    offset = truth_m[secondary] - truth_m[reference] + rng.normal(0, NOISE_M, (len(secondary), 2))
    wrong = rng.random(len(secondary)) < WRONG_SHARE
    turn = rng.uniform(0, 2 * np.pi, len(secondary))
    offset[wrong] += WRONG_M * np.stack([np.cos(turn), np.sin(turn)], axis=1)[wrong]
    names = np.char.add(f"{place}-", np.char.zfill(np.arange(len(truth_m)).astype(str), 6))
    sigma = np.full(len(secondary), NOISE_M)
    return Edges.of_shifts(names[reference], names[secondary], offset, covariance=sigma), wrong


def told(what: str, solved: Adjustment, wrong: NDArray[np.bool_], begun: tuple[float, float]) -> None:
    seconds, busy = time.perf_counter() - begun[0], time.process_time() - begun[1]
    kept = solved.adjusted.kept
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found, false = (wrong & ~kept).sum(), (~kept & ~wrong).sum() / (~wrong).sum()
    print(
        f"{what}: {seconds:.1f} s ({busy:.1f} s of CPU), peak {peak:.2f} GiB; "
        f"of {wrong.sum()} wrong edges {found} named, of the right ones {100 * false:.2f} %; "
        f"sigmas times {solved.test.sigma_factor:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
