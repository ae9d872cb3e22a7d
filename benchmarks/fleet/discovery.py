"""How long `crosstie pairs` takes over an archive of 100,000 Sentinel-1 and 100,000 Sentinel-2 items.

    python benchmarks/fleet/discovery.py

Makes the archive once, runs the command as a process of its own, for a window of 30 days and for all of it,
and prints seconds and peak memory: of several runs the least, for other work on the machine only adds.
`--items FILE` also writes the items of a window as JSON, one a line, for a STAC API to load.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from crosstie.io.simulation.archive import simulated_archive, write_archive, write_items

WINDOW = ("2023-06-01", "2023-06-30")


def measured(arguments: list[str], log: Path) -> tuple[float, float, str]:
    """Wall time in seconds, peak memory in GiB and last line of one run of `crosstie`."""
    begin = time.perf_counter()
    child = os.fork()
    if child == 0:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        program = [sys.executable, "-m", "crosstie", *arguments]
        os.execv(program[0], program)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - begin
    lines = log.read_text().splitlines()
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit("\n".join(lines[-20:]))
    return seconds, usage.ru_maxrss / 1024**2, next(line for line in lines if "planned in" in line)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=100_000, help="items of each mission")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--archive", type=Path, help="keep the archive there, or take what is there")
    parser.add_argument("--items", type=Path, help="also write the items of the window there, one a line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = options.archive or Path(folder) / "archive.parquet"
        if not archive.exists():
            write_archive(archive, simulated_archive(options.each))
        print(f"{archive.stat().st_size / 1e6:.0f} MB, {pq.read_metadata(archive).num_rows} items")
        if options.items is not None:
            write_items(options.items, in_window(archive))
        plan = Path(folder) / "plan.txt"
        common = ["pairs", "--catalog", str(archive), "--to", str(plan)]
        window = ["--start", WINDOW[0], "--end", WINDOW[1]]
        for name, more in (("30-day window", window), ("whole archive", [])):
            runs = [measured(common + more, Path(folder) / "log.txt") for _ in range(options.runs)]
            seconds, gib = min(run[0] for run in runs), max(run[1] for run in runs)
            print(f"{name}: {seconds:.2f} s (least of {len(runs)}), {gib:.2f} GiB at most; {runs[0][2]}")


def in_window(archive: Path) -> object:
    """Rows of the window."""
    table = pq.read_table(archive)
    day = pc.strftime(table["datetime"], format="%Y-%m-%d")
    return table.filter(pc.and_(pc.greater_equal(day, WINDOW[0]), pc.less_equal(day, WINDOW[1])))


if __name__ == "__main__":
    main()
