"""How well-known catalogs name things: collections, assets, properties.

Taken from their items in 2025 and 2026. For any other catalog all these names are tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from crosstie.io.catalog.query import OPTICAL_COLLECTIONS, SAR_COLLECTIONS, SceneQuery

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Preset:
    """The names that one catalog uses. Of several names the first that an item has is used."""

    name: str
    hosts: Names
    """Hosts of its API. Empty: no address selects this preset."""
    collections: Names
    """All its collections of detected or corrected Sentinel-1 and 2 images. Empty: not known."""
    sar_assets: Names
    """VH before VV: over land it varies less with the look direction and with wind and waves."""
    optical_assets: Names
    """True colour before red."""
    orbit_state: Names
    relative_orbit: Names
    product_type: Names
    mgrs_tile: Names
    """Properties that hold the tile alone or as `MGRS-31UFS`."""
    processing_baseline: Names
    created: Names
    """When the product was made, not when the catalog's entry was last changed."""
    page_items: int
    """Items on one page of its API: as many as it sends without an error."""

    @property
    def assets(self) -> Names:
        """All assets that are read, once each."""
        return tuple(dict.fromkeys((*self.sar_assets, *self.optical_assets)))

    @property
    def properties(self) -> Names:
        """All properties that are read."""
        groups = (
            self.orbit_state, self.relative_orbit, self.product_type, self.mgrs_tile,
            self.processing_baseline, self.created,
        )  # fmt: skip
        return tuple(dict.fromkeys(name for group in groups for name in group))

    def asked(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Keep the collections that the catalog may have: its own, and those that no preset knows."""
        usual = {*SAR_COLLECTIONS, *OPTICAL_COLLECTIONS} if self.collections else set()
        return tuple(name for name in wanted if name in self.collections or name not in usual)


EARTH_SEARCH = Preset(
    name="earth-search",
    hosts=("earth-search.aws.element84.com",),
    collections=("sentinel-1-grd", "sentinel-2-l1c", "sentinel-2-l2a", "sentinel-2-c1-l2a"),
    sar_assets=("vh", "vv"),
    optical_assets=("visual", "red"),
    orbit_state=("sat:orbit_state",),
    relative_orbit=("sat:relative_orbit",),
    product_type=("s2:product_type", "sar:product_type"),
    mgrs_tile=("grid:code",),
    processing_baseline=("s2:processing_baseline",),
    created=("s2:generation_time", "created"),
    page_items=100,  # its items are large, and an answer of more than 6 MB fails
)

PLANETARY_COMPUTER = Preset(
    name="planetary-computer",
    hosts=("planetarycomputer.microsoft.com",),
    collections=("sentinel-1-grd", "sentinel-1-rtc", "sentinel-2-l2a"),
    sar_assets=("vh", "vv"),
    optical_assets=("visual", "B04"),
    orbit_state=("sat:orbit_state",),
    relative_orbit=("sat:relative_orbit",),
    product_type=("s2:product_type", "sar:product_type"),
    mgrs_tile=("s2:mgrs_tile",),
    processing_baseline=("s2:processing_baseline",),
    created=("s2:generation_time", "s1:processing_datetime"),
    page_items=250,
)

CDSE = Preset(
    name="cdse",
    hosts=("stac.dataspace.copernicus.eu", "catalog.dataspace.copernicus.eu"),
    collections=("sentinel-1-grd", "sentinel-2-l1c", "sentinel-2-l2a"),
    sar_assets=("vh", "VH", "vv", "VV"),
    optical_assets=("TCI_10m", "TCI", "B04_10m", "B04"),
    orbit_state=("sat:orbit_state",),
    relative_orbit=("sat:relative_orbit",),
    product_type=("product:type",),
    mgrs_tile=("grid:code",),
    processing_baseline=("processing:version",),
    created=("processing:datetime",),
    page_items=250,
)

NONE = Preset(
    name="none",
    hosts=(),
    collections=(),
    sar_assets=("vh", "VH", "vv", "VV"),
    optical_assets=("visual", "TCI_10m", "TCI", "red", "B04", "B04_10m"),
    orbit_state=("sat:orbit_state",),
    relative_orbit=("sat:relative_orbit",),
    product_type=("product:type", "s2:product_type", "s1:product_type", "sar:product_type"),
    mgrs_tile=("grid:code", "s2:mgrs_tile", "s2:tile_id"),
    processing_baseline=("s2:processing_baseline", "processing:version"),
    created=("s2:generation_time", "processing:datetime", "s1:processing_datetime", "created"),
    page_items=100,
)

PRESETS = {preset.name: preset for preset in (EARTH_SEARCH, PLANETARY_COMPUTER, CDSE, NONE)}


def preset_of(query: SceneQuery, catalog_href: str) -> Preset:
    """Preset that a query names, or else that belongs to the address of the catalog."""
    host = urlsplit(catalog_href).hostname
    if query.preset != "auto":
        found = PRESETS[query.preset]
    else:
        found = next((preset for preset in PRESETS.values() if host in preset.hosts), NONE)
    return replace(
        found,
        sar_assets=query.sar_assets or found.sar_assets,
        optical_assets=query.optical_assets or found.optical_assets,
    )
