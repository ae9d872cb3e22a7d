from __future__ import annotations

import io
import json
import multiprocessing
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pystac
import pystac.validation
import pytest
import stac_geoparquet.arrow
from committed_runs import commit, copy_run, recommit, write_secondary
from s3_server import S3Server, s3_server
from shapely.geometry import shape
from typer.testing import CliRunner

from crosstie.cli import app
from crosstie.errors import StoreError
from crosstie.io.archive import index_parts
from crosstie.io.archive.index import index_committed, read_index, update_index
from crosstie.io.archive.index_parts import MOST_PARTS, gather, part_names
from crosstie.io.archive.index_rows import (
    CORRECTION,
    PROPERTIES,
    ROW_SCHEMA,
    IncompleteProductError,
    index_row,
)
from crosstie.io.archive.index_table import Index, decode, encode
from crosstie.io.products.stac_item import RASTER_ASSETS
from crosstie.io.storage.root_layout import INDEX, INDEX_PARTS
from crosstie.io.storage.store import Store, open_store
from crosstie.types import Reason, Registration, VerdictCode

if TYPE_CHECKING:
    from collections.abc import Iterator

MakeRegistration = Callable[..., Registration]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server("products") as server:
        yield server


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.server)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "file":
        return open_store(f"file://{tmp_path}/new%20root")
    for name, value in request.getfixturevalue("s3").environment.items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://products/{tmp_path.name}")


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "products"))


@pytest.fixture
def registration(make_registration: MakeRegistration, tmp_path: Path) -> Registration:
    return make_registration(secondary_hrefs=(write_secondary(tmp_path),))


def frame(store: Store) -> gpd.GeoDataFrame:
    """The index as any reader of GeoParquet sees it, knowing its path alone."""
    return gpd.read_parquet(io.BytesIO(store.get(INDEX) or b""))


def keys(store: Store) -> list[tuple[str, str]]:
    table = frame(store)
    return list(zip(table["pair_key"], table["run_key"], strict=True))


