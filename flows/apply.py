"""Apply committed corrections: rasters of the secondary scene onto the reference's grid, as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosstie.codes import Kernel, ModelChoice
from crosstie.config import Settings
from crosstie.errors import BadInputError, StoreError
from crosstie.io.adjusted.position import (
    AdjustedPositions,
    at_adjusted_position,
    position_of,
    position_properties,
)
from crosstie.io.archive.index import read_index
from crosstie.io.products.aligned import ALIGNED
from crosstie.io.products.aligned_item import aligned_item
from crosstie.io.products.alignment import AppliedModel
from crosstie.io.products.product import Product, open_product
from crosstie.io.storage.href import local_path, public_href
from crosstie.io.storage.store import Store, open_store

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from crosstie.types import Verdict

Progress = Callable[[int, int], None]
"""Called with (blocks done, blocks in all)."""

MAX_ITEM_BYTES = 4 * 2**20
"""Of a STAC item that the user names; those of Sentinel have some 20 KB."""


@dataclass(frozen=True, slots=True)
class AppliedFile:
    """One raster that was aligned."""

    url: str
    """The COG; its STAC item lies beside it, `.json` in place of `.tif`."""
    source: str
    applied: AppliedModel
    verdict: Verdict
    size_bytes: int
    """0 where it was there already."""
    is_new: bool = True

    def sentence(self) -> str:
        """Say in one line what was applied."""
        how = {
            AppliedModel.FIELD: "the displacement field was applied",
            AppliedModel.AFFINE: "the affine was applied",
            AppliedModel.IDENTITY: f"nothing was applied, for the pair is {self.verdict}: a copy on the grid",
        }[self.applied]
        return f"{self.url}: {how}{'' if self.is_new else ' (it was there already)'}"


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """How to apply a correction."""

    model: ModelChoice | str = ModelChoice.AUTO
    resampling: Kernel | str = Kernel.CUBIC
    like: str | Path | GeoBox | None = None
    """Grid; None takes the reference's."""
    adjusted: bool = False
    """Place the secondary where the network of the archive says, not where its reference alone does."""


def open(product: str | Path, *, settings: Settings | None = None) -> Product:
    """Open the committed product of one pair.

    A product root may be shared, so the rasters that a product names are opened as those of a catalog are: as
    images alone, never as VRT, and at addresses that a catalog may name. A product on this machine may name
    any file of this machine; one on S3 none. The rasters that you name yourself are yours.

    Parameters
    ----------
    product : str or Path
        Folder `<root>/<pair_key>/<run_key>`, or its `correction.json` or `item.json`: a path, `file://` or
        `s3://`.
    settings : Settings, optional
        How S3 is reached, and what a catalog or a product may name (`catalog.allow_hosts`, `.allow_buckets`).

    Returns
    -------
    Product
        Correction, verdict, tie points, displacement field; `apply` aligns rasters.

    Raises
    ------
    StoreError
        There is no committed product, or it is broken.
    """
    settings = settings or Settings()
    query = settings.catalog
    return open_product(
        product, storage=settings.storage, allow_hosts=query.allow_hosts, allow_buckets=query.allow_buckets
    )


