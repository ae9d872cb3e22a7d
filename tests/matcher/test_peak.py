from __future__ import annotations

import pytest
import torch

from crosstie.matcher.peak import Peaks, find_peaks
from crosstie.matcher.similarity import Similarity, spread
from crosstie.matcher.training.learner import gaussian_target

NO_DEEP = torch.zeros(1, 9, 9)


def peaks_of(surface: torch.Tensor, *, scale: float = 1.0, deep: torch.Tensor = NO_DEEP) -> Peaks:
    return find_peaks(Similarity(surface, deep), scale * surface + spread(deep, 32))


@pytest.mark.parametrize("offset", [(0.0, 0.0), (3.25, -7.6), (-12.49, 0.5), (31.0, -31.0)])
def test_vertex_of_a_gaussian_is_its_centre(offset: tuple[float, float]) -> None:
    """What the network is trained to give comes back without bias towards whole pixels."""
    surface = torch.log(gaussian_target(torch.tensor([offset]), 32, 0.8).clamp_min(1e-30))
    peaks = peaks_of(surface)
    torch.testing.assert_close(peaks.offset_px[0], torch.tensor(offset), rtol=0, atol=1e-3)


def test_spread_is_that_of_the_gaussian() -> None:
    sigma = 0.6  # narrow enough that all of it lies within the radius that is summed
    surface = torch.log(gaussian_target(torch.tensor([[0.0, 0.0]]), 32, sigma).clamp_min(1e-30))
    assert float(peaks_of(surface).spread_px) == pytest.approx(sigma, abs=0.03)


def test_lead_is_the_distance_to_the_second_peak_and_not_to_a_neighbour() -> None:
    surface = torch.zeros(1, 65, 65)
    surface[0, 32, 32], surface[0, 32, 33], surface[0, 50, 10] = 0.9, 0.85, 0.4
    assert peaks_of(surface, scale=10).evidence[0, 1].item() == pytest.approx(5.0, abs=1e-5)


def test_a_maximum_on_the_rim_stays_inside_and_finite() -> None:
    surface = torch.zeros(1, 65, 65)
    surface[0, 0, 64] = 1.0
    offset = peaks_of(surface, scale=10).offset_px[0]
    assert torch.isfinite(offset).all()
    assert offset.abs().max() <= 32


def test_all_work_is_done_on_the_device_of_the_surface() -> None:
    """The meta device refuses to mix with the CPU, as a GPU does."""
    peaks = peaks_of(torch.zeros(2, 65, 65, device="meta"), deep=torch.zeros(2, 9, 9, device="meta"))
    assert {t.device.type for t in (peaks.offset_px, peaks.spread_px, peaks.evidence)} == {"meta"}


def test_the_deep_similarity_chooses_among_look_alikes_and_leaves_the_digits_alone() -> None:
    offsets = torch.tensor([[3.25, -7.6]]), torch.tensor([[-20.0, 16.0]])
    twins = sum(gaussian_target(offset, 32, 0.8) for offset in offsets)
    assert isinstance(twins, torch.Tensor)
    surface = torch.log(twins.clamp_min(1e-30))
    deep = torch.zeros(1, 9, 9)
    deep[0, 3, 4] = 6.0  # the cell at (0, -8) px, beside the first twin
    peaks = peaks_of(surface, deep=deep)
    torch.testing.assert_close(peaks.offset_px, offsets[0], rtol=0, atol=1e-3)
    deep = torch.zeros(1, 9, 9)
    deep[0, 6, 1] = 6.0  # the cell at (-24, 16) px
    torch.testing.assert_close(peaks_of(surface, deep=deep).offset_px, offsets[1], rtol=0, atol=1e-3)
    assert float(peaks_of(surface, deep=deep).evidence[0, 2]) < 0  # the two levels differ by half a cell
