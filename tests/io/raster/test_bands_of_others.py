"""Files whose bands are not what their number says: masks, angles, ratios, empty polarisations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from crosstie.errors import BadInputError
from crosstie.io.raster import open_source, read_plane
from crosstie.types import Kind

SIZE = 96
RNG = np.random.default_rng(3)
VH = RNG.gamma(4, 0.01, (SIZE, SIZE)).astype(np.float32)
VV = RNG.gamma(4, 0.05, (SIZE, SIZE)).astype(np.float32)
ANGLE = RNG.normal(38, 3, (SIZE, SIZE)).astype(np.float32)
ONE, ZERO, NONE = np.ones_like(VH), np.zeros_like(VH), np.full_like(VH, np.nan)


def written(path: Path, *bands: np.ndarray, labels: tuple[str, ...] = ()) -> Path:
    profile = {"driver": "GTiff", "crs": "EPSG:32632", "transform": Affine(10, 0, 600_000, 0, -10, 5_300_000)}
    shape = {"count": len(bands), "height": SIZE, "width": SIZE, "dtype": bands[0].dtype}
    with rasterio.open(path, "w", **profile, **shape) as raster:
        raster.write(np.stack(bands))
        for n, label in enumerate(labels, start=1):
            raster.set_band_description(n, label)
    return path


@pytest.mark.parametrize(
    ("name", "bands", "labels", "chosen"),
    [
        ("s1.tif", (VV, ONE), ("VV", "mask"), (1,)),
        ("s1.tif", (VV, ZERO), ("VV", "layover_shadow_mask"), (1,)),
        ("s1.tif", (VV, ZERO), (), (1,)),
        ("s1.tif", (VV, ANGLE), ("VV", "local_incidence_angle"), (1,)),
        ("s1.tif", (ANGLE, VH), ("angle", "VH"), (2,)),
        ("x.tif", (VV, VH, ANGLE, ONE, ONE), ("vv", "vh", "angle", "area", "mask"), (1, 2)),
        ("x.tif", (ANGLE, ONE, VH), ("angle", "vh_mask", "VH"), (3,)),
        ("x.tif", (VV / VH, VV, VH), ("VV/VH", "VV", "VH"), (2, 3)),
        ("s1_vv_vh_ratio.tif", (VV, VH, VV / VH), (), (1, 2)),
        ("x.tif", (NONE, VH), ("VV", "VH"), (2,)),
        ("x.tif", (ZERO, VH), ("VV", "VH"), (2,)),
        ("s1.tif", (VV, NONE), (), (1,)),
        ("x.tif", (VV, VH), ("Sigma0_VV", "Sigma0_VH"), (1, 2)),
        # words written together
        ("s1.tif", (ANGLE, VV), ("localIncidenceAngle", "Sigma0"), (2,)),
        ("x.tif", (VV, ANGLE), ("Sigma0VV", "incidenceAngleFromEllipsoid"), (1,)),
        ("x.tif", (ONE, VV, VH), ("layoverShadowMask", "gamma0VV", "gamma0VH"), (2, 3)),
        ("x.tif", (VV / VH, VH), ("ratioVV_VH", "intensityVH"), (2,)),
        # what is measured of an echo and is none
        ("x.tif", (ANGLE, VV), ("VV_coherence", "VV"), (2,)),
        ("x.tif", (VV, ANGLE, VH), ("vv", "phase_vv", "vh"), (1, 3)),
        ("s1.tif", (ANGLE, VH), ("number_of_looks", "gamma0"), (2,)),
    ],
)
def test_the_polarisations_are_read_and_nothing_else(
    name: str, bands: tuple[np.ndarray, ...], labels: tuple[str, ...], chosen: tuple[int, ...], tmp_path: Path
):
    source = open_source(written(tmp_path / name, *bands, labels=labels))
    assert (source.kind, source.bands) == (Kind.SAR, chosen)
    plane = read_plane(source, source.geobox)
    assert np.isfinite(plane).mean() > 0.99
    expected = np.mean([10 * np.log10(bands[n - 1]) for n in chosen], axis=0)
    np.testing.assert_allclose(plane, expected, rtol=0, atol=1e-3)


def test_of_two_files_the_empty_one_is_left_out(tmp_path: Path):
    empty, full = written(tmp_path / "s1_vv.tif", NONE), written(tmp_path / "s1_vh.tif", VH)
    source = open_source([empty, full])
    assert source.hrefs == (str(full),)


def test_an_empty_byte_band_beside_a_full_one_is_left_out(tmp_path: Path):
    grey = np.clip(VH * 2000, 1, 255).astype(np.uint8)
    source = open_source(written(tmp_path / "s1.tif", np.zeros_like(grey), grey))
    assert (source.kind, source.bands, source.scale) == (Kind.SAR, (2,), 1.0)


def test_a_picture_of_three_bands_named_as_radar_is_radar(tmp_path: Path):
    drawn = [np.clip(band * 500, 1, 255).astype(np.uint8) for band in (VV, VH, VV / VH / 100)]
    assert open_source(written(tmp_path / "s1_composite.tif", *drawn)).kind is Kind.SAR
    assert open_source(written(tmp_path / "s2_composite.tif", *drawn)).kind is Kind.OPTICAL
    for name in ("s1_rgb.tif", "rgb_vv_vh.tif", "S1A_visual.tif", "s1_vv_b1.tif"):
        assert open_source(written(tmp_path / name, *drawn)).kind is Kind.SAR, name
    for name in ("rgb.tif", "T32UPU_B04.tif", "scene_visual.tif"):
        assert open_source(written(tmp_path / name, *drawn)).kind is Kind.OPTICAL, name
    assert open_source(written(tmp_path / "composite.tif", *drawn)).kind is Kind.OPTICAL


@pytest.mark.parametrize("name", ["s1_s2_stack.tif", "S2A_vs_S1B.tif", "tci_vv.tif"])
def test_a_name_of_both_sensors_is_asked_about(name: str, tmp_path: Path):
    drawn = np.full((3, 64, 64), 90, np.uint8)
    path = written(tmp_path / name, *drawn)
    with pytest.raises(BadInputError, match="secondary-kind"):
        open_source(path)
    assert open_source(path, kind=Kind.SAR).kind is Kind.SAR
    labelled = written(tmp_path / name, *drawn[:2], labels=("VV", "VH"))
    assert open_source(labelled).kind is Kind.SAR


def test_labels_outweigh_names_and_one_that_contradicts_itself_is_asked_about(tmp_path: Path):
    assert open_source(written(tmp_path / "s2_match.tif", VV, VH, labels=("VV", "VH"))).kind is Kind.SAR
    assert open_source(written(tmp_path / "s1_match.tif", VV, labels=("B04",))).kind is Kind.OPTICAL
    stack = written(tmp_path / "stack.tif", VV, VH, ONE, labels=("VV", "VH", "B04"))
    with pytest.raises(
        BadInputError, match=r"labelled as SAR and as optical \(VV, VH, B04\).*--secondary-kind"
    ):
        open_source(stack)
    assert open_source(stack, kind=Kind.SAR).bands == (1, 2)


@pytest.mark.parametrize("labels", [("redEdge1", "B8A"), ("T32VVH_B04", "T32VVH_B08"), ("B04", "B8A")])
def test_labels_of_colours_name_no_polarisation(labels: tuple[str, ...], tmp_path: Path):
    assert open_source(written(tmp_path / "x.tif", VV, VH, labels=labels)).kind is Kind.OPTICAL
