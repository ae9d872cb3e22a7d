"""What committed pairs have measured: the tie points that each fit kept, and the model that they carry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from crosstie.errors import StoreError
from crosstie.io.products.correction import SCHEMA
from crosstie.types import Model, TiePoints

if TYPE_CHECKING:
    from crosstie.io.storage.root_layout import ProductKey
    from crosstie.io.storage.store import Store

POINT_COLUMNS = ["geometry", "dx_m", "dy_m", "sigma_m", "confidence", "used", "row", "col"]

CONFIDENT = 0.5
"""Confidence from which a tie point has a say in the field of a track."""


@dataclass(frozen=True, slots=True, eq=False)
class PairPoints:
    """Tie points of one pair."""

    used: TiePoints
    """Those that the fit kept."""
    confident: TiePoints
    """Those that are more likely right than wrong, kept or not: relief is more than a fit can follow."""
    model: Model
    """The largest model that they carry, applied or not."""


def read_pair_points(store: Store, product: ProductKey) -> PairPoints:
    """Read what a committed pair measured.

    Raises
    ------
    StoreError
        A file is missing or broken; the message names it.
    """
    try:
        said = json.loads(_body(store, product, "correction.json"))
        if said["schema"] != SCHEMA:
            raise ValueError(f"schema {said['schema']}, not {SCHEMA}")
        model = Model(said["fitted"]["model"])
        body = _body(store, product, "tie_points.parquet")
        # Arrow's threads may outlive the interpreter, which aborts the command.
        table = pq.ParquetFile(pa.BufferReader(body)).read(columns=POINT_COLUMNS, use_threads=False)
        used = _points(table.filter(table["used"]))
        confident = _points(table.filter(_is_confident(table)))
    except (
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        pa.ArrowException,
        OSError,
        shapely.errors.GEOSException,
    ) as why:
        raise StoreError(
            f"{store.url_of(product.prefix)} is committed, but broken ({type(why).__name__}: "
            f"{' '.join(str(why).split())[:160]}); delete its folder and run the pair again"
        ) from None
    return PairPoints(used, confident, model)


def _body(store: Store, product: ProductKey, name: str) -> bytes:
    body = store.get(product.file(name))
    if body is None:
        raise ValueError(f"no {name}")
    return body


def _is_confident(table: pa.Table) -> pa.Array:
    finite = [pc.is_finite(table[name]) for name in ("dx_m", "dy_m", "sigma_m")]
    return reduce(pc.and_, finite, pc.greater_equal(table["confidence"], CONFIDENT))


def _points(table: pa.Table) -> TiePoints:
    column = {name: table[name].to_numpy() for name in POINT_COLUMNS}
    xy = shapely.get_coordinates(shapely.from_wkb(column["geometry"]))
    points = TiePoints(
        xy_m=xy,
        offset_m=np.column_stack([column["dx_m"], column["dy_m"]]).astype(np.float64),
        sigma_m=column["sigma_m"].astype(np.float64),
        confidence=column["confidence"].astype(np.float64),
        row=column["row"].astype(np.int64),
        col=column["col"].astype(np.int64),
    )
    numbers = np.column_stack([points.xy_m, points.offset_m, points.sigma_m])
    if not (np.isfinite(numbers).all() and (points.sigma_m >= 0).all()):
        raise ValueError("tie_points.parquet: a used point is not finite")
    return points
