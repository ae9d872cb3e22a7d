"""Identity -> translation -> affine -> field: the rung for relief, which no affine follows.

A smooth field of offsets with the affine as its trend. It is offered only if it predicts held-out tiles
better than the affine does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.spatial import cKDTree

from crosstie.estimation.field.kriging import Covariance, Samples, krige, neighbours
from crosstie.estimation.field.roughness import unseen_variance
from crosstie.estimation.field.settings import FieldSettings
from crosstie.estimation.field.surroundings import Surroundings, smooth_step
from crosstie.estimation.field.validation import (
    TRUSTED,
    Gain,
    HeldOut,
    SmoothnessChoice,
    choose,
    gain,
    reweighted,
    typical_z2,
)
from crosstie.estimation.one_thread import in_one_thread
from crosstie.grid import px_to_m
from crosstie.types import DisplacementField, Error, FieldFit, FieldReason, FieldReport, VerdictCode

if TYPE_CHECKING:
    from crosstie.types import AffineCorrection, BoolArray, Estimate, FloatArray, TiePoints

FIELD_DEFAULTS = FieldSettings()

NODES_A_STRIDE, LEAST_STEP_PX = 4, 16
"""Nodes of the field from tile to tile, and the closest that they stand, px. A reader who interpolates
linearly between them stays within some hundredths of a pixel of the spline through one node a tile."""


@in_one_thread
def fit_field(
    points: TiePoints,
    estimate: Estimate,
    grid: GeoBox,
    *,
    tile_px: int,
    stride_px: int,
    settings: FieldSettings = FIELD_DEFAULTS,
) -> FieldFit:
    """Fit a displacement field to the tie points of a pair, or say why there is none.

    Parameters
    ----------
    points : TiePoints
        N tie points, including those that the affine did not use: relief may exceed its threshold.
    estimate : Estimate
        Estimate from the same points; `fitted` is the trend.
    grid : GeoBox
        Common grid; `points.row` and `points.col` count its pixels.
    tile_px, stride_px : int
        Side of the tiles and step from tile to tile, px.
    settings : FieldSettings
        The limits.

    Returns
    -------
    FieldFit
        The same points give the same field, whatever their order.

    Raises
    ------
    ValueError
        Tile or stride is not positive.
    """
    if not (tile_px > 0 and stride_px > 0):
        raise ValueError(f"tile_px and stride_px must be positive, got {tile_px} and {stride_px}")
    nothing = np.zeros(len(points), np.bool_)
    if estimate.verdict.code is VerdictCode.UNRELIABLE:
        return FieldFit(None, FieldReport(False, FieldReason.PAIR_UNRELIABLE), nothing)
    index = _usable_points(points, settings)
    if len(index) < settings.min_points:
        return FieldFit(None, FieldReport(False, FieldReason.TOO_FEW_TIE_POINTS), nothing)
    pixel_m = float(grid.affine.a)
    samples = _samples(points, index, estimate.fitted, pixel_m=pixel_m, tile_px=tile_px)
    model = _smooth_model(samples, tile_px=tile_px, settings=settings)
    found = gain(model.samples, model.held, tile_px=tile_px, sigmas=settings.truncate_sigmas)
    used = nothing.copy()
    used[index[model.trusted]] = True
    if not _is_better(found, settings) or model.trusted.sum() < settings.min_points:
        report = _report(model, FieldReason.NOT_BETTER_THAN_AFFINE, pixel_m)
        return FieldFit(None, report, used)
    nodes = _node_grid(grid, stride_px)
    surface = _surface(model, nodes, tile_px=tile_px, stride_px=stride_px, settings=settings)
    field = _displacement_field(surface, nodes, estimate.fitted, grid, stride_px=stride_px)
    return FieldFit(field, _report(model, FieldReason.BETTER, pixel_m, surface), used)


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """Smoothness, trusted samples, and what held-out tiles say of them."""

    samples: Samples
    held: HeldOut
    choice: SmoothnessChoice

    @property
    def covariance(self) -> Covariance:
        return self.choice.covariance

    @property
    def trusted(self) -> BoolArray:
        return np.asarray(self.samples.weight >= TRUSTED)


@dataclass(frozen=True, slots=True, eq=False)
class _Surface:
    """Relief at the nodes, px; NaN where nothing is known."""

    relief_px: FloatArray
    """(M, 2)"""
    sigma_px: FloatArray
    """(M,) per axis"""
    stands: BoolArray
    """(M,) where it is more than the affine, and tiles lie next to it."""


def _usable_points(points: TiePoints, settings: FieldSettings) -> np.ndarray:
    """Points that may speak, in an order that does not depend on the caller's."""
    finite = np.isfinite(points.xy_m).all(axis=1) & np.isfinite(points.offset_m).all(axis=1)
    speaks = finite & (np.nan_to_num(points.confidence) >= settings.min_confidence)
    order = np.lexsort((*points.offset_m.T[::-1], points.col, points.row))
    return order[speaks[order]]


