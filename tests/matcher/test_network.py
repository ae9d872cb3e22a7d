from __future__ import annotations

import numpy as np
import pytest
import torch

from crosstie.matcher.network import COARSEST_STRIDE_PX, DEEP_STRIDE_PX, HALO_PX, MatchingNetwork, fuse
from crosstie.types import Kind


@pytest.fixture(scope="module")
def network() -> MatchingNetwork:
    torch.manual_seed(0)
    return MatchingNetwork().eval().requires_grad_(False)


def test_features_do_not_depend_on_where_the_tile_is_cut(network: MatchingNetwork) -> None:
    plane = torch.tensor(np.random.default_rng(0).normal(size=(1, 1, 384, 384)), dtype=torch.float32)
    whole = network.features(plane, Kind.SAR)
    start, stop = 4 * COARSEST_STRIDE_PX, 20 * COARSEST_STRIDE_PX
    part = network.features(plane[..., start:stop, start:stop], Kind.SAR)
    for level, stride in ((0, 1), (1, DEEP_STRIDE_PX)):
        cut = slice((start + HALO_PX) // stride, (stop - HALO_PX) // stride)
        inside = slice(HALO_PX // stride, -HALO_PX // stride)
        torch.testing.assert_close(
            part[level][..., inside, inside], whole[level][..., cut, cut], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("level", [0, 1])
def test_the_halo_is_as_wide_as_a_feature_sees(network: MatchingNetwork, level: int) -> None:
    """Nothing beyond it counts, and it is not wider than one step more than what counts."""
    plane = torch.randn(1, 1, 320, 320, generator=torch.Generator().manual_seed(0)).requires_grad_()
    stride = (1, DEEP_STRIDE_PX)[level]
    network.features(plane, Kind.SAR)[level][..., 160 // stride, 160 // stride].sum().backward()
    assert plane.grad is not None
    seen = plane.grad[0, 0].abs().sum(0).nonzero()[:, 0]
    reach = max(160 - int(seen.min()), int(seen.max()) - 160)
    assert reach <= HALO_PX
    if level == 0:
        assert reach > HALO_PX - COARSEST_STRIDE_PX


def test_folding_the_normalisations_changes_nothing() -> None:
    torch.manual_seed(1)
    network = MatchingNetwork()
    plane = torch.randn(2, 1, 96, 96)
    with torch.no_grad():
        for _ in range(3):  # fixed statistics other than the initial 0 and 1
            network.features(plane, Kind.SAR)
        network.eval()
        plain = network.features(plane, Kind.SAR)
        folded = fuse(network).features(plane, Kind.SAR)
        for before, after in zip(plain, folded, strict=True):
            torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


def test_each_kind_has_its_own_encoder(network: MatchingNetwork) -> None:
    plane = torch.ones(1, 1, 64, 64)
    for sar, optical in zip(
        network.features(plane, Kind.SAR), network.features(plane, Kind.OPTICAL), strict=True
    ):
        assert not torch.allclose(sar, optical)


def test_larger_templates_are_trusted_more(network: MatchingNetwork) -> None:
    assert network.logit_scale(192) > network.logit_scale(64)
