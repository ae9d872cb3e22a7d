"""A product of a pair, moved so that its scene lies at its one adjusted position.

Where the track of the scene has a field, the scene is that field and its own shift, whichever pair it is of.
Else the network knows where the scene lies at the middle of a place, and the pair knows its shape there:
rotation, scale and the displacement field. So the correction of the pair is kept, and its shift at that
middle is replaced. Where the network knows the affine of the scene, too, it is that which is applied, and a
field of the pair keeps what it has beyond the affine of the pair. A pair that the network does not use has no
say in the shape.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from crosstie.errors import BadInputError
from crosstie.grid import px_to_m
from crosstie.io.adjusted.layout import SUMMARY, PlaceVersion
from crosstie.io.adjusted.publish import read_adjusted, read_edges, read_summary
from crosstie.io.adjusted.scene_names import read_scene_name
from crosstie.io.adjusted.tables import broken_table
from crosstie.io.adjusted.track_shift import (
    TrackShift,
    TrackShifts,
    affine_of,
    moved_field,
    read_track_field,
)
from crosstie.types import AffineCorrection, Model, Verdict, VerdictCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crosstie.io.products.product import Product
    from crosstie.io.storage.store import Store
    from crosstie.types import DisplacementField, FloatArray

PLACED = "placed"
"""Verdict of a position that pairs control."""

BY_TRACK = "by track"
"""Verdict of a scene that no pair of the network has: its track is all that is known of it."""


@dataclass(frozen=True, slots=True, eq=False)
class ScenePosition:
    """Where a scene lies at a place."""

    scene: str
    sensor: str
    place: str
    crs: str
    verdict: str
    offset_m: FloatArray
    """(2,) offset of the scene in the datum, x and y."""
    covariance: FloatArray
    """(2, 2) m^2"""
    datum: str
    version: str
    affine: AffineCorrection | None = None
    """Correction of the scene, where the network knows more than its shift."""


@dataclass(frozen=True, slots=True, eq=False)
class PlaceFrame:
    """What is known of a place as a whole."""

    centre_m: FloatArray
    """(2,) where positions are those of scenes."""
    scenes: frozenset[str]
    used: frozenset[str]
    """Keys of the pairs that the network uses."""
    version: PlaceVersion
    tracks: TrackShifts
    scene_ids: str | None
    """Pattern of ids that the place was adjusted with."""


@dataclass(frozen=True, slots=True, eq=False)
class AdjustedPositions:
    """All adjusted positions of an archive, read once."""

    store: Store
    of_scene: Mapping[str, list[ScenePosition]]
    places: Mapping[str, PlaceFrame]
    _fields: dict[tuple[str, str], DisplacementField] = field(default_factory=dict, repr=False)
    """Fields of tracks that were read, by place and file."""

    @classmethod
    def read(cls, store: Store) -> Self:
        """Read the current tables of all places.

        Raises
        ------
        StoreError
            Nothing is adjusted yet, or a table is broken.
        """
        of_scene: defaultdict[str, list[ScenePosition]] = defaultdict(list)
        for row in read_adjusted(store).drop(columns="geometry").to_dict("records"):
            position = ScenePosition(
                row["scene"], row["sensor"], row["place"], row["crs"], row["verdict"],
                np.array([row["dx_m"], row["dy_m"]], np.float64),
                np.array(row["covariance"], np.float64).reshape(2, 2),
                row["datum"], row["version"], _affine_in(row),
            )  # fmt: skip
            of_scene[position.scene].append(position)
        places = {p.place: p.version for positions in of_scene.values() for p in positions}
        return cls(
            store, of_scene, {name: _place_frame(store, PlaceVersion(name, v)) for name, v in places.items()}
        )

    def find(self, *, scene: str, partner: str, crs: str | None) -> ScenePosition:
        """Position of a scene at the place that it shares with a partner.

        A scene that is in no pair of the network has that of its track, where the track has a field there.

        Raises
        ------
        BadInputError
            It has none, or none that pairs control; or several places have both.
        """
        there = [
            p for p in self.of_scene.get(scene, ()) if p.crs == crs and partner in self.places[p.place].scenes
        ]
        there = there or self._by_track(scene, partner, crs)
        if len(there) != 1:
            what = "is adjusted at no place" if not there else "is adjusted at several places"
            raise BadInputError(
                f"{scene} {what} together with {partner}; `crosstie adjust --out {self.store.url}` adjusts "
                "what is committed, or apply the pair without --adjusted"
            )
        [position] = there
        if position.verdict not in (PLACED, BY_TRACK):
            raise BadInputError(
                f"{scene} is {position.verdict} at {position.place}: no pairs control its position; "
                "apply the pair without --adjusted"
            )
        return position

    def _by_track(self, scene: str, partner: str, crs: str | None) -> list[ScenePosition]:
        found = []
        for at in (p for p in self.of_scene.get(partner, ()) if p.crs == crs):
            track = read_scene_name(scene, self.places[at.place].scene_ids).track
            by = self.places[at.place].tracks.of_track.get(track)
            if by is not None:
                spread = by.sigma_m**2 * np.eye(2)
                found.append(
                    replace(
                        at,
                        scene=scene,
                        verdict=BY_TRACK,
                        offset_m=np.zeros(2),
                        covariance=spread,
                        affine=None,
                    )
                )
        return found

    def track_shift(self, position: ScenePosition) -> TrackShift | None:
        """What a scene is moved by against the field of its track; None where there is none."""
        place = self.places[position.place]
        if position.verdict == BY_TRACK:
            return place.tracks.of_track[read_scene_name(position.scene, place.scene_ids).track]
        return place.tracks.of_scene.get(position.scene)

    def track_field(self, position: ScenePosition, by: TrackShift) -> DisplacementField:
        """Field of one scene of a track: that of the track, and its shift.

        Raises
        ------
        StoreError
            The file is missing or broken.
        """
        key = position.place, by.file
        if key not in self._fields:
            version = self.places[position.place].version
            self._fields[key] = read_track_field(self.store, version, by.file, position.crs)
        return moved_field(self._fields[key], by)


def at_adjusted_position(product: Product, positions: AdjustedPositions) -> Product:
    """Move the correction of a pair so that its secondary lies at its adjusted position.

    Parameters
    ----------
    product : Product
        An opened pair of the same root.
    positions : AdjustedPositions
        Positions of the archive.

    Returns
    -------
    Product
        The same pair; `correction` and `alignment` are others, and its verdict is `corrected`.

    Raises
    ------
    BadInputError
        The secondary has no position that pairs control.
    """
    position = position_of(product, positions)
    by = positions.track_shift(position)
    if by is not None:
        return _on_track_field(product, positions.track_field(position, by), position, by)
    place = positions.places[position.place]
    field = product.alignment.field
    used = product.key.pair_key in place.used
    correction = position.affine
    if correction is None:
        correction = _at_shift(product.correction if used else AffineCorrection.identity(), position, place)
    if field is not None:
        field = _along(field, product.record["fitted"]["affine"], position, place) if used else None
    return replace(
        product,
        verdict=Verdict(VerdictCode.CORRECTED),
        correction=correction,
        alignment=replace(product.alignment, affine=correction.affine, field=field),
    )


def _at_shift(applied: AffineCorrection, position: ScenePosition, place: PlaceFrame) -> AffineCorrection:
    """The correction of a pair, with the shift of its scene at the middle of the place."""
    more = position.offset_m - _offset_of(applied.affine, place.centre_m)
    a, b, c, d, e, f = applied.affine
    affine = (a, b, c - float(more[0]), d, e, f - float(more[1]))
    covariance = np.array(applied.covariance)
    covariance[np.ix_([2, 5], [2, 5])] += position.covariance
    model = Model.TRANSLATION if applied.model is Model.IDENTITY else applied.model
    return AffineCorrection(model, affine, covariance)


def _along(
    field: DisplacementField, fitted: Sequence[float], position: ScenePosition, place: PlaceFrame
) -> DisplacementField:
    """The field of a pair, moved from what the pair measured to where its scene lies.

    The field holds all that was measured, whether the affine of the pair was applied or not.
    """
    if position.affine is None:
        shift = position.offset_m - _offset_of(fitted, place.centre_m)
        return replace(field, dx_m=field.dx_m + shift[0], dy_m=field.dy_m + shift[1])
    row, col = np.indices(field.dx_m.shape)
    xy_m = px_to_m(field.grid, np.stack([col.ravel() + 0.5, row.ravel() + 0.5], axis=1))
    more = _offset_of(position.affine.affine, xy_m.T) - _offset_of(fitted, xy_m.T)
    dx, dy = more.reshape(2, *field.dx_m.shape).astype(field.dx_m.dtype)
    return replace(field, dx_m=field.dx_m + dx, dy_m=field.dy_m + dy)


def _on_track_field(
    product: Product, field: DisplacementField, position: ScenePosition, by: TrackShift
) -> Product:
    correction = affine_of(field, position.covariance + by.sigma_m**2 * np.eye(2))
    return replace(
        product,
        verdict=Verdict(VerdictCode.CORRECTED),
        correction=correction,
        alignment=replace(product.alignment, affine=correction.affine, field=field),
    )


def _offset_of(affine: Sequence[float], at: FloatArray) -> FloatArray:
    """(2, ...) offset at positions (2, ...) that an affine corrects."""
    a, b, c, d, e, f = affine
    x, y = at
    return np.array([x - (a * x + b * y + c), y - (d * x + e * y + f)])


def _affine_in(row: dict[str, Any]) -> AffineCorrection | None:
    if row["model"] != Model.AFFINE:
        return None
    a, b, c, d, e, f = map(float, row["affine"])
    covariance = np.array(row["affine_covariance"], np.float64).reshape(6, 6)
    return AffineCorrection(Model.AFFINE, (a, b, c, d, e, f), covariance)


def _place_frame(store: Store, version: PlaceVersion) -> PlaceFrame:
    edges = read_edges(store, version)
    if edges is None:
        raise broken_table(store.url_of(version.commit), ValueError("its version is not committed"))
    said = read_summary(store, version)
    try:
        centre, tracks = np.array(said["centre_m"], np.float64), TrackShifts.read(said)
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError) as problem:
        raise broken_table(store.url_of(version.file(SUMMARY)), problem) from None
    scenes = frozenset(edges["reference"]) | frozenset(edges["secondary"])
    used = frozenset(edges.loc[edges["kept"], "pair_key"])
    return PlaceFrame(centre, scenes, used, version, tracks, said.get("scene_ids"))


def position_of(product: Product, positions: AdjustedPositions) -> ScenePosition:
    """Position of the secondary of a pair; errors as `AdjustedPositions.find`."""
    pair = product.record["pair"]
    return positions.find(
        scene=pair["secondary"]["id"], partner=pair["reference"]["id"], crs=product.alignment.crs
    )


def position_properties(position: ScenePosition, by: TrackShift | None = None) -> dict[str, Any]:
    """What a STAC item of aligned pixels says of the position, or of the shift on the field of a track."""
    shift = position.offset_m if by is None else by.shift_m
    name = "" if by is None else "track_"
    said = {
        "crosstie:place": position.place,
        f"crosstie:{name}dx_m": float(shift[0]),
        f"crosstie:{name}dy_m": float(shift[1]),
        "crosstie:datum": position.datum,
        "crosstie:version": position.version,
    }
    if by is None and position.affine is not None:
        said["crosstie:scene_affine"] = list(position.affine.affine)
    return said if by is None else said | {"crosstie:track_field": by.file}