def trend_offset(trend: AffineCorrection, xy_m: FloatArray) -> FloatArray:
    """Offset (N, 2) that an affine sees at reference positions (N, 2), metres."""
    a, b, c, d, e, f = trend.affine
    # Around the first point: the sum with a northing would round the offset.
    linear, origin = np.array([[a, b], [d, e]]), xy_m[:1].mean(axis=0)
    shift = linear @ origin + np.array([c, f]) - origin
    offset: FloatArray = np.linalg.solve(linear, (xy_m - origin - shift).T).T - (xy_m - origin)
    return offset


def _samples(
    points: TiePoints, index: np.ndarray, trend: AffineCorrection, *, pixel_m: float, tile_px: int
) -> Samples:
    corner = np.stack([points.col[index], points.row[index]], axis=1)
    left = points.offset_m[index] - trend_offset(trend, points.xy_m[index])
    return Samples(corner + tile_px / 2, left / pixel_m, np.clip(points.confidence[index], 0.05, 1.0))


def _smooth_model(samples: Samples, *, tile_px: int, settings: FieldSettings) -> _Model:
    """Trust, smoothness, trust again: each depends on the other, and twice is enough."""
    apart = neighbours(samples, samples.centre_px, apart_px=tile_px)
    start = Covariance(length_px=4.0 * tile_px, noise=0.02, tile_px=tile_px)
    samples, _ = reweighted(samples, apart, start, rounds=3)
    rng = np.random.default_rng(settings.seed)
    choice = choose(samples, apart, tile_px=tile_px, most=settings.choose_points, rng=rng)
    samples, held = reweighted(samples, apart, choice.covariance, rounds=2)
    return _Model(samples, held, choice)


def _is_better(found: Gain, settings: FieldSettings) -> bool:
    saved = 1 - np.sqrt(found.field_px2 / max(found.affine_px2, 1e-12))
    significant = found.px2 > settings.min_standard_errors * found.standard_error_px2
    return bool(significant and saved >= settings.min_gain)


