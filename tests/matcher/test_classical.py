"""The baselines of the benchmark on images whose offset is known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.ndimage import fourier_shift, gaussian_filter

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "matcher" / "classical.py"

METHODS = ("mi", "mi_local", "zncc", "phase")

SIZE, RADIUS = 96, 12

SHIFT = (3.3, -5.6)


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("crosstie_benchmark_classical", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module


classical = load()


@pytest.fixture(scope="module")
def land() -> np.ndarray:
    """Smooth structure of a few pixels' size, 0..1, band-limited: it can be shifted by parts of a pixel."""
    rng = np.random.default_rng(5)
    field = gaussian_filter(rng.standard_normal((192, 192)), 2.5, mode="wrap")
    return ((field - field.min()) / np.ptp(field)).astype(np.float32)


def moved(image: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """The image with its content moved by (dx, dy)."""
    return np.fft.ifft2(fourier_shift(np.fft.fft2(image), shift[::-1])).real.astype(np.float32)


def measure(method: str, reference: np.ndarray, secondary: np.ndarray) -> np.ndarray:
    start = (192 - SIZE) // 2
    tile = reference[start : start + SIZE, start : start + SIZE]
    wide = slice(start - RADIUS, start + SIZE + RADIUS)
    return np.array(classical.METHODS[method](tile, secondary[wide, wide]).offset_px)


@pytest.mark.parametrize("method", METHODS)
def test_a_known_sub_pixel_shift_comes_back_and_swapping_flips_its_sign(
    land: np.ndarray, method: str
) -> None:
    there = measure(method, land, moved(land, SHIFT))
    back = measure(method, moved(land, SHIFT), land)
    # a parabola through samples of a peak that is none: a tenth of a pixel, a quarter for the whitened peak
    atol = 0.25 if method == "phase" else 0.1
    np.testing.assert_allclose(there, SHIFT, rtol=0, atol=atol)
    np.testing.assert_allclose(back, np.negative(SHIFT), rtol=0, atol=atol)


@pytest.mark.parametrize("whole", [(0, 0), (-11, 4), (7, 11)])
@pytest.mark.parametrize("method", METHODS)
def test_a_whole_shift_is_found_anywhere_in_the_search(
    land: np.ndarray, method: str, whole: tuple[int, int]
) -> None:
    found = measure(method, land, np.roll(land, whole[::-1], axis=(0, 1)))
    np.testing.assert_allclose(found, whole, rtol=0, atol=0.1)


@pytest.mark.parametrize("change", [lambda x: np.exp(3 * x), lambda x: 1 - x, lambda x: -(x**3)])
def test_mutual_information_is_blind_to_monotone_and_inverting_changes(land, change) -> None:
    secondary = moved(land, SHIFT)
    plain = measure("mi", land, secondary)
    # smoothing and rounding to levels act on other values: not exactly the same histogram
    np.testing.assert_allclose(measure("mi", land, change(secondary)), plain, rtol=0, atol=0.05)


def test_mutual_information_finds_what_correlation_cannot(land: np.ndarray) -> None:
    folded = np.abs(land - np.median(land))  # neither brighter nor darker: dark at the middle grey only
    np.testing.assert_allclose(measure("mi", land, moved(folded, SHIFT)), SHIFT, rtol=0, atol=0.2)


def test_unrelated_images_share_less_information(land: np.ndarray) -> None:
    tile, window = land[60:124, 60:124], land[50:134, 50:134]
    noise = np.random.default_rng(1).random(window.shape).astype(np.float32)
    assert (
        classical.mutual_information(tile, window).score > 3 * classical.mutual_information(tile, noise).score
    )


def test_shapes_that_do_not_fit_are_refused(land: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot be searched"):
        classical.mutual_information(land[:64, :64], land[:81, :81])
