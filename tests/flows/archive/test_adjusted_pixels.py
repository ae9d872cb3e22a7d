"""`crosstie apply --adjusted`: a scene shows the same pixels, whichever reference it was paired with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from product_with_truth import BEND_PX, GROUND, SHAPE, SHIFT_PX, UTM, bent_field, waves, write_waves
from typer.testing import CliRunner, Result

from crosstie.cli import app
from crosstie.config import load_settings
from crosstie.errors import BadInputError
from crosstie.flows.apply import AppliedFile
from crosstie.flows.archive.adjusting import adjust_archive
from crosstie.flows.archive.solving import AdjustOptions
from crosstie.flows.archive.stacking import stack_scenes
from crosstie.io.archive.index import update_index
from crosstie.io.products.write import write_products
from crosstie.io.storage.store import Store, open_store
from crosstie.types import FieldFit, FieldReason, FieldReport, Registration, pair_key

MakeRegistration = Callable[..., Registration]

POSITION_M = np.array([33.7, -12.9])
"""Of the scene S1A_IW, as its pixels show it."""

REFERENCES = {"S2B_0": (8.0, -4.0), "S2B_1": (-8.0, 0.0), "S2B_2": (0.0, 4.0)}
"""Positions of the references, m; their mean is 0."""

WRONG_M = np.array([40.0, 30.0])
INSIDE = np.s_[40:-40, 40:-40]


@dataclass(frozen=True)
class Network:
    store: Store
    urls: dict[str, str]
    """Product of S1A_IW with each reference."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, make_registration: MakeRegistration) -> Network:
    """Two scenes against three references; a fourth reference whose pair is wrong; a field on the first."""
    folder = tmp_path_factory.mktemp("network")
    store = open_store(str(folder / "products"))
    rasters = str(write_waves(folder / "s2.tif")), str(write_waves(folder / "s1.tif", shift_px=SHIFT_PX))
    urls = {}
    for reference, at in (REFERENCES | {"S2B_3": (0.0, 0.0)}).items():
        for scene, position in (("S1A_IW", POSITION_M), ("S1B_IW", np.zeros(2))):
            offset = position - np.array(at)
            if (reference, scene) == ("S2B_3", "S1A_IW"):
                offset = offset + WRONG_M
            field = bent_field() if (reference, scene) == ("S2B_0", "S1A_IW") else None
            made = registration_of(make_registration, reference, scene, offset, rasters)
            if field is not None:
                shifted = replace(field, dx_m=field.dx_m - at[0], dy_m=field.dy_m - at[1])
                report = FieldReport(offered=True, reason=FieldReason.BETTER, used=100, coverage=1.0)
                made = replace(made, field=FieldFit(shifted, report, np.ones(len(made.points), bool)))
            url = write_products(store, made, thumbnails=None)
            if scene == "S1A_IW":
                urls[reference] = url
    update_index(store)
    list(adjust_archive(store, AdjustOptions()))
    return Network(store, urls)


def registration_of(
    make: MakeRegistration,
    reference: str,
    scene: str,
    offset_m: NDArray[np.float64],
    rasters: tuple[str, str],
) -> Registration:
    made = make(
        affine=(1.0, 0.0, -float(offset_m[0]), 0.0, 1.0, -float(offset_m[1])),
        grid=GeoBox(SHAPE, GROUND, UTM),
        secondary_hrefs=(rasters[1],),
        secondary_id=scene,
    )
    return replace(
        made,
        reference_hrefs=(rasters[0],),
        reference_id=reference,
        pair_key=pair_key(reference, scene),
    )


def crosstie(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def pixels(path: Path) -> NDArray[np.float64]:
    with rasterio.open(path) as raster:
        found: NDArray[np.float64] = raster.read(1)
        return found


def truth(bend_px: NDArray[np.float64] | float = 0.0) -> NDArray[np.float64]:
    row, col = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]] + 0.5
    return waves(col + bend_px, row)


def bump() -> NDArray[np.float64]:
    row, col = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]] + 0.5
    return BEND_PX * np.sin(np.pi * col / 16 / 21) * np.sin(np.pi * row / 16 / 20)


@pytest.mark.parametrize("reference", [*REFERENCES, "S2B_3"])
def test_a_scene_lies_in_one_place_whatever_it_is_paired_with(
    network: Network, tmp_path: Path, reference: str
) -> None:
    """Also where the pair is wrong: it has no say then."""
    out = tmp_path / "aligned.tif"
    done = crosstie("apply", network.urls[reference], "--adjusted", "--model", "affine", "--out", out)
    assert done.exit_code == 0, done.output
    assert np.abs(pixels(out) - truth())[INSIDE].max() < 8
    alone = tmp_path / "alone.tif"
    assert crosstie("apply", network.urls[reference], "--model", "affine", "--out", alone).exit_code == 0
    if reference != "S2B_2":
        assert np.abs(pixels(alone) - truth())[INSIDE].max() > 80


