"""An archive solved as one network: one correction per scene from all its pairs.

Pairs alone have different references, and references have errors as well. In the network every scene has one
position in all its pairs. So the network averages the scatter of the pairs, detects wrong pairs and gives the
accuracy of the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2

from crosstie.estimation.adjustment import datum as datums
from crosstie.estimation.adjustment import reliability
from crosstie.estimation.adjustment.network import (
    ADJUSTMENT_DEFAULTS,
    MEAN_OF_REFERENCES,
    TRANSLATION,
    AdjustedEdges,
    AdjustedScenes,
    Adjustment,
    AdjustmentSettings,
    Datum,
    Edges,
    GlobalTest,
    NetworkPart,
)
from crosstie.estimation.adjustment.normal import Structure
from crosstie.estimation.adjustment.robust import differences, least_squares, robust_residuals

if TYPE_CHECKING:
    from crosstie.types import BoolArray, FloatArray, IntArray, StrArray


def adjust(
    edges: Edges, *, datum: Datum = MEAN_OF_REFERENCES, settings: AdjustmentSettings = ADJUSTMENT_DEFAULTS
) -> Adjustment:
    """Solve a network for one position per scene, and reject wrong edges.

    A robust start, then least squares with a test of every edge (data snooping): the worst edge of its
    neighbourhood is rejected, and a rejected edge that passes the test later is used again. Where two edges
    contradict each other and nothing else can decide, both are rejected; the scene between them is then not
    connected.

    Parameters
    ----------
    edges : Edges
        Measured pairs; the same two scenes may have several.
    datum : Datum
        Definition of position 0.
    settings : AdjustmentSettings
        When an edge is rejected.

    Returns
    -------
    Adjustment
        Scenes ordered by id; positions of different parts must not be compared.

    Raises
    ------
    ValueError
        The datum names a scene without edges, or more scenes are connected than can be solved together.

    References
    ----------
    Baarda (1968), A testing procedure for use in geodetic networks.
    Krarup, Juhl & Kubik (1980), Götterdämmerung over least squares adjustment.
    Teunissen (2006), Testing theory: an introduction, 2nd ed.
    """
    network = _Network.of(edges, datum, settings)
    state = _State.empty(network)
    label = network.parts(state.kept)
    for part in range(label.max(initial=-1) + 1):
        _robust_start(network, state, label == part)
    return _settled(network, state, np.ones(network.n, np.bool_))


def extend(adjustment: Adjustment, more: Edges) -> Adjustment:
    """Add pairs to a solved network; only the parts that they touch are solved again, from their last state.

    New scenes are first placed robustly against the old ones, then all are adjusted together. The result is
    that of `adjust` for all edges, except for edges that only just pass or fail their test.
    """
    network = _Network.of(Edges.concatenate([adjustment.edges, more]), adjustment.datum, adjustment.settings)
    state = _State.going_on(network, adjustment)
    fresh = np.arange(len(network.edges)) >= len(adjustment.edges)
    placed = network.held | np.isfinite(state.position).all(axis=1)
    before, after = network.parts(state.kept & ~fresh), network.parts(state.kept)
    for part in np.unique(after[network.i[fresh]]):
        inside = after == part
        if len(np.unique(before[inside & placed])) == 1:
            _place_new_scenes(network, state, fresh & inside[network.i], placed, adjustment.test.sigma_factor)
        else:
            _robust_start(network, state, inside)
    dirty = np.zeros(network.n, np.bool_)
    dirty[network.i[fresh]] = dirty[network.j[fresh]] = True
    return _settled(network, state, dirty)


@dataclass(frozen=True, slots=True, eq=False)
class _Network:
    """Edges by numbers of scenes.

    Where all are translations as sure along x as along y, x and y are two right-hand sides of one system of
    blocks (1, 1); else a scene is a block (k, k).
    """

    edges: Edges
    datum: Datum
    settings: AdjustmentSettings
    ids: StrArray
    i: IntArray
    """(E,) reference."""
    j: IntArray
    """(E,) secondary."""
    held: BoolArray
    """(N,) held fixed."""
    value: FloatArray
    """(N, k) where; 0 where not held."""
    reference: BoolArray
    """(N,) whose mean is the datum."""
    alike: BoolArray
    """() whether x and y are alike."""

    @classmethod
    def of(cls, edges: Edges, datum: Datum, settings: AdjustmentSettings) -> Self:
        ids, index = np.unique(np.concatenate([edges.reference, edges.secondary]), return_inverse=True)
        datums.check_datum(datum, ids, edges.size)
        i, j = index[: len(edges)], index[len(edges) :]
        held, value = np.zeros(len(ids), np.bool_), np.zeros((len(ids), edges.size))
        for name, position in datum.fixed:
            at = np.searchsorted(ids, name)
            held[at], value[at] = True, position
        reference = np.isin(ids, datum.references) if datum.references else np.isin(ids, edges.reference)
        w = edges.information
        alike = np.asarray(edges.size == TRANSLATION and np.all(w == w[:, :1, :1] * np.eye(edges.size)))
        return cls(edges, datum, settings, ids, i, j, held, value, reference, alike)

    @property
    def n(self) -> int:
        return len(self.ids)

    @property
    def critical(self) -> float:
        return float(chi2.isf(self.settings.false_alarm, self.edges.size))

    def prior(self, block: int) -> FloatArray:
        """(b, b) weight of no linear part at all."""
        prior = np.zeros((block, block))
        linear = np.arange(TRANSLATION, block)
        prior[linear, linear] = self.settings.linear_prior_m**-2
        return prior

    def parts(self, kept: BoolArray) -> IntArray:
        """(N,) number of the part each scene is in, tied by the edges kept."""
        at = self.i[kept], self.j[kept]
        graph = coo_array((np.ones(len(at[0]), np.int8), at), shape=(self.n, self.n))
        label: IntArray = connected_components(graph, directed=False)[1].astype(np.int64)
        return label

    def blocks(self, values: FloatArray) -> FloatArray:
        """(..., k) -> (..., b, m)."""
        return values[:, None, :] if self.alike else values[:, :, None]

    def weight(self, at: IntArray) -> FloatArray:
        """(len(at), b, b)."""
        b = 1 if self.alike else self.edges.size
        return self.edges.information[at, :b, :b]

    def columns(self, blocks: FloatArray) -> FloatArray:
        """(..., b, m) -> (..., k)."""
        return blocks[:, 0, :] if self.alike else blocks[:, :, 0]

    def covariance(self, blocks: FloatArray) -> FloatArray:
        """(..., b, b) -> (..., k, k)."""
        return blocks * np.eye(TRANSLATION) if self.alike else blocks


@dataclass(slots=True, eq=False)
class _State:
    """State of the solution with the given sigmas, not yet scaled. Changed in place while solving."""

    kept: BoolArray
    position: FloatArray
    covariance: FloatArray
    residual: FloatArray
    redundancy: FloatArray
    statistic: FloatArray
    detectable: FloatArray

    @classmethod
    def empty(cls, network: _Network) -> Self:
        n, e, k = network.n, len(network.edges), network.edges.size
        return cls(
            kept=np.ones(e, np.bool_),
            position=np.full((n, k), np.nan),
            covariance=np.full((n, k, k), np.nan),
            residual=np.full((e, k), np.nan),
            redundancy=np.zeros(e),
            statistic=np.full(e, np.nan),
            detectable=np.full(e, np.inf),
        )

    @classmethod
    def going_on(cls, network: _Network, solved: Adjustment) -> Self:
        """Start from the state of a solved network; new scenes and edges are unknown."""
        state, variance = cls.empty(network), solved.test.sigma_factor**2
        at = np.searchsorted(network.ids, solved.scenes.id)
        e = len(solved.edges)
        state.position[at] = solved.scenes.position_m
        state.covariance[at] = solved.scenes.covariance / variance
        state.kept[:e] = solved.adjusted.kept
        state.residual[:e] = solved.adjusted.residual_m
        state.redundancy[:e] = solved.adjusted.redundancy
        state.statistic[:e] = solved.adjusted.statistic * variance
        state.detectable[:e] = solved.adjusted.detectable_m / np.sqrt(variance)
        return state

    def scatter(self, network: _Network) -> tuple[float, float]:
        """Chi-square of all edges kept, and its degrees of freedom."""
        w = network.edges.information
        residual = np.where(self.kept[:, None], np.nan_to_num(self.residual), 0.0)
        told = (np.diagonal(w, axis1=1, axis2=2) > 0).sum(axis=1)
        square = float(np.einsum("ei,eij,ej->", residual, w, residual, optimize=True))
        return square, float((told * self.redundancy)[self.kept].sum())


def _place_new_scenes(
    network: _Network, state: _State, fresh: BoolArray, placed: BoolArray, sigma_factor: float
) -> None:
    """Reject wrong edges among `fresh` (E,), tested against scenes `placed` (N,) before."""
    edges = network.edges.keep(fresh)
    ends = np.unique(np.concatenate([network.i[fresh], network.j[fresh]]))
    old = ends[placed[ends]]
    position = np.where(network.held[old, None], network.value[old], state.position[old])
    fixed = tuple(
        (str(name), tuple(at)) for name, at in zip(network.ids[old], position.tolist(), strict=True)
    )
    scaled = replace(edges, information=edges.information / sigma_factor**2)
    state.kept[fresh] = adjust(scaled, datum=Datum(fixed=fixed), settings=network.settings).adjusted.kept


def _robust_start(network: _Network, state: _State, inside: BoolArray) -> None:
    """Reject edges that are outliers of a robust fit of the scenes `inside` (N,)."""
    at = np.flatnonzero(inside[network.i] & inside[network.j])
    if not len(at):
        return
    scenes = np.flatnonzero(inside)
    holding = _holding(network, at, scenes)
    local = _Local.of(network, at, scenes, holding)
    length, scale = robust_residuals(
        local.structure,
        local.observed,
        network.weight(at),
        network.prior(local.observed.shape[1]),
        size=network.edges.size,
        huber_sigmas=network.settings.huber_sigmas,
        redundancy=1 - local.structure.n / len(at),
    )
    state.kept[at] = length <= np.sqrt(network.critical) * max(scale, 1e-12)


def _holding(network: _Network, at: IntArray, scenes: IntArray) -> BoolArray:
    """(n,) which of the scenes of a part are held while it is solved: the fixed, else that of most edges."""
    holding = network.held[scenes]
    if not holding.any():
        ends = np.searchsorted(scenes, np.concatenate([network.i[at], network.j[at]]))
        holding[np.bincount(ends).argmax()] = True
    return holding


@dataclass(frozen=True, slots=True, eq=False)
class _Local:
    """Some edges by the numbers of their own free scenes."""

    structure: Structure
    free: IntArray
    """(n,) row of each scene among the unknown, -1 where it is held."""
    observed: FloatArray
    """(E, b, m) offsets of the edges without the positions of held scenes."""

    @classmethod
    def of(cls, network: _Network, at: IntArray, scenes: IntArray, holding: BoolArray) -> Self:
        """Number the free scenes of `scenes` (n,); those `holding` (n,) keep their given position."""
        free = np.where(holding, -1, np.cumsum(~holding) - 1)
        i, j = np.searchsorted(scenes, network.i[at]), np.searchsorted(scenes, network.j[at])
        value = network.value[scenes]
        observed = network.edges.offset_m[at] - (value[j] - value[i])
        structure = Structure.of(int((~holding).sum()), free[i], free[j])
        return cls(structure, free, network.blocks(observed))


def _settled(network: _Network, state: _State, dirty: BoolArray) -> Adjustment:
    """Solve the parts with `dirty` (N,) scenes, and reject or readmit edges, until nothing changes."""
    readmitted = np.zeros(len(network.edges), np.bool_)
    for _ in range(network.settings.max_rounds):
        label = network.parts(state.kept)
        for part in np.unique(label[dirty]):
            _solve(network, state, np.flatnonzero(label == part), label)
        apart = label[network.i] != label[network.j]
        state.residual[apart] = state.statistic[apart] = np.nan
        state.redundancy[apart], state.detectable[apart] = 0.0, np.inf
        change = _verdicts(network, state, readmitted)
        if not change.any():
            break
        readmitted |= change & ~state.kept
        state.kept = state.kept ^ change
        dirty = np.zeros(network.n, np.bool_)
        dirty[network.i[change]] = dirty[network.j[change]] = True
    return _result(network, state)


def _verdicts(network: _Network, state: _State, readmitted: BoolArray) -> BoolArray:
    """(E,) edges to reject or, if there are none, edges to readmit."""
    statistic = np.nan_to_num(state.statistic) / _variance(network, *state.scatter(network))
    out = reliability.worst(
        statistic, state.kept & (statistic > network.critical), network.i, network.j, network.n
    )
    if out.any():
        return out
    tied = np.isfinite(state.statistic)
    back = ~state.kept & tied & (statistic <= network.critical) & ~readmitted
    if back.any():
        return back
    bridge = state.kept & (state.redundancy < reliability.NO_CONTROL)
    return reliability.contradicted(state.kept, bridge, network.i, network.j, network.n)


def _variance(network: _Network, square: float, freedom: float) -> float:
    """Factor of all covariances from the observed scatter, where enough edges control one another."""
    if freedom < network.settings.min_degrees_of_freedom:
        return 1.0
    # The longest residuals of right edges are left out, too: what is left is a little short.
    size, critical = network.edges.size, network.critical
    cut = float(chi2.cdf(critical, size + 2) / chi2.cdf(critical, size))
    return max(square / freedom / cut, 1e-12)


def _solve(network: _Network, state: _State, scenes: IntArray, label: IntArray) -> None:
    """Solve one part by least squares, and write the result into `state`."""
    part = label[scenes[0]]
    if len(scenes) == 1:
        held = network.held[scenes]
        state.position[scenes] = np.where(held[:, None], network.value[scenes], np.nan)
        state.covariance[scenes] = np.where(held[:, None, None], 0.0, np.nan)
        return
    at = np.flatnonzero((label[network.i] == part) & (label[network.j] == part))
    kept = state.kept[at]
    given = bool(network.held[scenes].any())
    holding = _holding(network, at, scenes)
    local = _Local.of(network, at, scenes, holding)
    structure, free = local.structure, local.free
    weight = np.where(kept[:, None, None], network.weight(at), 0.0)
    b, m = local.observed.shape[1:]
    normal, unknown = least_squares(structure, local.observed, weight, network.prior(b))
    of_scene, of_pair = normal.cofactors()
    residual = local.observed - differences(unknown, structure)
    padded = np.concatenate([of_scene, np.zeros((1, b, b))])
    spread = padded[structure.i] + padded[structure.j] - of_pair - of_pair.transpose(0, 2, 1)
    x, cofactor = np.zeros((len(scenes), b, m)), np.zeros((len(scenes), b, b))
    x[free >= 0], cofactor[free >= 0] = unknown, of_scene
    if not given:
        members, _, _ = datums.chosen(network.datum, network.ids[scenes], network.reference[scenes])
        x, cofactor = datums.transform(x, cofactor, normal, free, members)
    state.position[scenes] = network.columns(x) + network.value[scenes]
    state.covariance[scenes] = network.covariance(cofactor)
    _control(network, state, at, network.columns(residual), network.covariance(spread))


def _control(
    network: _Network, state: _State, at: IntArray, residual: FloatArray, spread: FloatArray
) -> None:
    """Write into `state` how far the edges `at` of a part control one another."""
    information, kept = network.edges.information[at], state.kept[at]
    settings = network.settings
    share = reliability.redundancy(information, spread, kept)
    controlled = share > reliability.NO_CONTROL
    threshold = reliability.noncentrality(settings.false_alarm, settings.power, network.edges.size)
    state.residual[at], state.redundancy[at] = residual, share
    state.statistic[at] = reliability.statistics(residual, information, spread, kept, controlled)
    state.detectable[at] = reliability.detectable(information, spread, kept, controlled, threshold)


def _result(network: _Network, state: _State) -> Adjustment:
    square, freedom = state.scatter(network)
    variance = _variance(network, square, freedom)
    tail = chi2.cdf(square, freedom), chi2.sf(square, freedom)
    label = network.parts(state.kept)
    count = np.bincount(np.r_[network.i[state.kept], network.j[state.kept]], minlength=network.n)
    return Adjustment(
        edges=network.edges,
        datum=network.datum,
        settings=network.settings,
        scenes=AdjustedScenes(network.ids, state.position, state.covariance * variance, label, count),
        adjusted=AdjustedEdges(
            residual_m=state.residual,
            kept=state.kept,
            redundancy=state.redundancy,
            statistic=state.statistic / variance,
            detectable_m=state.detectable * np.sqrt(variance),
        ),
        test=GlobalTest(
            chi_square=square,
            degrees_of_freedom=freedom,
            probability=float(min(2 * min(tail), 1.0)) if freedom >= 1 else 1.0,
            sigma_factor=float(np.sqrt(variance)),
        ),
        parts=tuple(_describe_part(network, state, label, n) for n in range(label.max(initial=-1) + 1)),
    )


def _describe_part(network: _Network, state: _State, label: IntArray, part: int) -> NetworkPart:
    scenes = np.flatnonzero(label == part)
    edges = int((state.kept & (label[network.i] == part)).sum())
    held = int(network.held[scenes].sum())
    if held:
        return NetworkPart(len(scenes), edges, f"{held} scenes are held fixed where they were given.", True)
    if len(scenes) == 1:
        said = f"No sure pair ties {network.ids[scenes[0]]} to any other scene: it has no position."
        return NetworkPart(1, 0, said, False)
    _, said, asked = datums.chosen(network.datum, network.ids[scenes], network.reference[scenes])
    return NetworkPart(len(scenes), edges, said, asked)
