"""The correlation against its definition, written out in loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crosstie.matcher.correlate import correlate


def by_definition(template: np.ndarray, search: np.ndarray) -> np.ndarray:
    m, n = template.shape[-1], search.shape[-1]
    t = template - template.mean(axis=(1, 2), keepdims=True)
    out = np.zeros((n - m + 1, n - m + 1))
    for i in range(n - m + 1):
        for j in range(n - m + 1):
            w = search[:, i : i + m, j : j + m]
            w = w - w.mean(axis=(1, 2), keepdims=True)
            out[i, j] = (t * w).sum() / np.sqrt((t**2).sum() * (w**2).sum())
    return out


@pytest.fixture
def stacks() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(3)
    search = rng.normal(size=(2, 3, 20, 20)) + rng.normal(size=(1, 3, 1, 1)) * 5
    return torch.tensor(rng.normal(size=(2, 3, 12, 12)) + 7), torch.tensor(search)


@pytest.mark.parametrize("side", [20, 19])  # 19: the transform is longer than the search area
def test_equals_the_definition_in_every_window(stacks: tuple[torch.Tensor, torch.Tensor], side: int) -> None:
    template, search = stacks[0], stacks[1][..., :side, :side]
    got = correlate(template, search).numpy()
    for b in range(2):
        want = by_definition(template[b].numpy(), search[b].numpy())
        np.testing.assert_allclose(got[b], want, rtol=0, atol=2e-5)  # float32 transforms


def test_a_window_of_the_search_area_is_found_with_correlation_one() -> None:
    search = torch.randn(1, 4, 40, 40, generator=torch.Generator().manual_seed(0))
    for dy, dx in [(0, 0), (3, -5), (-8, 8)]:
        template = 3 * search[..., 8 + dy : 32 + dy, 8 + dx : 32 + dx] - 2
        surface = correlate(template, search)[0]
        row, col = divmod(int(surface.argmax()), surface.shape[1])
        assert (col - 8, row - 8) == (dx, dy)
        assert surface.max() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("side", [20, 19])
def test_masks_of_all_true_change_nothing_that_matters(
    stacks: tuple[torch.Tensor, torch.Tensor], side: int
) -> None:
    template, search = stacks[0], stacks[1][..., :side, :side]
    masked = correlate(template, search, torch.ones(2, 1, 12, 12), torch.ones(2, 1, side, side))
    torch.testing.assert_close(masked, correlate(template, search), rtol=0, atol=2e-5)


def test_a_hole_common_to_both_images_does_not_pull_the_peak_to_zero() -> None:
    generator = torch.Generator().manual_seed(1)
    search = torch.randn(1, 4, 96, 96, generator=generator)
    template = search[..., 16 + 6 : 80 + 6, 16 - 9 : 80 - 9].clone()  # true offset (-9, +6)
    hole = torch.ones(1, 1, 96, 96)
    hole[..., 30:60, 20:70] = 0
    surface = correlate(template, search, hole[..., 16:80, 16:80], hole)[0]
    row, col = divmod(int(surface.argmax()), surface.shape[1])
    assert (col - 16, row - 16) == (-9, 6)


def test_no_texture_gives_no_correlation_and_no_nan() -> None:
    surface = correlate(torch.ones(1, 4, 16, 16), torch.ones(1, 4, 24, 24))
    assert surface.abs().max() < 1e-3
