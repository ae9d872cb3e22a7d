from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from crosstie.io.raster.resample import apply
from crosstie.types import (
    DisplacementField,
    Error,
    FieldFit,
    FieldReason,
    FieldReport,
    Registration,
    VerdictCode,
)

if TYPE_CHECKING:
    from crosstie.types import FloatArray

HILL_XY = (608_000.0, 3_294_000.0)
HILL_M = 60.0
HILL_WIDTH_M = 1_000.0
STRIDE_PX = 32


def hill(x: FloatArray, y: FloatArray) -> FloatArray:
    """How far a hill displaces the secondary to the east, metres: relief that no affine follows."""
    away_2 = (x - HILL_XY[0]) ** 2 + (y - HILL_XY[1]) ** 2
    return HILL_M * np.exp(-0.5 * away_2 / HILL_WIDTH_M**2)


@pytest.fixture(scope="session")
def make_relief(make_registration: Callable[..., Registration]) -> Callable[..., Registration]:
    """Maker of registrations with a hill: every used point is off by the affine and the hill.

    The affine leaves 20.6 m of 25.8 m, the field 9.3 m.
    """

    def make(*, code: VerdictCode = VerdictCode.CORRECTED, **others: object) -> Registration:
        plain = make_registration(code=code, n=400, **others)
        grid, points, estimate = plain.grid, plain.points, plain.estimate
        assert grid is not None
        offset_m = points.offset_m + np.column_stack([hill(*points.xy_m.T), np.zeros(len(points))])
        rows, cols = (-(-length // STRIDE_PX) for length in grid.shape)
        nodes = GeoBox((rows, cols), grid.affine @ Affine.scale(STRIDE_PX), grid.crs)
        x, y = apply(nodes.affine, *np.meshgrid(np.arange(cols) + 0.5, np.arange(rows) + 0.5))
        to_x, to_y = apply(~Affine(*estimate.correction.affine), x, y)
        field = DisplacementField(nodes, to_x - x + hill(x, y), to_y - y, np.full(nodes.shape, 5.0))
        report = FieldReport(
            True,
            FieldReason.BETTER,
            used=311,
            coverage=0.93,
            error_affine=Error(18.1, 29.7),
            error_held_out=Error(6.6, 10.5),
            error_after=Error(9.3, 14.8),
        )
        return replace(
            plain,
            points=replace(points, offset_m=offset_m),
            estimate=replace(
                estimate,
                error_before=Error(25.8, 37.5),
                error_after=Error(20.6 if code is VerdictCode.CORRECTED else 25.8, 34.1),
            ),
            field=FieldFit(field, report, estimate.used),
        )

    return make
