"""The field that all dates of a track share: relief and viewing geometry stay, the noise of a date does not.

A date is a shift of its own and the track's field. Averaging dates makes the field sharper than any of them,
and a date that is mostly hidden needs its shift only, which a few tiles give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import FloatArray

FIELD_ROUNDS = 50
FIELD_SETTLED = 1e-4
"""Of the smallest sigma: a round that moves nothing by more is the last."""

HUBER_CUT = float(np.sqrt(chi2.isf(0.05, 2)))
"""Residuals longer than this many sigmas weigh less: 5 % of good ones (Huber)."""

WILD = 3.0
"""Residuals longer than this many times `HUBER_CUT` weigh nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class StaticField:
    """Field of one track at one place; NaN where no date saw the ground."""

    offset: FloatArray
    """(2, rows, cols) dx, dy; its mean is that of the dates."""
    sigma: FloatArray
    """(rows, cols) standard deviation per axis, in the unit of the offsets."""
    dates: NDArray[np.int64]
    """(rows, cols) dates that had a say."""
    shift: FloatArray
    """(D, 2) what each date is moved by as a whole against the field."""
    factor: float
    """What the sigmas given had to be multiplied by to hold."""


@dataclass(frozen=True, slots=True, eq=False)
class AlignedDate:
    """A date carried by the field of its track."""

    shift: tuple[float, float]
    """Of the whole date against the field."""
    shift_sigma: float
    """Per axis."""
    offset: FloatArray
    """(2, rows, cols) field and shift; NaN where the field is unknown."""
    sigma: FloatArray
    """(rows, cols) standard deviation per axis."""
    used: int
    """Tiles of the date that gave the shift."""


def average(offset: FloatArray, sigma: FloatArray) -> StaticField:
    """Average displacement fields of the dates of one track, robustly.

    Parameters
    ----------
    offset : FloatArray
        (D, 2, rows, cols) dx, dy of each date in any unit; NaN where hidden.
    sigma : FloatArray
        (D, rows, cols) standard deviation per axis, same unit.

    Raises
    ------
    ValueError
        Shapes differ, or dates share no ground: their shifts cannot be compared.
    """
    _check(offset, sigma)
    known = np.asarray(np.isfinite(offset).all(axis=1) & np.isfinite(sigma) & (sigma > 0), np.bool_)
    if not known.any():
        raise ValueError("no date shows anything; leave the track without a field")
    base = np.where(known, 1 / np.where(known, sigma, 1.0) ** 2, 0.0)
    values = np.where(known[:, None], offset, 0.0)
    shift = _first_shifts(offset, known)
    field = np.zeros(offset.shape[1:])
    shown = np.asarray(known.any(axis=(1, 2)), np.bool_)
    weight, factor = base, 1.0
    for _ in range(FIELD_ROUNDS):
        field = _weighted_mean(values - shift[:, :, None, None], weight[:, None], axis=0)
        left = values - field
        new = _weighted_mean(left, weight[:, None], axis=(2, 3))
        new -= new[shown].mean(axis=0)
        moved = float(np.abs(new - shift)[shown].max())
        shift = np.where(shown[:, None], new, 0.0)
        length = np.hypot(*np.moveaxis(left - shift[:, :, None, None], 1, 0)) * np.sqrt(base)
        factor = _factor(length[known], int(known.any(axis=0).sum()) + len(shift), int(known.sum()))
        weight = base * _robust(length / factor)
        if moved < FIELD_SETTLED * float(sigma[known].min()):
            break
    total = weight.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = factor / np.sqrt(total)
    seen = total > 0
    return StaticField(
        offset=np.where(seen, field, np.nan),
        sigma=np.where(seen, spread, np.nan),
        dates=(weight > 0).sum(axis=0),
        shift=np.where(shown[:, None], shift, np.nan),
        factor=factor,
    )