def _node_grid(grid: GeoBox, step_px: int) -> GeoBox:
    """One cell a step; the last may stick out of the grid."""
    rows, cols = (-(-length // step_px) for length in grid.shape)
    return GeoBox((rows, cols), grid.affine @ Affine.scale(step_px), grid.crs)


def _node_px(nodes: GeoBox) -> FloatArray:
    """(rows * cols, 2) centres of the cells, in cells."""
    row, col = np.indices(nodes.shape).reshape(2, -1)
    return np.stack([col + 0.5, row + 0.5], axis=1)


def _surface(
    model: _Model, nodes: GeoBox, *, tile_px: int, stride_px: int, settings: FieldSettings
) -> _Surface:
    at_px = _node_px(nodes) * stride_px
    samples, held = model.samples, model.held
    distance, _ = cKDTree(samples.centre_px[model.trusted]).query(at_px)
    known = distance <= settings.reach_tiles * tile_px
    relief, sigma = np.full((len(at_px), 2), np.nan), np.full(len(at_px), np.nan)
    stands = np.zeros(len(at_px), np.bool_)
    around = Surroundings.of(
        samples,
        held,
        shape=nodes.shape.yx,
        stride_px=stride_px,
        window_px=settings.smooth_tiles * tile_px,
    )
    near = neighbours(samples, at_px[known])
    raw, variance = krige(samples, at_px[known], near, model.covariance)
    fade = 1 - smooth_step(distance[known], tile_px, settings.reach_tiles * tile_px)
    kept = fade * around.share.ravel()[known]
    # Next to a tile kriging promises more than held-out tiles can bear out: it is taken at their word, and
    # its own variance counts only where it is larger, away from the points.
    gap = float(held.variance.mean()) - model.covariance.noise
    unseen = _unseen_share(model, tile_px=tile_px, stride_px=stride_px)
    variance = np.maximum(variance, gap) + model.covariance.noise + unseen
    spread = held.amplitude_px2 * around.z2.ravel()[known] / 2
    relief[known] = kept[:, None] * raw
    # What was taken back may be there all the same: half its square is its share per axis.
    back2 = ((1 - kept) ** 2) * (raw**2).sum(axis=1) / 2
    sigma[known] = np.sqrt(spread * variance + back2)
    stands[known] = (distance[known] <= tile_px) & (kept > 0.5)
    return _Surface(relief, sigma, stands)


def _unseen_share(model: _Model, *, tile_px: int, stride_px: int) -> float:
    """Variance of the ground around what its tiles show of it, in units of the relief's variance."""
    trusted, held = model.trusted, model.held
    unseen_px2 = unseen_variance(
        model.samples.centre_px[trusted],
        model.samples.offset_px[trusted],
        tile_px=tile_px,
        stride_px=stride_px,
    )
    return unseen_px2 / (held.amplitude_px2 * typical_z2(held))


def _displacement_field(
    surface: _Surface, nodes: GeoBox, trend: AffineCorrection, grid: GeoBox, *, stride_px: int
) -> DisplacementField:
    step_px = max(stride_px // NODES_A_STRIDE, min(stride_px, LEAST_STEP_PX))
    closer = _node_grid(grid, step_px)
    at = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in closer.shape), indexing="ij"))
    at = at * step_px / stride_px - 0.5
    relief_x, relief_y = (
        between_nodes(band.reshape(nodes.shape), at, order=3) for band in surface.relief_px.T
    )
    sigma = between_nodes(surface.sigma_px.reshape(nodes.shape), at, order=1)
    trend_m = trend_offset(trend, px_to_m(closer, _node_px(closer))).reshape(*closer.shape, 2)
    pixel_m = float(grid.affine.a)
    return DisplacementField(
        closer,
        (trend_m[..., 0] + relief_x * pixel_m).astype(np.float32),
        (trend_m[..., 1] + relief_y * pixel_m).astype(np.float32),
        (sigma * pixel_m).astype(np.float32),
    )


def between_nodes(plane: FloatArray, at: FloatArray, *, order: int) -> FloatArray:
    """Interpolate a plane between its nodes by a spline; NaN where the nearest node has none.

    Parameters
    ----------
    plane : FloatArray
        (rows, cols) values at the nodes; NaN where there is none.
    at : FloatArray
        (2, ...) row and column, in nodes, the centre of the first being 0.
    order : int
        Order of the spline.
    """
    unknown = np.isnan(plane)
    row, col = distance_transform_edt(unknown, return_distances=False, return_indices=True)
    value: FloatArray = map_coordinates(plane[row, col], at, order=order, mode="nearest")
    nearest = map_coordinates(unknown.astype(np.float64), at, order=0, mode="nearest")
    return np.where(nearest > 0, np.nan, value)


def _report(
    model: _Model, reason: FieldReason, pixel_m: float, surface: _Surface | None = None
) -> FieldReport:
    trusted = model.trusted
    before = _residual_error(model.samples.offset_px[trusted], pixel_m)
    held = _residual_error(model.held.left_px[trusted], pixel_m)
    after, coverage = Error(float("nan"), float("nan")), 0.0
    if surface is not None and surface.stands.any():
        rmse_m = float(np.sqrt(2 * (surface.sigma_px[surface.stands] ** 2).mean())) * pixel_m
        # Nine in ten: the tails are those that held-out tiles show.
        after = Error(rmse_m, rmse_m * held.ce90_m / max(held.rmse_m, 1e-9))
        coverage = float(surface.stands.mean())
    noise2 = model.held.amplitude_px2 * model.covariance.noise
    return FieldReport(
        offered=reason is FieldReason.BETTER,
        reason=reason,
        used=int(trusted.sum()),
        coverage=coverage,
        error_affine=before,
        error_held_out=held,
        error_after=after,
        length_m=model.covariance.length_px * pixel_m,
        noise_m=float(np.sqrt(noise2)) * pixel_m,
    )


def _residual_error(left_px: FloatArray, pixel_m: float) -> Error:
    if len(left_px) == 0:
        return Error(float("nan"), float("nan"))
    length = np.hypot(left_px[:, 0], left_px[:, 1])
    return Error(float(np.sqrt((length**2).mean())) * pixel_m, float(np.quantile(length, 0.9)) * pixel_m)
