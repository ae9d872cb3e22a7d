"""The STAC item of a raster that was aligned on request, to lie beside it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pystac
from pystac.utils import str_to_datetime
from shapely.geometry import mapping

from crosstie.errors import BadInputError
from crosstie.io.products.stac_item import PROJECTION, bbox_of, grid_fields, lon_lat_outline, rfc3339
from crosstie.io.raster.georeference import Georeference
from crosstie.io.storage.href import product_href

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

CARRIED = ("view:", "sar:", "sat:")
"""Properties of the source's item that resampling does not change."""

CARRIED_ALONE = ("platform", "constellation", "instruments")

TIMES = ("datetime", "start_datetime", "end_datetime")


def aligned_item(
    product: dict[str, Any],
    *,
    name: str,
    href: str,
    grid: GeoBox,
    source: str,
    product_url: str,
    applied: dict[str, str],
    created_utc: datetime,
    of_source: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe an aligned raster.

    Parameters
    ----------
    product : dict
        `item.json` of the product that was applied: its time, its links and `crosstie:*` are taken over.
    name : str
        Of the raster, to make the id unique among those of one product.
    href : str
        Of the raster, relative to the item.
    grid : GeoBox
        Grid of the raster.
    source : str
        Address of the raster that was aligned.
    product_url : str
        Folder of the product.
    applied : dict
        `model` and `resampling`.
    created_utc : datetime
        When it was aligned.
    of_source : dict, optional
        STAC item of the source, whose `view:*`, `sar:*` and `sat:*` and times are taken over.

    Returns
    -------
    dict
        A STAC 1.1 item.

    Raises
    ------
    BadInputError
        An item lacks what STAC requires.
    """
    place = Georeference(grid.shape.yx, str(grid.crs), grid.affine)
    outline = lon_lat_outline(place)
    theirs, extensions = _carried(of_source)
    try:
        ours, times = dict(product["properties"]), _times(product, of_source)
        item_id, links = str(product["id"]), list(product["links"])
        item = pystac.Item(
            id=f"{item_id}-{name}",
            geometry=None if outline is None else mapping(outline),
            bbox=None if outline is None else bbox_of(outline),
            datetime=times.get("datetime"),
            start_datetime=times.get("start_datetime"),
            end_datetime=times.get("end_datetime"),
            properties={
                **theirs,
                **{key: value for key, value in ours.items() if key.startswith("crosstie:")},
                "crosstie:applied_model": applied["model"],
                "crosstie:resampling": applied["resampling"],
                "created": rfc3339(created_utc),
                **grid_fields(grid),
            },
            stac_extensions=[PROJECTION, *extensions],
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, pystac.STACError) as problem:
        said = " ".join(f"{type(problem).__name__}: {problem}".split())[:200]
        raise BadInputError(
            f"the item of {product_url} or of its source is no STAC item ({said}); give another"
        ) from None
    for target, title in _derived_from(links, source, product_url).items():
        item.add_link(pystac.Link("derived_from", target, title=title or None))
    asset = pystac.Asset(
        href,
        title="Resampled once onto the grid of the reference, or of --like",
        media_type=pystac.MediaType.COG,
        roles=["data"],
    )
    asset.extra_fields |= grid_fields(grid)
    item.add_asset("aligned", asset)
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def _derived_from(links: list[Any], source: str, product_url: str) -> dict[str, str]:
    """Address -> title of all that the raster was made of; those of the product stay as it wrote them."""
    scenes = {
        link["href"]: str(link.get("title", ""))
        for link in links
        if isinstance(link, dict) and link.get("rel") == "derived_from" and isinstance(link.get("href"), str)
    }
    return scenes | {
        product_href(source): scenes.get(product_href(source), "What was aligned"),
        f"{product_url}/item.json": "The correction that was applied",
    }


def _carried(of_source: dict[str, Any] | None) -> tuple[dict[str, Any], list[str]]:
    """Properties of the source that stay true, and the extensions that define them."""
    if of_source is None:
        return {}, []
    properties = of_source.get("properties")
    kept = {
        key: value
        for key, value in (properties if isinstance(properties, dict) else {}).items()
        if key.startswith(CARRIED) or key in CARRIED_ALONE
    }
    prefixes = {key.split(":")[0] for key in kept if ":" in key}
    said = of_source.get("stac_extensions")
    extensions = [
        url
        for url in (said if isinstance(said, list) else [])
        if isinstance(url, str) and any(f"/{prefix}/v" in url for prefix in prefixes)
    ]
    return kept, extensions


def _times(product: dict[str, Any], of_source: dict[str, Any] | None) -> dict[str, datetime]:
    """Acquisition of the source: as its own item says, else as the product does."""
    for item in (of_source, product):
        if item is None:
            continue
        said = {name: item["properties"].get(name) for name in TIMES}
        if any(said.values()):
            return {name: str_to_datetime(value) for name, value in said.items() if value}
    raise ValueError("neither datetime nor start_datetime")
