"""The backbone of the `s2m2` configuration, one for both kinds of image.

METHOD: five residual blocks at strides 1 to 16 and a top-down pyramid. The published counts (30.5 GMAC for a
pair, 15.49 M parameters in all) decide what the text leaves open: a lateral brings its level to the channels
of the level ABOVE, the first 3x3 of a merge keeps that many, and only the second comes down to the level's
own. Convolutions have biases (without them the total rounds to 15.48 M).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F


class Pyramid(NamedTuple):
    """Features of one image at two scales."""

    deep: Tensor
    """(B, 256, H / 8, W / 8)"""
    shallow: Tensor
    """(B, 32, H, W)"""


class NormedResidualBlock(nn.Module):
    """[3x3 conv, GroupNorm, ReLU] x 2, and a 1x1 shortcut added to what comes out."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            nn.GroupNorm(groups, channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
            nn.GroupNorm(groups, channels_out),
            nn.ReLU(),
        )
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) + self.shortcut(x)
        return y


class Merge(nn.Module):
    """One step down: a level (B, c, H, W) and the one above (B, 2c, H / 2, W / 2) -> (B, c, H, W)."""

    def __init__(self, channels: int, channels_above: int, groups: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(channels, channels_above, 1)
        self.smooth = nn.Sequential(
            nn.Conv2d(channels_above, channels_above, 3, padding=1),
            nn.GroupNorm(groups, channels_above),
            nn.LeakyReLU(),
            nn.Conv2d(channels_above, channels, 3, padding=1),
        )

    def forward(self, level: Tensor, above: Tensor) -> Tensor:
        enlarged = F.interpolate(above, scale_factor=2, mode="bilinear", align_corners=False)
        merged: Tensor = self.smooth(self.lateral(level) + enlarged)
        return merged


class Backbone(nn.Module):
    """An image (B, 1, H, W), H and W multiples of 16 -> its pyramid."""

    def __init__(self, channels: tuple[int, ...], groups: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            NormedResidualBlock(a, b, groups) for a, b in zip((1, *channels[:-1]), channels, strict=True)
        )
        self.top = nn.Conv2d(channels[-1], channels[-1], 1)
        self.merges = nn.ModuleList(
            Merge(channels[i], channels[i + 1], groups) for i in reversed(range(len(channels) - 1))
        )

    def forward(self, image: Tensor) -> Pyramid:
        levels: list[Tensor] = []
        x = image
        for i, block in enumerate(self.blocks):
            x = block(F.max_pool2d(x, 2) if i else x)
            levels.append(x)
        merged: list[Tensor] = [self.top(levels.pop())]
        for merge in self.merges:
            merged.append(merge(levels.pop(), merged[-1]))
        return Pyramid(deep=merged[1], shallow=merged[-1])
