from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pystac.validation
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint
from shapely.geometry import Point, shape

from crosstie.errors import StoreError, UnreadableRasterError
from crosstie.io.archive.listing import list_archive
from crosstie.io.products.correction import correction_dict, read_correction
from crosstie.io.products.keys import is_committed, run_key
from crosstie.io.products.overview import Thumbnails
from crosstie.io.products.stac_item import stac_item
from crosstie.io.products.text import sentences
from crosstie.io.products.tie_points import to_geodataframe
from crosstie.io.products.vrt import place_of
from crosstie.io.products.write import render, write_products
from crosstie.io.storage.root_layout import ProductKey
from crosstie.io.storage.store import Store, open_store
from crosstie.types import ControlPoints, Reason, Registration, VerdictCode

MakeRegistration = Callable[..., Registration]
GRID = GeoBox((1000, 1200), Affine(10, 0, 600_000, 0, -10, 3_300_000), "EPSG:32614")
FILES = {
    "correction.json", "tie_points.parquet", "item.json", "corrected.vrt", "overview.png", "report.html",
    "_COMMIT",
}  # fmt: skip


@pytest.fixture
def secondary(tmp_path: Path) -> str:
    path = tmp_path / "s1.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=100, width=120, count=1, dtype="uint8", crs="EPSG:32614",
        transform=Affine(100, 0, 600_000, 0, -100, 3_300_000),
    ) as raster:  # fmt: skip
        raster.write(np.random.default_rng(0).integers(0, 255, (1, 100, 120), np.uint8))
    return str(path)


@pytest.fixture(scope="module")
def thumbnails() -> Thumbnails:
    planes = np.random.default_rng(1).random((2, 50, 60)).astype(np.float32)
    return Thumbnails(planes[0], planes[1], GeoBox((50, 60), GRID.affine @ Affine.scale(20), GRID.crs))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "products"))


def test_a_run_key_changes_with_all_that_changes_a_result_and_with_nothing_else():
    given = {"pair_key": "a__b", "weights_sha256": "00", "settings_hash": "11", "algorithm_version": "1"}
    key = run_key(**given)
    assert len(key) == 16
    assert int(key, 16) >= 0
    assert key == run_key(**given)
    others = {run_key(**(given | {name: value + "x"})) for name, value in given.items()}
    assert len(others | {key}) == 5
    # no two different inputs may meet because their texts run together
    assert run_key(**(given | {"weights_sha256": "001", "settings_hash": "1"})) != run_key(
        **(given | {"weights_sha256": "00", "settings_hash": "11"})
    )


def test_what_is_written_is_committed_last_and_lists_what_it_wrote(
    make_registration: MakeRegistration, secondary: str, thumbnails: Thumbnails, store: Store, tmp_path: Path
):
    registration = make_registration(secondary_hrefs=(secondary,))
    pair, run = registration.pair_key, registration.run_key
    assert not is_committed(store, pair, run)
    assert read_correction(store, pair, run) is None
    url = write_products(store, registration, thumbnails=thumbnails)
    folder = tmp_path / "products" / pair / run
    assert url == folder.as_uri()
    assert {path.name for path in folder.iterdir()} == FILES
    listing = json.loads((folder / "_COMMIT").read_text())["files"]
    assert set(listing) == FILES - {"_COMMIT"}
    for name, entry in listing.items():
        body = (folder / name).read_bytes()
        assert entry == {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert (folder / "_COMMIT").stat().st_mtime_ns >= max(p.stat().st_mtime_ns for p in folder.iterdir())
    assert read_correction(store, pair, run) == correction_dict(registration)
    assert list_archive(store).committed == {ProductKey(pair, run)}


def test_committed_products_stay_as_they_are(
    make_registration: MakeRegistration, secondary: str, store: Store
):
    registration = make_registration(secondary_hrefs=(secondary,))
    write_products(store, registration, thumbnails=None)
    prefix = ProductKey(registration.pair_key, registration.run_key).prefix
    before = {key: store.get(key) for key in store.list(prefix)}
    slower = make_registration(secondary_hrefs=(secondary,), affine=(1, 0, 5, 0, 1, 5))
    write_products(store, slower, thumbnails=None)
    assert {key: store.get(key) for key in store.list(prefix)} == before


def test_workers_that_race_leave_one_whole_set(
    make_registration: MakeRegistration, secondary: str, store: Store
):
    registration = make_registration(secondary_hrefs=(secondary,))
    start = threading.Barrier(4)

    def work(_: int) -> str:
        start.wait()
        return write_products(store, registration, thumbnails=None)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(work, range(4)))) == 1
    prefix = ProductKey(registration.pair_key, registration.run_key).prefix
    assert {key.removeprefix(f"{prefix}/") for key in store.list()} == FILES
    listing = json.loads(store.get(f"{prefix}/_COMMIT") or b"")["files"]
    for name, entry in listing.items():
        assert hashlib.sha256(store.get(f"{prefix}/{name}") or b"").hexdigest() == entry["sha256"]