def test_the_field_keeps_its_shape_and_is_moved_as_a_whole(network: Network, tmp_path: Path) -> None:
    out = tmp_path / "aligned.tif"
    assert crosstie("apply", network.urls["S2B_0"], "--adjusted", "--out", out).exit_code == 0
    assert np.abs(pixels(out) - truth(bump()))[INSIDE].max() < 8


def test_the_item_says_which_position_was_used(network: Network, tmp_path: Path) -> None:
    assert crosstie("apply", network.urls["S2B_1"], "--adjusted", "--out", tmp_path / "a.tif").exit_code == 0
    said = json.loads((tmp_path / "a.json").read_text())["properties"]
    assert abs(said["crosstie:dx_m"] - POSITION_M[0]) < 0.1
    assert abs(said["crosstie:dy_m"] - POSITION_M[1]) < 0.1
    assert "mean of the 3 reference scenes" in said["crosstie:datum"]


def test_all_pairs_of_an_archive_are_stacked_on_one_another(network: Network, tmp_path: Path) -> None:
    done = crosstie("apply", network.store.url, "--all", "--adjusted", "--model", "affine", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    stack = [pixels(path) for path in sorted(tmp_path.glob("S2B_*S1A_IW/*/aligned.tif"))]
    assert len(stack) == 4
    assert max(np.abs(one - stack[0])[INSIDE].max() for one in stack) < 8
    again = crosstie(
        "apply", network.store.url, "--all", "--adjusted", "--model", "affine", "--out", tmp_path
    )
    assert "8 of them were there already" in again.output


def test_a_stack_has_one_file_a_scene_and_leaves_what_is_there(network: Network, tmp_path: Path) -> None:
    stack = str(tmp_path / "stack")
    files = list(stack_scenes(network.store, stack, load_settings()))
    assert all(isinstance(file, AppliedFile) and file.is_new for file in files)
    written = {path.name: path for path in Path(stack).rglob("*.tif")}
    assert set(written) == {"S1A_IW.tif", "S1B_IW.tif"}
    # By a pair that the network uses, so never by the wrong one.
    assert np.abs(pixels(written["S1A_IW.tif"]) - truth(bump()))[INSIDE].max() < 8
    before = {path: path.read_bytes() for path in Path(stack).rglob("*.*") if path.is_file()}
    again = list(stack_scenes(network.store, stack, load_settings()))
    assert [isinstance(file, AppliedFile) and file.is_new for file in again] == [False, False]
    assert {path: path.read_bytes() for path in Path(stack).rglob("*.*") if path.is_file()} == before
    with pytest.raises(BadInputError, match="product root"):
        list(stack_scenes(network.store, f"{network.store.url}/stack", load_settings()))


def test_a_stack_takes_no_pair_of_one_sensor_and_no_scene_that_is_not_placed(
    tmp_path: Path, make_registration: MakeRegistration
) -> None:
    store = open_store(str(tmp_path / "products"))
    rasters = str(write_waves(tmp_path / "s2.tif")), str(write_waves(tmp_path / "s1.tif"))
    pairs = [("S1A_0", "S1A_1"), ("S1A_0", "S2B_0"), ("S1A_1", "S2B_0"), ("S2B_0", "S1A_2")]
    for reference, scene in pairs:
        made = registration_of(make_registration, reference, scene, np.zeros(2), rasters)
        write_products(store, made, thumbnails=None)
    list(adjust_archive(store, AdjustOptions()))
    files = list(stack_scenes(store, str(tmp_path / "stack"), load_settings()))
    assert len(files) == 1
    assert [path.name for path in (tmp_path / "stack").rglob("*.tif")] == ["S2B_0.tif"]


def test_a_scene_without_a_position_that_pairs_control_is_refused(
    network: Network, tmp_path: Path, make_registration: MakeRegistration
) -> None:
    store = open_store(str(tmp_path / "products"))
    rasters = str(write_waves(tmp_path / "s2.tif")), str(write_waves(tmp_path / "s1.tif"))
    url = write_products(
        store, registration_of(make_registration, "S2B_0", "S1A_IW", POSITION_M, rasters), thumbnails=None
    )
    refused = crosstie("apply", url, "--adjusted", "--out", tmp_path / "a.tif")
    assert (refused.exit_code, "crosstie adjust" in refused.output) == (2, True)
    list(adjust_archive(store, AdjustOptions()))
    refused = crosstie("apply", url, "--adjusted", "--out", tmp_path / "a.tif")
    assert (refused.exit_code, "unchecked" in refused.output) == (2, True)
    assert not (tmp_path / "a.tif").exists()
