"""Cross-modal feature enhancement: remove what only one modality shows, add what both show.

The published counts (32.9 GMAC for a pair, 15.49 M parameters in all) decide what the text leaves open: the
three convolutions of a multi-scale convolution are added, not concatenated, and nothing reduces the channels
inside; an attention has four square projections (query, key, value, read-out) without biases and no
feed-forward part; nothing is normalised.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

PASSES = 2
"""Times that the module is applied, with the same weights."""


@dataclass(frozen=True, slots=True, eq=False)
class FeatureParts:
    """What one pass made of the features of one modality at one level; both (B, C, H, W)."""

    enhanced: Tensor
    """Features after the pass: what the modalities share."""
    removed: Tensor
    """What the pass subtracted as specific to the modality."""


class LinearAttention(nn.Module):
    """Attention whose cost grows with the number of pixels, not with its square.

    out_i = phi(q_i) sum_j phi(k_j) v_j^T / (phi(q_i) sum_j phi(k_j)) with phi = elu + 1, per head.

    References
    ----------
    Katharopoulos et al. (2020), Transformers are RNNs, ICML, equations 5 and 7.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.read_out = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Features (B, C, H, W) read out of `source` (B, C, H', W') for every pixel of `x`."""
        tokens, source_tokens = (t.flatten(2).transpose(1, 2) for t in (x, source))  # (B, pixels, C)
        query = self._by_head(self.query(tokens))
        key, value = self._by_head(self.key(source_tokens)), self._by_head(self.value(source_tokens))
        phi_query, phi_key = F.elu(query) + 1, F.elu(key) + 1
        # Means instead of sums above and below: the same quotient, from numbers that half precision holds.
        memory = phi_key.transpose(-1, -2) @ (value / value.shape[-2])
        weight = phi_query @ phi_key.mean(dim=-2)[..., None]
        attended = (phi_query @ memory) / weight.clamp_min(1e-6)
        out: Tensor = self.read_out(attended.transpose(1, 2).flatten(2))
        return out.transpose(1, 2).reshape(x.shape)

    def _by_head(self, tokens: Tensor) -> Tensor:
        """(B, pixels, C) -> (B, heads, pixels, C / heads)."""
        b, pixels, channels = tokens.shape
        return tokens.reshape(b, pixels, self.heads, channels // self.heads).transpose(1, 2)


class MultiScaleConv(nn.Module):
    """Sum of a 1x1, a 3x3 and a 5x5 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, side, padding=side // 2) for side in (1, 3, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        one, three, five = self.convs
        y: Tensor = one(x) + three(x) + five(x)
        return y


class FeatureEnhancement(nn.Module):
    """The module of one level. Optical and SAR features (B, C, H, W) may differ in size, not in channels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.specific_optical = LinearAttention(channels, heads)
        self.specific_sar = LinearAttention(channels, heads)
        self.mix_specific = MultiScaleConv(channels)
        self.shared = LinearAttention(channels, heads)
        self.mix_shared = MultiScaleConv(channels)

    def forward(self, optical: Tensor, sar: Tensor) -> tuple[FeatureParts, FeatureParts]:
        """One pass: the parts of the optical and of the SAR features."""
        removed_optical = self.specific_optical(optical, optical)
        removed_sar = self.specific_sar(sar, sar)
        optical = self.mix_specific(optical - removed_optical)
        sar = self.mix_specific(sar - removed_sar)
        # Both read from the other as it was before either has read.
        optical, sar = optical + self.shared(optical, sar), sar + self.shared(sar, optical)
        return (
            FeatureParts(self.mix_shared(optical), removed_optical),
            FeatureParts(self.mix_shared(sar), removed_sar),
        )


def enhance(
    module: FeatureEnhancement, optical: Tensor, sar: Tensor
) -> tuple[Tensor, Tensor, list[FeatureParts]]:
    """Apply the module `PASSES` times: enhanced optical and SAR features, and the parts of every pass."""
    parts: list[FeatureParts] = []
    for _ in range(PASSES):
        of_optical, of_sar = module(optical, sar)
        optical, sar = of_optical.enhanced, of_sar.enhanced
        parts += [of_optical, of_sar]
    return optical, sar, parts