def test_without_a_commit_nothing_exists_for_a_reader(
    make_registration: MakeRegistration, secondary: str, store: Store
):
    registration = make_registration(secondary_hrefs=(secondary,))
    prefix = ProductKey(registration.pair_key, registration.run_key).prefix
    for name, body in render(registration, thumbnails=None).items():
        store.put(f"{prefix}/{name}", body)  # a worker that died before its commit
    assert read_correction(store, registration.pair_key, registration.run_key) is None
    assert list_archive(store).committed == set()
    write_products(store, registration, thumbnails=None)
    assert len(list_archive(store).committed) == 1


def test_a_failure_while_rendering_leaves_nothing(
    make_registration: MakeRegistration, store: Store, tmp_path: Path
):
    registration = make_registration(secondary_hrefs=(str(tmp_path / "gone.tif"),))
    with pytest.raises(UnreadableRasterError, match=r"gone\.tif"):
        write_products(store, registration, thumbnails=None)
    assert list(store.list()) == []


def test_a_committed_run_with_a_broken_correction_is_told(store: Store):
    store.put("a__b/0/correction.json", b'{"schema": "something/else"}')
    store.create("a__b/0/_COMMIT", b"{}")
    with pytest.raises(StoreError, match=r"a__b/0/correction\.json is committed but"):
        read_correction(store, "a__b", "0")


def test_the_same_registration_gives_the_same_bytes(
    make_registration: MakeRegistration, secondary: str, thumbnails: Thumbnails
):
    once = render(make_registration(secondary_hrefs=(secondary,)), thumbnails=thumbnails)
    again = render(make_registration(secondary_hrefs=(secondary,)), thumbnails=thumbnails)
    assert {name for name in once if once[name] != again[name]} == set()


def test_the_correction_says_what_the_contract_asks(make_registration: MakeRegistration):
    registration = make_registration(secondary_hrefs=("/data/vv.tif", "/data/vh.tif"))
    said = correction_dict(registration)
    assert said["schema"] == "crosstie/correction/1"
    # the password and the signature of the reference's URL stay out
    assert said["pair"]["reference"] == {"id": "S2B_L1C", "href": "https://example.org/s2.tif?v=1"}
    assert said["pair"]["secondary"]["id"] == "S1A_IW"
    assert said["pair"]["secondary"]["href"] == "/data/vv.tif"
    assert said["crs"] == "EPSG:32614"
    assert said["verdict"] == "corrected"
    assert said["reasons"] == []
    assert said["affine"] == [1.0, 2e-4, -640.0, -2e-4, 1.0, 135.0]
    assert np.array(said["covariance"]).shape == (6, 6)
    assert said["model"] == "affine"
    assert said["tie_points"] == {"planned": 300, "matched": 150, "used": 120}
    assert set(said["offset_m"]) == {"median_x", "median_y"}
    assert said["error_before_m"] == {"rmse": 24.0, "ce90": 35.5}
    assert said["error_after_m"] == {"rmse": 3.25, "ce90": 4.5}
    assert said["provenance"] == {
        "versions": {"crosstie": "0.1.0", "torch": "2.13.0"},
        "weights_sha256": "ab" * 32,
        "settings_hash": "cd" * 8,
        "created_utc": "2026-01-02T03:04:05+00:00",
        "seconds": 8.25,
    }


