"""The network of the `s2m2` configuration: two chips in, similarity heatmaps out.

Features depend on the other image (cross-attention) and on where a chip is cut (self-attention and GroupNorm
see the whole chip). So nothing can be computed once for a whole scene; the matcher that is shipped can
(`crosstie.matcher.network`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from crosstie.matcher.normalise import normalise
from crosstie.matcher.s2m2.backbone import Backbone
from crosstie.matcher.s2m2.enhancement import FeatureEnhancement, FeatureParts, enhance
from crosstie.matcher.s2m2.heatmaps import S2M2Heatmaps, similarity
from crosstie.matcher.s2m2.settings import S2M2Settings

SIDE_MULTIPLE_PX = 16
"""Chips and templates have sides that are multiples of the coarsest stride."""


class S2M2Network(nn.Module):
    """Backbone, an enhancement module for each level, and correlation."""

    def __init__(self, settings: S2M2Settings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings.channels, settings.groups)
        shallow_channels, _, _, deep_channels, _ = settings.channels
        self.enhance_deep: FeatureEnhancement | None = None
        self.enhance_shallow: FeatureEnhancement | None = None
        if settings.enhancement:
            self.enhance_deep = FeatureEnhancement(deep_channels, settings.heads)
            self.enhance_shallow = FeatureEnhancement(shallow_channels, settings.heads)

    def forward(self, optical: Tensor, sar: Tensor) -> S2M2Heatmaps:
        """Similarities of a SAR template to every window of an optical chip, in the order of offsets.

        The template is the CENTRE of the SAR chip that covers what the optical chip covers. The element of
        an offset (dx, dy), SAR minus optical position, is (dy + R, dx + R) with R = (n - m) / 2; the
        published order, by position in the optical chip, is the other way round.

        Parameters
        ----------
        optical : Tensor
            (B, 1, n, n) chip, 256 px as published.
        sar : Tensor
            (B, 1, m, m) template, 192 px as published; n and m are multiples of 16, as `network_input` makes
            their values.

        Returns
        -------
        S2M2Heatmaps
            Shallow (B, n - m + 1, n - m + 1) and deep (B, (n - m) / 8 + 1, (n - m) / 8 + 1).

        Raises
        ------
        ValueError
            The sides do not fit each other.
        """
        self._check(optical, sar)
        of_optical, of_sar = self.backbone(optical), self.backbone(sar)
        deep = self._level(of_optical.deep, of_sar.deep, self.enhance_deep)
        shallow = self._level(of_optical.shallow, of_sar.shallow, self.enhance_shallow)
        return S2M2Heatmaps(deep[0], shallow[0], (*deep[1], *shallow[1]))

    def _level(
        self, optical: Tensor, sar: Tensor, module: FeatureEnhancement | None
    ) -> tuple[Tensor, list[FeatureParts]]:
        """Heatmap of one level, and what the independence loss needs of it."""
        parts: list[FeatureParts] = []
        if module is not None:
            optical, sar, parts = enhance(module, optical, sar)
        heatmap = similarity(template=sar, search=optical, settings=self.settings)
        return heatmap, parts if self.settings.independence else []

    @staticmethod
    def _check(optical: Tensor, sar: Tensor) -> None:
        """Refuse sides that do not fit each other."""
        n, m = optical.shape[-1], sar.shape[-1]
        square = optical.shape[-2] == n and sar.shape[-2] == m
        if not square or n % SIDE_MULTIPLE_PX or m % SIDE_MULTIPLE_PX or not 0 < m < n:
            raise ValueError(
                f"an optical chip of {tuple(optical.shape[-2:])} px and a SAR template of "
                f"{tuple(sar.shape[-2:])} px do not fit: both must be square with sides that are multiples "
                f"of {SIDE_MULTIPLE_PX}, the template the smaller"
            )


def network_input(plane: NDArray[np.floating], settings: S2M2Settings) -> NDArray[np.float32]:
    """Values as the network takes them, from a plane (rows, cols) that is NaN where invalid.

    `local_contrast` takes any unit and looks 32 px around a pixel: prepare the scene, then cut chips. `raw`
    takes grey values 0..255 as the published benchmarks hold them. Invalid pixels become 0 in both.
    """
    if settings.inputs == "local_contrast":
        return normalise(plane)[0]
    return np.where(np.isfinite(plane), plane, 0).astype(np.float32)
