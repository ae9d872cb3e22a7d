"""The matcher on images whose true offset is known because the test moved them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import fourier_shift, gaussian_filter

from crosstie.matcher.matching import Matcher, measure_similarity
from crosstie.matcher.similarity import Similarity
from crosstie.types import Kind

SIDE, SIZE, SEARCH = 448, 128, 32


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return Matcher.load(device="cpu")


@pytest.fixture(scope="module")
def land() -> np.ndarray:
    rng = np.random.default_rng(0)
    field = (
        gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2) * 20
        + gaussian_filter(rng.normal(size=(SIDE, SIDE)), 9) * 60
    )
    return field.astype(np.float32)


def offsets(matcher: Matcher, reference: np.ndarray, secondary: np.ndarray) -> np.ndarray:
    start = np.array([112, 160, 208])
    matches = matcher.match(
        reference, secondary, start, start[::-1].copy(),
        size_px=SIZE, search_px=SEARCH, reference_kind=Kind.SAR, secondary_kind=Kind.SAR,
    )  # fmt: skip
    assert (matches.confidence > 0.5).all()
    return matches.offset_px


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.0, -5.0), (-11.37, 8.21), (20.5, 0.25)])
def test_a_known_shift_comes_back_and_flips_its_sign_when_the_images_swap(
    matcher: Matcher, land: np.ndarray, shift: tuple[float, float]
) -> None:
    dx, dy = shift
    moved = np.fft.ifft2(fourier_shift(np.fft.fft2(land), (dy, dx))).real.astype(np.float32)
    np.testing.assert_allclose(offsets(matcher, land, moved), [shift] * 3, rtol=0, atol=0.1)
    np.testing.assert_allclose(offsets(matcher, moved, land), [(-dx, -dy)] * 3, rtol=0, atol=0.1)


def test_gain_and_offset_move_nothing(matcher: Matcher, land: np.ndarray) -> None:
    moved = np.roll(land, (4, -7), (0, 1))
    np.testing.assert_allclose(
        offsets(matcher, land, 40 * moved - 300), offsets(matcher, land, moved), rtol=0, atol=0.01
    )


def test_an_offset_does_not_depend_on_where_the_array_begins(matcher: Matcher, land: np.ndarray) -> None:
    """Whole-pixel re-cutting, odd ones too: features see averages, not a lattice."""
    moved = np.roll(land, (4, -7), (0, 1))
    start = np.array([200])

    def measure(origin: int) -> np.ndarray:
        return matcher.match(
            land[origin:, origin:], moved[origin:, origin:], start - origin, start - origin,
            size_px=SIZE, search_px=SEARCH, reference_kind=Kind.SAR, secondary_kind=Kind.SAR,
        ).offset_px  # fmt: skip

    np.testing.assert_allclose(measure(16), measure(0), rtol=0, atol=1e-3)  # the same grid of every level
    np.testing.assert_allclose(measure(8), measure(0), rtol=0, atol=0.02)
    np.testing.assert_allclose(measure(37), measure(0), rtol=0, atol=0.1)


def test_a_tile_measured_alone_is_measured_as_among_others(matcher: Matcher, land: np.ndarray) -> None:
    """Features are computed round the tiles alone: as far as the network sees."""
    moved = np.roll(land, (4, -7), (0, 1))

    def measure(starts: list[int]) -> np.ndarray:
        start = np.array(starts)
        return matcher.match(
            land, moved, start, start,
            size_px=SIZE, search_px=SEARCH, reference_kind=Kind.SAR, secondary_kind=Kind.SAR,
        ).offset_px  # fmt: skip

    for start in (40, 288):
        together = measure([40, 288])[[40, 288].index(start)]
        np.testing.assert_allclose(measure([start]), [together], rtol=0, atol=1e-4)


def test_a_hole_under_one_tile_does_not_touch_another(matcher: Matcher, land: np.ndarray) -> None:
    moved = np.roll(land, (4, -7), (0, 1))
    holed = moved.copy()
    holed[350:, 350:] = np.nan  # under the window of the second tile, 45 px and the network's sight away
    starts = np.array([48, 288])

    def measure(chosen: list[int]) -> Similarity:
        features = [matcher.features(plane, Kind.SAR) for plane in (land, holed)]
        rows = starts[chosen].tolist()
        return measure_similarity(*features, rows, rows, size_px=SIZE, search_px=SEARCH)

    together, alone = measure([0, 1]), measure([0])
    for level in ("deep", "shallow"):
        torch.testing.assert_close(getattr(together, level)[:1], getattr(alone, level), rtol=0, atol=1e-6)


@pytest.mark.parametrize("search_px", [72, 73, 79])
def test_the_deep_similarity_keeps_its_cells_where_the_image_ends(
    matcher: Matcher, land: np.ndarray, search_px: int
) -> None:
    """A search that is no multiple of 8 px, and images that hold the template and it exactly."""
    moved = np.roll(land, (40, -56), (0, 1))
    features = [matcher.features(plane[:416, :416], Kind.SAR) for plane in (land, moved)]
    found = measure_similarity(
        *features, [search_px], [search_px], size_px=416 - 2 * search_px, search_px=search_px
    )
    reach = -(-search_px // 8)
    assert found.deep.shape == (1, 2 * reach + 1, 2 * reach + 1)
    row, col = divmod(int(found.deep.argmax()), 2 * reach + 1)
    assert (8 * (col - reach), 8 * (row - reach)) == (-56, 40)


def test_no_tiles_are_no_matches(matcher: Matcher, land: np.ndarray) -> None:
    none = np.array([], np.int64)
    matches = matcher.match(
        land, land, none, none,
        size_px=SIZE, search_px=SEARCH, reference_kind=Kind.SAR, secondary_kind=Kind.SAR,
    )  # fmt: skip
    assert matches.offset_px.shape == (0, 2)


def test_noise_is_not_believed(matcher: Matcher) -> None:
    rng = np.random.default_rng(9)
    a, b = (rng.normal(size=(SIDE, SIDE)).astype(np.float32) for _ in range(2))
    start = np.tile([112, 160, 208], 3)
    matches = matcher.match(
        a, b, start, np.repeat([112, 160, 208], 3),
        size_px=SIZE, search_px=SEARCH, reference_kind=Kind.OPTICAL, secondary_kind=Kind.SAR,
    )  # fmt: skip
    assert matches.confidence.max() < 0.5


def test_no_valid_pixel_gives_no_confidence(matcher: Matcher, land: np.ndarray) -> None:
    start = np.array([112])
    matches = matcher.match(
        land, np.full_like(land, np.nan), start, start,
        size_px=SIZE, search_px=SEARCH, reference_kind=Kind.SAR, secondary_kind=Kind.SAR,
    )  # fmt: skip
    assert np.isfinite(matches.offset_px).all()
    assert matches.confidence[0] < 0.2


def test_tiles_without_context_are_refused(matcher: Matcher, land: np.ndarray) -> None:
    with pytest.raises(ValueError, match="32 px of context"):
        matcher.match(
            land, land, np.array([0]), np.array([100]),
            size_px=SIZE, search_px=SEARCH, reference_kind=Kind.SAR, secondary_kind=Kind.SAR,
        )  # fmt: skip


def test_offset_probability_peaks_at_the_shift(matcher: Matcher, land: np.ndarray) -> None:
    moved = np.roll(land, (41, -58), (0, 1))
    probability = matcher.offset_probability(
        land[:400, :400], moved[:400, :400], search_px=72, reference_kind=Kind.SAR, secondary_kind=Kind.SAR
    )
    assert probability.sum() == pytest.approx(1, abs=1e-4)
    row, col = np.unravel_index(int(probability.argmax()), probability.shape)
    assert (col - 72, row - 72) == (-58, 41)
