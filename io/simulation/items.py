"""STAC items of simulated scenes, and the static catalog that holds them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pystac

if TYPE_CHECKING:
    from affine import Affine
    from odc.geo.geobox import GeoBox

PROJECTION, EO, SAR = (
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("projection/v2.0.0", "eo/v1.1.0", "sar/v1.0.0")
)
"""Schemas of the STAC extensions that the items use."""

SENSOR = {
    "sentinel-2-l1c": {"platform": "sentinel-2a", "constellation": "sentinel-2", "instruments": ["msi"]},
    "sentinel-1-grd": {
        "platform": "sentinel-1a",
        "constellation": "sentinel-1",
        "instruments": ["c-sar"],
        "sar:instrument_mode": "IW",
        "sar:frequency_band": "C",
        "sar:product_type": "GRD",
        "sar:polarizations": ["VH"],
    },
}

SAR_LATER = timedelta(days=2, hours=-5)
"""From the optical scene to the SAR scene of a pair."""


@dataclass(frozen=True, slots=True, eq=False)
class PairOfItems:
    """What the catalog says of one simulated pair."""

    name: str
    """Last part of both ids."""
    seen_utc: datetime
    """Of the optical scene."""
    grid: GeoBox
    """Of the optical scene; the outline of both."""
    sar_transform: Affine
    """Of the SAR scene: where it claims to lie."""
    true_affine: Affine
    """Map coordinates of the SAR scene -> true ones."""
    cloud_pct: float
    optical: Path
    sar: Path

    @property
    def reference_id(self) -> str:
        return f"SIM_S2_{self.seen_utc:%Y%m%dT%H%M%S}_{self.name}"

    @property
    def secondary_id(self) -> str:
        return f"SIM_S1_{self.seen_utc + SAR_LATER:%Y%m%dT%H%M%S}_{self.name}"

    def items(self) -> tuple[pystac.Item, pystac.Item]:
        """Optical and SAR item, with absolute hrefs."""
        sar_utc = self.seen_utc + SAR_LATER
        outline = self.grid.extent.to_crs("EPSG:4326", resolution=2500)
        where: dict[str, Any] = {"geometry": outline.json, "bbox": list(outline.boundingbox)}
        on_grid = {
            "gsd": round(self.grid.resolution.x, 3),
            "proj:code": str(self.grid.crs),
            "proj:shape": list(self.grid.shape),
        }
        reference = pystac.Item(
            id=self.reference_id,
            datetime=self.seen_utc,
            collection="sentinel-2-l1c",
            properties={
                **SENSOR["sentinel-2-l1c"],
                "eo:cloud_cover": round(self.cloud_pct, 2),
                **on_grid,
                "proj:transform": list(self.grid.affine)[:6],
            },
            stac_extensions=[PROJECTION, EO],
            **where,
        )
        secondary = pystac.Item(
            id=self.secondary_id,
            datetime=None,
            start_datetime=sar_utc,
            end_datetime=sar_utc + timedelta(seconds=25),
            collection="sentinel-1-grd",
            properties={
                **SENSOR["sentinel-1-grd"],
                "crosstie:true_affine": list(self.true_affine)[:6],
                **on_grid,
                "proj:transform": list(self.sar_transform)[:6],
            },
            stac_extensions=[PROJECTION, SAR],
            **where,
        )
        for item, name, path in ((reference, "visual", self.optical), (secondary, "vh", self.sar)):
            item.add_asset(name, pystac.Asset(str(path), media_type=pystac.MediaType.COG, roles=["data"]))
        return reference, secondary


def write_static_catalog(folder: Path, pairs: Iterable[PairOfItems], *, description: str) -> Path:
    """Write a self-contained static catalog beside the rasters: one collection a sensor, relative hrefs.

    Returns
    -------
    Path
        Of `catalog.json`.
    """
    items: dict[str, list[pystac.Item]] = {"sentinel-1-grd": [], "sentinel-2-l1c": []}
    homes: dict[str, Path] = {}
    for pair in pairs:
        reference, secondary = pair.items()
        items["sentinel-2-l1c"].append(reference)
        items["sentinel-1-grd"].append(secondary)
        homes |= {reference.id: pair.optical.parent, secondary.id: pair.sar.parent}
    for name, mine in items.items():
        _write_collection(folder, name, mine, homes)
    root = {
        "type": "Catalog",
        "id": "crosstie-simulated",
        "stac_version": pystac.get_stac_version(),
        "description": description,
        "links": [_link("root", "./catalog.json"), *(_link("child", f"./{name}.json") for name in items)],
    }
    _write_json(folder / "catalog.json", root)
    return folder / "catalog.json"


def _write_collection(folder: Path, name: str, items: Sequence[pystac.Item], homes: dict[str, Path]) -> None:
    """Write one collection and its items; pystac's own `save` takes minutes for thousands."""
    collection = pystac.Collection(
        id=name,
        description=f"Simulated scenes in the manner of {name}",
        extent=pystac.Extent.from_items(items),
        license="CC0-1.0",
    ).to_dict(include_self_link=False)
    collection["links"] = [_link("root", "./catalog.json"), _link("parent", "./catalog.json")]
    for item in items:
        home = homes[item.id]
        path = home / f"{name}.json"
        collection["links"].append(_link("item", _relative(path, folder)))
        tree = item.to_dict(include_self_link=False, transform_hrefs=False)
        up = _relative(folder / f"{name}.json", home)
        tree["links"] = [
            _link("root", _relative(folder / "catalog.json", home)),
            _link("collection", up),
            _link("parent", up),
        ]
        for asset in tree["assets"].values():
            asset["href"] = _relative(Path(asset["href"]), home)
        _write_json(path, tree)
    _write_json(folder / f"{name}.json", collection)


def _link(rel: str, href: str) -> dict[str, str]:
    return {"rel": rel, "href": href, "type": "application/json"}


def _relative(path: Path, folder: Path) -> str:
    found = Path(relpath(path, folder)).as_posix()
    return found if found.startswith(".") else f"./{found}"


def _write_json(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
