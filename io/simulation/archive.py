"""An archive of simulated items, as stac-geoparquet and as STAC items: to try discovery on, without pixels.

Sentinel-2 tiles of about 110 km and slanted Sentinel-1 frames of 250 x 170 km, taken again and again over
years in regions round the world, one of them on the antimeridian and one beyond 75 degrees north. Frames of
one track follow one another by 25 s, as slices of a pass do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from crosstie.io.scenes.footprint import lonlat_outlines
from crosstie.io.scenes.table import microseconds, utc_from_us

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import BoolArray, FloatArray, IntArray, Objects

REGIONS = ((-100, 30), (-60, -10), (5, 45), (20, 0), (75, 20), (105, 15), (140, -30), (172, -20), (15, 76))
"""West and south of each region, degrees; all are 16 degrees wide and 9 high."""

WIDE, HIGH = 16.0, 9.0
KM_PER_DEGREE = 111.2
BEGIN = datetime(2021, 1, 1, tzinfo=UTC)
SLICE_US = 25_000_000
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000

OPTICAL_ASSETS = ("visual", "red", "green", "blue", "nir", "scl")
SAR_ASSETS = ("vv", "vh")

HALF_TILE = np.array([[-55.0, -55], [55, -53], [54, 55], [-56, 54]])
"""Corners of a tile round its middle, km; not quite a square, as UTM lies in degrees."""

HALF_FRAME = np.array([[-125.0, -85], [125, -85], [125, 85], [-125, 85]])
"""Corners of a frame before it is turned by the track's heading, km."""

HEADING_DEG = 12.0

ROW_GROUP = 20_000


def simulated_archive(each: int, *, years: float = 4.0, seed: int = 0) -> pa.Table:
    """Table of `each` Sentinel-1 and as many Sentinel-2 items, in no order, as stac-geoparquet has them."""
    rng = np.random.default_rng(seed)
    optical, sar = _optical_columns(each, years, rng), _sar_columns(each, years, rng)
    columns = {name: np.concatenate([optical[name], sar[name]]) for name in optical}
    table = _table(columns)
    return table.take(pa.array(rng.permutation(len(table))))


def write_archive(path: Path, table: pa.Table) -> None:
    """Write a table as stac-geoparquet."""
    about = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": []}},
    }
    metadata = {b"geo": json.dumps(about).encode(), b"stac-geoparquet": b'{"version":"1.0.0"}'}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=ROW_GROUP)


