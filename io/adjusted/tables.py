"""Tables of adjusted positions: one row a scene, one row a pair, as bytes and back."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from crosstie.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crosstie.types import FloatArray

ADJUSTED_SCHEMA = "crosstie/adjusted/1"

SCENE_COLUMNS = (
    "scene", "sensor", "platform", "track", "baseline", "date", "dx_m", "dy_m", "sigma_x_m", "sigma_y_m",
    "covariance", "model", "affine", "affine_covariance", "edges", "rejected_edges", "redundancy", "verdict",
    "part", "datum", "place", "crs", "version", "geometry",
)  # fmt: skip
"""Columns of scenes.parquet; docs/reference/products.md says what each is."""

SHAPE_COLUMNS = ("model", "affine", "affine_covariance")
"""Those of them that tables of earlier versions of crosstie lack: all scenes were translations."""

POSITIONS = pa.schema(
    {
        **dict.fromkeys(("scene", "sensor", "platform", "track", "baseline"), pa.string()),
        "date": pa.timestamp("us", tz="UTC"),
        **dict.fromkeys(("dx_m", "dy_m", "sigma_x_m", "sigma_y_m"), pa.float64()),
        "verdict": pa.string(),
        "part": pa.int64(),
        "place": pa.string(),
    }
)
"""Columns of scenes.parquet that series in time are made of."""

EDGE_COLUMNS = (
    "pair_key", "run_key", "reference", "secondary", "kept", "dx_m", "dy_m", "sigma_m", "residual_x_m",
    "residual_y_m", "redundancy", "detectable_m", "statistic", "x_m", "y_m", "affine", "covariance",
)  # fmt: skip
"""Columns of edges.parquet."""


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredPairs:
    """Measurements of N pairs, as columns."""

    pair_key: list[str]
    run_key: list[str]
    affine: FloatArray
    """(N, 6) from the secondary to the reference, metres, rasterio's order."""
    covariance: FloatArray
    """(N, 6, 6)"""
    centre_m: FloatArray
    """(N, 2) mean position of the tie points that the fit kept."""

    def __len__(self) -> int:
        return len(self.pair_key)


def encode_scenes(columns: dict[str, Any]) -> bytes:
    """Encode scenes as GeoParquet; `geometry` are outlines in longitude and latitude.

    Parameters
    ----------
    columns : dict of str to Any
        `SCENE_COLUMNS`, each of length N.
    """
    frame = gpd.GeoDataFrame(
        {name: columns[name] for name in SCENE_COLUMNS if name != "geometry"},
        geometry=columns["geometry"],
        crs="EPSG:4326",
    )
    # A text of all-empty columns would else be of no type, and the type of a date would hang on its values.
    frame["date"] = pd.to_datetime(frame["date"], utc=True).astype("datetime64[us, UTC]")
    return _parquet(frame)


def decode_scenes(body: bytes, url: str) -> gpd.GeoDataFrame:
    """Decode what `encode_scenes` has written.

    Raises
    ------
    StoreError
        The bytes are broken or of another schema.
    """
    with _decoding(url):
        frame = gpd.read_parquet(io.BytesIO(body))
    missing = sorted(set(SCENE_COLUMNS) - set(frame.columns))
    if missing == sorted(SHAPE_COLUMNS):
        with _decoding(url):
            return _of_translations(frame)
    if missing:
        raise broken_table(url, ValueError(f"no column {missing[0]}"))
    return frame


def _of_translations(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Add `SHAPE_COLUMNS` to a table of before they were."""
    n = len(frame)
    affine, spread = np.tile([1.0, 0, 0, 0, 1.0, 0], (n, 1)), np.zeros((n, 6, 6))
    affine[:, [2, 5]] = -frame[["dx_m", "dy_m"]].to_numpy(np.float64)
    own = np.array(frame["covariance"].to_list(), np.float64).reshape(n, 2, 2)
    spread[np.ix_(range(n), [2, 5], [2, 5])] = own
    shape = {"model": "translation", "affine": list(affine), "affine_covariance": list(spread.reshape(n, 36))}
    return frame.assign(**shape)[list(SCENE_COLUMNS)]


def decode_positions(body: bytes, url: str) -> pa.Table:
    """Decode the columns `POSITIONS` alone, without outlines: a twentieth of the work.

    Raises
    ------
    StoreError
        The bytes are broken or of another schema.
    """
    with _decoding(url):
        table = pq.ParquetFile(pa.BufferReader(body)).read(columns=POSITIONS.names, use_threads=False)
        return table.select(POSITIONS.names).cast(POSITIONS)


def encode_edges(columns: dict[str, Any]) -> bytes:
    """Encode pairs as Parquet; `columns` are `EDGE_COLUMNS`, each of length E."""
    return _parquet(pd.DataFrame({name: columns[name] for name in EDGE_COLUMNS}))


def decode_edges(body: bytes, url: str) -> pd.DataFrame:
    """Decode what `encode_edges` has written.

    Raises
    ------
    StoreError
        The bytes are broken.
    """
    with _decoding(url):
        frame = pd.read_parquet(io.BytesIO(body))
        return frame[list(EDGE_COLUMNS)]


def measured_of(edges: pd.DataFrame, url: str) -> MeasuredPairs:
    """Take the measurements out of a table of pairs, so that a product is read once.

    Raises
    ------
    StoreError
        A measurement is broken.
    """
    n = len(edges)
    try:
        numbers = {
            "affine": np.array(edges["affine"].to_list(), np.float64).reshape(n, 6),
            "covariance": np.array(edges["covariance"].to_list(), np.float64).reshape(n, 6, 6),
            "centre_m": edges[["x_m", "y_m"]].to_numpy(np.float64),
        }
        if not all(np.isfinite(column).all() for column in numbers.values()):
            raise ValueError("a measurement is not finite")
    except (ValueError, OverflowError, TypeError) as problem:
        raise broken_table(url, problem) from None
    return MeasuredPairs(edges["pair_key"].to_list(), edges["run_key"].to_list(), **numbers)


def outline_of(outlines: list[bytes]) -> shapely.Geometry:
    """Outline of a scene that was only ever a reference: what its partners' outlines have in common."""
    common = shapely.intersection_all(shapely.from_wkb(outlines))
    return common if common.geom_type == "Polygon" else common.convex_hull


@contextmanager
def _decoding(url: str) -> Iterator[None]:
    """Tell of bytes that are no such table as of a broken one."""
    try:
        yield
    except (pa.ArrowException, ValueError, OSError, KeyError) as problem:
        raise broken_table(url, problem) from None


def broken_table(url: str, problem: Exception) -> StoreError:
    said = " ".join(f"{type(problem).__name__}: {problem}".split())[:200]
    return StoreError(f"{url} is broken ({said}); delete its folder, `crosstie adjust` makes it anew")


def _parquet(frame: pd.DataFrame) -> bytes:
    body = io.BytesIO()
    frame.to_parquet(body, index=False, compression="zstd")
    return body.getvalue()
