"""One pair from plan to verdict, without Prefect or Dask; an `Engine` decides where the work is done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from crosstie.estimation import estimate
from crosstie.estimation.field.fit import fit_field
from crosstie.flows.registration.measure import (
    THIRDS,
    MatchJob,
    TileMatcher,
    match_chunk,
    patch_probability,
    read_chunk,
    read_patch,
    room_for_templates,
    spread_out,
)
from crosstie.flows.registration.phases import Phase
from crosstie.flows.registration.plan import TilePlan
from crosstie.grid import Chunk, chunks
from crosstie.matcher.coarse import ENOUGH_VOTES, CoarseOffset, vote_on_offset
from crosstie.types import Estimate, FieldFit, Reason, TiePoints, Tile, Verdict, VerdictCode

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.flows.registration.measure import Planes
    from crosstie.types import Plane

Work = TypeVar("Work")

Progress = Callable[[int, int], None]
"""Called with (tiles done, tiles planned)."""

TellPhase = Callable[[Phase], None]
"""Called with each phase as it begins."""


class Engine(Protocol):
    """Where reading and matching happen: in this process, or on a cluster."""

    def probabilities(self, job: MatchJob, spots: Sequence[Tile]) -> list[Plane]:
        """Probability of each coarse offset at each spot, in the order of the spots."""

    def match(self, job: MatchJob, work: Sequence[Chunk]) -> Iterator[tuple[Chunk, TiePoints]]:
        """Yield each chunk with its tie points, in any order; only a few chunks are in memory at once."""


@dataclass(frozen=True, slots=True, eq=False)
class InProcess:
    """Do all work in this process; the next window is read while one is matched."""

    matcher: TileMatcher

    def probabilities(self, job: MatchJob, spots: Sequence[Tile]) -> list[Plane]:
        planes = _ahead(lambda spot: read_patch(job, spot), spots)
        return [patch_probability(job, patch, self.matcher) for _, patch in planes]

    def match(self, job: MatchJob, work: Sequence[Chunk]) -> Iterator[tuple[Chunk, TiePoints]]:
        halo_px = self.matcher.halo_px
        for chunk, planes in _ahead(lambda chunk: read_chunk(job, chunk, halo_px=halo_px), work):
            yield chunk, match_chunk(job, chunk, planes, self.matcher)


@dataclass(frozen=True, slots=True, eq=False)
class PairMeasurement:
    """What was measured for one pair."""

    points: TiePoints
    estimate: Estimate
    coarse: CoarseOffset | None
    """None where the coarse step was skipped."""
    seconds: float
    field: FieldFit | None = None
    """The displacement field, or why there is none; None where it is not asked for."""


def register_plan(
    plan: TilePlan,
    engine: Engine,
    settings: Settings,
    *,
    progress: Progress | None = None,
    tell_phase: TellPhase | None = None,
) -> PairMeasurement:
    """Measure the coarse offset and the tie points of a planned pair, and estimate its correction.

    Raises
    ------
    UnreadableRasterError
        A window could not be read.
    """
    begin = time.monotonic()
    if plan.grid is None or not plan.tiles:
        return PairMeasurement(
            TiePoints.empty(), _nothing_matched(plan, settings), None, time.monotonic() - begin
        )
    job = MatchJob(
        reference=plan.reference,
        secondary=plan.secondary,
        grid=plan.grid,
        search_px=plan.search_px,
        coarse_search_px=plan.coarse_search_px,
    )
    tell_phase = tell_phase or _untold
    points, coarse = _measure_tie_points(job, plan.tiles, engine, settings, progress or _silent, tell_phase)
    tell_phase(Phase.FIT)
    found = estimate(
        points,
        planned=len(plan.tiles),
        pixel_m=math.sqrt(abs(plan.grid.affine.determinant)),
        tile_px=plan.tile_px,
        stride_px=plan.stride_px,
        settings=replace(settings.estimation, search_radius_px=float(plan.search_px)),
    )
    field = _wanted_field(points, found, plan, settings)
    seconds = time.monotonic() - begin
    return PairMeasurement(points, _explained(found, plan, coarse), coarse, seconds, field)


def _measure_tie_points(
    job: MatchJob,
    tiles: tuple[Tile, ...],
    engine: Engine,
    settings: Settings,
    progress: Progress,
    tell_phase: TellPhase,
) -> tuple[TiePoints, CoarseOffset | None]:
    """Measure the coarse offset where it is asked for, then match all tiles around it."""
    progress(0, len(tiles))
    coarse = None
    if job.coarse_search_px:
        tell_phase(Phase.SEARCH)
        coarse = find_coarse_offset(job, tiles, engine, most_spots=settings.tiles.coarse_spots)
        if coarse.reliable:
            job = replace(job, coarse_offset_px=(coarse.dx_px, coarse.dy_px))
    tell_phase(Phase.TILES)
    parts, done = [], 0
    for chunk, part in engine.match(job, chunks(list(tiles), span_px=settings.compute.chunk_px)):
        parts.append(part)
        done += len(chunk.tiles)
        progress(done, len(tiles))
    return TiePoints.concatenate(parts), coarse


def _wanted_field(points: TiePoints, found: Estimate, plan: TilePlan, settings: Settings) -> FieldFit | None:
    """Fit the displacement field; None where the settings do not ask for one."""
    if plan.grid is None or settings.products.displacement != "auto":
        return None
    return fit_field(
        points, found, plan.grid, tile_px=plan.tile_px, stride_px=plan.stride_px, settings=settings.field
    )


def find_coarse_offset(
    job: MatchJob, tiles: tuple[Tile, ...], engine: Engine, *, most_spots: int
) -> CoarseOffset:
    """Find the coarse offset from a third of the spots where their vote is clear, else from all spots.

    The vote of a third is clear on most scenes. All spots together cost as much as the tiles of a small
    scene, so the others are read only when they are needed.
    """
    spots = spread_out(tiles, count=min(most_spots, room_for_templates(*job.grid.shape)))
    few = math.ceil(len(spots) / THIRDS)
    if few < ENOUGH_VOTES:
        return vote_on_offset(engine.probabilities(job, spots))
    probabilities = engine.probabilities(job, spots[:few])
    found = vote_on_offset(probabilities)
    if found.votes >= ENOUGH_VOTES:
        return found
    return vote_on_offset([*probabilities, *engine.probabilities(job, spots[few:])])


def _explained(found: Estimate, plan: TilePlan, coarse: CoarseOffset | None) -> Estimate:
    """Add to an unreliable verdict what estimation cannot know: what was screened out, the search reach."""
    if found.verdict.code is not VerdictCode.UNRELIABLE:
        return found
    reasons = list(found.verdict.reasons)
    if plan.reason is not None:
        reasons.insert(0, plan.reason)
    nothing_fits = {Reason.TOO_FEW_TIE_POINTS, Reason.INCONSISTENT_OFFSETS} & set(reasons)
    if nothing_fits and plan.reason is None and coarse is not None and not coarse.reliable:
        # Noise has no offset, near or far: only images with structure may lie beyond the search.
        if plan.featured:
            reasons.append(Reason.OFFSET_BEYOND_SEARCH)
        else:
            reasons.insert(0, Reason.NO_TEXTURE)
    return replace(found, verdict=Verdict(VerdictCode.UNRELIABLE, tuple(dict.fromkeys(reasons))))


def _nothing_matched(plan: TilePlan, settings: Settings) -> Estimate:
    """Estimate of a pair without a tile worth matching: that of no tie points, for the reason of the plan."""
    nothing = estimate(
        TiePoints.empty(),
        planned=0,
        pixel_m=settings.grid.resolution_m,
        tile_px=plan.tile_px,
        stride_px=plan.stride_px,
        settings=settings.estimation,
    )
    reason = plan.reason or Reason.TOO_FEW_TIE_POINTS
    return replace(nothing, verdict=Verdict(VerdictCode.UNRELIABLE, (reason,)))


def _ahead(read: Callable[[Work], Planes], work: Sequence[Work]) -> Iterator[tuple[Work, Planes]]:
    """Read one window ahead in a thread, so that two are in memory whatever the size of the scene."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        upcoming: Future[Planes] | None = None
        for n, item in enumerate(work):
            planes = (upcoming or reader.submit(read, item)).result()
            upcoming = reader.submit(read, work[n + 1]) if n + 1 < len(work) else None
            yield item, planes


def _silent(done: int, planned: int) -> None:
    del done, planned


def _untold(phase: Phase) -> None:
    del phase
