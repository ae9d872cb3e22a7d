"""One place solved: measurements in, the files of a version out. Reads and writes nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import shapely

from crosstie.errors import BadInputError
from crosstie.estimation.adjustment import (
    AdjustmentSettings,
    Datum,
    Edges,
    adjust_with_seen_noise,
    scene_affines,
)
from crosstie.estimation.adjustment.reliability import CONTROLLED
from crosstie.estimation.pair_offset import offset_at
from crosstie.flows.archive.telling_apart import systematic_parts
from crosstie.io.adjusted.held import read_held
from crosstie.io.adjusted.items import adjusted_items
from crosstie.io.adjusted.layout import EDGES, ITEMS, SCENES, SUMMARY
from crosstie.io.adjusted.publish import as_json
from crosstie.io.adjusted.scene_names import read_scene_name
from crosstie.io.adjusted.tables import (
    ADJUSTED_SCHEMA,
    decode_scenes,
    encode_edges,
    encode_scenes,
    outline_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from crosstie.estimation.adjustment import Adjustment, SceneAffines
    from crosstie.estimation.adjustment.noise import PairNoise
    from crosstie.io.adjusted.places import ArchivePair, ArchivePlace
    from crosstie.io.adjusted.scene_names import SceneName
    from crosstie.io.adjusted.tables import MeasuredPairs
    from crosstie.settings.groups import AdjustGroup
    from crosstie.types import BoolArray, FloatArray, IntArray

OPTICAL = "sentinel-2"
"""Sensor whose mean position is 0, unless the datum is another."""

LEAST_SIGMA_M = 1e-3
"""Sigma of a measurement, metres: simulated pairs may have none."""


class ScenePlacement(StrEnum):
    """What a scene's position is worth."""

    PLACED = "placed"
    """Several pairs agree on it."""
    UNCHECKED = "unchecked"
    """It has a position, but no pair controls another: an error in it would not be seen."""
    UNTIED = "untied"
    """No pair that is used ties it to another scene: it has no position."""


@dataclass(frozen=True, slots=True)
class AdjustOptions:
    """How an archive is adjusted."""

    datum: str = "mean-s2"
    """`mean-s2`, `scene:ID`, or `held:FILE`."""
    false_alarm: float = 1e-3
    """Share of the correct pairs that are rejected."""
    scene_ids: str | None = None
    """Pattern of ids; see `read_scene_name`."""
    held: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    """(scene, place) -> offset in metres, of the table that the datum names; see `with_table`. The place is
    empty where the row holds for all."""

    def __post_init__(self) -> None:
        if self.datum != "mean-s2" and not re.fullmatch("(scene|held):.+", self.datum):
            raise BadInputError(f"datum {self.datum!r}: must be mean-s2, scene:ID or held:FILE")

    @classmethod
    def of(cls, group: AdjustGroup) -> Self:
        """Take from the settings what decides a solution; the others say when, and what is done with it."""
        return cls(**group.model_dump(include={own.name for own in fields(cls)}))

    @property
    def scene(self) -> str | None:
        """Scene that is the datum; None for the mean of Sentinel-2."""
        return self.datum.removeprefix("scene:") if self.datum.startswith("scene:") else None

    def with_table(self) -> Self:
        """Read the table that the datum names, if it names one.

        Raises
        ------
        BadInputError
            It cannot be read, or is none of offsets.
        """
        if not self.datum.startswith("held:"):
            return self
        rows = read_held(Path(self.datum.removeprefix("held:")))
        return replace(self, held={(row.scene, row.place): (row.dx_m, row.dy_m) for row in rows})

    def held_at(self, place: str, scenes: Collection[str]) -> dict[str, tuple[float, float]]:
        """Where scenes of a place are held: by a row for this place, else by one for all."""
        found = {scene: self.held.get((scene, place), self.held.get((scene, ""))) for scene in sorted(scenes)}
        return {scene: at for scene, at in found.items() if at is not None}


@dataclass(frozen=True, slots=True)
class SolvedPlace:
    """The files of a version of a place, and what to say of it."""

    files: dict[str, bytes]
    summary: dict[str, Any]
    """What adjustment.json holds."""


