"""Everything that reads what somebody else may have written, with valid documents to damage.

A door may refuse by an error of `crosstie.errors`; any other exception is a fault.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from committed_runs import recommit
from notices import S1, event_bridge, filer_event, item, minio_event, s3_event
from rasterio.control import GroundControlPoint
from stac_site import as_table

import crosstie
from crosstie.config import Settings, load_settings
from crosstie.flows.status import take_status
from crosstie.io.archive.index import update_index
from crosstie.io.catalog.search import find_scenes
from crosstie.io.events.notices import NoticeRules, read_json, read_notices
from crosstie.io.events.sns import read_envelope
from crosstie.io.products.displacement import read_displacement
from crosstie.io.raster import open_source, read_plane
from crosstie.io.storage.store import open_store
from crosstie.train_settings import load_train_settings

RULES = NoticeRules(sar_collections=("sentinel-1-grd",), optical_collections=("sentinel-2-l1c",))

GOLDEN = Path(__file__).parents[1] / "golden" / "archive-0.1.0"


@dataclass(frozen=True, slots=True)
class Door:
    """One kind of file that crosstie reads."""

    name: str
    read: Callable[[Path, bytes], object]
    """Called with an empty folder and the body."""
    seeds: tuple[bytes, ...]
    """Valid documents."""
    share: float = 1.0
    """Of the cases that a door gets: less where a case is dear."""


NAMES = (
    "settings", "train settings", "notice", "search results", "table of items", "raster",
    "displacement field", "_COMMIT", "correction.json", "item.json", "tie_points.parquet", "index",
    "part of the index", "run log",
)  # fmt: skip
"""Of all doors, in this order."""


def doors(folder: Path) -> Iterator[Door]:
    """Make all doors; seeds that take files are made in `folder`."""
    yield Door(
        "settings", _settings, (crosstie_yaml(), b"tiles: {size_px: 128}\ncatalog: {bbox: [1, 2, 3, 4]}")
    )
    yield Door(
        "train settings", _train_settings, (b"mine: {catalog: c.json}\ncatalog: {start_utc: 2025-01-01}",)
    )
    yield Door("notice", _notice, tuple(json.dumps(one).encode() for one in _notices()))
    yield Door("search results", _results, (json.dumps(_results_seed()).encode(),))
    yield Door("table of items", _table, (as_table(folder / "items.parquet", [_item()]).read_bytes(),), 0.02)
    yield Door("raster", _raster, tuple(_rasters(folder)))
    yield Door("displacement field", _displacement, (_displacement_seed(folder),))
    run = next(GOLDEN.glob("SIM*/*"))
    for name in ("_COMMIT", "correction.json", "item.json", "tie_points.parquet"):
        yield Door(name, _product(run, name), ((run / name).read_bytes(),), 0.5)
    for name, path in (
        ("index", GOLDEN / "_index" / "corrections.parquet"),
        ("part of the index", next((GOLDEN / "_index" / "parts").iterdir())),
        ("run log", next((GOLDEN / "_runs" / "nightly").iterdir())),
    ):
        yield Door(name, _root(str(path.relative_to(GOLDEN))), (path.read_bytes(),), 0.3)


def crosstie_yaml() -> bytes:
    """Every setting with its default."""
    from crosstie.config import commented_yaml

    return commented_yaml(Settings()).encode()


def _settings(folder: Path, body: bytes) -> object:
    (folder / "crosstie.yaml").write_bytes(body)
    return load_settings(folder / "crosstie.yaml")


def _train_settings(folder: Path, body: bytes) -> object:
    (folder / "train.yaml").write_bytes(body)
    return load_train_settings(folder / "train.yaml")


def _notice(folder: Path, body: bytes) -> object:
    del folder
    message = read_json(body)
    return read_envelope(message) or read_notices(message, RULES)


def _notices() -> list[Any]:
    keys = f"GRD/2020/11/{S1}/manifest.safe"
    return [
        s3_event(keys),
        minio_event(keys),
        event_bridge(keys),
        filer_event(keys),
        item(S1, "sentinel-1-grd"),
    ]


def _item() -> dict[str, Any]:
    return {
        "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [], "id": "S2A_T32TNS_20250607",
        "collection": "sentinel-2-l2a", "bbox": [9.0, 46.0, 10.0, 47.0], "links": [],
        "geometry": {"type": "Polygon", "coordinates": [[[9, 46], [10, 46], [10, 47], [9, 47], [9, 46]]]},
        "properties": {
            "datetime": "2025-06-07T10:30:00Z", "platform": "sentinel-2a", "instruments": ["msi"],
            "eo:cloud_cover": 3.5, "s2:processing_baseline": "05.11",
        },
        "assets": {"visual": {"href": "./tci.tif", "roles": ["visual"]}},
    }  # fmt: skip


def _results_seed() -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": [_item(), _item() | {"id": "S2B_T32TNS_20250612"}]}


def _results(folder: Path, body: bytes) -> object:
    (folder / "items.json").write_bytes(body)
    return find_scenes(folder / "items.json")


def _table(folder: Path, body: bytes) -> object:
    (folder / "items.parquet").write_bytes(body)
    return find_scenes(folder / "items.parquet")


def _rasters(folder: Path) -> Iterator[bytes]:
    """Small files of every driver that is let in, with what tags and points they have in the field."""
    values = np.random.default_rng(0).gamma(4, 30, (1, 48, 64)).clip(1, 255).astype(np.uint8)
    place = {"crs": "EPSG:32632", "transform": Affine(10, 0, 600_000, 0, -10, 5_300_000)}
    shape = {"count": 1, "height": 48, "width": 64}
    for name, more in (
        ("strip.tif", {"driver": "GTiff", "dtype": "uint8", "nodata": 0}),
        (
            "tiled.tif",
            {"driver": "GTiff", "dtype": "uint16", "tiled": True, "blockxsize": 16, "blockysize": 16},
        ),
        ("packed.tif", {"driver": "GTiff", "dtype": "float32", "compress": "deflate", "predictor": 3}),
        ("jp2.jp2", {"driver": "JP2OpenJPEG", "dtype": "uint8"}),
    ):
        with rasterio.open(folder / name, "w", **shape, **place, **more) as raster:
            raster.write(values.astype(more["dtype"]))
            raster.update_tags(1, SCALE="0.1")
        yield (folder / name).read_bytes()
    points = [
        GroundControlPoint(row, col, 9 + col / 6000, 47 - row / 9000, 100.0)
        for row in (0, 24, 48)
        for col in (0, 32, 64)
    ]
    profile = {"driver": "GTiff", "dtype": "uint16", "gcps": points, "crs": "EPSG:4326", **shape}
    with rasterio.open(folder / "gcps.tif", "w", **profile) as raster:
        raster.write(values.astype(np.uint16))
    yield (folder / "gcps.tif").read_bytes()


def _raster(folder: Path, body: bytes) -> object:
    path = folder / ("s1_vh.jp2" if b"ftypjp2" in body[:64] else "s1_vh.tif")
    path.write_bytes(body)
    source = open_source(path)
    return read_plane(source, source.geobox[:64, :64])


def _displacement_seed(folder: Path) -> bytes:
    from odc.geo.geobox import GeoBox

    from crosstie.io.products.displacement import displacement_cog
    from crosstie.types import DisplacementField

    grid = GeoBox((6, 8), Affine(160, 0, 600_000, 0, -160, 5_300_000), "EPSG:32632")
    plane = np.random.default_rng(0).normal(size=(6, 8))
    return displacement_cog(DisplacementField(grid, plane, plane, np.abs(plane)))


def _displacement(folder: Path, body: bytes) -> object:
    (folder / "displacement.tif").write_bytes(body)
    return read_displacement(folder / "displacement.tif")


def _product(run: Path, name: str) -> Callable[[Path, bytes], object]:
    """A run whose file is another: as damage, and committed as whoever writes into a shared root can."""

    def read(folder: Path, body: bytes) -> object:
        into = folder / run.parent.name / run.name
        shutil.copytree(run, into)
        (into / name).write_bytes(body)
        store = open_store(str(folder))
        if name != "_COMMIT" and len(body) % 2:
            recommit(store, (run.parent.name, run.name))
        update_index(store)
        take_status(store, Settings())
        return repr(crosstie.open(str(into)))

    return read


def _root(key: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, body: bytes) -> object:
        for name in ("_index", "_runs"):
            shutil.copytree(GOLDEN / name, folder / name)
        (folder / key).write_bytes(body)
        store = open_store(str(folder))
        take_status(store, Settings())
        return update_index(store)

    return read
