"""Pairs of one tile whose scenes are shifted, turned and stretched by known amounts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosstie.estimation.adjustment import (
    AdjustmentSettings,
    Datum,
    Edges,
    SceneAffines,
    adjust_with_seen_noise,
    scene_affines,
)
from crosstie.estimation.adjustment.network import Adjustment
from crosstie.estimation.pair_offset import offset_at

MIDDLE_M = np.array([554_900.0, 6_845_100.0])
HALF_M = 50_000.0
POINT_M, ACROSS = 5.0, 20
"""Noise of a tie point, metres, and tie points along each side."""

PAIR_M = 0.5
"""What moves all tie points of a pair alike, metres."""

CORNERS_M = MIDDLE_M + HALF_M * np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)])


@dataclass(frozen=True)
class Turned:
    """What pairs measure, and what is true of their scenes."""

    ends: list[tuple[str, str]]
    affine: NDArray[np.float64]
    """(E, 6)"""
    covariance: NDArray[np.float64]
    """(E, 6, 6)"""
    centre_m: NDArray[np.float64]
    """(E, 2) middle of the tie points."""
    shift_m: dict[str, NDArray[np.float64]]
    """At `MIDDLE_M`."""
    linear: dict[str, NDArray[np.float64]]
    """(2, 2) growth of the offset per metre, x and y in rows."""

    @property
    def optical(self) -> list[str]:
        return [name for name in self.shift_m if name.startswith("s2")]

    def offset_m(self, scene: str, at: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) true offset at positions (N, 2) against the mean of the S2 scenes."""
        shift = self.shift_m[scene] - np.mean([self.shift_m[one] for one in self.optical], axis=0)
        linear = self.linear[scene] - np.mean([self.linear[one] for one in self.optical], axis=0)
        return shift + (at - MIDDLE_M) @ linear.T

    def solved(
        self, *, false_alarm: float = 1e-3, datum: Datum | None = None
    ) -> tuple[Adjustment, SceneAffines]:
        """Shifts and affines, as a place is solved."""
        middle = self.centre_m.mean(axis=0)
        offset, covariance = offset_at(self.affine, self.covariance, middle)
        sigma = np.sqrt(np.trace(covariance, axis1=1, axis2=2) / 2)
        reference, secondary = zip(*self.ends, strict=True)
        edges = Edges.of_shifts(reference, secondary, offset, covariance=sigma)
        datum = datum or Datum(references=tuple(self.optical))
        settings = AdjustmentSettings(false_alarm=false_alarm)
        found, noise = adjust_with_seen_noise(edges, datum=datum, settings=settings)
        return found, scene_affines(found, noise, self.affine, self.covariance, self.centre_m, middle)


def turned_network(
    seed: int,
    *,
    turn: float = 3e-5,
    optical: int = 6,
    sar: int = 14,
    translations: float = 0.0,
    one_sided: float = 0.3,
    unlike: float = 1.0,
    mixed: bool = False,
) -> Turned:
    """Draw scenes, every one of one kind paired with every one of the other.

    Parameters
    ----------
    turn : float
        Standard deviation of each number of the linear part.
    translations : float
        Share of the scenes of the second kind whose pairs measured a translation alone.
    one_sided : float
        Share of the pairs with tie points in one half of the tile.
    unlike : float
        Noise of half of the pairs, in that of the others. Pairs say the mean of both.
    mixed : bool
        Pairs with every second reference measured a translation from points everywhere; all others an affine,
        from points in the east alone, or of every second scene in the west.
    """
    rng = np.random.default_rng(seed)
    names = [f"s2-{n:02d}" for n in range(optical)] + [f"s1-{n:02d}" for n in range(sar)]
    shift = {name: rng.normal(0, 5, 2) for name in names}
    linear = {name: rng.normal(0, turn, (2, 2)) for name in names}
    grid = (np.mgrid[:ACROSS, :ACROSS].reshape(2, -1).T + 0.5) / ACROSS * 2 - 1
    ends, affine, covariance, centre = [], [], [], []
    for number, secondary in enumerate(names[optical:]):
        flat = rng.random() < translations
        if flat:
            linear[secondary] = np.zeros((2, 2))
        for n, reference in enumerate(names[:optical]):
            seen = grid[grid[:, rng.integers(2)] > 0] if rng.random() < one_sided else grid
            if mixed:
                flat = n % 2 == 1
                seen = grid if flat else grid[grid[:, 0] * (-1) ** number > 0]
            xy = MIDDLE_M + HALF_M * seen
            noise = POINT_M * (unlike if rng.random() < 0.5 else 1.0)
            offset = shift[secondary] - shift[reference] + rng.normal(0, PAIR_M, 2)
            offset = offset + (xy - MIDDLE_M) @ (linear[secondary] - linear[reference]).T
            fitted, spread = _fitted(xy, offset + rng.normal(0, noise, xy.shape), flat=flat)
            ends.append((reference, secondary))
            affine.append(fitted)
            covariance.append(spread * ((1 + unlike) / 2) ** 2)
            centre.append(xy.mean(axis=0))
    return Turned(ends, np.array(affine), np.array(covariance), np.array(centre), shift, linear)


def _fitted(
    xy_m: NDArray[np.float64], offset_m: NDArray[np.float64], *, flat: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Affine (6,) from the secondary to the reference, by least squares, and its covariance (6, 6)."""
    middle = xy_m.mean(axis=0)
    design = np.column_stack([xy_m - middle, np.ones(len(xy_m))])
    if flat:
        design[:, :2] = 0
    inverse = np.linalg.pinv(design.T @ design)
    growth = -(inverse @ design.T @ offset_m).T
    to_middle = np.eye(3)
    to_middle[2, :2] = -middle
    # What is fitted around the middle of the points, around the origin of the map.
    around = np.kron(np.eye(2), to_middle)
    unit = np.array([1.0, 0, 0, 0, 1.0, 0])
    spread = around @ np.kron(np.eye(2), inverse * POINT_M**2) @ around.T
    return unit + around @ growth.ravel(), spread
