"""A product of a pair, moved so that its scene lies at its one adjusted position.

The network knows where a scene lies at the middle of a place. The pair knows its shape there: rotation,
scale and the displacement field. So the correction of the pair is kept, and its shift at that middle is
replaced. A pair that the network does not use has no say in the shape either.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from crosstie.errors import BadInputError
from crosstie.io.adjusted.layout import PlaceVersion
from crosstie.io.adjusted.publish import read_adjusted, read_edges, read_summary
from crosstie.io.adjusted.tables import broken_table
from crosstie.types import AffineCorrection, Model, Verdict, VerdictCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crosstie.io.products.product import Product
    from crosstie.io.storage.store import Store
    from crosstie.types import FloatArray

PLACED = "placed"
"""Verdict of a position that pairs control."""


@dataclass(frozen=True, slots=True, eq=False)
class ScenePosition:
    """Where a scene lies at a place."""

    scene: str
    place: str
    crs: str
    verdict: str
    offset_m: FloatArray
    """(2,) offset of the scene in the datum, x and y."""
    covariance: FloatArray
    """(2, 2) m^2"""
    datum: str
    version: str


@dataclass(frozen=True, slots=True, eq=False)
class PlaceFrame:
    """What is known of a place as a whole."""

    centre_m: FloatArray
    """(2,) where positions are those of scenes."""
    scenes: frozenset[str]
    used: frozenset[str]
    """Keys of the pairs that the network uses."""


@dataclass(frozen=True, slots=True, eq=False)
class AdjustedPositions:
    """All adjusted positions of an archive, read once."""

    store: Store
    of_scene: Mapping[str, list[ScenePosition]]
    places: Mapping[str, PlaceFrame]

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
                row["scene"], row["place"], row["crs"], row["verdict"],
                np.array([row["dx_m"], row["dy_m"]], np.float64),
                np.array(row["covariance"], np.float64).reshape(2, 2),
                row["datum"], row["version"],
            )  # fmt: skip
            of_scene[position.scene].append(position)
        places = {p.place: p.version for positions in of_scene.values() for p in positions}
        return cls(
            store, of_scene, {name: _place_frame(store, PlaceVersion(name, v)) for name, v in places.items()}
        )

    def find(self, *, scene: str, partner: str, crs: str | None) -> ScenePosition:
        """Position of a scene at the place that it shares with a partner.

        Raises
        ------
        BadInputError
            It has none, or none that pairs control; or several places have both.
        """
        there = [
            p for p in self.of_scene.get(scene, ()) if p.crs == crs and partner in self.places[p.place].scenes
        ]
        if len(there) != 1:
            what = "is adjusted at no place" if not there else "is adjusted at several places"
            raise BadInputError(
                f"{scene} {what} together with {partner}; `crosstie adjust --out {self.store.url}` adjusts "
                "what is committed, or apply the pair without --adjusted"
            )
        [position] = there
        if position.verdict != PLACED:
            raise BadInputError(
                f"{scene} is {position.verdict} at {position.place}: no pairs control its position; "
                "apply the pair without --adjusted"
            )
        return position


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
    place = positions.places[position.place]
    applied, field = product.correction, product.alignment.field
    if product.key.pair_key not in place.used:
        applied, field = AffineCorrection.identity(), None
    more = position.offset_m - _offset_of(applied.affine, place.centre_m)
    a, b, c, d, e, f = applied.affine
    affine = (a, b, c - float(more[0]), d, e, f - float(more[1]))
    covariance = np.array(applied.covariance)
    covariance[np.ix_([2, 5], [2, 5])] += position.covariance
    model = Model.TRANSLATION if applied.model is Model.IDENTITY else applied.model
    if field is not None:
        # The field holds all that was measured, whether the affine is applied or not.
        measured = _offset_of(product.record["fitted"]["affine"], place.centre_m)
        shift = position.offset_m - measured
        field = replace(field, dx_m=field.dx_m + shift[0], dy_m=field.dy_m + shift[1])
    return replace(
        product,
        verdict=Verdict(VerdictCode.CORRECTED),
        correction=AffineCorrection(model, affine, covariance),
        alignment=replace(product.alignment, affine=affine, field=field),
    )


def _offset_of(affine: Sequence[float], at: FloatArray) -> FloatArray:
    """(2,) offset at a position that an affine corrects."""
    a, b, c, d, e, f = affine
    x, y = at
    return np.array([x - (a * x + b * y + c), y - (d * x + e * y + f)])


def _place_frame(store: Store, version: PlaceVersion) -> PlaceFrame:
    edges = read_edges(store, version)
    if edges is None:
        raise broken_table(store.url_of(version.commit), ValueError("its version is not committed"))
    centre = np.array(read_summary(store, version)["centre_m"], np.float64)
    scenes = frozenset(edges["reference"]) | frozenset(edges["secondary"])
    return PlaceFrame(centre, scenes, frozenset(edges.loc[edges["kept"], "pair_key"]))


def position_of(product: Product, positions: AdjustedPositions) -> ScenePosition:
    """Position of the secondary of a pair; errors as `AdjustedPositions.find`."""
    pair = product.record["pair"]
    return positions.find(
        scene=pair["secondary"]["id"], partner=pair["reference"]["id"], crs=product.alignment.crs
    )


def position_properties(position: ScenePosition) -> dict[str, Any]:
    """What a STAC item of aligned pixels says of the position that was used."""
    return {
        "crosstie:place": position.place,
        "crosstie:dx_m": float(position.offset_m[0]),
        "crosstie:dy_m": float(position.offset_m[1]),
        "crosstie:datum": position.datum,
        "crosstie:version": position.version,
    }