def align(field: StaticField, offset: FloatArray, sigma: FloatArray) -> AlignedDate:
    """Find the shift of one date from the tiles that it shows, and move the field by it.

    Parameters
    ----------
    field : StaticField
        Field of the track.
    offset : FloatArray
        (2, rows, cols) field of the date; NaN where hidden.
    sigma : FloatArray
        (rows, cols) its standard deviation per axis.

    Raises
    ------
    ValueError
        No tile is known in both.
    """
    _check(offset[None], sigma[None])
    left = offset - field.offset
    variance = sigma**2 + field.sigma**2
    known = np.asarray(np.isfinite(left).all(axis=0) & np.isfinite(variance) & (variance > 0), np.bool_)
    if not known.any():
        raise ValueError(
            "the date shows no tile where the track's field is known; it cannot be aligned by it"
        )
    left, base = left[:, known], 1 / variance[known]
    shift, weight, factor = np.median(left, axis=1), base, 1.0
    for _ in range(FIELD_ROUNDS):
        length = np.hypot(*(left - shift[:, None])) * np.sqrt(base)
        factor = max(1.0, _factor(length, 1, len(base)))
        weight = base * _robust(length / factor)
        new = _weighted_mean(left, weight, axis=1)
        moved, shift = float(np.abs(new - shift).max()), new
        if moved < FIELD_SETTLED / np.sqrt(base.max()):
            break
    shift_sigma = factor / float(np.sqrt(weight.sum()))
    return AlignedDate(
        shift=(float(shift[0]), float(shift[1])),
        shift_sigma=shift_sigma,
        offset=field.offset + shift[:, None, None],
        sigma=np.hypot(field.sigma, shift_sigma),
        used=int((weight > 0).sum()),
    )


def _check(offset: FloatArray, sigma: FloatArray) -> None:
    dates, axes, rows, cols = offset.shape
    if axes != 2 or sigma.shape != (dates, rows, cols):
        raise ValueError(
            f"offsets must be (dates, 2, rows, cols) with sigmas (dates, rows, cols), got {offset.shape} "
            f"and {sigma.shape}"
        )


def _first_shifts(offset: FloatArray, known: NDArray[np.bool_]) -> FloatArray:
    """(D, 2) shifts to begin with: medians against the date of most tiles, in order of what dates share."""
    shift, placed = np.zeros(offset.shape[:2]), np.zeros(len(offset), np.bool_)
    order = np.argsort(-known.sum(axis=(1, 2)), kind="stable")
    placed[order[0]] = True
    field = np.where(known[order[0]], offset[order[0]], np.nan)
    waiting = [n for n in order[1:] if known[n].any()]
    while waiting:
        shared = [(np.isfinite(field[0]) & known[n]).sum() for n in waiting]
        best = int(np.argmax(shared))
        if shared[best] == 0:
            raise ValueError(
                f"{len(waiting)} dates share no tile with the others: their shifts are not known"
            )
        n = waiting.pop(best)
        shift[n] = np.nanmedian(np.where(known[n], offset[n] - field, np.nan), axis=(1, 2))
        fresh = known[n] & ~np.isfinite(field[0])
        field[:, fresh] = offset[n][:, fresh] - shift[n][:, None]
    return shift


def _weighted_mean(values: FloatArray, weight: FloatArray, axis: int | tuple[int, ...]) -> FloatArray:
    """Weighted mean over `axis`; `weight` is broadcast. 0 where nothing weighs."""
    total = np.broadcast_to(weight, values.shape).sum(axis=axis)
    mean: FloatArray = (values * weight).sum(axis=axis) / np.where(total > 0, total, 1.0)
    return mean


def _factor(length: FloatArray, unknowns: int, count: int) -> float:
    """By how much sigmas are too small: from the median length of residuals, and what was fitted to them."""
    redundancy = max(1 - unknowns / max(count, 1), 0.05)
    return max(float(np.median(length)) / float(np.sqrt(chi2.median(2) * redundancy)), 1e-6)


def _robust(length: FloatArray) -> FloatArray:
    """Weights of residuals in sigmas: Huber's, and none at all far out."""
    weight: FloatArray = np.where(length > WILD * HUBER_CUT, 0.0, HUBER_CUT / np.maximum(length, HUBER_CUT))
    return weight
