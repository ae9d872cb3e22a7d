"""Heatmaps, labels, pseudo-targets and predictions, on features and surfaces whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from crosstie.matcher.s2m2.heatmaps import (
    S2M2Heatmaps,
    combined,
    correlation_map,
    deep_cell,
    min_max,
    predict,
    pseudo_target,
    similarity,
    upsample_deep,
    windowed_ncc,
)
from crosstie.matcher.s2m2.losses import pseudo_loss, shift_target, supervised_loss
from crosstie.matcher.s2m2.settings import S2M2Settings

MENDED = S2M2Settings.mended()
PUBLISHED = S2M2Settings.published()


@pytest.fixture
def stacks() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 24, 24, generator=generator) + 2, torch.randn(
        2, 3, 40, 40, generator=generator
    ) - 1


def bump(dx: float, dy: float, *, side: int, pitch_px: float, width_px: float) -> torch.Tensor:
    """Heatmap (1, side, side) with a paraboloid-topped peak at an offset, between 0 and 1."""
    at = (torch.arange(side) - (side - 1) / 2) * pitch_px
    distance2 = (at[None, :] - dx) ** 2 + (at[:, None] - dy) ** 2
    return torch.exp(-distance2 / (2 * width_px**2))[None]


def heatmaps_at(dx: float, dy: float, pitch_px: float = 8) -> S2M2Heatmaps:
    return S2M2Heatmaps(
        bump(dx, dy, side=9, pitch_px=pitch_px, width_px=8), bump(dx, dy, side=65, pitch_px=1, width_px=2)
    )


def test_ncc_equals_its_definition(stacks: tuple[torch.Tensor, torch.Tensor]) -> None:
    template, search = stacks
    got = windowed_ncc(template, search, "circular")
    assert got.shape == (2, 3, 17, 17)
    for b, c, i, j in [(0, 0, 0, 0), (1, 2, 16, 16), (0, 1, 3, 11), (1, 0, 16, 0)]:
        t, w = template[b, c].numpy(), search[b, c, i : i + 24, j : j + 24].numpy()
        want = np.corrcoef(t.ravel(), w.ravel())[0, 1]
        assert float(got[b, c, i, j]) == pytest.approx(want, abs=1e-5)  # float32 transforms


def test_both_transforms_agree_on_the_valid_window(stacks: tuple[torch.Tensor, torch.Tensor]) -> None:
    template, search = stacks
    circular, linear = (correlation_map(template, search, t) for t in ("circular", "linear"))
    assert (circular.shape[-1], linear.shape[-1]) == (40, 63)
    valid = (..., slice(17), slice(17))
    # Sums of 576 products of size 1: rounding of 1e-4, where the wrapped parts differ by tens.
    torch.testing.assert_close(circular[valid], linear[valid], rtol=0, atol=2e-3)
    by_hand = (template[1, 2] * search[1, 2, 5:29, 9:33]).sum()
    assert float(linear[1, 2, 5, 9]) == pytest.approx(float(by_hand), abs=2e-3)
    torch.testing.assert_close(
        windowed_ncc(template, search, "circular"),
        windowed_ncc(template, search, "linear"),
        rtol=0,
        atol=1e-5,
    )


def test_min_max_stretches_the_whole_padded_map_to_0_and_1(stacks: tuple[torch.Tensor, torch.Tensor]) -> None:
    template, search = stacks
    whole = correlation_map(template, search, "linear")
    got = min_max(template, search, "linear")
    for c in range(3):
        low, high = whole[0, c].min(), whole[0, c].max()
        torch.testing.assert_close(got[0, c] * (high - low) + low, whole[0, c, :17, :17], rtol=0, atol=2e-3)
    assert 0 <= float(got.min()) < float(got.max()) <= 1


def test_a_bright_patch_draws_raw_correlation_away_but_not_the_windowed() -> None:
    """Why the correlation is windowed: energy is not likeness."""
    generator = torch.Generator().manual_seed(0)
    search = torch.rand(1, 2, 64, 64, generator=generator)
    template = search[..., 8:40, 8:40].clone()
    search[..., 44:, 44:] += 6
    truth = torch.tensor([8, 8])
    for normalisation, found in (("windowed_ncc", True), ("min_max", False)):
        surface = similarity(template, search, replace(MENDED, normalisation=normalisation))[0]
        row, col = divmod(int(surface.argmax()), 33)
        assert ((col - 16, row - 16) == tuple(truth.tolist())) is found, normalisation


@pytest.mark.parametrize("settings", [MENDED, PUBLISHED])
@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (7, -3), (-8, 8)])
def test_element_belongs_to_sar_minus_optical(settings: S2M2Settings, dx: int, dy: int) -> None:
    land = torch.randn(1, 4, 80, 80, generator=torch.Generator().manual_seed(0))
    optical = land[..., 16:64, 16:64]
    sar = land[..., 16 - dy : 64 - dy, 16 - dx : 64 - dx]  # optical (x, y) is SAR (x + dx, y + dy)
    surface = similarity(sar[..., 8:40, 8:40], optical, settings)[0]
    row, col = divmod(int(surface.argmax()), 17)
    assert (col - 8, row - 8) == (dx, dy)


def test_flat_features_match_nowhere_and_give_no_nan() -> None:
    flat, rough = torch.full((1, 2, 16, 16), 3.0), torch.randn(1, 2, 32, 32)
    assert float(similarity(flat, rough, MENDED).abs().max()) < 0.01
    assert torch.isfinite(similarity(torch.zeros(1, 2, 16, 16), rough, PUBLISHED)).all()


def test_a_deep_cell_is_labelled_where_it_was_computed() -> None:
    heatmaps = heatmaps_at(0, 0)
    offsets = torch.tensor([-32, -24, -3, 0, 3, 5, 16, 32])
    assert deep_cell(offsets, heatmaps, MENDED).tolist() == [0, 1, 4, 4, 4, 5, 6, 8]
    # Stretched: 7.22 px a cell, so a shift of 24 px (cell 3 off the centre) lies in a cell for 22 px.
    pixels = torch.arange(-32, 33)
    cells = deep_cell(pixels, heatmaps, PUBLISHED)
    assert sorted(set(cells.tolist())) == list(range(9))
    assert torch.equal(cells.flip(0), 8 - cells)  # neither side is favoured
    assert max(torch.bincount(cells).tolist()) <= 8
    assert deep_cell(torch.tensor([32 - 7, 32 - 6]), heatmaps, PUBLISHED).tolist() == [7, 8]


def test_upsampling_puts_a_deep_cell_on_its_own_pixel_or_3_5_px_off() -> None:
    """Mends 2 and 3: a ramp whose every cell holds its own shift."""
    ramp = (8.0 * torch.arange(-4, 5)).expand(1, 9, 9)
    heatmaps = S2M2Heatmaps(ramp, torch.zeros(1, 65, 65))
    shift = torch.arange(-32, 33).float()
    torch.testing.assert_close(upsample_deep(heatmaps, MENDED, "bilinear")[0, 0], shift, rtol=0, atol=1e-4)
    assert float((upsample_deep(heatmaps, MENDED, "nearest")[0, 0] - shift).abs().max()) == 4
    stretched = upsample_deep(heatmaps, PUBLISHED, "bilinear")[0, 0]
    centres = torch.tensor([3, 61])  # pixels nearest to the centres of the first and the last stretched cell
    assert (stretched[centres] - shift[centres]).abs().tolist() == pytest.approx([3, 3], abs=0.5)


@pytest.mark.parametrize(
    ("prediction", "atol"),
    # An exponential's top is a paraboloid to a few hundredths; deep cells are 8 times as wide.
    [("combined", 0.1), ("shallow", 0.1), ("deep", 0.8)],
)
@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (10.3, -4.6), (-25.2, 22.4)])
def test_a_known_peak_comes_back(prediction: str, atol: float, dx: float, dy: float) -> None:
    settings = replace(MENDED, prediction=prediction)
    truth = torch.tensor([[dx, dy]])
    torch.testing.assert_close(predict(heatmaps_at(dx, dy), settings), truth, rtol=0, atol=atol)
    whole = predict(heatmaps_at(dx, dy), replace(settings, peak="integer"))
    assert torch.equal(whole, whole.round())
    # The slope of the deep heatmap pulls the product by a fraction of a pixel, over a cell's border at times.
    atol = {"combined": 0.7, "shallow": 0.5, "deep": 4}[prediction]
    torch.testing.assert_close(whole, truth, rtol=0, atol=atol)


def test_stretched_deep_cells_are_read_where_they_are_labelled() -> None:
    """The published labels and predictions agree with each other, if not with the truth."""
    settings = replace(PUBLISHED, prediction="deep")
    for dx in range(-32, 33):
        cell = int(deep_cell(torch.tensor(dx), heatmaps_at(0, 0), settings))
        deep = torch.zeros(1, 9, 9)
        deep[0, 4, cell] = 1
        read = predict(S2M2Heatmaps(deep, torch.zeros(1, 65, 65)), settings)
        assert abs(float(read[0, 0]) - dx) <= 4


def test_deep_settles_what_shallow_confuses() -> None:
    shallow = 1.1 * bump(-20, 12, side=65, pitch_px=1, width_px=2) + bump(
        9, -7, side=65, pitch_px=1, width_px=2
    )
    heatmaps = S2M2Heatmaps(bump(9, -7, side=9, pitch_px=8, width_px=8), shallow)
    for settings in (MENDED, replace(PUBLISHED, deep_cells="multiples_of_8")):
        for prediction, found in (("shallow", (-20, 12)), ("combined", (9, -7))):
            offset = predict(heatmaps, replace(settings, prediction=prediction))[0]
            assert tuple(offset.round().int().tolist()) == found


def test_opposite_images_are_no_match() -> None:
    """-1 x -1 must not outdo a weak agreement."""
    deep, shallow = torch.zeros(1, 9, 9), torch.zeros(1, 65, 65)
    deep[0, 1, 1] = shallow[0, 8, 8] = -0.9
    deep[0, 6, 6] = shallow[0, 48, 48] = 0.4
    surface = combined(S2M2Heatmaps(deep, shallow), MENDED)[0]
    assert divmod(int(surface.argmax()), 65) == (48, 48)


@pytest.mark.parametrize("settings", [MENDED, PUBLISHED])
def test_pseudo_target_is_a_probability_that_peaks_where_both_agree(settings: S2M2Settings) -> None:
    shallow = bump(-20, 12, side=65, pitch_px=1, width_px=2) + bump(16, -8, side=65, pitch_px=1, width_px=2)
    deep = bump(16, -8, side=9, pitch_px=8, width_px=6).requires_grad_()
    heatmaps = S2M2Heatmaps(deep, shallow.requires_grad_())
    target = pseudo_target(heatmaps, settings)
    assert not target.requires_grad
    assert float(target.sum()) == pytest.approx(1, abs=1e-5)
    row, col = divmod(int(target.argmax()), 65)
    assert (col - 32, row - 32) == (16, -8)
    near = target[0, row - 3 : row + 4, col - 3 : col + 4].sum()
    assert float(near) > 0.99


def test_prediction_and_pseudo_target_see_the_same_surface_only_where_mended() -> None:
    """Mend 3: a smooth deep slope is a stair of 9 plateaus in the published prediction, not in its target."""
    slope = torch.linspace(0.2, 0.4, 9).expand(1, 9, 9)
    heatmaps = S2M2Heatmaps(slope, torch.full((1, 65, 65), 0.5))
    for settings, levels in ((PUBLISHED, 9), (MENDED, 65)):
        assert len(combined(heatmaps, settings)[0, 0].unique()) == levels
        assert len(pseudo_target(heatmaps, settings)[0, 0].unique()) > 50  # flat beyond the outermost centres
    mended = torch.softmax(200 * combined(heatmaps, MENDED).flatten(), dim=0)
    torch.testing.assert_close(pseudo_target(heatmaps, MENDED).flatten(), mended, rtol=0, atol=1e-7)


def test_pseudo_loss_teaches_the_shallow_heatmap_alone() -> None:
    deep, shallow = torch.rand(2, 9, 9).requires_grad_(), torch.rand(2, 65, 65).requires_grad_()
    heatmaps = S2M2Heatmaps(deep, shallow)
    loss = pseudo_loss(heatmaps, pseudo_target(heatmaps, MENDED))
    loss.backward()
    assert shallow.grad is not None
    assert deep.grad is None
    target = torch.full((2, 65, 65), 65.0**-2).requires_grad_()
    pseudo_loss(heatmaps, target).backward()
    assert target.grad is None


def test_pseudo_loss_is_least_for_the_target_itself() -> None:
    target = torch.softmax(torch.rand(1, 65 * 65), dim=1).reshape(1, 65, 65)
    entropy = -(target * target.log()).sum()
    own = pseudo_loss(S2M2Heatmaps(torch.zeros(1, 9, 9), target.log() / 80), target)
    torch.testing.assert_close(own, entropy, rtol=0, atol=1e-4)
    other = pseudo_loss(S2M2Heatmaps(torch.zeros(1, 9, 9), target.log().flip(1) / 80), target)
    assert float(other) > float(own)


def test_a_pair_of_weight_zero_teaches_nothing() -> None:
    shallow = torch.rand(2, 65, 65).requires_grad_()
    heatmaps = S2M2Heatmaps(torch.rand(2, 9, 9), shallow)
    target = pseudo_target(heatmaps, MENDED)
    pseudo_loss(heatmaps, target, torch.tensor([0.0, 1.0])).backward()
    assert shallow.grad is not None
    assert not shallow.grad[0].any()
    assert shallow.grad[1].any()
    torch.testing.assert_close(
        pseudo_loss(heatmaps, target, torch.ones(2)), pseudo_loss(heatmaps, target), rtol=0, atol=1e-6
    )


def test_a_shifted_target_is_the_target_of_the_shifted_pair() -> None:
    here, there = heatmaps_at(5, -9), heatmaps_at(5 + 11, -9 + 4)
    pair = S2M2Heatmaps(torch.cat((here.deep,) * 2), torch.cat((here.shallow,) * 2))
    moved = shift_target(pseudo_target(pair, MENDED), torch.tensor([[11, 4], [0, 0]]))
    assert int(moved[0].argmax()) == int(pseudo_target(there, MENDED).argmax())
    torch.testing.assert_close(moved[1], pseudo_target(here, MENDED)[0], rtol=0, atol=1e-7)


def test_mass_that_leaves_the_window_is_dropped_and_does_not_come_back_on_the_other_side() -> None:
    target = torch.zeros(2, 65, 65)
    target[0, 32, 60] = 0.6
    target[0, 32, 10] = 0.3
    target[0, 20, 0] = 0.1
    target[1, 2, 2] = 1
    moved = shift_target(target, torch.tensor([[8, 0], [0, -3]]))
    assert float(moved[0, 32, 18]) == pytest.approx(0.75)
    assert float(moved[0, 20, 8]) == pytest.approx(0.25)
    assert float(moved[0].sum()) == pytest.approx(1)
    assert not moved[1].any()


@pytest.mark.parametrize("settings", [MENDED, PUBLISHED])
def test_supervised_loss_is_least_at_the_true_offset(settings: S2M2Settings) -> None:
    pitch_px = 8 if settings.deep_cells == "multiples_of_8" else 65 / 9
    heatmaps = heatmaps_at(16, -8, pitch_px)
    losses = {
        (dx, dy): float(supervised_loss(heatmaps, torch.tensor([[dx, dy]]), settings))
        for dx, dy in [
            (16.0, -8.0),
            (-8.0, 16.0),
            (16.0, 8.0),
            (-16.0, 8.0),
            (17.4, -8.0),
            (16.0, -9.2),
            (32, 32),
        ]
    }
    assert min(losses, key=losses.__getitem__) == (16.0, -8.0)


def test_supervised_loss_of_heatmaps_that_say_nothing_is_that_of_a_guess() -> None:
    heatmaps = S2M2Heatmaps(torch.zeros(3, 9, 9), torch.zeros(3, 65, 65))
    loss = supervised_loss(heatmaps, torch.tensor([[0.0, 0.0], [-32, 32], [32, -32]]), MENDED)
    assert float(loss) == pytest.approx(np.log(65**2) + np.log(81), abs=1e-4)


def test_temperatures_are_the_published_ones() -> None:
    deep, shallow = torch.zeros(1, 9, 9), torch.zeros(1, 65, 65)
    deep[0, 4, 4], shallow[0, 32, 32] = 0.02, 0.1
    loss = supervised_loss(S2M2Heatmaps(deep, shallow), torch.zeros(1, 2), MENDED)
    want = np.log(1 + (65**2 - 1) * np.exp(-0.1 * 30)) + np.log(1 + 80 * np.exp(-0.02 * 100))
    assert float(loss) == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("bad", [33.0, -40.0, float("nan")])
def test_an_offset_outside_the_heatmaps_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="do not fit heatmaps of"):
        supervised_loss(heatmaps_at(0, 0), torch.tensor([[0.0, bad]]), MENDED)
