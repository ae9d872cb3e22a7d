"""A committed product whose truth is known: waves, which the secondary sees through a known correction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from crosstie.io.products.write import write_products
from crosstie.io.storage.store import open_store
from crosstie.types import (
    DisplacementField,
    FieldFit,
    FieldReason,
    FieldReport,
    Reason,
    Registration,
    VerdictCode,
)

UTM = "EPSG:32614"
GROUND = Affine(10, 0, 600_000, 0, -10, 3_300_000)
SHAPE = (300, 320)
AFFINE = (1.0, 0.0, -33.7, 0.0, 1.0, 12.9)
"""Corrected = delivered + (-33.7, 12.9) m."""
SHIFT_PX = (3.37, 1.29)
"""Of the secondary against the reference, columns and rows, by the affine."""
BEND_PX = 1.5
"""What the field has over the affine along the columns, in its middle."""


@dataclass(frozen=True)
class Made:
    """Where the files are."""

    url: str
    root: Path
    reference: Path
    secondary: Path
    field: DisplacementField


def waves(col: np.ndarray, row: np.ndarray) -> np.ndarray:
    """100 .. 900, no wave shorter than 12 px, at positions in px from the outer corner."""
    total = np.zeros(np.broadcast(col, row).shape)
    for n, (fx, fy) in enumerate([(0.08, 0.01), (-0.03, 0.07), (0.05, 0.05), (0.013, -0.021)]):
        total += np.sin(2 * np.pi * (fx * col + fy * row) + n)
    return 500 + 100 * total


def write_waves(path: Path, *, shift_px: tuple[float, float] = (0.0, 0.0), dtype: str = "float32") -> Path:
    """Write what a sensor sees that lies `shift_px` (columns, rows) beside the truth."""
    row, col = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]] + 0.5
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=SHAPE[0], width=SHAPE[1], count=1, dtype=dtype, crs=UTM,
        transform=GROUND,
    ) as raster:  # fmt: skip
        raster.write(waves(col - shift_px[0], row - shift_px[1]).astype(dtype), 1)
    return path


def bent_field() -> DisplacementField:
    """The affine, and a smooth bump of BEND_PX along the columns."""
    rows, cols = 20, 21
    y, x = np.mgrid[0:rows, 0:cols] + 0.5
    bump = BEND_PX * np.sin(np.pi * x / cols) * np.sin(np.pi * y / rows)
    nodes = GeoBox((rows, cols), GROUND @ Affine.scale(16), UTM)
    return DisplacementField(nodes, 33.7 + 10 * bump, np.full((rows, cols), -12.9), np.ones((rows, cols)))


def make_product(
    folder: Path,
    make_registration: Callable[..., Registration],
    *,
    code: VerdictCode = VerdictCode.CORRECTED,
    field: bool = True,
    run_key: str = "0123456789abcdef",
    secondary_id: str = "S1A_IW",
    products: str | None = None,
) -> Made:
    """Write both rasters and commit a product; with a field if asked for and trusted."""
    reference = write_waves(folder / "s2.tif")
    secondary = write_waves(folder / "s1.tif", shift_px=SHIFT_PX)
    reasons = (Reason.TOO_FEW_TIE_POINTS,) if code is VerdictCode.UNRELIABLE else ()
    registration = replace(
        make_registration(
            affine=AFFINE, code=code, reasons=reasons, grid=GeoBox(SHAPE, GROUND, UTM),
            secondary_hrefs=(str(secondary),), secondary_id=secondary_id,
        ),
        reference_hrefs=(str(reference),),
        run_key=run_key,
    )  # fmt: skip
    bent = bent_field()
    if field and code is VerdictCode.CORRECTED:
        report = FieldReport(offered=True, reason=FieldReason.BETTER, used=100, coverage=1.0)
        used = np.ones(len(registration.points), bool)
        registration = replace(registration, field=FieldFit(bent, report, used))
    root = folder / "products"
    url = write_products(open_store(products or str(root)), registration, thumbnails=None)
    return Made(url, root, reference, secondary, bent)
