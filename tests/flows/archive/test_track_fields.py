"""The field of a track in an adjusted archive: stored, versioned, and applied to a date that shows little."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from measured_archive import commit_without_pictures, grid_of, optical_id, sar_id
from measured_archive import measured_registration as flat_registration
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from product_with_truth import waves
from scipy.ndimage import gaussian_filter, map_coordinates
from typer.testing import CliRunner

import crosstie
from crosstie.cli import app
from crosstie.errors import BadInputError, StoreError
from crosstie.flows.archive.adjusting import PlaceOutcome, adjust_archive
from crosstie.flows.archive.solving import AdjustOptions
from crosstie.io.adjusted.layout import PlaceVersion
from crosstie.io.adjusted.position import AdjustedPositions, at_adjusted_position
from crosstie.io.products.displacement import read_displacement
from crosstie.io.storage.store import Store, open_store
from crosstie.types import (
    AffineCorrection,
    DisplacementField,
    FieldFit,
    FieldReason,
    FieldReport,
    Model,
    Reason,
    Registration,
    TiePoints,
    Verdict,
    VerdictCode,
)

TILE, TRACK = "31UFS", "R058"
PIXEL_M, STRIDE_PX, ACROSS = 10.0, 64, 20
NOISE_PX, PAIR_NOISE_PX = 0.3, 0.05
DATES, REFERENCES = 12, 3
HIDDEN = DATES
"""Number of the date that shows one tile in five, all of them in the west."""
CLOUDED = DATES + 1
"""Number of the date that shows nothing; its pair is unreliable."""


@dataclass(frozen=True)
class Relief:
    """An archive of dates of one track over land with relief, and its truth."""

    store: Store
    relief_px: NDArray[np.float64]
    """(2, rows, cols) at the tiles; its mean is 0."""
    shift_px: NDArray[np.float64]
    """(dates, 2)"""
    reference_px: NDArray[np.float64]
    """(references, 2)"""
    urls: dict[int, str]
    """Product of each date with reference 0."""
    xy_m: NDArray[np.float64]
    """(rows * cols, 2) centres of the tiles."""

    def truth_px(self, date: int) -> NDArray[np.float64]:
        """(rows * cols, 2) offset of a date at the tiles, columns and rows downwards."""
        return (self.relief_px + self.shift_px[date][:, None, None]).reshape(2, -1).T


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Relief:
    folder = tmp_path_factory.mktemp("relief")
    store, rng = open_store(str(folder / "products")), np.random.default_rng(0)
    relief = gaussian_filter(rng.normal(size=(ACROSS, ACROSS)), 2)
    relief *= 2 / relief.std()
    relief -= relief.mean()
    field = np.stack([relief, 0.2 * relief])
    shift = np.array([1.5, -0.8]) + rng.normal(0, 0.4, (DATES + 2, 2))
    at = rng.normal(0, 0.3, (REFERENCES, 2))
    at -= at.mean(axis=0)
    truth = Relief(store, field, shift, at, {}, tile_centres())
    raster = write_dates_raster(folder / "hidden.tif", truth)
    for date in range(DATES + 2):
        # A date's own noise is in all its pairs alike: a second partner does not take it away.
        noise = rng.normal(0, NOISE_PX, (ACROSS * ACROSS, 2))
        for n in range(REFERENCES if date != CLOUDED else 1):
            offset_px = truth.truth_px(date) - at[n] + noise + rng.normal(0, PAIR_NOISE_PX, noise.shape)
            pair = registration(optical_id(TILE, n), sar_id(TILE, date), offset_px, date, rng)
            if date == HIDDEN:
                pair = replace(pair, secondary_hrefs=(str(raster),), reference_hrefs=(str(raster),))
            commit_without_pictures(store, pair)
            truth.urls.setdefault(date, store.url_of(f"{pair.pair_key}/{pair.run_key}"))
    adjust(store)
    return truth


def adjust(store: Store) -> list[PlaceOutcome]:
    return list(adjust_archive(store, AdjustOptions()))


def grid() -> GeoBox:
    own = grid_of(sar_id(TILE, 0))
    side = STRIDE_PX * (ACROSS + 2)
    return GeoBox((side, side), own.affine, own.crs)


def tile_centres() -> NDArray[np.float64]:
    row, col = (axis.ravel() * STRIDE_PX + 1.5 * STRIDE_PX for axis in np.mgrid[:ACROSS, :ACROSS])
    x, y = grid().affine @ (col, row)
    return np.column_stack([x, y])


def registration(
    reference: str, secondary: str, offset_px: NDArray[np.float64], date: int, rng: np.random.Generator
) -> Registration:
    """A pair with one tie point a tile; of a hidden date those of the west alone, and no field of its own."""
    base = flat_registration(reference, secondary, np.zeros(2), rng)
    row, col = (axis.ravel() * STRIDE_PX for axis in np.mgrid[:ACROSS, :ACROSS])
    n = len(row)
    up = np.array([PIXEL_M, -PIXEL_M])
    points = TiePoints(
        tile_centres(), offset_px * up, np.full(n, NOISE_PX * PIXEL_M), np.full(n, 0.9), row, col
    )
    seen = col < STRIDE_PX * ACROSS / 5 if date == HIDDEN else np.full(n, date != CLOUDED)
    points = points.keep(seen)
    used = np.ones(len(points), np.bool_)
    estimate = replace(base.estimate, used=used, residual_m=np.zeros((len(points), 2)))
    if date == CLOUDED:
        unreliable = Verdict(VerdictCode.UNRELIABLE, (Reason.CLOUDED,))
        return replace(base, grid=grid(), points=points, estimate=replace(estimate, verdict=unreliable))
    nodes = GeoBox((2, 2), grid().affine, grid().crs)
    offered = date != HIDDEN
    field = DisplacementField(nodes, *np.zeros((3, 2, 2), np.float32)) if offered else None
    reason = FieldReason.BETTER if offered else FieldReason.TOO_FEW_TIE_POINTS
    report = FieldReport(offered=offered, reason=reason, used=len(points), coverage=1.0)
    return replace(base, grid=grid(), points=points, estimate=estimate, field=FieldFit(field, report, used))


def write_dates_raster(path: Path, truth: Relief) -> Path:
    """What the hidden date shows of the waves: its relief and its shift moved them."""
    side = grid().shape[0]
    row, col = np.mgrid[0:side, 0:side] + 0.5
    shift = truth.shift_px[HIDDEN]

    def offset(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        place = np.stack([y, x]) / STRIDE_PX - 1.5
        return [
            map_coordinates(band, place, order=3, mode="nearest") + s
            for band, s in zip(truth.relief_px, shift, strict=True)
        ]

    x, y = col, row
    for _ in range(6):
        dx, dy = offset(x, y)
        x, y = col - dx, row - dy
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=1, dtype="float32",
        crs=str(grid().crs), transform=grid().affine,
    ) as raster:  # fmt: skip
        raster.write(waves(x, y).astype("float32"), 1)
    return path


def version(store: Store) -> PlaceVersion:
    return PlaceVersion(f"T{TILE}", crosstie.read_adjusted(store)["version"].iloc[0])


def rms(error: NDArray[np.float64]) -> float:
    return float(np.sqrt((error**2).mean()))


def applied_px(made: Relief, date: int) -> NDArray[np.float64]:
    """(rows * cols, 2) offset at the tiles that `apply --adjusted` takes off."""
    product = at_adjusted_position(crosstie.open(made.urls[date]), AdjustedPositions.read(made.store))
    x, y = made.xy_m.T
    to_x, to_y = product.alignment.mapping("auto", grid()).secondary_xy(x, y)
    return np.column_stack([to_x - x, y - to_y]) / PIXEL_M


def test_the_stored_field_is_closer_to_the_truth_than_any_date(made: Relief, tmp_path: Path) -> None:
    path = tmp_path / "field.tif"
    path.write_bytes(made.store.get(version(made.store).file(f"field_{TRACK}.tif")) or b"")
    field = read_displacement(path)
    found, sigma = field.at(made.xy_m)
    truth = made.truth_px(0) - made.shift_px[0] + made.shift_px[:DATES].mean(axis=0)
    error = found / np.array([PIXEL_M, -PIXEL_M]) - truth
    assert rms(error) <= 0.12
    assert 0.7 < rms(error / (sigma[:, None] / PIXEL_M)) < 1.3


def test_a_date_with_four_tiles_in_five_hidden_is_aligned_by_its_track(made: Relief) -> None:
    error = applied_px(made, HIDDEN) - made.truth_px(HIDDEN)
    assert rms(error) <= 0.15
    # Its own tiles alone say much less of the rest.
    own = crosstie.open(made.urls[HIDDEN]).tie_points
    alone = own[["dx_m", "dy_m"]].mean().to_numpy() / np.array([PIXEL_M, -PIXEL_M])
    assert rms(alone - made.truth_px(HIDDEN)) > 1


def test_a_date_that_shows_all_lies_where_it_should_whatever_it_is_paired_with(made: Relief) -> None:
    assert rms(applied_px(made, 4) - made.truth_px(4)) <= 0.15
    positions = AdjustedPositions.read(made.store)
    pairs = [
        f"{made.store.url}/{key.rpartition('/')[0]}"
        for key in made.store.list()
        if key.endswith("/_COMMIT") and sar_id(TILE, 4) in key
    ]
    maps = [
        at_adjusted_position(crosstie.open(url), positions).alignment.mapping("auto", grid()) for url in pairs
    ]
    assert len(maps) == REFERENCES
    first = maps[0].secondary_xy(*made.xy_m.T)
    assert all((np.array(one.secondary_xy(*made.xy_m.T)) == first).all() for one in maps[1:])


def test_an_affine_of_the_scene_is_not_applied_on_top_of_the_field(made: Relief) -> None:
    """The field has the tilt of all dates already."""
    product, positions = crosstie.open(made.urls[4]), AdjustedPositions.read(made.store)
    before = at_adjusted_position(product, positions).alignment.mapping("auto", grid())
    tilted = AffineCorrection(Model.AFFINE, (1.01, 0.0, 30.0, 0.0, 1.01, 40.0), np.eye(6))
    scene = sar_id(TILE, 4)
    of_scene = {scene: [replace(one, affine=tilted) for one in positions.of_scene[scene]]}
    positions = replace(positions, of_scene={**positions.of_scene, **of_scene})
    after = at_adjusted_position(product, positions).alignment.mapping("auto", grid())
    x, y = made.xy_m.T
    assert (np.array(after.secondary_xy(x, y)) == np.array(before.secondary_xy(x, y))).all()


def test_a_date_that_shows_nothing_gets_the_field_and_the_mean_shift_of_its_track(made: Relief) -> None:
    error = applied_px(made, CLOUDED) - made.truth_px(CLOUDED)
    # What is left is how dates scatter, 0.4 px per axis, and not relief, 2 px.
    assert np.abs(error.mean(axis=0)).max() < 1.2
    assert rms(error - error.mean(axis=0)) <= 0.12
    product = at_adjusted_position(crosstie.open(made.urls[CLOUDED]), AdjustedPositions.read(made.store))
    sigma_px = np.sqrt(product.correction.covariance[2, 2]) / PIXEL_M
    assert 0.2 < sigma_px < 1.2


def test_the_command_writes_pixels_that_lie_on_the_ground(made: Relief, tmp_path: Path) -> None:
    out = tmp_path / "aligned.tif"
    done = CliRunner().invoke(app, ["apply", made.urls[HIDDEN], "--adjusted", "--out", str(out)])
    assert done.exit_code == 0, done.output
    with rasterio.open(out) as raster:
        found = raster.read(1)
    row, col = np.mgrid[0 : found.shape[0], 0 : found.shape[1]] + 0.5
    inside = np.s_[STRIDE_PX:-STRIDE_PX, STRIDE_PX:-STRIDE_PX]
    # Half a pixel of error is 30 here.
    assert rms((found - waves(col, row))[inside]) < 9
    said = json.loads((tmp_path / "aligned.json").read_text())["properties"]
    assert said["crosstie:track_field"] == f"field_{TRACK}.tif"
    assert "crosstie:dx_m" not in said


def test_the_summary_tells_the_field_and_each_shift(made: Relief) -> None:
    said = json.loads(made.store.get(version(made.store).file("adjustment.json")) or b"")["tracks"][TRACK]
    assert said["dates"] == DATES
    assert said["relief_m"] > 5 * said["noise_m"]
    assert set(said["scenes"]) == {sar_id(TILE, n) for n in range(DATES + 1)}
    hidden = said["scenes"][sar_id(TILE, HIDDEN)]
    assert 0 < hidden["tiles"] <= ACROSS * ACROSS / 5
    listed = json.loads(made.store.get(version(made.store).commit) or b"")["files"]
    assert f"field_{TRACK}.tif" in listed


@pytest.fixture
def copy(made: Relief, tmp_path: Path) -> Relief:
    shutil.copytree(made.store.url.removeprefix("file://"), tmp_path / "products")
    store = open_store(str(tmp_path / "products"))
    urls = {date: url.replace(made.store.url, store.url) for date, url in made.urls.items()}
    return replace(made, store=store, urls=urls)


def test_a_date_that_is_added_makes_a_new_version_and_leaves_the_old_one(copy: Relief) -> None:
    first = version(copy.store)
    before = {key: copy.store.get(key) for key in copy.store.list(f"_adjusted/{first.place}/{first.version}")}
    assert [place.action for place in adjust(copy.store)] == ["unchanged"]
    rng = np.random.default_rng(7)
    for n in range(REFERENCES):
        offset = copy.truth_px(0) - copy.reference_px[n] + rng.normal(0, NOISE_PX, (ACROSS * ACROSS, 2))
        commit_without_pictures(
            copy.store, registration(optical_id(TILE, n), sar_id(TILE, 30), offset, 0, rng)
        )
    assert [place.action for place in adjust(copy.store)] == ["solved"]
    second = version(copy.store)
    assert second != first
    assert {key: copy.store.get(key) for key in before} == before
    said = json.loads(copy.store.get(second.file("adjustment.json")) or b"")["tracks"][TRACK]
    assert said["dates"] == DATES + 1


def test_dates_of_sentinel_2_against_sentinel_1_make_no_field_of_a_track(
    made: Relief, tmp_path: Path
) -> None:
    """What they show against it is the relief of the other scene."""
    store, rng = open_store(str(tmp_path / "products")), np.random.default_rng(3)
    for date in range(5):
        for n in range(2):
            offset = -made.truth_px(0) + rng.normal(0, NOISE_PX, (ACROSS * ACROSS, 2))
            commit_without_pictures(
                store, registration(sar_id(TILE, n), optical_id(TILE, date), offset, date, rng)
            )
    [place] = adjust(store)
    assert (place.summary["placed"], place.summary["tracks"]) == (7, {})


def test_a_broken_field_is_told(copy: Relief) -> None:
    at = version(copy.store)
    copy.store.put(at.file(f"field_{TRACK}.tif"), b"no raster")
    with pytest.raises(StoreError, match="crosstie adjust"):
        applied_px(copy, HIDDEN)
    summary = json.loads(copy.store.get(at.file("adjustment.json")) or b"")
    summary["tracks"][TRACK]["field"] = "../../secret.tif"
    copy.store.put(at.file("adjustment.json"), json.dumps(summary).encode())
    with pytest.raises(BadInputError, match="crosstie adjust"):
        AdjustedPositions.read(copy.store)


def test_a_version_of_before_there_were_fields_is_read(copy: Relief) -> None:
    at = version(copy.store)
    summary = json.loads(copy.store.get(at.file("adjustment.json")) or b"")
    del summary["tracks"], summary["scene_ids"]
    copy.store.put(at.file("adjustment.json"), json.dumps(summary).encode())
    error = applied_px(copy, 4) - copy.truth_px(4)
    assert np.isfinite(error).all()
    with pytest.raises(BadInputError, match="adjusted at no place"):
        applied_px(copy, CLOUDED)
