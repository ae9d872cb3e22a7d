from __future__ import annotations

import numpy as np
import pytest

from crosstie.matcher.normalise import AROUND_PX, CLIP, WINDOW_PX, fill_holes, normalise


@pytest.fixture
def land() -> np.ndarray:
    rng = np.random.default_rng(5)
    return (rng.normal(0, 3, (200, 220)) + np.linspace(-20, 5, 220)).astype(np.float32)


def test_gain_and_offset_change_nothing(land: np.ndarray) -> None:
    plain, _ = normalise(land)
    scaled, _ = normalise(250 * land + 4000)
    np.testing.assert_allclose(scaled, plain, rtol=0, atol=2e-3)  # the floor of the deviation


def test_a_pixel_does_not_depend_on_where_the_array_is_cut(land: np.ndarray) -> None:
    half = WINDOW_PX // 2
    whole, _ = normalise(land)
    part, _ = normalise(land[20:180, 30:200])
    inside = (slice(half, -half), slice(half, -half))
    np.testing.assert_allclose(part[inside], whole[20:180, 30:200][inside], rtol=0, atol=1e-4)


def test_invalid_pixels_are_zero_and_do_not_leak(land: np.ndarray) -> None:
    holed = land.copy()
    holed[60:90, 60:90] = np.nan
    out, valid = normalise(holed)
    assert not valid[60:90, 60:90].any()
    assert (out[60:90, 60:90] == 0).all()
    assert np.isfinite(out).all()
    # Next to the hole the statistics come from the valid side alone: same world, same numbers.
    plain, _ = normalise(land)
    assert np.abs(out - plain)[valid].mean() < 0.05


def test_nothing_valid_gives_zeros() -> None:
    out, valid = normalise(np.full((70, 70), np.nan, np.float32))
    assert not valid.any()
    assert (out == 0).all()


def test_a_corner_reflector_is_clipped(land: np.ndarray) -> None:
    land[100, 100] = 1e6
    assert normalise(land)[0].max() <= CLIP


@pytest.mark.parametrize("wild", [1e10, 1e20, 9.96921e36, -3e38, np.inf])
def test_a_value_beyond_any_unit_takes_nothing_from_the_rest(land: np.ndarray, wild: float) -> None:
    plain, _ = normalise(land)
    land[100, 100] = wild
    with np.errstate(all="raise"):
        out, valid = normalise(land)
    assert np.count_nonzero(~valid) == 1
    np.testing.assert_allclose(out[valid], plain[valid], rtol=0, atol=0.02)


def test_fine_holes_are_filled_from_around_and_nothing_valid_changes(land: np.ndarray) -> None:
    rng = np.random.default_rng(6)
    smooth = np.add.outer(np.linspace(0, 1, 200), np.linspace(0, 2, 220)).astype(np.float32)
    valid = rng.random(smooth.shape) > 0.5
    filled = fill_holes(np.where(valid, smooth, 0).astype(np.float32), valid)
    np.testing.assert_array_equal(filled[valid], smooth[valid])
    assert np.abs(filled - smooth)[~valid].mean() < 0.01
    assert fill_holes(land, np.ones(land.shape, bool)) is land


def test_a_large_hole_stays_empty_in_its_middle(land: np.ndarray) -> None:
    valid = np.ones(land.shape, bool)
    valid[50:150, 50:150] = False
    filled = fill_holes(np.where(valid, land, 0).astype(np.float32), valid)
    reach = max(AROUND_PX) // 2
    assert (filled[50 + reach : 150 - reach, 50 + reach : 150 - reach] == 0).all()