def solve_place(
    place: ArchivePlace,
    pairs: Sequence[ArchivePair],
    measured: MeasuredPairs,
    options: AdjustOptions,
    version: str,
) -> SolvedPlace:
    """Adjust the pairs of one place, and render what is written.

    Parameters
    ----------
    place : ArchivePlace
        Name and CRS.
    pairs : Sequence[ArchivePair]
        Pairs that measure an offset, at least one.
    measured : MeasuredPairs
        Their measurements.
    options : AdjustOptions
        Datum and test.
    version : str
        Name of the version.

    Raises
    ------
    BadInputError
        The place has more scenes than can be solved together.
    """
    centre = measured.centre_m.mean(axis=0)
    offset, covariance = offset_at(measured.affine, measured.covariance, centre)
    # One sigma for both axes: what makes x and y of a pair differ is noise of its covariance more often than
    # anything on the ground, and x and y then are two right-hand sides of one system of half the size.
    variance = np.trace(covariance, axis1=1, axis2=2) / 2 + LEAST_SIGMA_M**2
    covariance = variance[:, None, None] * np.eye(2)
    edges = Edges.of_shifts(
        [pair.reference for pair in pairs],
        [pair.secondary for pair in pairs],
        offset,
        covariance=covariance,
    )
    names = {
        scene: read_scene_name(scene, options.scene_ids)
        for scene in sorted({*edges.reference.tolist(), *edges.secondary.tolist()})
    }
    try:
        found, noise = adjust_with_seen_noise(
            edges,
            datum=_datum_of(place, options, names),
            settings=AdjustmentSettings(false_alarm=options.false_alarm),
        )
    except ValueError as problem:
        raise BadInputError(f"place {place.name}: {problem}") from None
    affines = scene_affines(found, noise, measured.affine, measured.covariance, measured.centre_m, centre)
    scenes = encode_scenes(_scene_columns(place, pairs, found, affines, names, version))
    table = decode_scenes(scenes, SCENES)
    newest = max(pair.created_utc for pair in pairs)
    summary = _summary(place, pairs, found, noise, options, version, centre)
    summary["affines"] = _said_of(affines)
    summary["systematic"] = systematic_parts(table, summary["centre_m"])
    files = {
        SCENES: scenes,
        EDGES: encode_edges(_edge_columns(pairs, measured, found, offset, covariance)),
        ITEMS: as_json(adjusted_items(table, newest_utc=newest)),
        SUMMARY: as_json(summary),
    }
    return SolvedPlace(files, summary)


def _datum_of(place: ArchivePlace, options: AdjustOptions, names: dict[str, SceneName]) -> Datum:
    """Datum of a place.

    Raises
    ------
    ValueError
        Scenes are to be held, and none of them is in a pair that can be used.
    """
    optical = tuple(scene for scene, name in names.items() if name.sensor == OPTICAL)
    held = options.held_at(place.name, names)
    if options.held and not held:
        raise ValueError("no scene that is to be held is in a pair that can be used")
    return Datum(references=optical, scene=options.scene, fixed=tuple(held.items()))


def _said_of(affines: SceneAffines) -> dict[str, Any]:
    """What adjustment.json says of affines."""
    test = affines.test
    return {
        "used": test.supported,
        "scenes": 0 if affines.scenes is None else len(affines.scenes),
        "pairs": test.pairs,
        "probability": test.probability,
        "gain": test.gain,
        "noise": {"factor": test.noise.factor, "common_m": test.noise.common_m},
        "reach_m": None if affines.frame is None else affines.frame.scale_m,
        "sentence": test.sentence,
    }


def _scene_columns(
    place: ArchivePlace,
    pairs: Sequence[ArchivePair],
    found: Adjustment,
    affines: SceneAffines,
    names: dict[str, SceneName],
    version: str,
) -> dict[str, Any]:
    ids = [str(scene) for scene in found.scenes.id]
    corrections = [affines.of(scene) or found.scenes.correction(scene) for scene in ids]
    said = [names[scene] for scene in ids]
    position, sigma = found.scenes.position_m, found.scenes.sigma_m
    rejected, redundancy, controlled = _by_scene(found)
    outlines, dates = _outlines(pairs), _dates(pairs)
    return {
        "scene": ids,
        "sensor": [name.sensor for name in said],
        "platform": [name.platform for name in said],
        "track": [name.track for name in said],
        "baseline": [name.baseline for name in said],
        "date": [dates.get(name.scene, name.acquired_utc) for name in said],
        "dx_m": position[:, 0],
        "dy_m": position[:, 1],
        "sigma_x_m": sigma[:, 0],
        "sigma_y_m": sigma[:, 1],
        "covariance": list(found.scenes.covariance.reshape(-1, 4)),
        "model": [str(correction.model) for correction in corrections],
        "affine": [np.array(correction.affine) for correction in corrections],
        "affine_covariance": [correction.covariance.ravel() for correction in corrections],
        "edges": found.scenes.edges,
        "rejected_edges": rejected,
        "redundancy": redundancy,
        "verdict": [str(_placement(at, seen)) for at, seen in zip(position[:, 0], controlled, strict=True)],
        "part": found.scenes.part,
        "datum": [found.parts[part].datum for part in found.scenes.part],
        "place": [place.name] * len(ids),
        "crs": [place.crs] * len(ids),
        "version": [version] * len(ids),
        "geometry": [outlines[scene] for scene in ids],
    }


def _placement(position: float, controlled: bool) -> ScenePlacement:
    if not np.isfinite(position):
        return ScenePlacement.UNTIED
    return ScenePlacement.PLACED if controlled else ScenePlacement.UNCHECKED


