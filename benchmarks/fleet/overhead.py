"""What a flow costs beyond the work itself: many small pairs, and a matcher that answers at once.

    python benchmarks/fleet/overhead.py --pairs 40

The same pairs are registered twice: by a flow on a local Prefect server and a local Dask cluster, and by
plain calls in this process (open, plan, read, estimate, render, write). The difference is what claims, tasks,
look-ups, artifacts and moving work to a cluster cost. Start-up, which a run pays once, has a line of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from crosstie.flows.runs.own_server import make_ready


@dataclass(frozen=True)
class Answer:
    offset_px: NDArray[np.float64]
    sigma_px: NDArray[np.float64]
    confidence: NDArray[np.float64]


class InstantMatcher:
    """Finds every tile off by the same fraction of a pixel, and does not look at the images."""

    weights_sha256 = "0" * 64
    halo_px = 16

    def match(self, reference: Any, secondary: Any, rows: Any, cols: Any, **how: Any) -> Answer:
        del reference, secondary, how
        spread = 0.05 * np.stack([np.sin(1.0 * rows), np.cos(1.0 * cols)], axis=1)
        return Answer(1.5 + spread, np.full(len(rows), 0.1), np.full(len(rows), 0.95))

    def offset_probability(self, reference: Any, secondary: Any, *, search_px: int, **how: Any) -> Any:
        del reference, secondary, how
        side = 2 * search_px + 1
        found = np.zeros((side, side), np.float32)
        found[search_px, search_px] = 1
        return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--size-px", type=int, default=256)
    parser.add_argument("--at-once", type=int, default=1, help="pairs at the same time in the flow")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("PREFECT_HOME", f"{folder}/prefect")
        measure(Path(folder), options.pairs, options.size_px, options.at_once)


def measure(folder: Path, count: int, size_px: int, at_once: int) -> None:
    """Register all pairs in both ways."""
    from crosstie.config import load_settings
    from crosstie.flows.discovery.periods import find
    from crosstie.io.simulation.pairs import write_simulated_catalog

    settings = load_settings(
        options={"compute.pairs_at_once": at_once, "compute.device": "cpu", "compute.threads": 1}
    )
    catalog = str(write_simulated_catalog(folder / "simulated", scenes=count, size_px=size_px))
    pairs = find(catalog, settings)
    # Once for what is imported and compiled at the first pair.
    plain_calls(pairs[:1], folder / "warm", settings)
    begin = now()
    plain_calls(pairs, folder / "plain", settings)
    plain = (now() - begin) / len(pairs)

    whole, first, last = by_flow(pairs, folder / "flow", settings)
    flow = (last - first) / (len(pairs) - 1)
    done = len(list((folder / "flow").rglob("_COMMIT")))
    print(f"{len(pairs)} pairs of {size_px} px, {done} committed by the flow, {at_once} at once")
    print("                      wall      CPU of all processes, seconds")
    for name, seconds in (
        ("plain calls, a pair", plain),
        ("flow, a pair", flow),
        ("difference, a pair", flow - plain),
        ("start and end, once", whole - flow * len(pairs)),
        ("whole flow", whole),
    ):
        print(f"  {name:<20}{seconds[0]:8.2f} {seconds[1]:8.2f}")


def now() -> NDArray[np.float64]:
    """Wall time and CPU time of this process and of all that it has started, seconds."""
    spent = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            user, system, *of_ended_children = process.cpu_times()[:4]
            spent += user + system + sum(of_ended_children)
    return np.array([time.perf_counter(), spent])


def by_flow(pairs: list[Any], out: Path, settings: Any) -> tuple[Any, Any, Any]:
    """Seconds (see `now`) to the end of a flow, to its first pair and to its last; started as a run is."""
    begin = now()
    make_ready(verbose=False, meanwhile=lambda: import_module("crosstie.flows.backfill"))
    from prefect import flow

    from crosstie.flows.runs.run import Run

    over = []

    @flow(name="overhead")
    def overhead() -> None:
        with Run(
            "backfill", str(out), settings, asked={}, started=datetime.now(UTC), load=InstantMatcher
        ) as run:
            over.extend(now() for _ in run.take(pairs))

    overhead()
    return now() - begin, over[0] - begin, over[-1] - begin


def plain_calls(pairs: list[Any], out: Path, settings: Any) -> None:
    """Register pairs one after the other, with nothing but the work."""
    from crosstie.flows.registration.pipeline import InProcess, register_plan
    from crosstie.flows.registration.plan import plan_pair
    from crosstie.flows.registration.publish import PairNames, assemble, publish
    from crosstie.io.raster import open_pair
    from crosstie.io.storage.store import open_store

    matcher = InstantMatcher()
    store = open_store(str(out))
    for pair in pairs:
        names = PairNames(
            reference_id=pair.reference.id,
            secondary_id=pair.secondary.id,
            reference_hrefs=pair.reference.hrefs,
            secondary_hrefs=pair.secondary.hrefs,
        )
        plan = plan_pair(*open_pair(pair.reference.hrefs, pair.secondary.hrefs), settings)
        measured = register_plan(plan, InProcess(matcher), settings)
        registration = assemble(
            names, plan, measured, settings, weights_sha256=matcher.weights_sha256, seconds=0.0
        )
        publish(store, registration, plan, names, settings)


if __name__ == "__main__":
    main()
