"""Clouds that a catalog tells of: not matched, doubted where pixels say otherwise, and never a failure."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from stac_site import as_table, stac_item

from crosstie.config import Settings
from crosstie.errors import BadInputError
from crosstie.flows.nightly import scope_of
from crosstie.flows.registration.pipeline import PairMeasurement, register_plan
from crosstie.flows.registration.plan import TilePlan, plan_pair
from crosstie.flows.registration.publish import PairNames, assemble, publish
from crosstie.flows.registration.scenes import open_scenes
from crosstie.io.catalog.search import SceneQuery, find_scenes
from crosstie.io.raster import read_plane
from crosstie.io.raster.values.scene_classes import read_clouds
from crosstie.io.storage.store import open_store
from crosstie.types import Kind, Reason, SceneRef

SIDE = 256
ORIGIN = (600_000, 5_300_000)
GRID = GeoBox((SIDE, SIDE), Affine(10, 0, ORIGIN[0], 0, -10, ORIGIN[1]), "EPSG:32632")
NOON = datetime(2022, 6, 1, 12, tzinfo=UTC)
CLEAR, CLOUD = 4, 9
FAR_AWAY = GeoBox((9, 9), Affine(20, 0, 0, 0, -20, 0), GRID.crs)


def write(path: Path, pixels: np.ndarray, grid: GeoBox = GRID, **profile: Any) -> Path:
    shape = {"count": 1, "height": grid.shape[0], "width": grid.shape[1], "dtype": pixels.dtype}
    with rasterio.open(
        path, "w", driver="GTiff", crs=str(grid.crs), transform=grid.affine, **shape, **profile
    ) as raster:
        raster.write(pixels, 1)
    return path


def classes_of(grid: GeoBox, value: int = CLEAR, size_m: float = 20) -> tuple[np.ndarray, GeoBox]:
    """A scene classification over a grid, of 20 m, all of one class."""
    zoom = size_m / abs(grid.affine.a)
    rows, cols = (int(np.ceil(length / zoom)) for length in grid.shape)
    place = GeoBox((rows, cols), grid.affine @ Affine.scale(zoom), grid.crs)
    return np.full((rows, cols), value, np.uint8), place


# --- what a catalog names


def items(**assets: str) -> list[Any]:
    address = "https://example.com/{}.tif"
    both = {name: {"href": address.format(end)} for name, end in {"visual": "tci", **assets}.items()}
    return [
        stac_item("msi", collection="sentinel-2-l2a", assets=both),
        stac_item("sar", assets={"vh": both["visual"], **both}),
    ]


@pytest.mark.parametrize(
    ("assets", "found"),
    [
        ({"scl": "s"}, "s"),
        ({"SCL": "s"}, "s"),
        ({"SCL_20m": "s", "SCL_60m": "t"}, "s"),
        ({"scl_60m": "t"}, "t"),
        ({"scl_thumbnail": "s"}, None),
        ({"sclera": "s"}, None),
        ({}, None),
    ],
)
def test_the_classification_of_an_item_is_found_by_its_name(
    assets: dict[str, str], found: str | None, tmp_path: Path
):
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items(**assets)}))
    scenes = {scene.id: scene for scene in find_scenes(path)}
    expected = None if found is None else f"https://example.com/{found}.tif"
    assert {name: scene.classes for name, scene in scenes.items()} == {"msi": expected, "sar": None}
    assert list(find_scenes(as_table(tmp_path / "items.parquet", items(**assets)))) == list(scenes.values())
    off = find_scenes(path, SceneQuery(cloud_masks=False))
    assert [scene.classes for scene in off] == [None, None]


@pytest.mark.parametrize(
    "href",
    ["file:///etc/passwd", "/etc/hosts", "http://169.254.169.254/scl.tif", "NETCDF:scl.nc", "/vsicurl/x"],
)
def test_an_address_that_may_not_be_read_leaves_the_scene_without_it(
    href: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    msi, _ = items()
    msi["assets"]["scl"] = {"href": href}
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [msi]}))
    (scene,) = find_scenes(tmp_path / "items.json")
    assert (scene.id, scene.classes) == ("msi", None)
    assert "msi: its scene classification is not used: href" in caplog.text


# --- what is read of it


def test_clouds_and_shadows_hide_ground_and_snow_and_water_do_not(tmp_path: Path):
    classes, place = classes_of(GRID)
    classes[:] = np.arange(128 * 128).reshape(128, 128) // 64 % 12
    found = read_clouds(str(write(tmp_path / "SCL.tif", classes, place)), GRID)
    expected = np.isin(classes, [0, 1, 3, 8, 9, 10]).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:32633", "EPSG:4326"])
def test_a_classification_of_another_grid_lies_where_it_lies(crs: str, tmp_path: Path):
    there = GRID.to_crs(crs) if crs != str(GRID.crs) else classes_of(GRID)[1]
    col, row = np.meshgrid(np.arange(there.shape[1]) + 0.5, np.arange(there.shape[0]) + 0.5)
    east, north = rasterio.warp.transform(
        crs, "EPSG:32632", *(np.ravel(v) for v in there.affine @ (col, row))
    )
    inside = (np.abs(np.array(east) - 601_000) < 400) & (np.abs(np.array(north) - 5_298_800) < 300)
    classes = np.where(inside.reshape(there.shape), CLOUD, CLEAR).astype(np.uint8)
    found = read_clouds(str(write(tmp_path / "SCL.tif", classes, there)), GRID)
    rows, cols = np.nonzero(found)
    np.testing.assert_allclose([cols.min(), cols.max() + 1], [60, 140], rtol=0, atol=2)
    np.testing.assert_allclose([rows.min(), rows.max() + 1], [90, 150], rtol=0, atol=2)


def test_of_a_coarse_pixel_half_must_be_hidden(tmp_path: Path):
    classes, place = classes_of(GRID)
    classes[:, ::4] = CLOUD  # a quarter, as of bright roofs
    classes[:32] = CLOUD
    coarse = GeoBox((32, 32), GRID.affine @ Affine.scale(8), GRID.crs)
    found = read_clouds(str(write(tmp_path / "SCL.tif", classes, place)), coarse)
    assert found[:8].all()
    assert not found[8:].any()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda classes: classes.astype(np.uint16), "1 bands of uint16 are no scene classification"),
        (lambda classes: classes * 25, "holds 225, and scene classes are 0 to 11"),
    ],
)
def test_what_is_no_classification_is_refused(make: Any, why: str, tmp_path: Path):
    classes, place = classes_of(GRID, CLOUD)
    with pytest.raises(BadInputError, match=why):
        read_clouds(str(write(tmp_path / "SCL.tif", make(classes), place)), GRID)


# --- what becomes of a pair


def pair(
    folder: Path, classes: np.ndarray | None, *, place: GeoBox | None = None
) -> tuple[SceneRef, SceneRef]:
    """Two scenes of fields: the darker in red, the brighter in SAR."""
    rng = np.random.default_rng(4)
    fields = rng.random((16, 16)).repeat(16, axis=0).repeat(16, axis=1)
    red = (500 + 900 * fields + rng.normal(0, 30, fields.shape)).astype(np.uint16)
    sar = (10 ** (-1.5 - fields) * rng.gamma(9, 1 / 9, fields.shape)).astype(np.float32)
    scene = SceneRef(
        "S2", Kind.OPTICAL, NOON, "POLYGON ((0 0, 1 0, 1 1, 0 0))", (str(write(folder / "B04.tif", red)),)
    )
    if classes is not None:
        place = place or classes_of(GRID)[1]
        scene = replace(scene, classes=str(write(folder / "SCL.tif", classes, place)))
    return scene, replace(
        scene, id="S1", kind=Kind.SAR, hrefs=(str(write(folder / "vh.tif", sar)),), classes=None
    )


def planned(reference: SceneRef, secondary: SceneRef) -> TilePlan:
    return plan_pair(*open_scenes(reference, secondary, Settings()), Settings())


def test_ground_under_cloud_is_not_matched_and_not_read(tmp_path: Path):
    classes, place = classes_of(GRID)
    classes[:, :64] = CLOUD
    plain = planned(*pair(tmp_path, None))
    plan = planned(*pair(tmp_path, classes, place=place))
    assert plan.reference_clouds is not None
    assert plan.reference_clouds.hidden_share == pytest.approx(0.5, abs=1e-9)
    assert plan.reference_clouds.ignored is None
    assert plan.secondary_clouds is None
    left = {(tile.row, tile.col) for tile in plain.tiles} - {(tile.row, tile.col) for tile in plan.tiles}
    assert left == {(tile.row, tile.col) for tile in plain.tiles if tile.col < 96}
    assert plan.reason is Reason.CLOUDED
    # every later read, by whichever process: the file is not needed any more
    Path(str(plan.reference.classes)).unlink()
    plane = read_plane(plan.reference, GRID)
    assert np.isnan(plane[:, :128]).all()
    assert np.isfinite(plane[:, 128:]).all()
    part = GeoBox((40, 40), GRID.affine @ Affine.translation(110, 50), GRID.crs)
    np.testing.assert_array_equal(read_plane(plan.reference, part), plane[50:90, 110:150])


def test_a_clear_mask_changes_nothing(tmp_path: Path):
    plain = planned(*pair(tmp_path, None))
    plan = planned(*pair(tmp_path, classes_of(GRID)[0]))
    assert plan.tiles == plain.tiles
    assert plan.reason == plain.reason
    assert replace(plan.reference, classes=None) == plain.reference
    assert plan.reference_clouds is not None
    assert plan.reference_clouds.hidden_share == 0


def test_a_mask_that_hides_dark_fields_is_not_believed(tmp_path: Path):
    plain = planned(*pair(tmp_path, None))
    plan = planned(*pair(tmp_path, classes_of(GRID, CLOUD)[0]))
    assert plan.tiles == plain.tiles
    assert plan.reference_clouds is not None
    assert plan.reference_clouds.ignored == "it hides 100% of the ground, and the pixels show ground there"
    assert np.isfinite(read_plane(plan.reference, GRID)).all()


@pytest.mark.parametrize("bright", [False, True])
def test_a_mask_of_most_of_the_ground_is_believed_where_it_is_bright(bright: bool, tmp_path: Path):
    classes, place = classes_of(GRID)
    classes[:, :90] = CLOUD
    reference, secondary = pair(tmp_path, classes, place=place)
    if bright:
        with rasterio.open(reference.hrefs[0], "r+") as raster:
            red = raster.read(1)
            red[:, :180] = 4000 + np.random.default_rng(7).normal(0, 60, (SIDE, 180)).astype(np.int64)
            raster.write(red, 1)
    plan = planned(reference, secondary)
    assert plan.reference_clouds is not None
    assert plan.reference_clouds.hidden_share == pytest.approx(180 / 256, abs=1e-9)
    assert (plan.reference_clouds.ignored is None) is bright
    assert np.isnan(read_plane(plan.reference, GRID)[:, :180]).all() == bright


def real_pair(data: Path, optical: str, sar: str, classes: Path) -> TilePlan:
    first, second = data / optical, data / sar
    scene = SceneRef("S2", Kind.OPTICAL, NOON, "POLYGON ((0 0, 1 0, 1 1, 0 0))", (str(first),))
    with rasterio.open(first) as raster:
        grid = GeoBox(raster.shape, raster.transform, str(raster.crs))
    pixels, place = classes_of(grid, int(classes.name))
    scene = replace(scene, classes=str(write(classes.with_suffix(".tif"), pixels, place)))
    return planned(scene, replace(scene, id="S1", kind=Kind.SAR, hrefs=(str(second),), classes=None))


@pytest.mark.parametrize("month", ["04", "05", "06", "09"])
def test_snow_and_fields_that_a_mask_calls_cloud_are_matched(month: str, real_data: Path, tmp_path: Path):
    series = "series/finland0060"
    plan = real_pair(real_data, f"{series}/s2_{month}.tif", f"{series}/s1_asc_{month}.tif", tmp_path / "9")
    assert len(plan.tiles) == 25
    assert plan.reference_clouds is not None
    assert plan.reference_clouds.ignored is not None


def test_overcast_that_a_mask_calls_cloud_is_left_out(real_data: Path, tmp_path: Path):
    series = "series/finland0060"
    plan = real_pair(real_data, f"{series}/s2_03.tif", f"{series}/s1_asc_03.tif", tmp_path / "9")
    assert plan.reference_clouds is not None
    assert plan.reference_clouds.ignored is None
    assert (plan.tiles, plan.reason) == ((), Reason.CLOUDED)


def test_cloud_under_a_clear_mask_is_still_seen(real_data: Path, tmp_path: Path):
    name = "ROIs1970_fall_139_p839.tif"
    chips = "chips/glfcr2"
    plan = real_pair(real_data, f"{chips}/s2_cloudy/{name}", f"{chips}/s1/{name}", tmp_path / str(CLEAR))
    assert plan.reason is Reason.CLOUDED
    assert len(plan.tiles) == 6


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:400])


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("<Error>AccessDenied</Error>"),
        damaged,
        lambda path: write(path, np.full((9, 9), CLOUD, np.uint8), FAR_AWAY),
        lambda path: write(path, np.full((9, 9), CLOUD, np.float32), GRID[:9, :9]),
    ],
    ids=["missing", "an error in its place", "cut short", "elsewhere", "of another kind"],
)  # fmt: skip
def test_a_mask_that_cannot_be_used_fails_no_pair_and_is_told(harm: Any, tmp_path: Path):
    scenes = pair(tmp_path, classes_of(GRID, CLOUD)[0])
    harm(Path(str(scenes[0].classes)))
    plan = planned(*scenes)
    assert plan.tiles == planned(*pair(tmp_path, None)).tiles
    said = plan.reference_clouds
    assert said is not None
    assert (said.hidden_share, said.ignored and said.ignored.startswith("it cannot be read: ")) == (
        None,
        True,
    )


def test_products_say_what_became_of_it(tmp_path: Path):
    def products(classes: np.ndarray | None, root: str) -> tuple[dict[str, Any], str]:
        scenes = pair(tmp_path, classes)
        if root == "unread":
            Path(str(scenes[0].classes)).unlink()
        plan = replace(planned(*scenes), tiles=())  # nothing is matched: what is told is the same
        done: PairMeasurement = register_plan(plan, None, Settings())  # type: ignore[arg-type]
        names = PairNames("S2", "S1", scenes[0].hrefs, scenes[1].hrefs, NOON)
        registration = assemble(names, plan, done, Settings(), weights_sha256="0" * 64, seconds=1.0)
        store = open_store(str(tmp_path / root))
        publish(store, registration, plan, names, Settings())
        folder = tmp_path / root / registration.pair_key / registration.run_key
        return json.loads((folder / "correction.json").read_text()), (folder / "report.html").read_text()

    classes = classes_of(GRID)[0]
    classes[:64] = CLOUD
    correction, report = products(classes, "used")
    href = str(tmp_path / "SCL.tif")
    assert correction["pair"]["reference"]["clouds"] == {"href": href, "hidden_share": 0.5, "used": True}
    assert "clouds" not in correction["pair"]["secondary"]
    assert "Clouds and their shadows hide 50% of the reference, as its catalog tells." in report
    correction, report = products(classes, "unread")
    said = correction["pair"]["reference"]["clouds"]
    assert (said["hidden_share"], said["used"]) == (None, False)
    assert said["why_not"].startswith("it cannot be read: ")
    assert "The cloud mask of the reference is not used: it cannot be read: " in report
    correction, report = products(None, "none")
    assert "clouds" not in correction["pair"]["reference"]
    assert "cloud mask" not in report


def test_only_turning_masks_off_changes_the_key_of_a_run():
    off = Settings(catalog=SceneQuery(cloud_masks=False))
    assert off.hash != Settings().hash
    assert scope_of("catalog.json", off) == scope_of("catalog.json", Settings())  # the same pairs
    assert Settings(catalog=SceneQuery(max_cloud_pct=20)).hash == Settings().hash