def apply(
    product: str | Path | Product,
    out: str | Path,
    *rasters: str | Path,
    model: str = ModelChoice.AUTO,
    like: str | Path | GeoBox | None = None,
    resampling: str = Kernel.CUBIC,
    source_item: str | Path | None = None,
    adjusted: bool = False,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> list[AppliedFile]:
    """Write rasters of the secondary scene, aligned with the reference, as COGs with a STAC item each.

    Parameters
    ----------
    product : str, Path or Product
        A product, its address, or the address of its `correction.json`.
    out : str or Path
        A file (`.tif`), or a folder, in which each file is named `<raster>_aligned.tif`.
    rasters : str or Path
        Rasters of the same scene; none takes the one that was measured.
    model, like, resampling : optional
        As in `Product.apply`.
    source_item : str or Path, optional
        STAC item of the secondary scene; its time and its `view:*`, `sar:*` and `sat:*` go into the new
        items.
    adjusted : bool, optional
        Place the secondary at its adjusted position (`crosstie adjust`), the same whoever it is paired with.
    settings : Settings, optional
        How S3 is reached, and what a catalog or a product may name.
    progress : callable, optional
        Called with (blocks done, blocks in all) of each raster.

    Returns
    -------
    list of AppliedFile
        One a raster.

    Raises
    ------
    BadInputError
        No committed product, a raster or the reference cannot be read, or no field is offered.
    """
    settings = settings or Settings()
    opened = product if isinstance(product, Product) else open(product, settings=settings)
    options, grid = ApplyOptions(model, resampling, adjusted=adjusted), opened.alignment.grid(like)
    positions = AdjustedPositions.read(opened.store) if adjusted else None
    of_source = None if source_item is None else _read_item(source_item, settings)
    sources: Sequence[str | Path | None] = rasters or [None]
    places = _places(str(out), [opened.alignment.source_name(raster) for raster in sources])
    return [
        apply_one(
            opened,
            open_store(root, settings.storage),
            key,
            raster,
            grid,
            options,
            of_source,
            progress,
            positions=positions,
        )
        for (root, key), raster in zip(places, sources, strict=True)
    ]


def apply_all(
    root: str,
    out: str,
    *,
    options: ApplyOptions,
    verdicts: Sequence[str] = ("corrected", "already_aligned"),
    since: datetime | None = None,
    settings: Settings,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[AppliedFile | str]:
    """Apply the latest correction of each pair of an archive, one after another.

    Reads the index, so run `crosstie index` before. What lies in `out` already and was made the same way is
    not made again: a run that was stopped goes on where it was.

    Parameters
    ----------
    verdicts : sequence of str, optional
        Take pairs of these verdicts.
    since : datetime, optional
        Take corrections made at this time or later.
    progress : callable, optional
        Called with (pair, blocks done, blocks in all).

    Yields
    ------
    AppliedFile or str
        What was written as `<out>/<pair_key>/<run_key>/aligned.tif`; or why one pair could not be applied.
    """
    archive, target = open_store(root, settings.storage), open_store(out, settings.storage)
    refuse_inside(target, archive)
    positions = AdjustedPositions.read(archive) if options.adjusted else None
    table = read_index(archive).select(["pair_key", "run_key", "latest", "verdict", "created"])
    for row in table.to_pylist():
        if not row["latest"] or row["verdict"] not in verdicts or (since and row["created"] < since):
            continue
        pair, run = row["pair_key"], row["run_key"]
        tell = None if progress is None else _named(progress, pair)
        try:
            product = open(f"{archive.url}/{pair}/{run}", settings=settings)
            grid = product.alignment.grid(options.like)
            key = f"{pair}/{run}/{ALIGNED}"
            yield apply_one(
                product, target, key, None, grid, options, None, tell, resume=True, positions=positions
            )
        except BadInputError as problem:
            yield f"{pair}: {' '.join(str(problem).split())}"


def refuse_inside(target: Store, archive: Store) -> None:
    """Refuse to write aligned pixels among the products.

    Raises
    ------
    BadInputError
        The target lies in the product root.
    """
    if (target.url + "/").startswith(archive.url + "/"):
        raise BadInputError(
            f"{target.url} lies in the product root {archive.url}, where readers look for products alone; "
            "choose another folder, or run with products.aligned=reference-grid"
        )


def _named(progress: Callable[[str, int, int], None], pair: str) -> Progress:
    return lambda done, total: progress(pair, done, total)


def apply_one(
    product: Product,
    store: Store,
    key: str,
    raster: str | Path | None,
    grid: GeoBox,
    options: ApplyOptions,
    of_source: dict[str, Any] | None,
    progress: Progress | None,
    *,
    resume: bool = False,
    positions: AdjustedPositions | None = None,
) -> AppliedFile:
    """Align one raster of a product and write it as `key`, with its STAC item beside it.

    Parameters
    ----------
    product : Product
        The pair.
    store : Store
        Where to write.
    key : str
        Name of the COG.
    raster : str, Path or None
        Raster of the secondary; None for the one that was measured.
    grid : GeoBox
        Grid of the result.
    options : ApplyOptions
        Model and kernel.
    of_source : dict of str to Any, optional
        STAC item of the secondary.
    progress : callable, optional
        Called with (blocks done, blocks in all).
    resume : bool, optional
        Leave what is there and was made the same way.
    positions : AdjustedPositions, optional
        Place the secondary where the network says.
    """
    product_item = product.item
    if positions is not None:
        position = position_of(product, positions)
        said = position_properties(position, positions.track_shift(position))
        product_item = product_item | {"properties": product_item["properties"] | said}
        product = at_adjusted_position(product, positions)
    alignment = product.alignment
    applied = alignment.applied(options.model)
    name, item_key = key.rpartition("/")[2], f"{key.removesuffix('.tif').removesuffix('.tiff')}.json"
    item = aligned_item(
        product_item,
        name=name.partition(".")[0],
        href=name,
        grid=grid,
        source=alignment.source_name(raster),
        product_url=product.url,
        applied={"model": str(applied), "resampling": str(options.resampling)},
        created_utc=datetime.now(UTC),
        of_source=of_source,
    )
    url, source = store.url_of(key), alignment.source_name(raster)
    if resume and store.exists(key) and _same(store.get(item_key), item):
        return AppliedFile(url, source, applied, product.verdict, 0, is_new=False)
    if resume:
        store.delete(item_key)  # the item is written last, and stands for the whole
    stored = alignment.write(
        store,
        key,
        raster,
        model=options.model,
        grid=grid,
        resampling=options.resampling,
        progress=progress,
    )
    store.put(item_key, (json.dumps(item, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return AppliedFile(url, source, applied, product.verdict, stored.size_bytes)


def _same(body: bytes | None, item: dict[str, Any]) -> bool:
    """Whether an item that is there says the same, but for the time when it was made."""
    try:
        there = json.loads(body or b"")
        return bool(_undated(there) == _undated(json.loads(json.dumps(item))))
    except (ValueError, KeyError, TypeError):
        return False


def _undated(item: dict[str, Any]) -> dict[str, Any]:
    properties = {name: value for name, value in item["properties"].items() if name != "created"}
    return item | {"properties": properties}


def _places(out: str, sources: Sequence[str]) -> list[tuple[str, str]]:
    """Root and key of each file to be written.

    Raises
    ------
    BadInputError
        Several rasters for one file, two of one name, or a file that is one of the rasters.
    """
    if out.lower().endswith((".tif", ".tiff")):
        if len(sources) > 1:
            raise BadInputError(f"--out {out}: {len(sources)} rasters do not go into one file; name a folder")
        path = local_path(out)
        root, _, name = (str(path) if path is not None else out).rpartition("/")
        places = [(root or "/", name)]
    else:
        names = [f"{Path(source.split('?', 1)[0]).stem}_aligned.tif" for source in sources]
        if len(set(names)) < len(names):
            raise BadInputError(f"two rasters would both become {out}/{names[0]}; align them one by one")
        places = [(out, name) for name in names]
    for (root, name), source in zip(places, sources, strict=True):
        here, there = local_path(f"{root}/{name}"), local_path(source)
        if here is not None and there is not None and here.resolve() == there.resolve():
            raise BadInputError(f"--out {here} is the raster itself; name another file")
    return places


def _read_item(href: str | Path, settings: Settings) -> dict[str, Any]:
    """Read a STAC item that the user named: a file, or an object on S3."""
    text = str(href)
    path = local_path(text)
    root, _, key = (str(path) if path is not None else text).rpartition("/")
    found = open_store(root or "/", settings.storage).open(key)
    if found is None:
        raise StoreError(f"{public_href(text)}: no such STAC item; check the address")
    if found.size_bytes > MAX_ITEM_BYTES:
        raise StoreError(f"{public_href(text)}: {found.size_bytes} bytes are no STAC item")
    try:
        item = json.loads(b"".join(found.pieces))
    except ValueError:
        item = None
    if not isinstance(item, dict) or not isinstance(item.get("properties"), dict):
        raise StoreError(f"{public_href(text)}: no STAC item; give the JSON file of one")
    return item
