from __future__ import annotations

import pytest
import torch

from crosstie.matcher.peak import find_peaks
from crosstie.matcher.training import gaussian_target


@pytest.mark.parametrize("offset", [(0.0, 0.0), (3.25, -7.6), (-12.49, 0.5), (31.0, -31.0)])
def test_vertex_of_a_gaussian_is_its_centre(offset: tuple[float, float]) -> None:
    """What the network is trained to give comes back without bias towards whole pixels."""
    surface = torch.log(gaussian_target(torch.tensor([offset]), 32, 0.8).clamp_min(1e-30))
    peaks = find_peaks(surface, torch.tensor(1.0))
    torch.testing.assert_close(peaks.offset_px[0], torch.tensor(offset), rtol=0, atol=1e-3)


def test_spread_is_that_of_the_gaussian() -> None:
    sigma = 0.6  # narrow enough that all of it lies within the radius that is summed
    surface = torch.log(gaussian_target(torch.tensor([[0.0, 0.0]]), 32, sigma).clamp_min(1e-30))
    assert float(find_peaks(surface, torch.tensor(1.0)).spread_px) == pytest.approx(sigma, abs=0.03)


def test_lead_is_the_distance_to_the_second_peak_and_not_to_a_neighbour() -> None:
    surface = torch.zeros(1, 65, 65)
    surface[0, 32, 32], surface[0, 32, 33], surface[0, 50, 10] = 0.9, 0.85, 0.4
    peak, lead, _, logit_lead = find_peaks(surface, torch.tensor(10.0)).evidence[0].tolist()
    assert (peak, lead, logit_lead) == pytest.approx((0.9, 0.5, 5.0), abs=1e-5)


def test_a_maximum_on_the_rim_stays_inside_and_finite() -> None:
    surface = torch.zeros(1, 65, 65)
    surface[0, 0, 64] = 1.0
    offset = find_peaks(surface, torch.tensor(10.0)).offset_px[0]
    assert torch.isfinite(offset).all()
    assert offset.abs().max() <= 32


def test_all_work_is_done_on_the_device_of_the_surface() -> None:
    """The meta device refuses to mix with the CPU, as a GPU does."""
    peaks = find_peaks(torch.zeros(2, 65, 65, device="meta"), torch.tensor(10.0))
    assert {t.device.type for t in (peaks.offset_px, peaks.spread_px, peaks.evidence)} == {"meta"}
