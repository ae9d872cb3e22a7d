"""Affines of scenes: how a scene is turned and stretched, where the affines of its pairs agree on it.

Shifts come first: they have decided which pairs are right and where each scene lies. The affines of those
pairs are then a network of their own. It is used where what it says is more than chance, and where it tells
the affine of a pair that it has not seen better than no affine does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from crosstie.estimation.adjustment.adjust import adjust
from crosstie.estimation.adjustment.agreement import MOST_DRAWS, agreement
from crosstie.estimation.adjustment.datum import chosen
from crosstie.estimation.adjustment.network import (
    AFFINE,
    TRANSLATION,
    AdjustedScenes,
    Adjustment,
    AdjustmentSettings,
    AffineFrame,
    Datum,
    Edges,
)
from crosstie.estimation.adjustment.noise import PairNoise, fitted_noise
from crosstie.estimation.adjustment.reliability import CONTROLLED
from crosstie.types import AffineCorrection, Model

if TYPE_CHECKING:
    from crosstie.types import BoolArray, FloatArray

FREE_M = 1e4
"""Prior sigma of the linear part of a scene: none. All scenes here are tied by affines."""

LEAST_M = 1e-3
"""Sigma of a linear part, metres at the edge of the place: simulated pairs may have none."""

LINEAR_ROUNDS = 4
"""Of adjusting and looking at the scatter of the linear parts, at most."""

LINEAR_SETTLED = 0.02
"""A round that changes their typical sigma by a smaller share is the last."""

AS_SAID = PairNoise(1.0, 0.0)
"""No more noise than pairs say."""


@dataclass(frozen=True, slots=True)
class AffineTest:
    """Whether the pairs of a place carry affines of its scenes."""

    supported: bool
    sentence: str
    pairs: int = 0
    """Pairs that measured an affine and are used for it."""
    probability: float = 1.0
    """Chance of affines that agree at least as well where no scene has one."""
    gain: float = 0.0
    """Share of the linear parts of pairs that the affines explain where the pair itself has no say; below 0
    they make it worse."""
    noise: PairNoise = AS_SAID
    """Of the linear part of a pair, metres at the edge of the place."""


@dataclass(frozen=True, slots=True, eq=False)
class SceneAffines:
    """Scenes of a place that have an affine; none where the test is not passed."""

    test: AffineTest
    frame: AffineFrame | None = None
    scenes: AdjustedScenes | None = None
    """Position at the frame's centre as the shifts gave it, and the linear part, with (6, 6) covariances."""

    def of(self, scene: str) -> AffineCorrection | None:
        """Correction of a scene; None where it has no affine."""
        if self.scenes is None or scene not in self.scenes.id:
            return None
        return self.scenes.correction(scene, self.frame)


def scene_affines(
    shifts: Adjustment,
    noise: PairNoise,
    affine: FloatArray,
    covariance: FloatArray,
    pair_centre_m: FloatArray,
    centre_m: FloatArray,
) -> SceneAffines:
    """Find the affines of the scenes of a place.

    Parameters
    ----------
    shifts : Adjustment
        The place, solved for shifts at `centre_m`.
    noise : PairNoise
        What that showed of the shifts of pairs.
    affine, covariance : FloatArray
        (E, 6) and (E, 6, 6) of what each pair measured, from the secondary to the reference; the covariance
        of a translation has no linear part.
    pair_centre_m : FloatArray
        (E, 2) middle of the tie points of each pair.
    centre_m : FloatArray
        (2,) middle of the place.

    Returns
    -------
    SceneAffines
        Positions are those of `shifts`; scenes that only translations tie, or whose affines are tied to no
        scene of the datum, have none.
    """
    carrying = shifts.adjusted.kept & (np.diagonal(covariance, axis1=1, axis2=2)[:, [0, 1, 3, 4]] > 0).all(1)
    if not carrying.any():
        return SceneAffines(AffineTest(False, "No pair that is used measured an affine."))
    edges = shifts.edges.keep(carrying)
    even = _even(covariance[carrying])
    datum = _datum_among(shifts.datum, edges)
    if datum is None:
        return SceneAffines(AffineTest(False, "No affine is tied to a scene that defines position 0."))
    frame = AffineFrame((float(centre_m[0]), float(centre_m[1])), _reach_m(even, pair_centre_m[carrying]))
    measured = _affine_edges(edges, affine[carrying], even, frame)
    try:
        test = _test(measured, shifts.settings.false_alarm)
        if not test.supported:
            return SceneAffines(test)
        found, linear = _adjusted(measured, noise, datum, replace(shifts.settings, linear_prior_m=FREE_M))
    except ValueError as problem:  # too many scenes at once
        return SceneAffines(AffineTest(False, f"Affines are not solved for: {problem}."))
    test = replace(test, noise=linear)
    scenes = _at_shifts(shifts, found)
    if not len(scenes):
        said = "No affine is tied to scenes that define position 0."
        return SceneAffines(replace(test, supported=False, sentence=said))
    return SceneAffines(test, frame, scenes)