def _by_scene(found: Adjustment) -> tuple[IntArray, FloatArray, BoolArray]:
    """Of each scene: rejected edges, mean redundancy of those used, whether any of these is controlled."""
    n = len(found.scenes)
    ends = np.searchsorted(found.scenes.id, np.concatenate([found.edges.reference, found.edges.secondary]))
    kept, redundancy = np.tile(found.adjusted.kept, 2), np.tile(found.adjusted.redundancy, 2)
    rejected = np.bincount(ends[~kept], minlength=n)
    used = np.bincount(ends[kept], minlength=n)
    total = np.bincount(ends[kept], weights=redundancy[kept], minlength=n)
    controlled = np.bincount(ends[kept & (redundancy > CONTROLLED)], minlength=n) > 0
    return rejected, np.where(used > 0, total / np.maximum(used, 1), np.nan), controlled


def _outlines(pairs: Sequence[ArchivePair]) -> dict[str, shapely.Geometry]:
    """Outline of each scene: its own where it is a secondary, else what its partners have in common."""
    partners: dict[str, list[bytes]] = {}
    own: dict[str, shapely.Geometry] = {}
    for pair in pairs:
        own[pair.secondary] = shapely.from_wkb(pair.outline)
        partners.setdefault(pair.reference, []).append(pair.outline)
    return {scene: outline_of(outlines) for scene, outlines in partners.items()} | own


def _dates(pairs: Sequence[ArchivePair]) -> dict[str, datetime]:
    return {pair.secondary: pair.acquired_utc for pair in pairs if pair.acquired_utc is not None}


def _edge_columns(
    pairs: Sequence[ArchivePair],
    measured: MeasuredPairs,
    found: Adjustment,
    offset: FloatArray,
    covariance: FloatArray,
) -> dict[str, Any]:
    adjusted = found.adjusted
    return {
        "pair_key": measured.pair_key,
        "run_key": measured.run_key,
        "reference": [pair.reference for pair in pairs],
        "secondary": [pair.secondary for pair in pairs],
        "kept": adjusted.kept,
        "dx_m": offset[:, 0],
        "dy_m": offset[:, 1],
        "sigma_m": np.sqrt(np.trace(covariance, axis1=1, axis2=2) / 2),
        "residual_x_m": adjusted.residual_m[:, 0],
        "residual_y_m": adjusted.residual_m[:, 1],
        "redundancy": adjusted.redundancy,
        "detectable_m": adjusted.detectable_m,
        "statistic": adjusted.statistic,
        "x_m": measured.centre_m[:, 0],
        "y_m": measured.centre_m[:, 1],
        "affine": list(measured.affine),
        "covariance": list(measured.covariance.reshape(-1, 36)),
    }


def _summary(
    place: ArchivePlace,
    pairs: Sequence[ArchivePair],
    found: Adjustment,
    noise: PairNoise,
    options: AdjustOptions,
    version: str,
    centre: FloatArray,
) -> dict[str, Any]:
    kept, residual = found.adjusted.kept, found.adjusted.residual_m
    length = np.hypot(*residual[kept].T)
    sigma = found.scenes.sigma_m.max(axis=1)
    placed = np.isfinite(sigma)
    return {
        "schema": ADJUSTED_SCHEMA,
        "place": place.name,
        "crs": place.crs,
        "version": version,
        "centre_m": centre.tolist(),
        **_datum_in(place, options, found),
        "scene_ids": options.scene_ids,
        "scenes": len(found.scenes),
        "placed": int(placed.sum()),
        "pairs": len(pairs),
        "parts": [
            {"scenes": part.scenes, "pairs": part.edges, "datum": part.datum, "as_asked": part.tied}
            for part in found.parts
        ],
        "residual_m": _quantiles(length),
        "sigma_m": _quantiles(sigma[placed]),
        "noise": {"factor": noise.factor, "common_m": noise.common_m},
        "test": {
            "chi_square": found.test.chi_square,
            "degrees_of_freedom": found.test.degrees_of_freedom,
            "probability": found.test.probability,
            "sigma_factor": found.test.sigma_factor,
            "sentence": found.test.sentence,
        },
        "rejected": [
            {
                "pair_key": pair.product.pair_key,
                "reference": pair.reference,
                "secondary": pair.secondary,
                "off_m": float(np.hypot(*off)) if np.isfinite(off).all() else None,
            }
            for pair, off, used in zip(pairs, residual, kept, strict=True)
            if not used
        ],
    }


def _datum_in(place: ArchivePlace, options: AdjustOptions, found: Adjustment) -> dict[str, Any]:
    """Datum that was asked for; of scenes that are held all, and not the file that named them."""
    if not options.held:
        return {"datum": options.datum}
    held = options.held_at(place.name, set(found.scenes.id.tolist()))
    return {"datum": "held", "held": {scene: list(at) for scene, at in sorted(held.items())}}


def _quantiles(lengths: FloatArray) -> dict[str, float] | None:
    """Median and 95 % of lengths; None of none."""
    if not len(lengths):
        return None
    return {"median": float(np.median(lengths)), "q95": float(np.quantile(lengths, 0.95))}
