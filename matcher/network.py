"""The network of the `crosstie` configuration: one small residual pyramid for each kind of image.

Features depend neither on the other image nor on where a tile is cut: normalisation layers use fixed
statistics at inference, and every downsampling is a plain average. So one dense pass over a scene serves all
tiles. There are two levels, as in S2M2-SAR (Gai & Li 2025): deep features see far and give the rough offset,
shallow features give the exact one.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from crosstie.types import Kind

WIDTHS = (16, 32, 64, 96, 128)
"""Channels at strides 1, 2, 4, 8, 16."""

SHALLOW = 16
"""Channels of the shallow features, at stride 1."""

DEEP = 32
"""Channels of the deep features, at stride `DEEP_STRIDE_PX`."""

DEEP_STRIDE_PX = 8

COARSEST_STRIDE_PX: int = 2 ** (len(WIDTHS) - 1)
"""Coarsest stride: grids of features whose origins differ by a multiple of it coincide."""

HALO_PX = 112
"""Context that a feature can see on each side, rounded up to a multiple of the stride."""


class DenseFeatures(NamedTuple):
    """Features of a batch of planes (B, 1, H, W). A tuple, because torch can flatten and rebuild tuples."""

    shallow: Tensor
    """(B, 16, H, W)"""
    deep: Tensor
    """(B, 32, H / 8, W / 8)"""


class ResidualBlock(nn.Module):
    """[3x3 conv, norm, ReLU] x 2 beside a 1x1 shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


def fuse(network: MatchingNetwork) -> MatchingNetwork:
    """The same network for inference, its fixed normalisations folded into the convolutions before them.

    Equal up to rounding (4e-6 of features around 1), a quarter faster on a CPU. Changes `network` in place.
    """
    for block in network.modules():
        if isinstance(block, ResidualBlock):
            block.conv1 = fuse_conv_bn_eval(block.conv1, cast("nn.BatchNorm2d", block.norm1))
            block.conv2 = fuse_conv_bn_eval(block.conv2, cast("nn.BatchNorm2d", block.norm2))
            block.norm1 = block.norm2 = nn.Identity()
    return network


class Encoder(nn.Module):
    """A normalised plane (B, 1, H, W) -> features of both levels; H and W multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b) for a, b in zip((1, *WIDTHS[:-1]), WIDTHS, strict=True)
        )
        # From the coarsest level up: wide context is added to near detail.
        self.laterals = nn.ModuleList(nn.Conv2d(width, DEEP, 1) for width in WIDTHS[1:])
        self.refine = nn.Conv2d(DEEP, DEEP, 3, padding=1)
        self.to_deep = nn.Conv2d(DEEP, DEEP, 1)
        self.narrow = nn.Conv2d(DEEP, SHALLOW, 1)
        self.finest = nn.Conv2d(WIDTHS[0], SHALLOW, 1)
        self.smooth = nn.Conv2d(SHALLOW, SHALLOW, 3, padding=1)

    def forward(self, x: Tensor) -> DenseFeatures:
        levels = []
        for i, block in enumerate(self.blocks):
            x = block(_halve(x) if i else x)
            levels.append(x)
        half, quarter, eighth, sixteenth = (
            lateral(level) for lateral, level in zip(self.laterals, levels[1:], strict=True)
        )
        top = F.relu(self.refine(F.relu(_double(sixteenth) + eighth)))
        deep = self.to_deep(top)
        top = self.narrow(F.relu(_double(F.relu(_double(top) + quarter)) + half))
        shallow = self.smooth(F.relu(_double(top) + self.finest(levels[0])))
        return DenseFeatures(shallow, deep)


def _halve(x: Tensor) -> Tensor:
    """Average over 4 x 4 every second pixel.

    An average, unlike a maximum, keeps the phase of an edge, which sub-pixel offsets depend on. Twice as wide
    as the step, it suppresses what the coarser grid would alias (Zhang 2019, ICML): features must not depend
    on the pixel that a scene begins at.

    As a convolution: on a CPU that is much faster than `avg_pool2d`, in training above all.
    """
    channels = x.shape[1]
    total = F.conv2d(x, x.new_ones(channels, 1, 4, 4), stride=2, padding=1, groups=channels)
    count = F.conv2d(x.new_ones(1, 1, *x.shape[-2:]), x.new_ones(1, 1, 4, 4), stride=2, padding=1)
    return total / count


def _double(x: Tensor) -> Tensor:
    """Twice as many rows and columns, bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class MatchingNetwork(nn.Module):
    """Two encoders and the learnt temperatures of the two similarities."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({kind.value: Encoder() for kind in Kind})
        # Logarithms of the factors that turn a correlation of a 128-px template into a logit, and how they
        # grow with the template's side: the noise of a correlation falls as the template grows.
        self.log_scale = nn.Parameter(torch.tensor(4.0))
        self.log_growth = nn.Parameter(torch.tensor(0.7))
        self.log_deep_scale = nn.Parameter(torch.tensor(2.5))
        self.log_deep_growth = nn.Parameter(torch.tensor(0.7))

    def features(self, plane: Tensor, kind: Kind) -> DenseFeatures:
        """Features of normalised planes (B, 1, H, W) of one kind."""
        features: DenseFeatures = self.encoders[kind.value](plane)
        return features

    def logit_scale(self, size_px: int) -> Tensor:
        """Factor from the shallow correlation to its logit for templates of `size_px`."""
        return torch.exp(self.log_scale + self.log_growth * math.log(size_px / 128))

    def deep_logit_scale(self, size_px: int) -> Tensor:
        """Factor from the deep correlation to its logit for templates of `size_px`."""
        return torch.exp(self.log_deep_scale + self.log_deep_growth * math.log(size_px / 128))