def _even(covariance: FloatArray) -> FloatArray:
    """(E, 6, 6) as sure in x as in y: that they differ is noise of the covariance more often than truth."""
    both = (covariance[:, :3, :3] + covariance[:, 3:, 3:]) / 2
    return np.asarray(np.kron(np.eye(2), both), np.float64)


def _reach_m(even: FloatArray, pair_centre_m: FloatArray) -> float:
    """About half the width of a place: of a square, the root of 3 times the spread of its points per axis.

    The spread is the sigma of a pair's shift at its middle over that of its growth per metre.
    """
    at = np.column_stack([pair_centre_m, np.ones(len(pair_centre_m))])
    shift = np.einsum("ei,eij,ej->e", at, even[:, :3, :3], at)
    growth = (even[:, 0, 0] + even[:, 1, 1]) / 2
    return float(np.sqrt(3 * max(np.median(np.maximum(shift, 0) / growth), 1.0)))


def _affine_edges(edges: Edges, affine: FloatArray, even: FloatArray, frame: AffineFrame) -> Edges:
    """Edges with what pairs say of themselves."""
    jacobian = frame.jacobian()
    floor = jacobian @ (LEAST_M**2 * np.eye(AFFINE)) @ jacobian.T
    corrections = [
        AffineCorrection(Model.AFFINE, (a, b, c, d, e, f), spread + floor)
        for (a, b, c, d, e, f), spread in zip(affine.tolist(), even, strict=True)
    ]
    return Edges.of_corrections(edges.reference, edges.secondary, corrections, frame)


def _datum_among(datum: Datum, edges: Edges) -> Datum | None:
    """Datum of a network of affines: a scene that is held has no linear part; None where none is there."""
    there = {*edges.reference.tolist(), *edges.secondary.tolist()}
    if datum.scene is not None and datum.scene not in there:
        return None
    fixed = tuple((name, (*at, 0.0, 0.0, 0.0, 0.0)) for name, at in datum.fixed if name in there)
    return None if datum.fixed and not fixed else replace(datum, fixed=fixed)


def _adjusted(
    edges: Edges, shift: PairNoise, datum: Datum, settings: AdjustmentSettings
) -> tuple[Adjustment, PairNoise]:
    """The network of affines, and the noise of linear parts that it shows; that of shifts is known."""
    own = np.asarray(np.linalg.inv(edges.information), np.float64)
    variance = np.diagonal(own, axis1=1, axis2=2)[:, TRANSLATION:].mean(axis=1)
    linear = AS_SAID
    for _ in range(LINEAR_ROUNDS):
        found = adjust(_with_noise(edges, own, shift, linear), datum=datum, settings=settings)
        told = found.adjusted.kept & (found.adjusted.redundancy > CONTROLLED)
        free = 4 * found.adjusted.redundancy[told]
        if free.sum() < settings.min_degrees_of_freedom:
            break
        before, square = linear, (found.adjusted.residual_m[told, TRANSLATION:] ** 2).sum(axis=1)
        linear = fitted_noise(variance[told], free, square)
        typical = [np.median(n.factor**2 * variance + n.common_m**2) for n in (before, linear)]
        if abs(typical[1] / typical[0] - 1) <= LINEAR_SETTLED:
            break
    return found, linear


def _with_noise(edges: Edges, own: FloatArray, shift: PairNoise, linear: PairNoise) -> Edges:
    """Edges with covariances `own` (E, 6, 6), each part as noisy as the network shows it to be."""
    factor = np.array([shift.factor] * 2 + [linear.factor] * 4)
    common = np.array([shift.common_m] * 2 + [linear.common_m] * 4)
    covariance = own * factor[:, None] * factor + np.diag(common**2)
    information = np.asarray(np.linalg.inv(covariance), np.float64)
    return replace(edges, information=(information + information.transpose(0, 2, 1)) / 2)


