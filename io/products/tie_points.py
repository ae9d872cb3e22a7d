"""`tie_points.parquet`: one row for each matched tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np

from crosstie.io.products.correction import crs_of

if TYPE_CHECKING:
    from crosstie.types import Registration


def to_geodataframe(registration: Registration) -> gpd.GeoDataFrame:
    """Tie points as a table, one row a tile, in the CRS of the common grid (none where there is no grid).

    Columns: `geometry` (reference position), `dx_m`, `dy_m` (offset: secondary minus reference), `sigma_m`,
    `confidence` (0..1), `used`, `residual_x_m`, `residual_y_m`, `row`, `col` (first pixel of the tile).
    """
    points, estimate = registration.points, registration.estimate
    return gpd.GeoDataFrame(
        {
            "dx_m": points.offset_m[:, 0],
            "dy_m": points.offset_m[:, 1],
            "sigma_m": points.sigma_m.astype(np.float32),
            "confidence": points.confidence.astype(np.float32),
            "used": estimate.used.astype(np.bool_),
            "residual_x_m": estimate.residual_m[:, 0],
            "residual_y_m": estimate.residual_m[:, 1],
            "row": points.row.astype(np.int64),
            "col": points.col.astype(np.int64),
        },
        geometry=gpd.points_from_xy(points.xy_m[:, 0], points.xy_m[:, 1]),
        crs=crs_of(registration),
    )
