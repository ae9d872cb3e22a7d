from __future__ import annotations

import math

import pytest
import torch

from crosstie.matcher.s2m2.enhancement import FeatureParts
from crosstie.matcher.s2m2.independence import HISTOGRAM_BINS, independence_loss, mutual_information


@pytest.fixture
def uniform() -> torch.Tensor:
    return torch.rand(2, 4000, generator=torch.Generator().manual_seed(0))


def shuffled(x: torch.Tensor) -> torch.Tensor:
    return x[:, torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(1))]


def test_independent_values_share_nothing(uniform: torch.Tensor) -> None:
    assert 0 <= float(mutual_information(uniform, shuffled(uniform))) < 0.02


def test_no_pair_shares_more_than_a_value_with_itself(uniform: torch.Tensor) -> None:
    itself = float(mutual_information(uniform, uniform))
    # A hard histogram would give log 32 = 3.5 nats; sharing each value among bins of 1 sigma costs about 1.5.
    assert 1.5 < itself < math.log(HISTOGRAM_BINS)
    noise = shuffled(uniform) - 0.5
    levels = [float(mutual_information(uniform, (uniform + s * noise).clamp(0, 1))) for s in (0.1, 0.4, 1.6)]
    assert itself > levels[0] > levels[1] > levels[2] > 0.02


def test_it_is_symmetric_and_blind_to_the_sign_of_a_dependence(uniform: torch.Tensor) -> None:
    other = (0.6 * uniform + 0.4 * shuffled(uniform)).square()
    there = mutual_information(uniform, other)
    torch.testing.assert_close(there, mutual_information(other, uniform), rtol=0, atol=1e-5)
    torch.testing.assert_close(there, mutual_information(uniform, 1 - other), rtol=0, atol=1e-5)


def test_pairs_of_images_do_not_mix_in_a_batch(uniform: torch.Tensor) -> None:
    other = torch.stack((uniform[0], shuffled(uniform)[1]))
    each = [mutual_information(uniform[i : i + 1], other[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(mutual_information(uniform, other), (each[0] + each[1]) / 2)


@pytest.mark.parametrize("side_px", [1, 2, 4])
def test_what_varies_within_8_px_is_not_seen(side_px: int) -> None:
    at = torch.arange(64) // side_px
    checkerboard = ((at[:, None] + at) % 2).float().expand(1, 3, 64, 64)
    assert float(independence_loss([FeatureParts(checkerboard, checkerboard)])) == pytest.approx(0, abs=1e-5)


def blocks(seed: int, channels: int = 3) -> torch.Tensor:
    """Features (1, channels, 64, 64) in 0..1 with a level of its own in each square of 8 px."""
    level = torch.rand(1, channels, 8, 8, generator=torch.Generator().manual_seed(seed))
    return level.repeat_interleave(8, 2).repeat_interleave(8, 3)


def test_what_lies_outside_0_to_1_is_not_told_apart() -> None:
    features = blocks(0)
    assert float(independence_loss([FeatureParts(features, features)])) > 1
    for outside in (features + 1, features - 1):
        assert float(independence_loss([FeatureParts(outside, outside)])) == pytest.approx(0, abs=1e-5)


def test_pairs_count_alike_whatever_their_size() -> None:
    large, small = FeatureParts(blocks(0, 16), blocks(1, 16)), FeatureParts(blocks(2), blocks(2))
    both = independence_loss([large, small])
    torch.testing.assert_close(both, (independence_loss([large]) + independence_loss([small])) / 2)


def test_gradient_steps_make_the_parts_independent_and_leave_the_removed_alone() -> None:
    removed, enhanced = blocks(0, 64).requires_grad_(), blocks(0, 64).requires_grad_()
    optimiser = torch.optim.Adam([enhanced], lr=0.02)
    losses = []
    for _ in range(30):
        loss = independence_loss([FeatureParts(enhanced, removed)])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert removed.grad is None


def test_maps_that_8_does_not_divide_are_taken_whole() -> None:
    whole = torch.full((1, 2, 6, 6), 0.25)
    whole[:, 1] = 0.75
    assert float(independence_loss([FeatureParts(whole, whole)])) > 0.5
