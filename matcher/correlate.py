"""Windowed zero-mean normalised cross-correlation of feature stacks, by FFT."""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len
from torch import Tensor


def correlate(
    template: Tensor,
    search: Tensor,
    template_valid: Tensor | None = None,
    search_valid: Tensor | None = None,
) -> Tensor:
    """Correlate each template with each window of its search area, over all channels at once.

    r(d) = sum_c,x (T - mean T)(S_d - mean S_d) / (|T - mean T| |S_d - mean S_d|), means per channel and
    window. The transform is circular and at least as long as the search area: the wrapped part never reaches
    an offset that is returned. With masks, invalid pixels have no weight. The search mean is then that of the
    whole search area: an approximation that changes the level of r, not the position of its peak.

    Parameters
    ----------
    template : Tensor
        (B, C, m, m) features of the reference.
    search : Tensor
        (B, C, m + 2R, m + 2R) features of the secondary.
    template_valid, search_valid : Tensor | None
        (B, 1, m, m) and (B, 1, m + 2R, m + 2R), 1.0 where good, 0.0 elsewhere.

    Returns
    -------
    Tensor
        (B, 2R + 1, 2R + 1) correlations in -1..1. Element (i, j) belongs to the offset
        (dx, dy) = (j - R, i - R).

    References
    ----------
    Lewis (1995), Fast Normalized Cross-Correlation; Padfield (2012), IEEE TIP 21(5), for the masks.
    """
    m, n = template.shape[-1], search.shape[-1]
    shifts = n - m + 1
    whole = (next_fast_len(n, real=True),) * 2  # 394 px take twice as long as 400
    template, search = template.float(), search.float()
    if template_valid is None or search_valid is None:
        template = template - template.mean(dim=(-2, -1), keepdim=True)
        # Without the overall mean the running sums stay small.
        search = search - search.mean(dim=(-2, -1), keepdim=True)
    else:
        template = _centre(template, template_valid)
        search = _centre(search, search_valid)
    spectrum = torch.fft.rfft2(template, s=whole).conj() * torch.fft.rfft2(search, s=whole)
    top = torch.fft.irfft2(spectrum.sum(dim=1), s=whole)[..., :shifts, :shifts]
    search_energy = box_sums(search.square().sum(dim=1), m) - box_sums(search, m).square().sum(dim=1) / m**2
    if search_valid is None:
        template_energy = template.square().sum(dim=(1, 2, 3))[:, None, None]
    else:
        energy_spectrum = torch.fft.rfft2(template.square().sum(dim=1), s=whole).conj()
        valid_spectrum = torch.fft.rfft2(search_valid[:, 0], s=whole)
        overlapped = torch.fft.irfft2(energy_spectrum * valid_spectrum, s=whole)
        template_energy = overlapped[..., :shifts, :shifts]
    # Below a thousandth of the usual energy there is no texture: r -> 0 rather than noise over noise.
    floor = 1e-3 * template.shape[1] * m**2 * 1e-2
    correlation: Tensor = top / torch.sqrt(template_energy.clamp_min(floor) * search_energy.clamp_min(floor))
    return correlation


def _centre(features: Tensor, valid: Tensor) -> Tensor:
    """Take off the mean of the valid pixels; 0 elsewhere."""
    count = valid.sum(dim=(-2, -1), keepdim=True).clamp_min(1)
    mean = (features * valid).sum(dim=(-2, -1), keepdim=True) / count
    return (features - mean) * valid


def box_sums(x: Tensor, m: int) -> Tensor:
    """Sums of every m x m window of (..., n, n): (..., n - m + 1, n - m + 1), by an integral image."""
    total = torch.nn.functional.pad(x, (1, 0, 1, 0)).cumsum(-1).cumsum(-2)
    return total[..., m:, m:] - total[..., :-m, m:] - total[..., m:, :-m] + total[..., :-m, :-m]
