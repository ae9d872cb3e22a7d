"""Texas: what `crosstie apply` makes of a real scene lies on the reference, and all products agree where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy.ndimage import gaussian_filter

import crosstie
from crosstie.flows.registration.load_matcher import load_matcher
from crosstie.types import Kind

pytestmark = [pytest.mark.real, pytest.mark.slow]

SETTINGS = crosstie.load_settings(options={"compute.device": "cpu"})
POINTS = 50


@pytest.fixture(scope="module")
def texas(real_data: Path) -> Path:
    return real_data / "scenes" / "T14RNT-2048"


@pytest.fixture(scope="module")
def product(texas: Path, tmp_path_factory: pytest.TempPathFactory) -> crosstie.Product:
    out = tmp_path_factory.mktemp("products")
    done = crosstie.register(texas / "s2_tci.tif", texas / "s1_vh.tif", out=out, settings=SETTINGS)
    assert done.products is not None
    return crosstie.open(done.products)


@pytest.fixture(scope="module")
def aligned(product: crosstie.Product, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """COGs by the field and by the affine."""
    folder = tmp_path_factory.mktemp("aligned")
    for model in ("field", "affine"):
        crosstie.apply(product, folder / f"{model}.tif", model=model)
    return {model: folder / f"{model}.tif" for model in ("field", "affine")}


def test_the_aligned_scene_lies_on_the_reference(texas: Path, aligned: dict[str, Path]) -> None:
    again = crosstie.register(
        texas / "s2_tci.tif",
        aligned["field"],
        secondary_kind=Kind.SAR,
        settings=SETTINGS,
        matcher=load_matcher(SETTINGS),
    )
    pixel_m = 10.0
    estimate = again.registration.estimate
    assert np.hypot(*estimate.median_offset_m) / pixel_m <= 0.15
    assert estimate.error_before.rmse_m / pixel_m <= 0.7


def test_it_shows_what_the_hand_made_truth_shows(texas: Path, aligned: dict[str, Path]) -> None:
    """Both are resampled once, with other kernels: compared at a scale of a pixel, speckle apart."""
    truth = smooth(texas / "s1_vh_refined.tif")
    delivered, affine, field = (
        np.corrcoef(smooth(path).ravel(), truth.ravel())[0, 1]
        for path in (texas / "s1_vh.tif", aligned["affine"], aligned["field"])
    )
    assert field >= 0.96
    assert delivered < affine < field


def smooth(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return np.asarray(gaussian_filter(raster.read(1).astype(float), 1)[40:-40, 40:-40])


def test_the_aligned_scene_is_a_cog_on_the_grid_of_the_reference(
    texas: Path, aligned: dict[str, Path]
) -> None:
    with rasterio.open(aligned["field"]) as raster, rasterio.open(texas / "s2_tci.tif") as reference:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.overviews(1)
        assert (raster.shape, raster.transform, raster.crs) == (
            reference.shape,
            reference.transform,
            reference.crs,
        )


@pytest.mark.parametrize("model", ["affine", "field"])
def test_vrt_field_and_pixels_put_points_at_the_same_place(
    texas: Path, product: crosstie.Product, aligned: dict[str, Path], tmp_path: Path, model: str
) -> None:
    """A raster of its own columns, then of its own rows, aligned: each pixel tells where it came from."""
    with rasterio.open(texas / "s1_vh.tif") as raster:
        profile, to_map = raster.profile | {"dtype": "float64", "nodata": None}, raster.transform
        shape = raster.shape
    row, col = np.mgrid[0 : shape[0], 0 : shape[1]] + 0.5
    came_from = []
    for name, place in (("col", col), ("row", row)):
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as raster:
            raster.write(place, 1)
        (file,) = crosstie.apply(
            product, tmp_path / f"{name}-aligned.tif", tmp_path / f"{name}.tif", model=model
        )
        with rasterio.open(file.url.removeprefix("file://")) as raster:
            came_from.append(raster.read(1))
            on = raster.transform
    at = np.random.default_rng(0).integers(100, np.array(shape) - 100, (POINTS, 2))
    pixels = np.array([[plane[r, c] for plane in came_from] for r, c in at])
    x, y = np.array([on @ (c + 0.5, r + 0.5) for r, c in at]).T
    if model == "affine":
        folder = Path(product.url.removeprefix("file://"))
        with rasterio.open(folder / "corrected.vrt") as vrt:
            said = np.array([~vrt.transform @ place for place in zip(x, y, strict=True)])
    else:
        field = product.displacement
        assert field is not None
        offset_m, _ = field.at(np.column_stack([x, y]))  # bilinear, as most readers do
        said = np.array([~to_map @ tuple(place) for place in np.column_stack([x, y]) + offset_m])
    assert np.hypot(*(pixels - said).T).max() <= 0.05