def products(store: Store, run: tuple[str, str], name: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(store.get(f"{run[0]}/{run[1]}/{name}") or b"")
    return said


def test_a_row_says_what_the_correction_says(
    store: Store, registration: Registration, make_registration: MakeRegistration, tmp_path: Path
):
    run = commit(store, registration, secondary_id="S1A_ONE")
    reasons = (Reason.WATER, Reason.TOO_FEW_TIE_POINTS)
    unsure = make_registration(
        code=VerdictCode.UNRELIABLE, reasons=reasons, n=0, secondary_hrefs=(write_secondary(tmp_path),)
    )
    commit(store, unsure, secondary_id="S1A_TWO")
    assert update_index(store).rows == 2
    table = frame(store).set_index("secondary_id")
    said = products(store, run, "correction.json")
    row = table.loc["S1A_ONE"]
    assert (row["pair_key"], row["run_key"], row["reference_id"]) == (*run, "S2B_L1C")
    assert (row["verdict"], row["model"], row["crs"]) == ("corrected", "affine", "EPSG:32614")
    assert list(row["affine"]) == said["affine"] == [1.0, 2e-4, -640.0, -2e-4, 1.0, 135.0]
    assert (row["offset_x_m"], row["offset_y_m"]) == tuple(said["offset_m"].values())
    assert (row["rmse_before_m"], row["ce90_before_m"]) == (24.0, 35.5)
    assert (row["rmse_after_m"], row["ce90_after_m"]) == (3.25, 4.5)
    assert tuple(row[f"tie_points_{name}"] for name in ("planned", "matched", "used")) == (300, 150, 120)
    assert (row["weights_sha256"], row["settings_hash"]) == ("ab" * 32, "cd" * 8)
    assert row["created"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert row["products"] == store.url_of("/".join(run))
    assert row["assets"]["corrected"]["href"] == f"{row['products']}/corrected.vrt"
    assert row["latest"]
    other = table.loc["S1A_TWO"]
    assert list(other["reasons"]) == ["water", "too_few_tie_points"]
    assert list(other["affine"]) == [1, 0, 0, 0, 1, 0]
    assert np.isnan([other["offset_x_m"], other["rmse_after_m"]]).all()


def test_rows_read_back_as_the_items_that_were_committed(store: Store, registration: Registration):
    runs = [commit(store, registration, secondary_id=f"S1A_{n}") for n in range(2)]
    with_field = products(store, runs[0], "item.json")
    with_field["assets"]["displacement"] = with_field["assets"]["correction"] | {
        "href": "displacement.tif", "proj:code": "EPSG:32614", "proj:shape": [32, 40], "proj:wkt2": None,
        "proj:transform": [160.0, 0.0, 600_000.0, 0.0, -160.0, 3_300_000.0],
    }  # fmt: skip
    store.put("/".join([*runs[0], "item.json"]), json.dumps(with_field).encode())
    recommit(store, runs[0])
    update_index(store)
    table = pq.read_table(io.BytesIO(store.get(INDEX) or b""))
    items = {item["id"]: item for item in stac_geoparquet.arrow.stac_table_to_items(table)}
    assert len(items) == 2
    for run in runs:
        before = products(store, run, "item.json")
        after = items[before["id"]]
        pystac.validation.validate_dict(after, extensions=[])
        assert pystac.Item.from_dict(after).id == before["id"]
        for name in ("stac_version", "stac_extensions", "bbox", "links"):
            assert after[name] == before[name]
        assert shape(after["geometry"]).equals(shape(before["geometry"]))
        assert after["assets"].keys() == before["assets"].keys()
        for name, asset in before["assets"].items():
            assert after["assets"][name] == asset | {"href": store.url_of("/".join([*run, asset["href"]]))}
        for name, value in before["properties"].items():
            if name in {"created", "start_datetime", "end_datetime"}:
                moment = datetime.fromisoformat(after["properties"][name]).replace(microsecond=0)
                value, after["properties"][name] = (
                    datetime.fromisoformat(value).replace(microsecond=0),
                    moment,
                )
            assert after["properties"][name] == value


def test_no_word_of_an_item_is_left_out(registration: Registration, local: Store):
    item = products(local, commit(local, registration), "item.json")
    assert set(item) - {"properties"} <= set(ROW_SCHEMA.names)
    assert set(item["properties"]) <= set(PROPERTIES.names)
    assets = ROW_SCHEMA.field("assets").type
    known = {assets.field(n).name for n in range(assets.num_fields)}
    assert set(item["assets"]) == known - set(RASTER_ASSETS)  # which only some runs have
    for found, wanted in (
        (assets.field(0).type, item["assets"]["corrected"]),
        (ROW_SCHEMA.field("links").type.value_type, item["links"][0]),
    ):
        assert set(wanted) <= {found.field(n).name for n in range(found.num_fields)}


def test_the_file_says_what_the_specs_ask(local: Store, registration: Registration):
    commit(local, registration)
    update_index(local)
    said = pq.read_metadata(io.BytesIO(local.get(INDEX) or b"")).metadata
    assert json.loads(said[b"stac-geoparquet"])["version"] == "1.1.0"
    geo = json.loads(said[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    assert geo["columns"]["geometry"]["geometry_types"] == ["Polygon"]
    table = frame(local)
    assert table.crs.equals("OGC:CRS84")
    west, south, east, north = table.total_bounds
    path = local.url.removeprefix("file://") + f"/{INDEX}"
    inside = (west + 0.01, south + 0.01, east - 0.01, north - 0.01)
    assert len(gpd.read_parquet(path, bbox=inside)) == 1
    assert len(gpd.read_parquet(path, bbox=(east + 1, south, east + 2, north))) == 0


def test_a_scene_across_the_antimeridian_is_found_on_either_side(
    local: Store, make_registration: MakeRegistration, tmp_path: Path
):
    secondary = write_secondary(tmp_path, crs="EPSG:32601", easting_m=204_000)
    commit(local, make_registration(secondary_hrefs=(secondary,)))
    update_index(local)
    path = local.url.removeprefix("file://") + f"/{INDEX}"
    outline = gpd.read_parquet(path).geometry.iloc[0]
    assert outline.geom_type == "MultiPolygon"
    for part in outline.geoms:
        west, south, east, north = part.bounds
        assert abs(west) > 179 or abs(east) > 179
        assert len(gpd.read_parquet(path, bbox=(west, south, east, north))) == 1


def test_a_scene_without_coordinates_has_a_row_that_every_reader_reads(
    local: Store, registration: Registration
):
    run = commit(local, registration)
    item = products(local, run, "item.json") | {"geometry": None}
    del item["bbox"]
    local.put("/".join([*run, "item.json"]), json.dumps(item).encode())
    recommit(local, run)
    copy_run(local, run, "S1A_ALSO")
    assert update_index(local).rows == 2
    path = local.url.removeprefix("file://") + f"/{INDEX}"
    assert len(gpd.read_parquet(path)) == 2
    assert len(gpd.read_parquet(path, bbox=(-180, -90, 180, 90))) == 0
    assert len(list(stac_geoparquet.arrow.stac_table_to_items(pq.read_table(path)))) == 2


def test_only_what_is_new_is_read(store: Store, registration: Registration):
    first = commit(store, registration, secondary_id="S1A_OLD")
    assert update_index(store).added == 1
    whole = store.get(INDEX)
    assert update_index(store).added == 0
    assert store.get(INDEX) == whole
    store.put("/".join([*first, "correction.json"]), b"no longer JSON")
    second = copy_run(store, commit(store, registration, secondary_id="S1A_NEW"), "S1A_TOO")
    update = update_index(store)
    assert (update.rows, update.added, update.unreadable) == (3, 2, ())
    assert {run[0] for run in keys(store)} >= {first[0], second[0]}
    rebuilt = update_index(store, rebuild=True)
    assert (rebuilt.rows, len(rebuilt.unreadable)) == (2, 1)
    assert first[0] in rebuilt.unreadable[0]


def test_all_runs_of_a_pair_stay_and_one_is_the_latest(local: Store, registration: Registration):
    commit(local, registration, run_key="b" * 16, hours=2)
    update_index(local)
    commit(local, registration, run_key="a" * 16, hours=1)
    commit(local, registration, run_key="c" * 16, hours=2)
    commit(local, registration, secondary_id="S1A_OTHER", run_key="d" * 16)
    update_index(local)
    table = frame(local).set_index("run_key")
    assert dict(table["latest"]) == {"a" * 16: False, "b" * 16: False, "c" * 16: True, "d" * 16: True}


def test_what_is_not_committed_or_no_pair_is_not_there(local: Store, registration: Registration):
    run = commit(local, registration)
    gone = copy_run(local, run, "S1A_GONE")
    half = copy_run(local, run, "S1A_HALF")
    local.delete("/".join([*half, "_COMMIT"]))
    local.put("_runs/nightly/_COMMIT", b"{}")
    local.put("_other/x/_COMMIT", b"{}")
    assert update_index(local).rows == 2
    local.delete("/".join([*gone, "_COMMIT"]))
    update = update_index(local)
    assert (update.rows, update.dropped) == (1, 1)
    assert keys(local) == [run]


def test_a_flow_hands_over_what_it_has_committed_and_nothing_is_listed(
    store: Store, registration: Registration
):
    run = commit(store, registration)
    one, two, three = (copy_run(store, run, f"S1A_{n}") for n in range(3))
    store.delete("/".join([*three, "_COMMIT"]))
    update = index_committed(store, [one, two, two, three])
    assert (update.rows, update.added) == (2, 2)
    assert keys(store) == [one, two]
    correction = products(store, one, "correction.json") | {"verdict": "already_aligned"}
    store.put("/".join([*one, "correction.json"]), json.dumps(correction).encode())
    recommit(store, one)
    assert index_committed(store, [one]).rows == 2
    assert dict(zip(keys(store), frame(store)["verdict"], strict=True))[one] == "already_aligned"
    assert index_committed(store, []).rows == 2
    assert update_index(store).rows == 3  # and the listing finds the one that nobody handed over


def test_an_empty_root_stays_empty(local: Store, tmp_path: Path):
    assert update_index(local).rows == 0
    assert index_committed(local, []).rows == 0
    assert not (tmp_path / "products").exists()
    with pytest.raises(StoreError, match="has no index yet; `crosstie index --out"):
        read_index(local)


def test_a_broken_product_is_named_and_keeps_nobody_out(local: Store, registration: Registration):
    run = commit(local, registration)
    missing, wrong = copy_run(local, run, "S1A_1"), copy_run(local, run, "S1A_2")
    local.delete("/".join([*missing, "item.json"]))
    correction = products(local, wrong, "correction.json")
    correction["seconds"] = correction["tie_points"]["used"] = "many"
    local.put("/".join([*wrong, "correction.json"]), json.dumps(correction).encode())
    recommit(local, wrong)
    result = CliRunner().invoke(app, ["index", "--out", local.url])
    assert result.exit_code == 3
    assert "1 correction, 1 of them new" in result.stdout
    assert all(key in result.stderr for key in (missing[0], wrong[0]))
    assert result.stderr.count("run the pair again") == 2
    assert keys(local) == [run]
    with pytest.raises(IncompleteProductError, match="many"):
        index_row(
            products(local, wrong, "item.json"), correction, pair_key="a", run_key="b", products="c",
            updated_utc=datetime.now(UTC),
        )  # fmt: skip


def test_reading_leaves_no_thread_behind(local: Store, registration: Registration, tmp_path: Path):
    """A thread of Arrow that outlives the interpreter aborts the command now and then, its work done."""
    commit(local, registration)
    update_index(local)
    code = (
        "import os, pathlib, sys\n"
        "from crosstie.io.archive.index_table import decode\n"
        "body = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "decode(body, 'memory')\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    index = tmp_path / "products" / INDEX
    done = subprocess.run([sys.executable, "-c", code, index], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize("key", [INDEX, f"{INDEX_PARTS}/00.parquet"])
def test_a_broken_index_is_told_and_made_anew(local: Store, registration: Registration, key: str):
    run = commit(local, registration)
    update_index(local)
    local.put(key, b"PAR1 and nothing of it")
    with pytest.raises(StoreError, match=r"cannot be read .*`crosstie index --rebuild`"):
        update_index(local)
    assert update_index(local, rebuild=True).rows == 1
    assert keys(local) == [run]
    assert len(part_names(local)) == 1
    assert update_index(local).rows == 1


def test_an_index_of_another_version_is_refused(local: Store, registration: Registration):
    commit(local, registration)
    update_index(local)
    table = read_index(local).drop_columns(["model"])
    body = io.BytesIO()
    pq.write_table(table, body)
    with pytest.raises(StoreError, match="no index of this version"):
        decode(body.getvalue(), "file:///x")


def test_many_parts_are_gathered_into_one(local: Store, registration: Registration):
    run = commit(local, registration)
    runs = [copy_run(local, run, f"S1A_{n:02d}") for n in range(MOST_PARTS + 1)]
    for one in runs:
        index_committed(local, [one])
    assert len(part_names(local)) == 1
    assert sorted(keys(local)) == sorted(runs)
    for _ in range(2):
        gather(local, Index(read_index(local), part_names(local)))
        assert len(part_names(local)) == 1
    local.delete(INDEX)
    assert index_committed(local, []).rows == len(runs)  # the part alone holds all of them


def test_a_writer_that_slept_before_it_wrote_takes_in_what_it_overwrote(
    store: Store, registration: Registration, monkeypatch: pytest.MonkeyPatch
):
    run = commit(store, registration)
    index_committed(store, [run])
    own, meanwhile = copy_run(store, run, "S1A_OWN"), copy_run(store, run, "S1A_MEANWHILE")

    def slow(index: Index) -> bytes:
        if index.parts and own in index.runs() and meanwhile in unseen:
            unseen.clear()
            index_committed(store, [meanwhile])
            assert meanwhile in keys(store)
        return encode(index)

    unseen = {meanwhile}
    monkeypatch.setattr(index_parts, "encode", slow)
    index_committed(store, [own])
    assert not unseen
    assert set(keys(store)) == {run, own, meanwhile}


def test_a_part_that_is_gathered_under_a_reader_is_found_in_the_new_one(
    local: Store, registration: Registration, monkeypatch: pytest.MonkeyPatch
):
    runs = [copy_run(local, commit(local, registration), f"S1A_{n}") for n in range(3)]
    for run in runs:
        index_committed(local, [run])
    listed = index_parts.part_names(local)
    answers = iter([listed])
    gather(local, decode(local.get(INDEX) or b"", INDEX))
    real = index_parts.part_names
    monkeypatch.setattr(index_parts, "part_names", lambda store: next(answers, None) or real(store))
    assert index_parts.absorb(local, Index.empty()).runs() == set(runs)


def append(url: str, start: Any, runs: list[tuple[str, str]]) -> None:
    store = open_store(url)
    start.wait()
    for run in runs:
        index_committed(store, [run])


def compact(url: str, start: Any, times: int) -> None:
    store = open_store(url)
    start.wait()
    for _ in range(times):
        update_index(store)
        whole = index_parts.read_whole(store)
        if whole is not None:
            gather(store, whole)


def test_two_append_and_one_compacts_at_once_and_nothing_is_lost_or_doubled(
    store: Store, registration: Registration
):
    run = commit(store, registration)
    index_committed(store, [run])
    runs = [copy_run(store, run, f"S1A_{n:02d}") for n in range(16)]
    processes = multiprocessing.get_context("spawn")
    start = processes.Barrier(4)
    workers = [
        processes.Process(target=append, args=(store.url, start, runs[0::2])),
        processes.Process(target=append, args=(store.url, start, runs[1::2])),
        processes.Process(target=compact, args=(store.url, start, 5)),
    ]
    for worker in workers:
        worker.start()
    start.wait()
    looked = 0
    while any(worker.is_alive() for worker in workers):
        seen = keys(store)  # readable at any moment
        assert len(seen) == len(set(seen)) > 0
        looked += 1
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert looked > 1
    assert sorted(keys(store)) == sorted([run, *runs])
    parts = [decode(store.get(f"{INDEX_PARTS}/{name}") or b"", name) for name in part_names(store)]
    assert set().union(*(part.runs() for part in parts)) == {run, *runs}
    update = update_index(store)
    assert (update.rows, update.added, update.dropped) == (len(runs) + 1, 0, 0)


DYING = """
import os, sys
from crosstie.io.archive import index_parts
from crosstie.io.archive.index import index_committed
from crosstie.io.storage.root_layout import ProductKey
from crosstie.io.storage.store import Store, open_store

url, where, left, *run = sys.argv[1:]
left = int(left)
real = getattr(Store, where)

def dying(store, key, *rest):
    global left
    if key.startswith("_index/"):
        if left == 0:
            os._exit(9)
        left -= 1
    return real(store, key, *rest)

setattr(Store, where, dying)
index_parts.MOST_PARTS = 0
import crosstie.io.archive.index
crosstie.io.archive.index.MOST_PARTS = 0
index_committed(open_store(url), [ProductKey(*run)])
"""


@pytest.mark.parametrize(
    ("where", "after"),
    [("create", 0), ("put", 0), ("create", 1), ("put", 1), ("delete", 1)],
)
def test_killed_at_any_step_it_stays_readable_and_the_next_run_makes_it_whole(
    local: Store, registration: Registration, where: str, after: int
):
    run = commit(local, registration)
    old = [copy_run(local, run, f"S1A_{n}") for n in range(3)]
    for one in old:
        index_committed(local, [one])
    script = [sys.executable, "-c", DYING, local.url, where, str(after), *run]
    assert subprocess.run(script, check=False, timeout=120).returncode == 9
    assert set(keys(local)) in ({*old}, {*old, run})
    assert len(keys(local)) == len(set(keys(local)))
    index_committed(local, [run])
    assert sorted(keys(local)) == sorted([*old, run])
    assert update_index(local).added == 0


def test_a_root_that_was_moved_is_mended_by_a_rebuild(
    local: Store, registration: Registration, tmp_path: Path
):
    commit(local, registration)
    update_index(local)
    moved = open_store(str((tmp_path / "products").rename(tmp_path / "moved")))
    update_index(moved)
    assert frame(moved)["products"].iloc[0].startswith(local.url)
    update_index(moved, rebuild=True)
    assert frame(moved)["products"].iloc[0].startswith(moved.url)
    assert len(part_names(moved)) == 1


def test_the_same_rows_are_the_same_bytes_and_come_back(local: Store, registration: Registration):
    commit(local, registration)
    update_index(local)
    index = Index(read_index(local), frozenset({"b.parquet", "a.parquet"}))
    body = encode(index)
    assert encode(index) == body
    again = decode(body, "x")
    assert again.table.equals(index.table)
    assert again.parts == index.parts


def test_the_command_prints_the_correction_of_a_scene(local: Store, registration: Registration):
    commit(local, registration, run_key="1" * 16)
    commit(local, registration, run_key="2" * 16, hours=1)
    commit(local, registration, secondary_id="S1A_OTHER", reference_id="S2B_OTHER")
    none = CliRunner().invoke(app, ["index", "--out", local.url, "--scene", "S1A_IW"])
    assert none.exit_code == 2
    assert "has no index yet" in none.stderr
    assert CliRunner().invoke(app, ["index", "--out", local.url]).exit_code == 0
    told = CliRunner().invoke(app, ["index", "--out", local.url, "--scene", "S1A_IW"])
    assert told.exit_code == 0
    assert told.stdout.count("corrected: affine, RMSE 24.0 -> 3.2 m") == 2
    assert told.stdout.count("superseded") == 1
    assert "S1A_OTHER" not in told.stdout
    of_reference = ["index", "--out", local.url, "--scene", "S2B_OTHER", "--format", "json"]
    rows = json.loads(CliRunner().invoke(app, of_reference).stdout)
    assert [row["secondary_id"] for row in rows] == ["S1A_OTHER"]
    assert rows[0]["affine"] == [1.0, 2e-4, -640.0, -2e-4, 1.0, 135.0]
    unknown = CliRunner().invoke(app, ["index", "--out", local.url, "--scene", "S1C"])
    assert (unknown.exit_code, unknown.stdout) == (0, "")
    assert "no correction of S1C" in unknown.stderr


DOCS = Path(__file__).resolve().parents[3] / "docs" / "results.md"


def test_the_documented_queries_run(
    registration: Registration,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    store = open_store("products")
    run = commit(store, registration)
    update_index(store)
    text = DOCS.read_text()
    queries = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(queries) == 3
    for query in queries:
        exec(query, {})
    assert store.url_of(f"{run[0]}/{run[1]}/corrected.vrt") in capsys.readouterr().out
    told = set(re.findall(r"`([a-z_0-9]+)`", text.partition("## Columns")[2].partition("## How")[0]))
    assert {name for name in CORRECTION.names if not name.startswith("tie_points")} <= told
