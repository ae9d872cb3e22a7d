"""How long each page of `crosstie site` takes over an archive of 100,000 pairs.

    python benchmarks/archive/pages.py [--pairs 100000] [--places 500] [--archive FOLDER]

Nothing is matched: the index, the adjusted places and the failures are written by the functions that write
them in a run, from drawn measurements. Of a pair there is a commit alone, of the newest 25 a picture and a
report as well. One place has a tenth of all pairs. The site is a process of its own. The first request for
each kind of page is what a reader meets after a restart; the others are told by their median. Beside them
stand the seconds of a core that the site took, which is what a request waits for on an idle machine, and a
fixed piece of work, to compare machines by. `--archive` keeps the archive, or takes what is there.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import psutil
import shapely
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1] / "fleet"))

import index as fleet

from crosstie.flows.archive.solving import AdjustOptions, solve_place
from crosstie.io.adjusted.layout import EDGES, ITEMS, SCENES, SUMMARY, PlaceVersion
from crosstie.io.adjusted.places import ArchivePair, ArchivePlace
from crosstie.io.adjusted.publish import publish_place
from crosstie.io.adjusted.tables import (
    MeasuredPairs,
    decode_edges,
    decode_scenes,
    encode_edges,
    encode_scenes,
)
from crosstie.io.archive.failures import Failure, record_failure
from crosstie.io.archive.index import update_index
from crosstie.io.archive.index_parts import create_part
from crosstie.io.archive.index_rows import index_row
from crosstie.io.archive.index_table import table_of
from crosstie.io.storage.commit import FileFacts, encode_commit
from crosstie.io.storage.root_layout import ProductKey
from crosstie.io.storage.store import Store, open_store
from crosstie.types import pair_key

RUN = "0123456789abcdef"
FIRST = datetime(2024, 1, 3, 5, 30, tzinfo=UTC)
OPTICAL = 9
"""Sentinel-2 scenes of a place; each is paired with each Sentinel-1 scene."""

LARGEST = 0.1
"""Share of the pairs that one place has."""

FAILURES, SHOWN, ROUNDS = 500, 25, 5
PATIENCE_S = 600.0
NOISE_M, SCATTER_M = 1.0, 4.0


def main() -> None:
    """Make the archive, start the site, and ask for each page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--places", type=int, default=500)
    parser.add_argument("--archive", type=Path, help="keep the archive there, or take what is there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.archive or Path(temporary) / "products"
        if not folder.exists():
            begin = time.perf_counter()
            make(folder, given.pairs, given.places)
            print(f"archive made in {time.perf_counter() - begin:.0f} s")
        measure(folder)


def measure(folder: Path) -> None:
    """Print a line a page."""
    command = [sys.executable, "-m", "crosstie", "site", "--out", str(folder), "--port", "0"]
    with tempfile.TemporaryFile("w+") as log:
        begin = time.perf_counter()
        site = subprocess.Popen(command, stderr=log, stdout=log)
        try:
            text = said(log, "committed runs, read")
            print(f"site reads the archive in {time.perf_counter() - begin:.1f} s after its start")
            found = re.search(r" at (http://[^/]+)/", text)
            assert found is not None
            with httpx.Client(base_url=found[1], timeout=PATIENCE_S) as client:
                ask(client, psutil.Process(site.pid))
        finally:
            site.terminate()
            site.wait()


def said(log: io.TextIOWrapper, words: str) -> str:
    """Wait for words in a log."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        log.seek(0)
        text = log.read()
        if words in text:
            return text
        time.sleep(0.05)
    raise SystemExit(f"the site did not say {words!r}:\n{text}")


def ask(client: httpx.Client, site: psutil.Process) -> None:
    """Time each kind of page, the first request apart."""
    small, large = tile(1), tile(0)
    pages = {
        "start": "/",
        "start, last page": "/?page=99999",
        "start, search": "/?scene=20250&verdict=corrected",
        "failures": "/failures",
        "places": "/places",
        "a place": f"/places/T{small}",
        "the largest place": f"/places/T{large}",
        "the largest place, sorted": f"/places/T{large}?sort=redundancy",
        "the largest place, CSV": f"/places/T{large}/scenes.csv",
        "platforms": "/platforms",
        "a platform": "/platforms/sentinel-1a",
        "metrics": "/metrics",
    }
    print(f"fixed work: {work_s():.2f} s of a core")
    print(f"{'page':28} {'first':>7} {'later':>7} s {'first':>7} {'later':>7} s of a core {'kB':>8}")
    for name, address in pages.items():
        say(client, site, name, address)
    (report,) = re.findall(r'href="(runs/[^"]+/report\.html)"', client.get("/").text)[:1]
    say(client, site, "a report", f"/{report}")
    say(client, site, "a thumbnail", f"/{report.replace('report.html', 'thumbnail.webp')}")


def say(client: httpx.Client, site: psutil.Process, name: str, address: str) -> None:
    """Print the first request, and the median of those that follow."""
    rows = [timed(client, site, address) for _ in range(ROUNDS + 1)]
    (first, first_cpu, size), *later = rows
    again, again_cpu, _ = (statistics.median(column) for column in zip(*later, strict=True))
    figures = f"{first:7.2f} {again:7.2f}   {first_cpu:7.2f} {again_cpu:7.2f} {size / 1e3:20.0f}"
    print(f"{name:28} {figures}", flush=True)


def timed(client: httpx.Client, site: psutil.Process, address: str) -> tuple[float, float, int]:
    """Seconds of an answer, seconds of a core that the site took for it, and its bytes."""
    before, begin = site.cpu_times(), time.perf_counter()
    answer = client.get(address)
    took, after = time.perf_counter() - begin, site.cpu_times()
    answer.raise_for_status()
    cpu = after.user + after.system - before.user - before.system
    return took, cpu, len(answer.content)


def work_s() -> float:
    """Seconds of a core that a fixed piece of Python takes: the least of three."""
    least = float("inf")
    for _ in range(3):
        begin = time.process_time()
        sum(number * number for number in range(5_000_000))
        least = min(least, time.process_time() - begin)
    return least


# --- The archive --------------------------------------------------------------------------------------------


def make(folder: Path, pairs: int, places: int) -> None:
    """Write places, then the index of their pairs, then pictures, reports and failures."""
    store, rng = open_store(str(folder)), np.random.default_rng(0)
    rest = round(pairs * (1 - LARGEST) / max(places - 1, 1) / OPTICAL)
    rows: list[dict[str, object]] = []
    pattern: dict[str, bytes] = {}
    for number in range(places):
        drawn = drawn_pairs(number, round(pairs * LARGEST / OPTICAL) if number == 0 else rest, len(rows))
        rows += [row_of(store, pair, len(rows) + n) for n, pair in enumerate(drawn)]
        for pair in drawn:
            commit = folder / pair.product.commit
            commit.parent.mkdir(parents=True)
            commit.write_bytes(b'{"files": {}}')
        # One place of the usual size is solved, and the others are copies that lie elsewhere.
        files = solved(number, drawn, rng) if number < 2 else moved_copy(pattern, number, rng)
        pattern = pattern or ({} if number == 0 else files)
        publish_place(store, PlaceVersion(f"T{tile(number)}", RUN), files)
    create_part(store, table_of(rows))
    newest = sorted(rows, key=lambda row: str(row["created"]))[-SHOWN:]
    for row in newest:
        with_picture(store, ProductKey(str(row["pair_key"]), RUN), rng)
    for number in range(FAILURES):
        scene = f"S1A_IW_GRDH_1SDV_FAILED_{number:06d}"
        when = (FIRST + timedelta(hours=number)).isoformat()
        key, text = pair_key("S2A", scene), "s3://scenes/a.tif: cannot be read"
        record_failure(store, Failure(key, RUN, "S2A", scene, "unreadable_raster", text, when, attempts=2))
    print(f"index: {update_index(store).rows} rows")


def drawn_pairs(number: int, sar: int, begin: int) -> list[ArchivePair]:
    """Pair each of `sar` Sentinel-1 scenes of a place with each Sentinel-2 scene."""
    west, south = -150 + number % 40 * 6.0, -40 + number // 40 * 5.0
    outline = shapely.to_wkb(shapely.box(west, south, west + 1, south + 1))
    ends = [(optical_id(number, b), sar_id(number, a)) for a in range(sar) for b in range(OPTICAL)]
    return [
        ArchivePair(
            ProductKey(pair_key(reference, secondary), RUN), reference, secondary, "EPSG:32631", outline,
            moment_of(secondary), FIRST + timedelta(days=700, seconds=begin + n),
        )
        for n, (reference, secondary) in enumerate(ends)
    ]  # fmt: skip


def solved(number: int, pairs: list[ArchivePair], rng: np.random.Generator) -> dict[str, bytes]:
    """Draw positions and measurements of a place, and adjust it: the files of its version."""
    scenes = sorted({scene for pair in pairs for scene in (pair.reference, pair.secondary)})
    at = dict(zip(scenes, rng.normal(0, SCATTER_M, (len(scenes), 2)), strict=True))
    offset = np.array([at[pair.secondary] - at[pair.reference] for pair in pairs])
    offset += rng.normal(0, NOISE_M, offset.shape)
    affine = np.tile([1.0, 0, 0, 0, 1, 0], (len(pairs), 1))
    affine[:, [2, 5]] = -offset
    measured = MeasuredPairs(
        [pair.product.pair_key for pair in pairs],
        [RUN] * len(pairs),
        affine,
        np.broadcast_to(np.diag([0, 0, 0.1, 0, 0, 0.1]), (len(pairs), 6, 6)),
        np.tile([455_000.0, 5_245_000.0], (len(pairs), 1)),
    )
    place = ArchivePlace(f"T{tile(number)}", "EPSG:32631", tuple(pairs))
    return solve_place(place, pairs, measured, AdjustOptions(), RUN).files


def moved_copy(files: dict[str, bytes], number: int, rng: np.random.Generator) -> dict[str, bytes]:
    """Make the files of another place out of those of place 1: other names, other positions."""
    old, new = tile(1), tile(number)
    copy = {name: files[name].replace(old.encode(), new.encode()) for name in (ITEMS, SUMMARY)}
    scenes, edges = decode_scenes(files[SCENES], SCENES), decode_edges(files[EDGES], EDGES)
    for table in (scenes, edges):
        for column in table.columns.intersection(
            ["scene", "place", "datum", "pair_key", "reference", "secondary"]
        ):
            table[column] = table[column].str.replace(old, new)
    scenes[["dx_m", "dy_m"]] += rng.normal(0, SCATTER_M, (len(scenes), 2))
    return copy | {SCENES: encode_scenes(dict(scenes.items())), EDGES: encode_edges(dict(edges.items()))}


def row_of(store: Store, pair: ArchivePair, n: int) -> dict[str, object]:
    """Make the row of the n-th pair, as the index makes it of its products."""
    item, correction = fleet.item(n), fleet.correction(n)
    correction["pair"] = {"reference": {"id": pair.reference}, "secondary": {"id": pair.secondary}}
    item["id"] = "-".join(pair.product)
    made = {"created": pair.created_utc.isoformat()}
    item["properties"] = item["properties"] | made  # type: ignore[operator]
    correction["provenance"] = correction["provenance"] | {"created_utc": made["created"]}  # type: ignore[operator]
    return index_row(
        item,
        correction,
        **pair.product._asdict(),
        products=store.url_of(pair.product.prefix),
        updated_utc=pair.created_utc,
    )


def with_picture(store: Store, product: ProductKey, rng: np.random.Generator) -> None:
    """Commit a run anew with a picture and a report of the usual size."""
    body = io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 256, (200, 200, 3), np.uint8))
    coarse.resize((1600, 1600)).save(body, "PNG")
    picture = body.getvalue()
    report = b'<!doctype html><img alt="" src="data:image/png;base64,' + base64.b64encode(picture) + b'">'
    files = {"overview.png": picture, "report.html": report}
    for name, content in files.items():
        store.put(product.file(name), content)
    store.put(product.commit, encode_commit({name: FileFacts.of(body) for name, body in files.items()}))


def tile(number: int) -> str:
    """Name of a tile of Sentinel-2's grid, another for each number."""
    letters = "ABCDEFGHJKLMNPQRSTUV"
    return f"{31 + number // 400:02d}U{letters[number // 20 % 20]}{letters[number % 20]}"


def optical_id(place: int, n: int) -> str:
    day = FIRST + timedelta(days=40 * n, hours=5)
    return f"S2{'AB'[n % 2]}_MSIL1C_{day:%Y%m%dT%H%M%S}_N0511_R008_T{tile(place)}_{day:%Y%m%dT%H%M%S}"


def sar_id(place: int, n: int) -> str:
    """Scenes of two platforms and four tracks, three days apart."""
    day = FIRST + timedelta(days=3 * (n // 2), hours=n % 2 * 12)
    mission, first = (("S1A", 73), ("S1C", 172))[n // 4 % 2]
    orbit = 57_000 + 175 * n + (first - 57_000) % 175 + 7 * (n % 4)
    return (
        f"{mission}_IW_GRDH_1SDV_{day:%Y%m%dT%H%M%S}_{day:%Y%m%dT%H%M%S}"
        f"_{orbit:06d}_07611C_0D2A_T{tile(place)}"
    )


def moment_of(scene: str) -> datetime:
    found = re.search(r"\d{8}T\d{6}", scene)
    assert found is not None
    return datetime.strptime(found[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


if __name__ == "__main__":
    main()
