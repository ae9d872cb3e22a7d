"""The enhancement module against its description, written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from crosstie.matcher.s2m2.enhancement import FeatureEnhancement, LinearAttention, MultiScaleConv, enhance


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_attention_equals_the_quadratic_form_it_avoids() -> None:
    attention = LinearAttention(8, heads=2)
    x, source = torch.randn(1, 8, 3, 5), torch.randn(1, 8, 4, 2)
    tokens, others = x[0].flatten(1).T, source[0].flatten(1).T
    attended = []
    for head in (slice(0, 4), slice(4, 8)):
        query = F.elu(tokens @ attention.query.weight.T)[:, head] + 1
        key = F.elu(others @ attention.key.weight.T)[:, head] + 1
        share = query @ key.T
        attended.append(share / share.sum(1, keepdim=True) @ (others @ attention.value.weight.T)[:, head])
    want = torch.cat(attended, 1) @ attention.read_out.weight.T
    torch.testing.assert_close(attention(x, source)[0].flatten(1).T, want, rtol=0, atol=1e-6)


def test_attention_does_not_ask_where_its_source_lies() -> None:
    attention = LinearAttention(8, heads=2)
    x, source = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 6, 6)
    shuffled = source.flatten(2)[..., torch.randperm(36)].reshape(source.shape)
    torch.testing.assert_close(attention(x, source), attention(x, shuffled), rtol=0, atol=1e-6)


def test_three_scales_are_one_convolution_of_the_sum_of_their_kernels() -> None:
    conv = MultiScaleConv(6)
    one, three, five = conv.convs
    kernel = F.pad(one.weight, (2, 2, 2, 2)) + F.pad(three.weight, (1, 1, 1, 1)) + five.weight
    x = torch.randn(1, 6, 12, 12)
    want = F.conv2d(x, kernel, one.bias + three.bias + five.bias, padding=2)
    torch.testing.assert_close(conv(x), want, rtol=0, atol=1e-5)


def test_specific_is_subtracted_and_shared_is_added() -> None:
    module = FeatureEnhancement(8, heads=2)
    optical, sar = torch.randn(2, 8, 16, 16), torch.randn(2, 8, 12, 12)
    of_optical, of_sar = module(optical, sar)
    assert torch.equal(of_sar.removed, module.specific_sar(sar, sar))
    a = module.mix_specific(optical - module.specific_optical(optical, optical))
    b = module.mix_specific(sar - module.specific_sar(sar, sar))
    torch.testing.assert_close(of_optical.enhanced, module.mix_shared(a + module.shared(a, b)))
    torch.testing.assert_close(of_sar.enhanced, module.mix_shared(b + module.shared(b, a)))


def test_swapped_modalities_give_swapped_features_where_the_specific_parts_are_alike() -> None:
    """All but the self-attentions is shared both ways."""
    module = FeatureEnhancement(8, heads=2)
    optical, sar = torch.randn(1, 8, 8, 8), torch.randn(1, 8, 8, 8)
    assert not torch.allclose(module(optical, sar)[0].enhanced, module(sar, optical)[1].enhanced)
    module.specific_sar.load_state_dict(module.specific_optical.state_dict())
    assert torch.equal(module(optical, sar)[0].enhanced, module(sar, optical)[1].enhanced)


def test_two_passes_use_the_same_weights() -> None:
    module = FeatureEnhancement(8, heads=2)
    optical, sar = torch.randn(1, 8, 8, 8), torch.randn(1, 8, 6, 6)
    enhanced_optical, enhanced_sar, parts = enhance(module, optical, sar)
    first = module(optical, sar)
    second = module(first[0].enhanced, first[1].enhanced)
    assert torch.equal(enhanced_optical, second[0].enhanced)
    assert torch.equal(enhanced_sar, second[1].enhanced)
    assert [torch.equal(p.removed, q.removed) for p, q in zip(parts, first + second, strict=True)] == [
        True
    ] * 4


def test_long_sums_survive_half_precision() -> None:
    """A constant source of 65,536 pixels is read out as what one pixel of it gives."""
    attention = LinearAttention(8, heads=2)
    pixel = torch.randn(1, 8, 1, 1)
    source = pixel.expand(1, 8, 256, 256)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        many = attention(pixel, source).float()
    torch.testing.assert_close(many, attention(pixel, pixel), rtol=0, atol=0.01)  # 8 bits of values near 0.3
