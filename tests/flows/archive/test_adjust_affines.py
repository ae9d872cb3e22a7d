"""`crosstie adjust` on an archive whose scenes are turned and stretched, and `apply --adjusted` of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from measured_archive import commit_without_pictures, grid_of, measured_registration, optical_id, sar_id
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from product_with_truth import GROUND, SHAPE, UTM, bent_field, waves, write_waves
from typer.testing import CliRunner

import crosstie
from crosstie.cli import app
from crosstie.estimation.pair_offset import measured_affine
from crosstie.flows.archive.adjusting import PlaceOutcome, adjust_archive
from crosstie.flows.archive.solving import AdjustOptions
from crosstie.io.adjusted.layout import PlaceVersion
from crosstie.io.adjusted.position import AdjustedPositions, at_adjusted_position
from crosstie.io.products.write import write_products
from crosstie.io.storage.store import Store, open_store
from crosstie.types import FieldFit, FieldReason, FieldReport, Model, Registration, pair_key

TILE = "31UFS"
TURN = 1e-3
"""Of the linear parts, which is 3 m at the edge of the place."""

PAIR_NOISE_M = 0.5


@dataclass(frozen=True)
class Turned:
    store: Store
    shift_m: dict[str, NDArray[np.float64]]
    linear: dict[str, NDArray[np.float64]]

    def offset_m(self, scene: str, at: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) at positions (N, 2); that of the mean S2 scene is 0."""
        return self.shift_m[scene] + (at - middle()) @ self.linear[scene].T


def middle() -> NDArray[np.float64]:
    box = grid_of(sar_id(TILE, 0)).extent.boundingbox
    return np.array([(box.left + box.right) / 2, (box.bottom + box.top) / 2])


def turned(folder: Path, *, optical: int = 4, sar: int = 6, flat: tuple[int, ...] = ()) -> Turned:
    """Draw a place; pairs of the dates `flat` of Sentinel-1 measure translations."""
    store, rng = open_store(str(folder)), np.random.default_rng(0)
    dates = [sar_id(TILE, n) for n in range(sar)]
    references = [optical_id(TILE, n) for n in range(optical)]
    linear = {scene: rng.normal(0, TURN, (2, 2)) for scene in [*references, *dates]}
    shift = {scene: rng.normal(0, 5, 2) for scene in [*references, *dates]}
    for values in (linear, shift):
        mean = np.mean([values[scene] for scene in references], axis=0)
        for scene in references:
            values[scene] = values[scene] - mean
    made = Turned(store, shift, linear)
    for n in flat:
        linear[dates[n]] = np.zeros((2, 2))
    for n, date in enumerate(dates):
        for reference in references:
            pair = turned_registration(made, reference, date, rng, model=model_of(n, flat))
            commit_without_pictures(store, pair)
    return made


def model_of(date: int, flat: tuple[int, ...]) -> Model:
    return Model.TRANSLATION if date in flat else Model.AFFINE


def turned_registration(
    made: Turned, reference: str, date: str, rng: np.random.Generator, *, model: Model
) -> Registration:
    base = measured_registration(reference, date, np.zeros(2), rng)
    at = base.points.xy_m
    offset = made.offset_m(date, at) - made.offset_m(reference, at) + rng.normal(0, PAIR_NOISE_M, 2)
    points = replace(base.points, offset_m=base.points.offset_m + offset)
    fitted = measured_affine(points, model)
    assert fitted is not None
    return replace(base, points=points, estimate=replace(base.estimate, fitted=fitted))


def adjust(store: Store) -> list[PlaceOutcome]:
    return list(adjust_archive(store, AdjustOptions()))


def corners_m() -> NDArray[np.float64]:
    return middle() + 3200.0 * np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)])


