"""Which pixels can be measurements: wild values that no header declares, told from the unit and few values.

One fill value of 9.97e36 (NetCDF's) among a million pixels ruins every sum that passes over it. What is
plausible is settled once, when a raster is opened: every window of it then decides alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosstie.types import Kind

if TYPE_CHECKING:
    from crosstie.types import FloatArray

Limits = tuple[float, float]

BEYOND_UNITS = 1e10
"""No unit in use goes so far: intensity of 16-bit amplitude ends at 4.3e9."""

REFLECTANCE: Limits = (-0.5, 5.0)
"""Dark water after an offset of -0.1 and glints lie inside; -9999 and 65535 in 1e-4 do not."""

DB: Limits = (-100.0, 60.0)
"""From below any noise floor to above any corner reflector."""

POWER_BELOW_DB, POWER_ABOVE_DB = 80.0, 60.0
"""Of power and amplitude, from their median: point targets stand 30 dB and more above the rest."""

SPREADS = 10.0
"""Interquartile ranges beside the median that are plausible whatever the unit."""

USUAL_FILLS = frozenset(
    [
        *(sign * nines for sign in (-1, 1) for nines in (9999.0, 99999.0, 999999.0)),
        *(-999.0, -32768.0, -32767.0, 32767.0, 65535.0, -(2.0**31), 2.0**31 - 1, 2.0**32 - 1),
        *(-100.0, -10_000.0),  # dB of 1e-10, which is put for 0 before the logarithm, and in hundredths
    ]
)
"""What writers put where there is nothing; each may be a measurement, too, until it stands apart."""

FILL_SHARE = 0.005
"""Of the sample that holds one same value before that can be a fill: saturated ships are rarer."""

GAP_SHARE = 0.1
"""Pixels between 0 and the darkest ones shown, per pixel of 0, up to which a border is blank: JPEG leaves
some."""

STANDS_OUT = 4
"""Times that a value must be as frequent as the next one to stand for nothing: zeros among dB, a negative
value among others that are not."""

MAX_FILLS = 4
"""Fill values looked for in one raster: one on either side, and those of a second writer."""


def find_fills(sample: FloatArray) -> tuple[float, ...]:
    """Find fill values that nothing declares.

    A fill is repeated exactly, is the least or the largest value, and stands apart from the rest: by the
    range of the rest where it is a usual fill value, or negative and below the rest, else by ten times that
    range; or it alone is negative, and far more frequent than the next value.

    Parameters
    ----------
    sample : FloatArray
        (N,) stored values that the file takes for valid.

    Returns
    -------
    fills : tuple[float, ...]
        At most `MAX_FILLS`, ascending.
    """
    rest = sample[np.abs(sample) < BEYOND_UNITS]
    least = max(3, FILL_SHARE * len(rest))
    fills: list[float] = []
    while len(rest) and len(fills) < MAX_FILLS:
        found = [
            value for value in (float(rest.min()), float(rest.max())) if _stands_apart(value, rest, least)
        ]
        if not found:
            break
        fills.extend(found)
        rest = rest[~np.isin(rest, found)]
    return tuple(sorted(fills))


def are_zeros_blank(pixels: FloatArray) -> bool:
    """Say whether pixels that are 0 in all bands hold nothing, although nothing declares it.

    A blank border leaves a gap: next to no pixel has a value between 0 and what the image shows. Dark water
    that was cut off at 0 has neighbours of 1, 2 and 3.

    Parameters
    ----------
    pixels : FloatArray
        (B, N) stored values of some pixels, not negative.
    """
    brightest = pixels.max(axis=0)
    blank = int((brightest == 0).sum())
    shown = brightest[brightest > 0]
    if blank < max(3, FILL_SHARE * brightest.size) or not len(shown):
        return False
    between = int((shown <= np.percentile(shown, 5) / 2).sum())
    return between <= GAP_SHARE * blank


def are_zeros_no_echo(db: FloatArray) -> bool:
    """Say whether exact zeros among SAR values (N,) in dB are blank: far more than of the values beside 0."""
    exact = int((db == 0).sum())
    if exact < max(3, FILL_SHARE * len(db)):
        return False
    sides = [side for side in (db[db < 0], db[db > 0]) if len(side)]
    beside = max((int((side == side[np.abs(side).argmin()]).sum()) for side in sides), default=0)
    return exact > STANDS_OUT * beside


def _stands_apart(value: float, sample: FloatArray, least: float) -> bool:
    others = sample[sample != value]
    if len(sample) - len(others) < least or not len(others):
        return False
    low, high = np.percentile(others, [1, 99])
    gap = max(low - value, value - high)
    if value < 0 <= others.min() and len(sample) - len(others) > STANDS_OUT * (others == others.min()).sum():
        return bool(high > low)
    # What is clipped from below lies beside the rest: -99.99 far below dB is put there.
    is_put = value in USUAL_FILLS or (value < 0 and gap == low - value)
    # Of a mask of zeros and ones neither is a fill: the rest must vary.
    return bool(high > low and gap > (high - low) * (1 if is_put else 10))


def are_measured(sample: FloatArray, fills: tuple[float, ...]) -> NDArray[np.bool_]:
    """Say which stored values (N,) tell something about the image: finite, of some unit, and no fill."""
    measured: NDArray[np.bool_] = (np.abs(sample) < BEYOND_UNITS) & ~np.isin(sample, fills)
    return measured


def find_limits(kind: Kind, *, is_db: bool, scale: float, sample: FloatArray) -> Limits:
    """Find the least and the largest plausible value of a raster.

    Physical limits of the unit, widened where the middle of the values says that the unit is another:
    digital numbers in dB reach 96, 16-bit numbers stretched for display exceed any reflectance.

    Parameters
    ----------
    kind : Kind
        What formed the image.
    is_db : bool
        SAR values are dB.
    scale : float
        Factor that brings optical values to reflectance.
    sample : FloatArray
        (N,) values in the raster's unit, without fills.

    Returns
    -------
    limits : Limits
        Inclusive, in the unit of `sample`.
    """
    if kind is Kind.SAR and not is_db:
        positive = sample[sample > 0]
        if not len(positive):
            return 0.0, BEYOND_UNITS
        level_db = 10 * np.log10(positive)
        # What is put for nothing before a logarithm, such as 1e-10, may fill any share of the image.
        above = level_db[level_db > level_db.min()]
        if len(above) and np.median(above) - level_db.min() > POWER_BELOW_DB:
            level_db = above
        low, high = _around(level_db, below=POWER_BELOW_DB, above=POWER_ABOVE_DB)
        # Held to what a unit reaches before it is raised: values of 1e-38 beside 1e9 spread over 470 dB.
        return float(10 ** (low / 10)), float(10 ** (min(high, 10 * np.log10(BEYOND_UNITS)) / 10))
    physical = DB if kind is Kind.SAR else (REFLECTANCE[0] / scale, REFLECTANCE[1] / scale)
    if not len(sample):
        return physical
    low, high = _around(sample, below=0, above=POWER_ABOVE_DB if kind is Kind.SAR else 0)
    return min(low, physical[0]), max(high, physical[1])


def _around(sample: FloatArray, *, below: float, above: float) -> Limits:
    quarter, median, three_quarters = np.percentile(sample, [25, 50, 75])
    spread = SPREADS * (three_quarters - quarter)
    return float(median - max(below, spread)), float(median + max(above, spread))


def implausible(values: NDArray[np.float32], limits: Limits | None) -> NDArray[np.bool_]:
    """Say where one of the bands (B, rows, cols) lies outside the limits, (rows, cols); NaN does not."""
    if limits is None:
        return np.zeros(values.shape[1:], np.bool_)
    outside = (values < limits[0]) | (values > limits[1])
    return np.asarray(outside.any(axis=0), np.bool_)