def test_what_control_points_say_is_told_to_programs_and_to_readers(make_registration: MakeRegistration):
    assert "control_points" not in correction_dict(make_registration())
    facts = ControlPoints(
        count=208, left_out=(3, 77), residual_m=0.684, irregular=False, height_m=(0.0, 835.0)
    )
    registration = replace(make_registration(), secondary_control=facts)
    assert correction_dict(registration)["control_points"] == {
        "secondary": {"followed": 208, "left_out": [3, 77], "residual_m": 0.684, "height_m": [0.0, 835.0]}
    }
    told = sentences(registration)[-1]
    for words in ("secondary: 208 ground", "0 to 835 m", "0.68 m", "wrong: number 3, 77."):
        assert words in told


def test_an_unreliable_pair_keeps_its_best_fit_but_applies_none(make_registration: MakeRegistration):
    reasons = (Reason.TERRAIN_NOT_AFFINE, Reason.RESIDUAL_TOO_LARGE)
    said = correction_dict(make_registration(code=VerdictCode.UNRELIABLE, reasons=reasons))
    assert said["reasons"] == ["terrain_not_affine", "residual_too_large"]
    assert said["explanation"] == [reason.sentence for reason in reasons]
    assert (said["model"], said["affine"]) == ("identity", [1, 0, 0, 0, 1, 0])
    assert said["fitted"] == {"model": "affine", "affine": [1.0, 2e-4, -640.0, -2e-4, 1.0, 135.0]}


def test_tie_points_carry_offsets_that_the_correction_takes_back(
    make_registration: MakeRegistration, secondary: str
):
    registration = make_registration(secondary_hrefs=(secondary,))
    files = render(registration, thumbnails=None)
    table = gpd.read_parquet(io.BytesIO(files["tie_points.parquet"]))
    assert list(table.columns) == [
        "dx_m", "dy_m", "sigma_m", "confidence", "used", "residual_x_m", "residual_y_m", "row", "col",
        "geometry",
    ]  # fmt: skip
    assert table.crs.to_epsg() == 32614
    assert table["used"].dtype == bool
    assert table["row"].dtype == table["col"].dtype == np.int64
    used = table[table["used"]]
    assert len(used) == 120
    affine = Affine(*json.loads(files["correction.json"])["affine"])
    for point, dx, dy in zip(used.geometry, used["dx_m"], used["dy_m"], strict=True):
        np.testing.assert_allclose(
            affine @ (point.x + dx, point.y + dy), (point.x, point.y), atol=1e-6
        )  # metres
    np.testing.assert_allclose(used[["residual_x_m", "residual_y_m"]], 0, atol=1e-6)


def test_no_overlap_still_gives_products(make_registration: MakeRegistration, secondary: str, store: Store):
    registration = make_registration(
        affine=(1, 0, 0, 0, 1, 0), code=VerdictCode.UNRELIABLE, reasons=(Reason.NO_OVERLAP,), n=0, grid=None,
        secondary_hrefs=(secondary,),
    )  # fmt: skip
    write_products(store, registration, thumbnails=None)
    prefix = ProductKey(registration.pair_key, registration.run_key).prefix
    said = read_correction(store, registration.pair_key, registration.run_key)
    assert said is not None
    assert said["crs"] is None
    assert said["error_after_m"] == {"rmse": None, "ce90": None}
    assert said["offset_m"] == {"median_x": None, "median_y": None}
    table = gpd.read_parquet(io.BytesIO(store.get(f"{prefix}/tie_points.parquet") or b""))
    assert len(table) == 0
    assert table.crs is None
    with rasterio.open(f"{local(store)}/{prefix}/corrected.vrt") as after, rasterio.open(secondary) as before:
        assert after.transform == before.transform


def local(store: Store) -> str:
    return store.url.removeprefix("file://")


