from __future__ import annotations

import pytest
import torch

from crosstie.matcher.network import MatchingNetwork
from crosstie.matcher.similarity import Similarity, deep_reach, logits, spread


@pytest.mark.parametrize(("search_px", "cells"), [(32, 4), (72, 9), (20, 3)])
def test_a_deep_cell_lies_at_eight_times_its_number(search_px: int, cells: int) -> None:
    """A cone round (8, -16) px comes back as that cone at every cell centre."""
    assert deep_reach(search_px) == cells
    axis = 8.0 * torch.arange(-cells, cells + 1)
    deep = -((axis[None, :] - 8) ** 2 + (axis[:, None] + 16) ** 2).sqrt()[None]
    fine = spread(deep, search_px)
    assert fine.shape == (1, 2 * search_px + 1, 2 * search_px + 1)
    for k in range(-(search_px // 8), search_px // 8 + 1):
        at = search_px + 8 * k
        assert float(fine[0, at, at]) == pytest.approx(float(deep[0, cells + k, cells + k]), abs=1e-4)
    row, col = divmod(int(fine.argmax()), 2 * search_px + 1)
    assert (col - search_px, row - search_px) == (8, -16)


def test_logits_of_both_levels_add() -> None:
    torch.manual_seed(0)
    network = MatchingNetwork()
    both = Similarity(torch.rand(2, 65, 65), torch.rand(2, 9, 9))
    nothing = Similarity(torch.zeros(2, 65, 65), torch.zeros(2, 9, 9))
    with torch.no_grad():
        parts = [
            logits(network, Similarity(both.shallow, nothing.deep), 128),
            logits(network, Similarity(nothing.shallow, both.deep), 128),
        ]
        torch.testing.assert_close(logits(network, both, 128), parts[0] + parts[1])
        assert float(parts[0].max()) == pytest.approx(
            float(network.logit_scale(128)) * float(both.shallow.max()), rel=1e-5
        )
