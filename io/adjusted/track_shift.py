"""The field of a track, as an adjusted place tells it, and a product laid on it.

All scenes of a track are distorted alike, so each is its track's field and one shift. That is the same
whichever partner a scene had, and its noise is a fraction of that of one pair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from affine import Affine
from odc.geo import CRS

from crosstie.errors import BadInputError, StoreError
from crosstie.grid import px_to_m
from crosstie.io.adjusted.layout import field_file
from crosstie.io.adjusted.tables import broken_table
from crosstie.io.products.displacement import DISPLACEMENT, read_displacement
from crosstie.types import AffineCorrection, DisplacementField, Model

if TYPE_CHECKING:
    from crosstie.io.adjusted.layout import PlaceVersion
    from crosstie.io.storage.store import Store
    from crosstie.types import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class TrackShift:
    """Field of a track, and what one scene is moved by against it."""

    track: str
    file: str
    """Name of the field's file in the version of the place."""
    shift_m: FloatArray
    """(2,)"""
    sigma_m: float
    """Per axis."""


@dataclass(frozen=True, slots=True, eq=False)
class TrackShifts:
    """What a place says of its tracks."""

    of_scene: Mapping[str, TrackShift]
    of_track: Mapping[str, TrackShift]
    """Of a scene that nothing is known of but its track: no shift, with the scatter of the others."""

    @classmethod
    def read(cls, summary: Mapping[str, Any]) -> Self:
        """Take them out of `adjustment.json`; there are none where an earlier version of crosstie wrote it.

        Raises
        ------
        ValueError, KeyError, TypeError, AttributeError
            They are not as they should be.
        """
        of_scene, of_track = {}, {}
        for track, said in (summary.get("tracks") or {}).items():
            file = str(said["field"])
            if file != field_file(track):
                raise ValueError(f"field {file[:80]!r} of track {track[:80]!r}")
            of_track[track] = _checked_shift(track, file, 0.0, 0.0, said["scatter_m"])
            for scene, by in said["scenes"].items():
                of_scene[scene] = _checked_shift(track, file, by["dx_m"], by["dy_m"], by["sigma_m"])
        return cls(of_scene, of_track)


def _checked_shift(track: str, file: str, *numbers: float) -> TrackShift:
    x, y, sigma = map(float, numbers)
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"shift {x}, {y}, {sigma} of track {track[:80]!r}")
    return TrackShift(track, file, np.array([x, y]), sigma)


def read_track_field(store: Store, version: PlaceVersion, file: str, crs: str) -> DisplacementField:
    """Read the field of a track.

    Raises
    ------
    StoreError
        It is missing, broken, or in another CRS than the place.
    """
    url = store.url_of(version.file(file))
    body = store.get(version.file(file))
    if body is None:
        raise broken_table(url, ValueError("committed, but missing"))
    try:
        with TemporaryDirectory(prefix="crosstie-") as folder:
            path = Path(folder) / DISPLACEMENT
            path.write_bytes(body)
            field = read_displacement(path)
        if field.grid.crs != CRS(crs):
            raise StoreError(f"it is in {field.grid.crs}, the place in {crs}")
    except BadInputError as problem:
        raise broken_table(url, problem) from None
    if np.isfinite(field.dx_m).sum() < 3:
        raise broken_table(url, ValueError("it knows nothing"))
    return field


def moved_field(field: DisplacementField, by: TrackShift) -> DisplacementField:
    """Field of one scene of the track."""
    x, y = by.shift_m
    return replace(
        field,
        dx_m=field.dx_m + x,
        dy_m=field.dy_m + y,
        sigma_m=np.hypot(field.sigma_m, by.sigma_m),
    )


def affine_of(field: DisplacementField, covariance: FloatArray) -> AffineCorrection:
    """Correction that fits a field best: what holds beyond the ground that it knows.

    Parameters
    ----------
    covariance : FloatArray
        (2, 2) of the shift, m^2.
    """
    known = np.isfinite(field.dx_m) & np.isfinite(field.dy_m)
    row, col = np.nonzero(known)
    xy_m = px_to_m(field.grid, np.stack([col + 0.5, row + 0.5], axis=1))
    centre = xy_m.mean(axis=0)
    design = np.column_stack([(xy_m - centre) / 1000, np.ones(len(xy_m))])
    offset = np.stack([field.dx_m[known], field.dy_m[known]], axis=1).astype(np.float64)
    slope = np.linalg.lstsq(design, offset, rcond=None)[0]
    (xx, yx), (xy, yy) = slope[:2] / 1000
    # To the secondary around the centre; the correction is the way back.
    there = Affine(1 + xx, xy, slope[2, 0], yx, 1 + yy, slope[2, 1])
    out, back = Affine.translation(*centre), Affine.translation(*-centre)
    a, b, c, d, e, f = tuple(out @ ~there @ back)[:6]
    spread = np.zeros((6, 6))
    spread[np.ix_([2, 5], [2, 5])] = covariance
    return AffineCorrection(Model.AFFINE, (a, b, c, d, e, f), spread)
