"""Make a registration from what was measured, and write its products."""

from __future__ import annotations

import importlib.metadata
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from crosstie.codes import Kernel
from crosstie.flows.registration.measure import ALIGN_PX
from crosstie.grid import window
from crosstie.io.products.aligned import AlignTask
from crosstie.io.products.drawing import DrawTask
from crosstie.io.products.keys import run_key
from crosstie.io.products.overview import Thumbnails
from crosstie.io.products.stages import most_improved, stages
from crosstie.io.products.write import AlignedRequest, write_products
from crosstie.io.raster import read_plane
from crosstie.io.raster.resample import apply
from crosstie.types import Provenance, Registration, pair_key

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from crosstie.config import Settings
    from crosstie.flows.registration.measure import ReadPlane
    from crosstie.flows.registration.pipeline import PairMeasurement
    from crosstie.flows.registration.plan import TilePlan
    from crosstie.io.products.aligned import AlignImage
    from crosstie.io.products.drawing import Draw
    from crosstie.io.storage.store import Store

ALGORITHM_VERSION = "1"
"""Raise it with every change of the code that changes results; all pairs are then registered again."""

DETAIL_PX = 256
"""Side of the window that the report shows at full resolution, px."""

RECORDED_PACKAGES = ("crosstie", "torch", "onnxruntime", "numpy", "scipy", "rasterio", "odc-geo")


@dataclass(frozen=True, slots=True)
class PairNames:
    """Ids of the scenes of a pair, and where their files are."""

    reference_id: str
    secondary_id: str
    reference_hrefs: tuple[str, ...]
    secondary_hrefs: tuple[str, ...]
    secondary_acquired_utc: datetime | None = None

    @property
    def pair_key(self) -> str:
        return pair_key(self.reference_id, self.secondary_id)


def run_key_of(pair_key: str, settings: Settings, *, weights_sha256: str, given: tuple[str, ...] = ()) -> str:
    """Run key of a pair for these settings and weights.

    Parameters
    ----------
    given : tuple of str, optional
        What else the user said of this pair, and the result depends on.
    """
    return run_key(
        pair_key=pair_key,
        weights_sha256=weights_sha256,
        settings_hash=settings.hash,
        algorithm_version=ALGORITHM_VERSION,
        given=given,
    )


def assemble(
    names: PairNames,
    plan: TilePlan,
    measured: PairMeasurement,
    settings: Settings,
    *,
    weights_sha256: str,
    seconds: float,
    given: tuple[str, ...] = (),
) -> Registration:
    """Collect everything that is known about a pair.

    Parameters
    ----------
    seconds : float
        Wall time from reading the headers to the verdict, seconds.
    given : tuple of str, optional
        As for `run_key_of`.
    """
    return Registration(
        pair_key=names.pair_key,
        run_key=run_key_of(names.pair_key, settings, weights_sha256=weights_sha256, given=given),
        reference_id=names.reference_id,
        reference_hrefs=names.reference_hrefs,
        secondary_id=names.secondary_id,
        secondary_hrefs=names.secondary_hrefs,
        grid=plan.grid,
        planned=len(plan.tiles),
        points=measured.points,
        estimate=measured.estimate,
        field=measured.field,
        provenance=Provenance(
            versions=tuple((name, importlib.metadata.version(name)) for name in RECORDED_PACKAGES),
            weights_sha256=weights_sha256,
            settings_hash=settings.hash,
            created_utc=datetime.now(UTC),
            seconds=seconds,
        ),
        reference_control=None if plan.reference.control is None else plan.reference.control.facts,
        secondary_control=None if plan.secondary.control is None else plan.secondary.control.facts,
        reference_mask=None if plan.reference.mask is None else plan.reference.mask.href,
        secondary_mask=None if plan.secondary.mask is None else plan.secondary.mask.href,
        reference_clouds=plan.reference_clouds,
        secondary_clouds=plan.secondary_clouds,
    )


def publish(
    store: Store,
    registration: Registration,
    plan: TilePlan,
    names: PairNames,
    settings: Settings,
    *,
    read: ReadPlane = read_plane,
    align: AlignImage = AlignTask.write,
    draw: Draw = DrawTask.draw,
) -> str:
    """Write and commit the products of a pair; return their URL.

    Parameters
    ----------
    read : ReadPlane, optional
        Reads the window that the report shows at full resolution. The worker that matched it still has it.
    align : AlignImage, optional
        Writes the aligned pixels, where the settings ask for them.
    draw : Draw, optional
        Draws the pictures.

    Raises
    ------
    StoreError
        The root cannot be written.
    UnreadableRasterError
        A raster no longer exists.
    """
    return write_products(
        store,
        registration,
        thumbnails=thumbnails_of(plan),
        detail=_detail(plan, registration, read),
        acquired_utc=names.secondary_acquired_utc,
        storage=plan.secondary.storage,
        drivers=plan.secondary.drivers,
        aligned=_aligned_request(plan, settings),
        align=align,
        draw=draw,
    )


def _aligned_request(plan: TilePlan, settings: Settings) -> AlignedRequest | None:
    if settings.products.aligned == "none":
        return None
    return AlignedRequest(plan.reference.geobox, Kernel(settings.products.resampling))


def thumbnails_of(plan: TilePlan) -> Thumbnails | None:
    """Both images over the whole common grid, small; None where there is none."""
    if plan.overviews is None:
        return None
    return Thumbnails(plan.overviews.reference, plan.overviews.secondary, plan.overviews.grid)


def _detail(plan: TilePlan, registration: Registration, read: ReadPlane) -> Thumbnails | None:
    """Read a window at full resolution where the result improves most on what was delivered.

    What the mapping brings into the window is read with it, as a margin.
    """
    if plan.grid is None:
        return None
    pixel_m = math.sqrt(abs(plan.grid.affine.determinant))
    point = most_improved(registration, side_m=DETAIL_PX * pixel_m)
    if point is None:
        return None
    row, col = (
        _detail_start(int(start[point] + plan.tile_px / 2 - DETAIL_PX / 2), length)
        for start, length in zip(
            (registration.points.row, registration.points.col), plan.grid.shape, strict=True
        )
    )
    margin = _margin_px(window(plan.grid, row=row, col=col, shape=(DETAIL_PX, DETAIL_PX)), registration)
    side = DETAIL_PX + 2 * margin
    view = window(plan.grid, row=row - margin, col=col - margin, shape=(side, side))
    return Thumbnails(read(plan.reference, view), read(plan.secondary, view), view, margin)


def _margin_px(view: GeoBox, registration: Registration) -> int:
    """How far outside a window the mapping looks, px, in whole steps of the network's lattice."""
    reach_px = 0.0
    steps = np.linspace(0, DETAIL_PX, 9)
    x, y = apply(view.affine, *np.meshgrid(steps, steps))
    for stage in stages(registration):
        col, row = apply(~view.affine, *stage.mapping.secondary_xy(x, y))
        beyond = max(-col.min(), -row.min(), col.max() - DETAIL_PX, row.max() - DETAIL_PX)
        reach_px = max(reach_px, float(beyond))
    return math.ceil((reach_px + 1) / ALIGN_PX) * ALIGN_PX


def _detail_start(start_px: int, length_px: int) -> int:
    """First row or column of a detail window, moved inside the grid and onto the lattice of the network."""
    return max(0, min(start_px, length_px - DETAIL_PX)) // ALIGN_PX * ALIGN_PX