def _test(edges: Edges, false_alarm: float) -> AffineTest:
    """Ask whether affines tell what a left-out pair measures, better than chance would have it."""
    linear = edges.offset_m[:, TRANSLATION:]
    own = np.asarray(np.linalg.inv(edges.information)[:, TRANSLATION:, TRANSLATION:], np.float64)
    # Nothing here may follow from how the pairs agree, or the chance would be wrong: so no residuals.
    free = np.full(len(edges), linear.shape[1], np.float64)
    variance = np.diagonal(own, axis1=1, axis2=2).mean(axis=1)
    noise = fitted_noise(variance, free, (linear**2).sum(axis=1))
    covariance = own * noise.factor**2 + noise.common_m**2 * np.eye(linear.shape[1])
    weight = np.asarray(np.linalg.inv(covariance), np.float64)
    _, ends = np.unique(np.concatenate([edges.reference, edges.secondary]), return_inverse=True)
    both = ends[: len(edges)], ends[len(edges) :]
    gain, chance = agreement(both, linear, weight, false_alarm=false_alarm)
    asked = max(false_alarm, 1 / MOST_DRAWS)
    supported = gain > 0 and chance < asked
    agree = "agree" if supported else "agree too little" if gain > 0 else "say less than none would"
    said = (
        f"The affines of {len(edges)} pairs {agree}: a pair left out is told to {gain:.0%} "
        f"(chance {chance:.2g}; below {asked:g} is asked for)."
    )
    return AffineTest(supported, said, len(edges), chance, gain)


def _at_shifts(shifts: Adjustment, found: Adjustment) -> AdjustedScenes:
    """Scenes of `found` that a controlled pair ties to the datum asked for, at the positions of `shifts`.

    Position and linear part of a scene are correlated where its tie points lie to one side. All pairs know
    the position better than those with an affine; so the linear part follows it, as the correlation says.
    """
    rows = np.searchsorted(shifts.scenes.id, found.scenes.id)
    position, spread = shifts.scenes.position_m[rows], shifts.scenes.covariance[rows]
    more = position - found.scenes.position_m[:, :TRANSLATION]
    more -= _mean_of_datum(found, position)
    whole = found.scenes.covariance
    known = np.nan_to_num(whole[:, :TRANSLATION, :TRANSLATION])
    follow = np.nan_to_num(whole[:, TRANSLATION:, :TRANSLATION]) @ np.linalg.pinv(known, 1e-9, True)
    linear = found.scenes.position_m[:, TRANSLATION:] + np.einsum("nij,nj->ni", follow, more)
    across = follow @ spread
    own = whole[:, TRANSLATION:, TRANSLATION:] + follow @ (spread - known) @ follow.transpose(0, 2, 1)
    covariance = np.block([[spread, across.transpose(0, 2, 1)], [across, own]])
    tied = _in_datum(found)
    return AdjustedScenes(
        id=found.scenes.id[tied],
        position_m=np.column_stack([position, linear])[tied],
        covariance=((covariance + covariance.transpose(0, 2, 1)) / 2)[tied],
        part=found.scenes.part[tied],
        edges=found.scenes.edges[tied],
    )


def _mean_of_datum(found: Adjustment, position: FloatArray) -> FloatArray:
    """(N, 2) mean position of the scenes that are the datum of each part of `found`: there it is 0."""
    out = np.zeros_like(position)
    if found.datum.fixed:
        return out
    asked = found.datum.references or found.edges.reference
    for part in np.unique(found.scenes.part):
        own = found.scenes.part == part
        members, _, _ = chosen(found.datum, found.scenes.id[own], np.isin(found.scenes.id[own], asked))
        out[own] = position[own][members].mean(axis=0)
    return out


def _in_datum(found: Adjustment) -> BoolArray:
    """(N,) scenes with an affine that others control, in the datum that was asked for."""
    checked = found.adjusted.kept & (found.adjusted.redundancy > CONTROLLED)
    ends = np.concatenate([found.edges.reference[checked], found.edges.secondary[checked]])
    as_asked = np.array([part.tied for part in found.parts])[found.scenes.part]
    tied: BoolArray = as_asked & np.isin(found.scenes.id, ends)
    return tied & np.isfinite(found.scenes.position_m).all(axis=1)
