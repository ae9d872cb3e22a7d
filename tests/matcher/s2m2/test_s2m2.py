"""The whole network: the published counts, the convention of its offsets, and that it learns."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from crosstie.matcher.s2m2.heatmaps import predict, pseudo_target
from crosstie.matcher.s2m2.independence import independence_loss
from crosstie.matcher.s2m2.losses import pseudo_loss, supervised_loss
from crosstie.matcher.s2m2.network import S2M2Network, network_input
from crosstie.matcher.s2m2.settings import S2M2Settings

SMALL = S2M2Settings.mended("small")


def test_the_published_preset_has_no_mend_and_the_mended_has_all() -> None:
    published, mended = asdict(S2M2Settings.published()), asdict(S2M2Settings.mended())
    differing = {name for name in published if published[name] != mended[name]}
    mends = {"peak", "deep_cells", "prediction_upsampling", "normalisation", "transform", "inputs"}
    assert differing == mends
    assert S2M2Settings.published("small").width == S2M2Settings.mended("small").width == "small"


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("settings", [S2M2Settings.published(), S2M2Settings.mended()])
def test_parameters_are_those_of_the_published_network(settings: S2M2Settings) -> None:
    with torch.device("meta"):
        network = S2M2Network(settings)
    backbone = network.backbone
    assert parameters(network) == 15_491_584  # published: 15.49 M
    assert [parameters(b) for b in backbone.blocks] == [9_760, 57_792, 230_272, 919_296, 3_673_600]
    assert parameters(backbone.top) == 262_656
    assert [parameters(m) for m in backbone.merges] == [3_672_320, 918_656, 229_952, 57_632]
    assert parameters(network.enhance_deep) == 5_375_488
    assert parameters(network.enhance_shallow) == 84_160


def gmac_by_module(network: S2M2Network) -> dict[str, float]:
    """Multiplications of convolutions and matrix products for one pair; no transform, no normalisation."""
    with FlopCounterMode(display=False, depth=4) as counter:
        network(torch.empty(1, 1, 256, 256), torch.empty(1, 1, 192, 192))
    return {name: sum(flop.values()) / 2e9 for name, flop in counter.get_flop_counts().items()}


def test_work_for_a_pair_is_that_of_the_published_network() -> None:
    with FakeTensorMode():  # counts without computing
        gmac = gmac_by_module(S2M2Network(S2M2Settings.published()))
        gmac_small = gmac_by_module(S2M2Network(SMALL))
    assert gmac["Global"] == pytest.approx(63.4, rel=0.01)
    assert gmac["S2M2Network.backbone"] == pytest.approx(30.5, rel=0.01)
    enhancement = gmac["S2M2Network.enhance_deep"] + gmac["S2M2Network.enhance_shallow"]
    assert enhancement == pytest.approx(32.9, rel=0.01)
    assert gmac_small["Global"] < gmac["Global"] / 15  # what makes it trainable on two cores


def test_shapes_are_those_of_the_published_network() -> None:
    with FakeTensorMode():
        network = S2M2Network(S2M2Settings.published())
        heatmaps = network(torch.empty(2, 1, 256, 256), torch.empty(2, 1, 192, 192))
    assert heatmaps.deep.shape == (2, 9, 9)
    assert heatmaps.shallow.shape == (2, 65, 65)
    shapes = [tuple(p.enhanced.shape) for p in heatmaps.pairs]
    of_pass = [(2, 256, 32, 32), (2, 256, 24, 24)], [(2, 32, 256, 256), (2, 32, 192, 192)]
    assert shapes == [*of_pass[0], *of_pass[0], *of_pass[1], *of_pass[1]]
    assert shapes == [tuple(p.removed.shape) for p in heatmaps.pairs]


def test_levels_are_pooled_by_their_maximum() -> None:
    backbone = S2M2Network(SMALL).backbone
    seen: dict[str, torch.Tensor] = {}
    backbone.blocks[0].register_forward_hook(lambda _, __, out: seen.update(above=out))
    backbone.blocks[1].register_forward_pre_hook(lambda _, args: seen.update(below=args[0]))
    backbone(torch.randn(1, 1, 32, 32))
    assert torch.equal(seen["below"], seen["above"].unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(-2, -1)))


@pytest.mark.parametrize(("n", "m"), [(64, 48), (96, 48), (112, 96)])
def test_other_sizes_have_a_position_each_pixel_and_each_8_px(n: int, m: int) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        heatmaps = S2M2Network(SMALL)(torch.randn(1, 1, n, n), torch.randn(1, 1, m, m))
    assert heatmaps.shallow.shape[1:] == (n - m + 1, n - m + 1)
    assert heatmaps.deep.shape[1:] == ((n - m) // 8 + 1, (n - m) // 8 + 1)


@pytest.mark.parametrize(("n", "m"), [(60, 48), (64, 40), (48, 48), (48, 64)])
def test_sizes_that_do_not_fit_are_refused(n: int, m: int) -> None:
    with pytest.raises(ValueError, match=f"{n}, {n}.*{m}, {m}.*multiples of 16"):
        S2M2Network(SMALL)(torch.zeros(1, 1, n, n), torch.zeros(1, 1, m, m))


@pytest.mark.parametrize("settings", [S2M2Settings.published("small"), SMALL], ids=["published", "mended"])
@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (5, -11), (-13, 2)])
def test_offset_is_position_in_sar_minus_position_in_optical(
    settings: S2M2Settings, dx: int, dy: int
) -> None:
    torch.manual_seed(0)
    network = S2M2Network(replace(settings, enhancement=False)).eval()
    land = torch.rand(1, 1, 160, 160) * 255
    optical = land[..., 32:128, 32:128]
    sar_chip = land[..., 32 - dy : 128 - dy, 32 - dx : 128 - dx]  # optical (x, y) is SAR (x + dx, y + dy)
    with torch.no_grad():
        heatmaps = network(optical, sar_chip[..., 16:80, 16:80])
    # A fresh network's kernels are lopsided and its margins padded: sub-pixel digits are not exact.
    atol = 0.6 if settings.peak == "sub_pixel" else 0
    shallow = predict(heatmaps, replace(network.settings, prediction="shallow"))
    torch.testing.assert_close(shallow, torch.tensor([[dx, dy]]).float(), rtol=0, atol=atol)


def test_each_switch_off_leaves_its_part_out() -> None:
    optical, sar = torch.randn(1, 1, 64, 64), torch.randn(1, 1, 48, 48)
    plain = S2M2Network(replace(SMALL, enhancement=False))
    assert parameters(plain) == parameters(plain.backbone)
    assert plain(optical, sar).pairs == ()
    unseparated = S2M2Network(replace(SMALL, independence=False))
    assert parameters(unseparated) == parameters(S2M2Network(SMALL))
    assert unseparated(optical, sar).pairs == ()
    assert float(independence_loss(())) == 0


def whole_loss(network: S2M2Network, optical: torch.Tensor, sar: torch.Tensor) -> torch.Tensor:
    heatmaps = network(optical, sar)
    truth = torch.tensor([[3.0, -4.0], [-6.0, 1.0]])
    return (
        supervised_loss(heatmaps, truth, network.settings)
        + pseudo_loss(heatmaps, pseudo_target(heatmaps, network.settings))
        + independence_loss(heatmaps.pairs)
    )


@pytest.mark.parametrize("settings", [S2M2Settings.published("small"), SMALL], ids=["published", "mended"])
def test_every_weight_learns_in_half_precision(settings: S2M2Settings) -> None:
    torch.manual_seed(0)
    network = S2M2Network(settings)
    optical, sar = torch.randn(2, 1, 64, 64), torch.randn(2, 1, 48, 48)
    whole = whole_loss(network, optical, sar).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        heatmaps = network(optical, sar)
        assert heatmaps.deep.dtype == heatmaps.shallow.dtype == torch.float32
        loss = whole_loss(network, optical, sar)
    loss.backward()
    # bfloat16 has 8 bits: similarities are off by hundredths, logits at 1/100 by a few tenths.
    assert loss.item() == pytest.approx(whole, abs=1)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_it_learns_to_find_a_negative_of_the_same_land() -> None:
    """Optical and SAR show one land with opposite contrast: an untrained network is lost there."""
    torch.manual_seed(1)
    network = S2M2Network(replace(SMALL, enhancement=False))
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    smooth = torch.nn.AvgPool2d(5, 1)

    def draw() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        land = 5 * smooth(torch.randn(4, 1, 84, 84))
        offset_px = torch.randint(-7, 8, (4, 2))
        templates = [
            -x[:, 16 - dy : 64 - dy, 16 - dx : 64 - dx]
            for x, (dx, dy) in zip(land, offset_px.tolist(), strict=True)
        ]
        return land[..., 8:72, 8:72], torch.stack(templates), offset_px

    def error_px() -> float:
        with torch.no_grad():
            optical, sar, offset_px = draw()
            return float((predict(network(optical, sar), network.settings) - offset_px).norm(dim=1).mean())

    before = error_px()
    for _ in range(40):
        optical, sar, offset_px = draw()
        loss = supervised_loss(network(optical, sar), offset_px, network.settings)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert before > 5
    assert error_px() < 0.5


def test_input_is_blind_to_gain_unless_it_is_raw() -> None:
    plane = np.random.default_rng(0).uniform(0, 255, (80, 80)).astype(np.float32)
    plane[3, 4] = np.nan
    contrast = network_input(plane, SMALL)
    np.testing.assert_allclose(network_input(3 * plane - 20, SMALL), contrast, rtol=0, atol=1e-3)
    raw = network_input(plane, S2M2Settings.published())
    assert raw[3, 4] == contrast[3, 4] == 0
    assert raw[10, 10] == plane[10, 10]