def test_parquet_types_hold_without_a_single_row(make_registration: MakeRegistration):
    def types(n: int) -> dict[str, str]:
        body = io.BytesIO()
        to_geodataframe(make_registration(n=n, affine=(1, 0, 0, 0, 1, 0))).to_parquet(body, index=False)
        return {field.name: str(field.type) for field in pq.read_schema(body)}

    assert types(0) == types(10)


def validate_offline(item: dict[str, object]) -> None:
    """By pystac's own copy of the core schemas; the projection extension's schema lies on the network."""
    assert item["stac_extensions"] == ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"]
    pystac.validation.validate_dict(item, extensions=[])


def test_the_item_is_valid_and_lies_where_the_corrected_pixels_lie(
    make_registration: MakeRegistration, secondary: str
):
    registration = make_registration(secondary_hrefs=(secondary,))
    acquired = datetime(2020, 12, 4, 0, 28, tzinfo=UTC)
    files = render(registration, thumbnails=None, acquired_utc=acquired)
    item = json.loads(files["item.json"])
    validate_offline(item)
    properties = item["properties"]
    assert properties["datetime"] == "2020-12-04T00:28:00Z"
    assert properties["proj:code"] == "EPSG:32614"
    assert properties["proj:shape"] == [100, 120]
    assert properties["crosstie:verdict"] == "corrected"
    with rasterio.open(secondary) as before:
        wanted = Affine(*registration.estimate.correction.affine) @ before.transform
    np.testing.assert_allclose(properties["proj:transform"], wanted[:6], rtol=0, atol=1e-9)
    assert {link["href"] for link in item["links"] if link["rel"] == "derived_from"} == {
        "https://example.org/s2.tif?v=1",
        secondary,
    }
    assert {asset["href"] for asset in item["assets"].values()} == FILES - {"_COMMIT", "item.json"}
    assert all(asset["type"] for asset in item["assets"].values())
    middle = rasterio.warp.transform("EPSG:32614", "EPSG:4326", *np.array([wanted @ (60, 50)]).T)
    assert shape(item["geometry"]).contains(Point(middle[0][0], middle[1][0]))
    west, south, east, north = item["bbox"]
    assert west < middle[0][0] < east
    assert south < middle[1][0] < north


def test_an_undated_scene_spans_the_time_it_can_be_from(make_registration: MakeRegistration, secondary: str):
    item = stac_item(make_registration(), place=place_of(secondary), acquired_utc=None)
    validate_offline(item)
    assert item["properties"]["datetime"] is None
    assert item["properties"]["start_datetime"] < item["properties"]["end_datetime"]


def test_an_outline_across_the_antimeridian_is_cut_there(make_registration: MakeRegistration, tmp_path: Path):
    path = tmp_path / "fiji.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=100, width=100, count=1, dtype="uint8", crs="EPSG:32701",
        transform=Affine(1000, 0, 120_000, 0, -1000, 8_100_000),
    ):  # fmt: skip
        pass
    item = stac_item(make_registration(), place=place_of(str(path)), acquired_utc=None)
    validate_offline(item)
    geometry = shape(item["geometry"])
    assert geometry.geom_type == "MultiPolygon"
    assert geometry.is_valid
    assert geometry.area < 1.2  # square degrees: not once around the globe
    west, _, east, _ = item["bbox"]
    assert 179 < west < 180
    assert -180 < east < -179


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_control_points_have_an_outline_but_no_transform(make_registration: MakeRegistration, tmp_path: Path):
    path = tmp_path / "grd.tif"
    gcps = [
        GroundControlPoint(row=r, col=c, x=-98.6 + c / 1000, y=29.6 - r / 1000)
        for r in (0, 9)
        for c in (0, 9)
    ]
    with rasterio.open(
        path, "w", driver="GTiff", height=9, width=9, count=1, dtype="uint8", crs="EPSG:4326", gcps=gcps
    ):
        pass
    item = stac_item(make_registration(), place=place_of(str(path)), acquired_utc=None)
    validate_offline(item)
    assert "proj:transform" not in item["properties"]
    np.testing.assert_allclose(item["bbox"], [-98.6, 29.591, -98.591, 29.6], atol=1e-7)
