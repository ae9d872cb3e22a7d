from __future__ import annotations

import numpy as np
import pytest
import torch

from crosstie.matcher.network import HALO_PX, STRIDE_PX, MatchingNetwork, fuse
from crosstie.types import Kind


@pytest.fixture(scope="module")
def network() -> MatchingNetwork:
    torch.manual_seed(0)
    return MatchingNetwork().eval().requires_grad_(False)


def test_features_do_not_depend_on_where_the_tile_is_cut(network: MatchingNetwork) -> None:
    plane = torch.tensor(np.random.default_rng(0).normal(size=(1, 1, 256, 256)), dtype=torch.float32)
    whole = network.features(plane, Kind.SAR)
    start, stop = 5 * STRIDE_PX, 25 * STRIDE_PX
    part = network.features(plane[..., start:stop, start:stop], Kind.SAR)
    inside = slice(HALO_PX, -HALO_PX)
    torch.testing.assert_close(
        part[..., inside, inside], whole[..., start:stop, start:stop][..., inside, inside], rtol=0, atol=1e-5
    )


def test_folding_the_normalisations_changes_nothing() -> None:
    torch.manual_seed(1)
    network = MatchingNetwork()
    plane = torch.randn(2, 1, 96, 96)
    with torch.no_grad():
        for _ in range(3):  # fixed statistics other than the initial 0 and 1
            network.features(plane, Kind.SAR)
        network.eval()
        plain = network.features(plane, Kind.SAR)
        torch.testing.assert_close(fuse(network).features(plane, Kind.SAR), plain, rtol=0, atol=1e-5)


def test_each_kind_has_its_own_encoder(network: MatchingNetwork) -> None:
    plane = torch.ones(1, 1, 64, 64)
    assert not torch.allclose(network.features(plane, Kind.SAR), network.features(plane, Kind.OPTICAL))


def test_larger_templates_are_trusted_more(network: MatchingNetwork) -> None:
    assert network.logit_scale(192) > network.logit_scale(64)
