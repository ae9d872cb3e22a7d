"""Bands of a raster -> the one plane that is matched. Training and use call the same two functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crosstie.types import LUMINANCE

TINY = 1e-10
"""Smallest power with a logarithm, -100 dB: below the noise floor of any SAR."""


def optical_plane(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reduce optical bands (B, rows, cols), NaN where invalid, to one plane (rows, cols).

    Three bands are taken for red, green, blue and give their luminance; any other number gives the mean.
    """
    if bands.shape[0] == 3:
        weights = np.asarray(LUMINANCE, np.float32)
        luminance: NDArray[np.float32] = np.tensordot(weights, bands, axes=1).astype(np.float32)
        return luminance
    mean: NDArray[np.float32] = bands.mean(axis=0, dtype=np.float32)
    return mean


def sar_plane(bands: NDArray[np.float32], *, is_db: bool) -> NDArray[np.float32]:
    """Reduce SAR polarisations (B, rows, cols), NaN where invalid, to one plane (rows, cols) in dB.

    Power and amplitude differ in dB by a factor of two only, which the matcher's local normalisation
    removes, so both are taken as power. Values <= 0 that are not dB have no logarithm: NaN. The mean over
    polarisations in dB is a geometric mean: it thins speckle and lets no band outweigh the other.
    """
    if not is_db:
        with np.errstate(invalid="ignore"):
            bands = np.where(bands > 0, 10 * np.log10(np.maximum(bands, TINY)), np.nan).astype(np.float32)
    mean: NDArray[np.float32] = bands.mean(axis=0, dtype=np.float32)
    return mean