def test_affines_of_scenes_are_written_with_their_covariance(tmp_path: Path) -> None:
    made = turned(tmp_path / "products")
    [place] = adjust(made.store)
    assert place.summary["affines"]["used"], place.summary["affines"]
    table = crosstie.read_adjusted(made.store)
    assert set(table["model"]) == {"affine"}
    errors, sigmas = [], []
    at = corners_m()
    for row in table.to_dict("records"):
        a, b, c, d, e, f = row["affine"]
        offset = at - (at @ np.array([[a, b], [d, e]]).T + [c, f])
        errors.append(offset - made.offset_m(row["scene"], at))
        design = np.kron(np.eye(2), np.column_stack([at, np.ones(4)])[:, None]).reshape(4, 2, 6)
        spread = design @ np.reshape(row["affine_covariance"], (6, 6)) @ design.transpose(0, 2, 1)
        sigmas.append(np.sqrt(np.diagonal(spread, axis1=1, axis2=2)))
        # At the middle of the place it is the position.
        x, y = place.summary["centre_m"]
        assert [x - (a * x + b * y + c), y - (d * x + e * y + f)] == pytest.approx(
            [row["dx_m"], row["dy_m"]], abs=1e-6
        )
    # 4.5 m of shape at a corner (per axis), known to 0.9 m by a pair and by four to half of it.
    assert np.sqrt(np.mean(np.square(errors))) < 0.7
    assert np.sqrt(np.mean(np.square(np.array(errors) / sigmas))) == pytest.approx(1, abs=0.3)


def test_scenes_whose_pairs_are_translations_have_none(tmp_path: Path) -> None:
    made = turned(tmp_path / "products", flat=(1, 4))
    [place] = adjust(made.store)
    table = crosstie.read_adjusted(made.store).set_index("scene")
    flat = {sar_id(TILE, n) for n in (1, 4)}
    assert set(table.index[table["model"] == "translation"]) == flat
    assert place.summary["affines"]["scenes"] == 8
    for scene in flat:
        row = table.loc[scene]
        assert row["affine"] == pytest.approx([1, 0, -row["dx_m"], 0, 1, -row["dy_m"]], abs=1e-9)


def test_items_and_the_command_tell_of_them(tmp_path: Path) -> None:
    made = turned(tmp_path / "products")
    done = CliRunner().invoke(app, ["adjust", "--out", made.store.url])
    assert done.exit_code == 0, done.output
    assert f"T{TILE}: 10 scenes with an affine" in " ".join(done.output.split())
    table = crosstie.read_adjusted(made.store).set_index("scene")
    version = PlaceVersion(f"T{TILE}", table["version"].iloc[0])
    items = pystac.ItemCollection.from_dict(json.loads(made.store.get(version.file("items.json")) or b""))
    for item in items:
        row = table.loc[item.properties["crosstie:scene"]]
        assert item.properties["crosstie:model"] == row["model"] == "affine"
        assert item.properties["crosstie:affine"] == pytest.approx(list(row["affine"]), abs=0)


def test_a_second_run_changes_no_byte(tmp_path: Path) -> None:
    made = turned(tmp_path / "products", optical=3, sar=4)
    adjust(made.store)
    before = {key: made.store.get(key) for key in made.store.list("_adjusted")}
    assert [place.action for place in adjust(made.store)] == ["unchanged"]
    for key in before:
        made.store.delete(key)
    adjust(made.store)
    assert {key: made.store.get(key) for key in made.store.list("_adjusted")} == before


MakeRegistration = Callable[..., Registration]

SCENE_AFFINE = Affine(1.003, 0.004, -33.7, -0.004, 0.998, 12.9)
"""Correction of the scene S1A_IW around the middle of the raster, metres."""

REFERENCE_TURN = {"S2B_0": 2e-3, "S2B_1": -2e-3}
"""Of references, against their mean."""

REFERENCES = {"S2B_0": (8.0, -4.0), "S2B_1": (-8.0, 0.0), "S2B_2": (0.0, 4.0), "S2B_3": (0.0, 0.0)}
INSIDE = np.s_[40:-40, 40:-40]


@dataclass(frozen=True)
class Pixels:
    store: Store
    urls: dict[str, str]
    """Product of S1A_IW with each reference."""


def scene_correction() -> Affine:
    return around_middle(SCENE_AFFINE)


def turn(by: float) -> Affine:
    return Affine(1.0, by, 0.0, -by, 1.0, 0.0)


def around_middle(affine: Affine) -> Affine:
    x, y = GROUND @ (SHAPE[1] / 2, SHAPE[0] / 2)
    return Affine.translation(x, y) @ affine @ Affine.translation(-x, -y)


