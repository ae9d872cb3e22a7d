"""The shared-cell correlation against the plain one, tile by tile."""

from __future__ import annotations

import pytest
import torch

from crosstie.matcher.correlate import correlate
from crosstie.matcher.lattice import correlate_tiles, shares_cells


@pytest.mark.parametrize(
    ("size", "places"), [(64, [(20, 31)]), (128, [(16, 16), (16, 80), (80, 16), (33, 47)])]
)
@pytest.mark.parametrize("search", [16, 15])  # 15: the transform is longer than the search area
def test_equals_the_plain_correlation(size: int, places: list[tuple[int, int]], search: int) -> None:
    """Tiles that share cells, and one off the lattice of the others."""
    generator = torch.Generator().manual_seed(0)
    reference, secondary = (torch.randn(5, 240, 240, generator=generator) + 30 for _ in range(2))
    secondary[:, 4:, 6:] += reference[:, :-4, :-6]
    rows, cols = [r for r, _ in places], [c for _, c in places]
    got = correlate_tiles(reference, secondary, rows, cols, size_px=size, search_px=search)
    for n, (r, c) in enumerate(places):
        template = reference[None, :, r : r + size, c : c + size]
        window = secondary[None, :, r - search : r + size + search, c - search : c + size + search]
        torch.testing.assert_close(got[n], correlate(template, window)[0], rtol=0, atol=1e-4)
        row, col = divmod(int(got[n].argmax()), 2 * search + 1)
        assert (col - search, row - search) == (6, 4)


def test_a_size_that_is_not_made_of_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="not made of cells"):
        correlate_tiles(torch.ones(1, 200, 200), torch.ones(1, 200, 200), [50], [50], size_px=96, search_px=8)


def test_cells_are_shared_where_tiles_overlap_and_not_where_they_lie_apart() -> None:
    """192-px tiles every 64 px share each cell nine times; side by side they share none."""
    for stride, worth in ((64, True), (192, False)):
        starts = range(32, 32 + 8 * stride, stride)
        rows, cols = [r for r in starts for _ in starts], [c for _ in starts for c in starts]
        assert shares_cells(rows, cols, 192, 32) is worth
