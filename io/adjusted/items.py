"""STAC items of adjusted scenes: one a scene, so that any catalog can take them in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pystac
import shapely

from crosstie.io.products.stac_item import FIRST_SENTINEL, PROJECTION, bbox_of, rfc3339

if TYPE_CHECKING:
    from datetime import datetime

    import geopandas as gpd


def adjusted_items(scenes: gpd.GeoDataFrame, *, newest_utc: datetime) -> dict[str, Any]:
    """Make a STAC ItemCollection of adjusted scenes.

    Parameters
    ----------
    scenes : gpd.GeoDataFrame
        Rows of scenes.parquet.
    newest_utc : datetime
        End of the time span of scenes that nobody has dated: when the newest pair was made.

    Returns
    -------
    dict of str to Any
        A GeoJSON FeatureCollection of STAC 1.1 items.
    """
    found = [_adjusted_item(row, newest_utc) for row in scenes.to_dict("records")]
    collection = pystac.ItemCollection(found)
    return {**collection.to_dict(transform_hrefs=False)}


def _adjusted_item(row: dict[str, Any], newest_utc: datetime) -> pystac.Item:
    outline = row["geometry"]
    empty = outline is None or outline.is_empty
    dated = None if pd.isna(row["date"]) else row["date"]
    item = pystac.Item(
        id=f"{row['scene']}-{row['place']}",
        geometry=None if empty else shapely.geometry.mapping(outline),
        bbox=None if empty else bbox_of(outline),
        datetime=None if dated is None else dated.to_pydatetime(),
        start_datetime=None if dated is not None else FIRST_SENTINEL,
        end_datetime=None if dated is not None else newest_utc,
        properties={
            "created": rfc3339(newest_utc),
            "proj:code": row["crs"] if row["crs"].startswith("EPSG:") else None,
            **_said(row),
        },
        stac_extensions=[PROJECTION],
    )
    item.add_asset(
        "scenes",
        pystac.Asset(
            "scenes.parquet", "All scenes of the place", media_type="application/vnd.apache.parquet",
            roles=["metadata"],
        ),
    )  # fmt: skip
    return item


def _said(row: dict[str, Any]) -> dict[str, Any]:
    """Position and quality; what is not known is left out."""
    said = {
        "platform": row["platform"] or None,
        "constellation": row["sensor"] or None,
        "crosstie:scene": row["scene"],
        "crosstie:place": row["place"],
        "crosstie:verdict": row["verdict"],
        "crosstie:dx_m": row["dx_m"],
        "crosstie:dy_m": row["dy_m"],
        "crosstie:covariance": [float(value) for value in row["covariance"]],
        "crosstie:model": row["model"],
        "crosstie:affine": [float(value) for value in row["affine"]],
        "crosstie:edges": int(row["edges"]),
        "crosstie:redundancy": row["redundancy"],
        "crosstie:datum": row["datum"],
        "crosstie:version": row["version"],
    }
    return {name: value for name, value in said.items() if value is not None and _is_known(value)}


def _is_known(value: object) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return all(not isinstance(number, float) or np.isfinite(number) for number in numbers)