def write_turned_waves(path: Path) -> Path:
    row, col = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]] + 0.5
    true_col, true_row = ~GROUND @ scene_correction() @ GROUND @ (col, row)
    with rasterio.open(
        path, "w", driver="GTiff", height=SHAPE[0], width=SHAPE[1], count=1, dtype="float32", crs=UTM,
        transform=GROUND,
    ) as raster:  # fmt: skip
        raster.write(waves(true_col, true_row).astype("float32"), 1)
    return path


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory, make_registration: MakeRegistration) -> Pixels:
    """Two scenes against four references, the pair with the last of which is wrong; a field on the first."""
    folder = tmp_path_factory.mktemp("turned")
    store, rng = open_store(str(folder / "products")), np.random.default_rng(1)
    rasters = str(write_waves(folder / "s2.tif")), str(write_turned_waves(folder / "s1.tif"))
    urls = {}
    for reference, at in REFERENCES.items():
        for scene, own in (("S1A_IW", scene_correction()), ("S1B_IW", Affine.identity())):
            wrong = (60.0, 40.0) if (reference, scene) == ("S2B_3", "S1A_IW") else (0.0, 0.0)
            shift = Affine.translation(at[0] + wrong[0], at[1] + wrong[1])
            affine = around_middle(turn(REFERENCE_TURN.get(reference, 0.0))) @ shift @ own
            made = make_registration(
                affine=tuple(affine)[:6],
                grid=GeoBox(SHAPE, GROUND, UTM),
                secondary_hrefs=(rasters[1],),
                secondary_id=scene,
            )
            made = noisy(made, rng)
            if (reference, scene) == ("S2B_0", "S1A_IW"):
                report = FieldReport(offered=True, reason=FieldReason.BETTER, used=100, coverage=1.0)
                made = replace(made, field=FieldFit(bent(affine), report, np.ones(len(made.points), bool)))
            made = replace(
                made,
                reference_hrefs=(rasters[0],),
                reference_id=reference,
                pair_key=pair_key(reference, scene),
            )
            url = write_products(store, made, thumbnails=None)
            if scene == "S1A_IW":
                urls[reference] = url
    adjust(store)
    return Pixels(store, urls)


def noisy(made: Registration, rng: np.random.Generator) -> Registration:
    """Its points moved onto the raster, and a noise of 0.5 m on them."""
    points = made.points
    row, col = rng.integers(0, SHAPE[0] - 20, len(points)), rng.integers(0, SHAPE[1] - 20, len(points))
    xy = np.column_stack([GROUND.c + 10 * (col + 10), GROUND.f - 10 * (row + 10)]).astype(float)
    there = ~Affine(*made.estimate.fitted.affine)
    offset = np.array([there @ tuple(at) for at in xy]) - xy + rng.normal(0, 0.5, xy.shape)
    offset[~made.estimate.used] += 200
    return replace(made, points=replace(points, xy_m=xy, offset_m=offset, row=row, col=col))


def bent(affine: Affine):
    """The affine of a pair, and a bump over it."""
    field = bent_field()
    x, y = field.grid.affine @ tuple(np.mgrid[0:20, 0:21][::-1] + 0.5)
    there_x, there_y = ~affine @ (x, y)
    return replace(field, dx_m=there_x - x + field.dx_m - 33.7, dy_m=there_y - y)


@pytest.mark.parametrize("reference", list(REFERENCES))
def test_a_turned_scene_lies_in_one_place_whatever_it_is_paired_with(
    pixels: Pixels, tmp_path: Path, reference: str
) -> None:
    """Also where the pair is wrong: the affine is that of the scene."""
    out = tmp_path / "aligned.tif"
    done = CliRunner().invoke(
        app, ["apply", pixels.urls[reference], "--adjusted", "--model", "affine", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    row, col = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]] + 0.5
    with rasterio.open(out) as raster:
        # 0.04 px in the middle of a slope of 50 a pixel; by its shift alone it is 0.5 px off at the edges.
        assert np.abs(raster.read(1) - waves(col, row))[INSIDE].max() < 8
    said = json.loads((tmp_path / "aligned.json").read_text())["properties"]
    for corner in ((0, 0), (SHAPE[1], SHAPE[0])):
        at = GROUND @ corner
        assert Affine(*said["crosstie:scene_affine"]) @ at == pytest.approx(scene_correction() @ at, abs=1.0)


def test_the_field_of_a_pair_keeps_what_it_has_beyond_the_affine(pixels: Pixels) -> None:
    positions = AdjustedPositions.read(pixels.store)
    field = at_adjusted_position(crosstie.open(pixels.urls["S2B_0"]), positions).alignment.field
    assert field is not None
    true = bent(scene_correction())
    assert np.abs(field.dx_m - true.dx_m).max() < 0.6
    assert np.abs(field.dy_m - true.dy_m).max() < 0.6
