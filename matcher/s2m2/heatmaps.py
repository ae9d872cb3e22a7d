"""Similarity heatmaps of the `s2m2` configuration: how they are made, joined and read.

The published method finds the SAR template in the optical window. Here, as everywhere in crosstie, element
(i, j) of a heatmap with radius R belongs to the OFFSET (dx, dy) = (j - R, i - R): position in the secondary
(SAR) minus position in the reference (optical), where the template is cut from the centre of the SAR chip.
A template found further right means a negative dx, so both axes of a correlation are flipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from crosstie.matcher.correlate import box_sums
from crosstie.matcher.peak import vertex
from crosstie.matcher.s2m2.enhancement import FeatureParts
from crosstie.matcher.s2m2.settings import DEEP_CELL_PX, S2M2Settings

PRODUCT_SCALE = 200.0
"""1 / temperature of deep x shallow."""

LEAST_VARIANCE = 1e-6
"""Of a feature, per cell: with less there is no texture, and its correlation goes to 0."""


@dataclass(frozen=True, slots=True, eq=False)
class S2M2Heatmaps:
    """Similarities of a batch: -1..1 from `windowed_ncc`, 0..1 from `min_max`."""

    deep: Tensor
    """(B, 9, 9) for chips of 256 and templates of 192 px; the centre is offset zero"""
    shallow: Tensor
    """(B, 65, 65), one element a pixel; the centre is offset zero"""
    pairs: tuple[FeatureParts, ...] = ()
    """What the independence loss needs: both modalities, both levels, both passes."""

    @property
    def radius_px(self) -> int:
        """Largest offset that has an element."""
        return (self.shallow.shape[-1] - 1) // 2


def similarity(template: Tensor, search: Tensor, settings: S2M2Settings) -> Tensor:
    """Similarity of the template (B, C, m, m) to every window of the search area (B, C, n, n).

    Returns
    -------
    Tensor
        (B, n - m + 1, n - m + 1), float32, in the order of OFFSETS (see the top of this file), not of
        positions.
    """
    with torch.autocast(template.device.type, enabled=False):
        template, search = template.float(), search.float()
        if settings.normalisation == "windowed_ncc":
            by_position = windowed_ncc(template, search, settings.transform)
        else:
            by_position = min_max(template, search, settings.transform)
        return by_position.mean(dim=1).flip(-2, -1)


def correlation_map(template: Tensor, search: Tensor, transform: Literal["circular", "linear"]) -> Tensor:
    """Cross-correlation of each channel, with the padding around the valid window; (B, C, N, N).

    The first n - m + 1 rows and columns are the valid window: element (i, j) there belongs to the template
    laid at (i, j) of the search area. N is n (the rest is wrapped) or n + m - 1 (the rest hangs over).
    """
    m, n = template.shape[-1], search.shape[-1]
    length = n if transform == "circular" else n + m - 1
    spectrum = torch.fft.rfft2(template, s=(length, length)).conj() * torch.fft.rfft2(
        search, s=(length, length)
    )
    whole: Tensor = torch.fft.irfft2(spectrum, s=(length, length))
    return whole


def windowed_ncc(template: Tensor, search: Tensor, transform: Literal["circular", "linear"]) -> Tensor:
    """Zero-mean normalised cross-correlation of each channel in each window, (B, C, n - m + 1, n - m + 1).

    References
    ----------
    Lewis (1995), Fast Normalized Cross-Correlation.
    """
    m = template.shape[-1]
    shifts = search.shape[-1] - m + 1
    template = template - template.mean(dim=(-2, -1), keepdim=True)
    # The mean of a window falls out against a template of mean zero; the overall mean goes for precision.
    search = search - search.mean(dim=(-2, -1), keepdim=True)
    covariance = correlation_map(template, search, transform)[..., :shifts, :shifts]
    search_energy = box_sums(search.square(), m) - box_sums(search, m).square() / m**2
    template_energy = template.square().sum(dim=(-2, -1), keepdim=True)
    floor = LEAST_VARIANCE * m**2
    return covariance / torch.sqrt(template_energy.clamp_min(floor) * search_energy.clamp_min(floor))


def min_max(template: Tensor, search: Tensor, transform: Literal["circular", "linear"]) -> Tensor:
    """Raw correlation of each channel between the extremes of its whole map, (B, C, n - m + 1, n - m + 1)."""
    shifts = search.shape[-1] - template.shape[-1] + 1
    whole = correlation_map(template, search, transform)
    lowest, highest = whole.amin(dim=(-2, -1), keepdim=True), whole.amax(dim=(-2, -1), keepdim=True)
    return (whole[..., :shifts, :shifts] - lowest) / (highest - lowest).clamp_min(1e-12)


def deep_cell(offset_px: Tensor, heatmaps: S2M2Heatmaps, settings: S2M2Settings) -> Tensor:
    """Index along one axis of the deep cell that holds a whole-pixel offset; any shape, int64."""
    cells, pixels = heatmaps.deep.shape[-1], heatmaps.shallow.shape[-1]
    if settings.deep_cells == "multiples_of_8":
        return (offset_px / DEEP_CELL_PX).round().long() + (cells - 1) // 2
    # The cell over which the pixel's centre lies when the cells are spread evenly over the pixels.
    return ((offset_px.long() + heatmaps.radius_px) * 2 + 1) * cells // (2 * pixels)


def upsample_deep(
    heatmaps: S2M2Heatmaps, settings: S2M2Settings, upsampling: Literal["bilinear", "nearest"]
) -> Tensor:
    """The deep heatmap on the grid of the shallow one, (B, 65, 65)."""
    deep, side = heatmaps.deep, heatmaps.shallow.shape[-1]
    if upsampling == "bilinear":
        # With corners aligned, the first and the last cell lie at -R and R and cell k at 8 k - R.
        aligned = settings.deep_cells == "multiples_of_8"
        return F.interpolate(deep[:, None], size=(side, side), mode="bilinear", align_corners=aligned)[:, 0]
    radius = heatmaps.radius_px
    cell = deep_cell(torch.arange(-radius, radius + 1, device=deep.device), heatmaps, settings)
    return deep[:, cell][:, :, cell]


def combined(heatmaps: S2M2Heatmaps, settings: S2M2Settings) -> Tensor:
    """Upsampled deep x shallow as it is read for a prediction, (B, 65, 65) within 0..1."""
    return _product(heatmaps, settings, settings.prediction_upsampling)


@torch.no_grad()
def pseudo_target(heatmaps: S2M2Heatmaps, settings: S2M2Settings) -> Tensor:
    """What an unlabelled pair shall learn: softmax of deep x shallow at 1/200, (B, 65, 65), no gradient."""
    product = _product(heatmaps, settings, "bilinear")
    return torch.softmax(PRODUCT_SCALE * product.flatten(1), dim=1).reshape(product.shape)


def predict(heatmaps: S2M2Heatmaps, settings: S2M2Settings) -> Tensor:
    """Offsets (dx, dy) in pixels, (B, 2)."""
    if settings.prediction == "deep":
        pitch_px = _deep_pitch_px(heatmaps, settings)
        offset = pitch_px * _peak(heatmaps.deep, heatmaps.deep, refined=settings.peak == "sub_pixel")
        return offset if settings.peak == "sub_pixel" else offset.round()
    surface = combined(heatmaps, settings) if settings.prediction == "combined" else heatmaps.shallow
    # The product says which peak; where it is to a fraction of a pixel the shallow heatmap says alone, for
    # the slope of the broad deep one would pull it.
    return _peak(surface, heatmaps.shallow, refined=settings.peak == "sub_pixel")


def _deep_pitch_px(heatmaps: S2M2Heatmaps, settings: S2M2Settings) -> float:
    """Pixels from one deep cell to the next."""
    if settings.deep_cells == "multiples_of_8":
        return float(DEEP_CELL_PX)
    return heatmaps.shallow.shape[-1] / heatmaps.deep.shape[-1]


def _peak(surface: Tensor, fine: Tensor, *, refined: bool) -> Tensor:
    """(x, y) of the maximum of `surface` from its centre, refined by the vertex of `fine`; (B, 2), cells."""
    b, side, _ = surface.shape
    index = surface.flatten(1).argmax(dim=1)
    cell = torch.stack((index % side, index // side), dim=1)
    if refined:
        cell = cell.clamp(1, side - 2)  # a vertex needs neighbours
        step = torch.arange(-1, 2, device=surface.device)
        batch = torch.arange(b, device=surface.device)[:, None, None]
        patch = fine[batch, (cell[:, 1:] + step)[:, :, None], (cell[:, :1] + step)[:, None, :]]
        return cell + vertex(patch) - (side - 1) / 2
    return cell.float() - (side - 1) / 2


def _product(
    heatmaps: S2M2Heatmaps, settings: S2M2Settings, upsampling: Literal["bilinear", "nearest"]
) -> Tensor:
    """Upsampled deep x shallow, within 0..1."""
    deep, shallow = upsample_deep(heatmaps, settings, upsampling), heatmaps.shallow
    if settings.normalisation == "windowed_ncc":
        # Two opposite images (-1 and -1) must not multiply to a match: first from -1..1 to 0..1.
        deep, shallow = (1 + deep) / 2, (1 + shallow) / 2
    return deep * shallow
