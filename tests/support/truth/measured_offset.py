"""The offset of one image from another, measured without any code of the project."""

from __future__ import annotations

import numpy as np


def measured_offset(reference: np.ndarray, secondary: np.ndarray) -> tuple[int, int]:
    """Whole-pixel offset of the secondary by phase-free cross-correlation."""
    spectrum = np.conj(np.fft.rfft2(reference)) * np.fft.rfft2(secondary)
    surface = np.fft.irfft2(spectrum, s=reference.shape)
    row, col = np.unravel_index(int(surface.argmax()), surface.shape)
    half = reference.shape[0] // 2
    return (int(col) + half) % (2 * half) - half, (int(row) + half) % (2 * half) - half
