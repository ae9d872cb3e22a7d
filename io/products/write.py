"""The products of one pair: rendered whole, written, and committed last.

`<root>/<pair_key>/<run_key>/` holds correction.json, tie_points.parquet, item.json, corrected.vrt,
overview.png, report.html, displacement.tif where a field is offered, aligned.tif where it is asked for, and
`_COMMIT`. What has no `_COMMIT` does not exist for a reader.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crosstie.codes import Kernel
from crosstie.errors import DamagedProductError
from crosstie.io.products.aligned import ALIGNED, AlignTask
from crosstie.io.products.correction import correction_dict, crs_of
from crosstie.io.products.displacement import DISPLACEMENT, displacement_cog
from crosstie.io.products.drawing import DrawTask
from crosstie.io.products.keys import is_committed
from crosstie.io.products.mapping import mapping_of
from crosstie.io.products.report import report_html
from crosstie.io.products.stac_item import stac_item
from crosstie.io.products.tie_points import to_geodataframe
from crosstie.io.products.vrt import corrected_vrt, place_of
from crosstie.io.raster.gdal import IMAGE_DRIVERS, OWN_DRIVERS
from crosstie.io.raster.georeference import corrected
from crosstie.io.storage.commit import REPAIR, FileFacts, damage_of
from crosstie.io.storage.href import local_path
from crosstie.io.storage.publication import Publication
from crosstie.io.storage.root_layout import ProductKey
from crosstie.io.storage.s3 import FROM_ENVIRONMENT

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from odc.geo.geobox import GeoBox

    from crosstie.io.products.aligned import AlignImage
    from crosstie.io.products.drawing import Draw
    from crosstie.io.products.overview import Thumbnails
    from crosstie.io.storage.s3 import S3Options
    from crosstie.io.storage.store import Store
    from crosstie.types import Registration


@dataclass(frozen=True, slots=True)
class AlignedRequest:
    """What `aligned.tif` is to be like."""

    grid: GeoBox
    """The grid of the reference."""
    resampling: Kernel = Kernel.CUBIC


def write_products(
    store: Store,
    registration: Registration,
    *,
    thumbnails: Thumbnails | None,
    detail: Thumbnails | None = None,
    acquired_utc: datetime | None = None,
    storage: S3Options = FROM_ENVIRONMENT,
    drivers: tuple[str, ...] = IMAGE_DRIVERS,
    aligned: AlignedRequest | None = None,
    align: AlignImage = AlignTask.write,
    draw: Draw = DrawTask.draw,
) -> str:
    """Render all products, write them, and commit.

    A failure while rendering leaves nothing behind; one while writing leaves no `_COMMIT`. Where the run is
    committed already, by an earlier or a faster worker, its products stay as they are: of two workers that
    write the same run at the same moment, the products of one are committed (see `Publication`).

    Parameters
    ----------
    thumbnails, detail : see `overview_png`
    acquired_utc : of the secondary; None where unknown
    storage : how S3 is reached, where the secondary lies there
    drivers : that may open the secondary: those of its `RasterSource`
    aligned : writes the secondary's pixels on a grid, too, unless the pair is unreliable
    align : writes them, here or in a worker; they are committed with the rest
    draw : draws the pictures, here or in a worker

    Returns
    -------
    URL of the products' folder.

    Raises
    ------
    StoreError : the root cannot be written
    DamagedProductError : the run is committed, but its files are no longer what was committed
    UnreadableRasterError, NoGeoreferenceError : the secondary is gone
    """
    product = ProductKey(registration.pair_key, registration.run_key)
    url = store.url_of(product.prefix)
    if is_committed(store, registration.pair_key, registration.run_key):
        harm = [str(damage) for damage in damage_of(store, product) if damage.harms]
        if harm:
            raise DamagedProductError(f"{url} is committed but damaged ({'; '.join(harm)}); {REPAIR}")
        return url
    if not registration.estimate.verdict.reasons and registration.grid is not None:
        grid = None if aligned is None else aligned.grid
    else:
        aligned = grid = None  # what is not trusted moves no pixel
    files = render(
        registration,
        aligned_grid=grid,
        thumbnails=thumbnails,
        detail=detail,
        acquired_utc=acquired_utc,
        storage=storage,
        drivers=drivers,
        folder=local_path(url),
        draw=draw,
    )
    with Publication(store, product) as publication:
        publication.put(files)
        if aligned is not None:
            task = AlignTask(
                href=registration.secondary_hrefs[0],
                store=store,
                key=publication.key(ALIGNED),
                grid=aligned.grid,
                mapping=mapping_of(registration),
                resampling=aligned.resampling,
                from_catalog=drivers != OWN_DRIVERS,
                storage=storage,
            )
            stored = align(task)
            publication.add(ALIGNED, FileFacts(stored.size_bytes, stored.sha256))
        publication.commit()
    return url


def render(
    registration: Registration,
    *,
    aligned_grid: GeoBox | None = None,
    thumbnails: Thumbnails | None,
    detail: Thumbnails | None = None,
    acquired_utc: datetime | None = None,
    storage: S3Options = FROM_ENVIRONMENT,
    drivers: tuple[str, ...] = IMAGE_DRIVERS,
    folder: Path | None = None,
    draw: Draw = DrawTask.draw,
) -> dict[str, bytes]:
    """Make all products but the commit: file name -> bytes; the same registration gives the same bytes.

    Parameters
    ----------
    aligned_grid : of the aligned pixels, which are not made here; None where there are none
    storage : how S3 is reached, where the secondary lies there
    drivers : that may open the secondary: those of its `RasterSource`
    folder : of the products, two levels below their root, where they lie on this machine
    draw : draws the pictures, here or in a worker
    """
    affine = registration.estimate.correction.affine
    grid_crs = crs_of(registration)
    place = place_of(registration.secondary_hrefs[0], storage, drivers=drivers)
    if grid_crs is not None:
        place = corrected(place, affine=affine, grid_crs=grid_crs)
    drawn = draw(DrawTask(registration, thumbnails, detail))
    table = io.BytesIO()
    to_geodataframe(registration).to_parquet(table, index=False, compression="zstd")
    item = stac_item(registration, place=place, acquired_utc=acquired_utc, aligned_grid=aligned_grid)
    files = {
        "correction.json": _json(correction_dict(registration)),
        "tie_points.parquet": table.getvalue(),
        "item.json": _json(item),
        "corrected.vrt": corrected_vrt(
            registration.secondary_hrefs,
            affine=affine,
            grid_crs=grid_crs,
            storage=storage,
            drivers=drivers,
            folder=folder,
            root=None if folder is None else folder.parent.parent,
        ),
        "overview.png": drawn.overview,
        "report.html": report_html(registration, drawn.report),
    }
    if registration.field is not None and registration.field.field is not None:
        files[DISPLACEMENT] = displacement_cog(registration.field.field)
    return files


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