def archive_items(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows of a table as STAC items."""
    for row in table.to_pylist():
        fixed = {name: row.pop(name) for name in ("id", "collection", "geometry", "bbox", "assets")}
        said = {name: value for name, value in row.items() if value is not None}
        for name in ("datetime", "start_datetime", "end_datetime", "created"):
            if name in said:
                said[name] = said[name].isoformat().replace("+00:00", "Z")
        if "start_datetime" in said:
            said.setdefault("datetime", None)
        assets = {name: asset for name, asset in fixed["assets"].items() if asset is not None}
        yield {
            "type": "Feature",
            "stac_version": "1.1.0",
            "id": fixed["id"],
            "collection": fixed["collection"],
            "geometry": shapely.geometry.mapping(shapely.from_wkb(fixed["geometry"])),
            "bbox": list(fixed["bbox"].values()),
            "properties": said,
            "links": [],
            "assets": assets,
        }


def archive_collections() -> list[dict[str, Any]]:
    """The collections that the items belong to."""
    return [
        {
            "type": "Collection",
            "id": name,
            "stac_version": "1.1.0",
            "description": f"Simulated {name}",
            "license": "CC0-1.0",
            "links": [],
            "extent": {
                "spatial": {"bbox": [[-180, -90, 180, 90]]},
                "temporal": {"interval": [[BEGIN.isoformat().replace("+00:00", "Z"), None]]},
            },
        }
        for name in ("sentinel-1-grd", "sentinel-2-l2a")
    ]


def _optical_columns(each: int, years: float, rng: np.random.Generator) -> dict[str, Any]:
    places = _place_centres(100.0, 100.0)
    tile, turn = _visits(each, len(places))
    step_us = years * 365 * DAY_US / (turn.max() + 1)
    when = _acquisition_us(
        turn * step_us + (tile % 5) * DAY_US + 10.5 * DAY_US / 24, rng.integers(0, 20, each) * 10**6
    )
    platform = np.where(rng.random(each) < 0.5, "sentinel-2a", "sentinel-2b").astype(object)
    codes = [_tile_name(n) for n in range(len(places))]
    # a scene seldom fills its tile to the same line: the swath ends in it
    width = np.where(rng.random(each) < 0.3, rng.uniform(0.2, 1.0, each), 1.0)
    shape = np.repeat(HALF_TILE[None], each, axis=0)
    shape[:, 1:3, 0] -= (1 - width)[:, None] * 110
    ids = [
        f"S2{p[-1].upper()}_MSIL2A_{_stamp(t)}_N0510_R{n % 143 + 1:03d}_T{codes[n]}_{_stamp(t + 3 * HOUR_US)}"
        for p, t, n in zip(platform, when.tolist(), tile.tolist(), strict=True)
    ]
    return _columns(
        ids, "sentinel-2-l2a", when, np.zeros(each, bool), _outlines_round(places[tile], shape), platform,
        cloud=np.round(rng.beta(0.5, 0.7, each) * 100, 2),
        orbit=np.array(["descending"] * each, object),
        track=tile % 143 + 1,
        code=np.array([f"MGRS-{codes[n]}" for n in tile.tolist()], object),
        baseline=np.array(["05.10"] * each, object),
    )  # fmt: skip


def _sar_columns(each: int, years: float, rng: np.random.Generator) -> dict[str, Any]:
    places = _place_centres(235.0, 160.0)
    tracks = np.column_stack([places, np.zeros(len(places))])
    both = np.concatenate([tracks, tracks + np.array([0.0, 0.0, 1.0])])
    frame, turn = _visits(each, len(both))
    ascending = both[frame, 2] == 1
    # frames that lie above one another are slices of one pass
    column = np.unique(np.round(both[:, [0, 2]], 3), axis=0, return_inverse=True)[1].ravel()
    slice_us = np.round(both[:, 1] / (160 / KM_PER_DEGREE)) * SLICE_US
    step_us = years * 365 * DAY_US / (turn.max() + 1)
    start = _acquisition_us(
        turn * step_us
        + column[frame] % 12 * DAY_US
        + np.where(ascending, 17, 5) * DAY_US / 24
        + slice_us[frame],
        np.zeros(each),
    )
    platform = np.where(turn % 2 == 0, "sentinel-1a", "sentinel-1c").astype(object)
    angle = np.radians(np.where(ascending, HEADING_DEG, -HEADING_DEG))
    turned = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(-1, 2, 2)
    shape = np.einsum("nij,kj->nki", turned, HALF_FRAME) + rng.normal(0, 0.5, (each, 1, 2))
    orbit = 40000 + (start - start.min()) // DAY_US * 15 + column[frame] % 15
    ids = [
        f"S1{p[-1].upper()}_IW_GRDH_1SDV_{_stamp(t)}_{_stamp(t + SLICE_US)}"
        f"_{o:06d}_{o * 7 % 0xFFFFFF:06X}_{n:04X}"
        for p, t, o, n in zip(
            platform, start.tolist(), orbit.tolist(), (frame % 0xFFFF).tolist(), strict=True
        )
    ]
    return _columns(
        ids, "sentinel-1-grd", start, np.ones(each, bool), _outlines_round(both[frame, :2], shape), platform,
        cloud=np.full(each, np.nan),
        orbit=np.where(ascending, "ascending", "descending").astype(object),
        track=column[frame] % 175 + 1,
        code=np.full(each, None, object),
        baseline=np.full(each, None, object),
    )  # fmt: skip


def _place_centres(across_km: float, along_km: float) -> FloatArray:
    """Middles of places that fill the regions, (longitude, latitude)."""
    places = []
    for west, south in REGIONS:
        for lat in np.arange(south, south + HIGH, along_km / KM_PER_DEGREE):
            step = across_km / (KM_PER_DEGREE * np.cos(np.radians(lat)))
            places += [(lon, lat) for lon in np.arange(west, west + WIDE, step)]
    return np.array(places)


def _visits(count: int, places: int) -> tuple[IntArray, IntArray]:
    """Place and turn of each scene: all places in the first turn, all in the next."""
    number = np.arange(count)
    return number % places, number // places


def _acquisition_us(us: NDArray[Any], jitter_us: NDArray[Any]) -> IntArray:
    found: IntArray = (microseconds(BEGIN) + us + jitter_us).astype(np.int64)
    return found


def _outlines_round(middle: FloatArray, shape_km: FloatArray) -> Objects:
    """Outlines (N,) of corners (N, 4, 2) in km round middles (N, 2) in degrees."""
    lat = middle[:, None, 1] + shape_km[:, :, 1] / KM_PER_DEGREE
    lon = middle[:, None, 0] + shape_km[:, :, 0] / (KM_PER_DEGREE * np.cos(np.radians(lat)))
    ring = np.stack([lon, lat], axis=2)
    found: Objects = lonlat_outlines(shapely.polygons(np.concatenate([ring, ring[:, :1]], axis=1)))
    return found


def _tile_name(number: int) -> str:
    letters = "ABCDEFGHJKLMNPQRSTUV"
    zone, rest = divmod(number, 20 * 20 * 20)
    band, rest = divmod(rest, 400)
    return f"{zone + 1:02d}{'CDEFGHJKLMNPQRSTUVWX'[band]}{letters[rest // 20]}{letters[rest % 20]}"


def _stamp(us: int) -> str:
    return utc_from_us(us).strftime("%Y%m%dT%H%M%S")


def _columns(
    ids: Sequence[str],
    collection: str,
    when: IntArray,
    is_sar: BoolArray,
    outline: Objects,
    platform: Objects,
    **said: Any,
) -> dict[str, Any]:
    return {
        "id": np.array(ids, object),
        "collection": np.full(len(ids), collection, object),
        "when": when,
        "is_sar": is_sar,
        "outline": outline,
        "platform": platform,
        **said,
    }


def _table(columns: dict[str, Any]) -> pa.Table:
    when, is_sar = columns["when"], columns["is_sar"]
    time = pa.timestamp("us", "UTC")
    west, south, east, north = shapely.bounds(columns["outline"]).T
    sides = zip(("xmin", "ymin", "xmax", "ymax"), (west, south, east, north), strict=True)
    middle = np.where(is_sar, when + SLICE_US // 2, when)
    return pa.table(
        {
            "id": pa.array(columns["id"]),
            "collection": pa.array(columns["collection"]),
            "geometry": pa.array(shapely.to_wkb(columns["outline"])),
            "bbox": pa.StructArray.from_arrays(*_struct({name: pa.array(side) for name, side in sides})),
            "datetime": pa.array(middle).cast(time),
            "start_datetime": pa.array(when, mask=~is_sar).cast(time),
            "end_datetime": pa.array(when + SLICE_US, mask=~is_sar).cast(time),
            "created": pa.array(when + 6 * 3600 * 10**6).cast(time),
            "platform": pa.array(columns["platform"]),
            "constellation": pa.array(np.where(is_sar, "sentinel-1", "sentinel-2").astype(object)),
            "eo:cloud_cover": pa.array(columns["cloud"], mask=is_sar),
            "sat:orbit_state": pa.array(columns["orbit"]),
            "sat:relative_orbit": pa.array(columns["track"].astype(np.int64)),
            "sar:product_type": pa.array(["GRD"] * len(when), mask=~is_sar),
            "grid:code": pa.array(columns["code"]),
            "s2:processing_baseline": pa.array(columns["baseline"]),
            "assets": _asset_struct(columns["id"], is_sar),
        }
    )


def _asset_struct(ids: Objects, is_sar: BoolArray) -> pa.StructArray:
    count = len(ids)
    named = {}
    for name in (*OPTICAL_ASSETS, *SAR_ASSETS):
        mask = ~is_sar if name in SAR_ASSETS else is_sar
        href = pa.array([f"s3://simulated-archive/{item}/{name}.tif" for item in ids])
        kind = pa.array(["image/tiff; application=geotiff; profile=cloud-optimized"] * count)
        roles = pa.array([["data"]] * count)
        parts = {"href": href, "type": kind, "roles": roles}
        named[name] = pa.StructArray.from_arrays(*_struct(parts), mask=pa.array(mask))
    return pa.StructArray.from_arrays(*_struct(named))


def _struct(parts: dict[str, pa.Array]) -> tuple[list[pa.Array], list[str]]:
    return list(parts.values()), list(parts)
