"""The products of one pair: rendered whole, written, and committed last.

`<root>/<pair_key>/<run_key>/` holds correction.json, tie_points.parquet, item.json, corrected.vrt,
overview.png, report.html and `_COMMIT`. What has no `_COMMIT` does not exist for a reader.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np

from crosstie.errors import StoreError
from crosstie.io.products.overview import overview_png
from crosstie.io.products.report import report_html
from crosstie.io.products.stac_item import stac_item
from crosstie.io.products.vrt import corrected_vrt, place_of
from crosstie.io.raster.gdal import IMAGE_DRIVERS
from crosstie.io.raster.georeference import corrected
from crosstie.io.storage.href import product_href
from crosstie.io.storage.root_layout import COMMIT, ProductKey, product_file
from crosstie.io.storage.s3 import FROM_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from crosstie.io.products.overview import Thumbnails
    from crosstie.io.storage.s3 import S3Options
    from crosstie.io.storage.store import Store
    from crosstie.types import AffineCorrection, Error, Registration

SCHEMA = "crosstie/correction/1"


def run_key(*, pair_key: str, weights_sha256: str, settings_hash: str, algorithm_version: str) -> str:
    """Name a run by all that its result depends on: 16 hex digits of a sha256."""
    text = json.dumps([pair_key, weights_sha256, settings_hash, algorithm_version])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def product_prefix(pair_key: str, run_key: str) -> str:
    """Key under which the products of one run of one pair lie."""
    return ProductKey(pair_key, run_key).prefix


def is_committed(store: Store, pair_key: str, run_key: str) -> bool:
    """Whether this run is done and its products are whole."""
    return store.exists(ProductKey(pair_key, run_key).commit)


def write_products(
    store: Store,
    registration: Registration,
    *,
    thumbnails: Thumbnails | None,
    detail: Thumbnails | None = None,
    acquired_utc: datetime | None = None,
    storage: S3Options = FROM_ENVIRONMENT,
    drivers: tuple[str, ...] = IMAGE_DRIVERS,
) -> str:
    """Render all products, write them, and commit.

    A failure while rendering leaves nothing behind; one while writing leaves no `_COMMIT`. Where the run is
    committed already, by an earlier or a faster worker, its products stay as they are. (Two workers that
    write the same run at the same moment leave files that differ in `created_utc` and `seconds` alone.)

    Parameters
    ----------
    thumbnails, detail : see `overview_png`
    acquired_utc : of the secondary; None where unknown
    storage : how S3 is reached, where the secondary lies there
    drivers : that may open the secondary: those of its `RasterSource`

    Returns
    -------
    URL of the products' folder.

    Raises
    ------
    StoreError : the root cannot be written
    UnreadableRasterError, NoGeoreferenceError : the secondary is gone
    """
    product = ProductKey(registration.pair_key, registration.run_key)
    url = store.url_of(product.prefix)
    if is_committed(store, registration.pair_key, registration.run_key):
        return url
    files = render(
        registration,
        thumbnails=thumbnails,
        detail=detail,
        acquired_utc=acquired_utc,
        storage=storage,
        drivers=drivers,
    )
    for name, body in files.items():
        store.put(product.file(name), body)
    listing = {
        name: {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()} for name, body in files.items()
    }
    store.create(product.commit, _json({"files": listing}))
    return url


def render(
    registration: Registration,
    *,
    thumbnails: Thumbnails | None,
    detail: Thumbnails | None = None,
    acquired_utc: datetime | None = None,
    storage: S3Options = FROM_ENVIRONMENT,
    drivers: tuple[str, ...] = IMAGE_DRIVERS,
) -> dict[str, bytes]:
    """Make all products but the commit: file name -> bytes; the same registration gives the same bytes.

    Parameters
    ----------
    storage : how S3 is reached, where the secondary lies there
    drivers : that may open the secondary: those of its `RasterSource`
    """
    affine = registration.estimate.correction.affine
    grid_crs = _crs(registration)
    place = place_of(registration.secondary_hrefs[0], storage, drivers=drivers)
    if grid_crs is not None:
        place = corrected(place, affine=affine, grid_crs=grid_crs)
    picture = overview_png(thumbnails, registration, detail=detail)
    table = io.BytesIO()
    to_geodataframe(registration).to_parquet(table, index=False, compression="zstd")
    return {
        "correction.json": _json(correction_dict(registration)),
        "tie_points.parquet": table.getvalue(),
        "item.json": _json(stac_item(registration, place=place, acquired_utc=acquired_utc)),
        "corrected.vrt": corrected_vrt(
            registration.secondary_hrefs, affine=affine, grid_crs=grid_crs, storage=storage, drivers=drivers
        ),
        "overview.png": picture,
        "report.html": report_html(registration, picture),
    }


def correction_dict(registration: Registration) -> dict[str, Any]:
    """Say everything about a correction in the words of the schema `crosstie/correction/1`.

    Beyond the contract: `explanation` (the reasons as sentences), `fitted` (the fullest model that the points
    determine, applied or not) and `hrefs` (where a scene has several files). Numbers that are not finite
    become null.
    """
    estimate, provenance = registration.estimate, registration.provenance
    return {
        "schema": SCHEMA,
        "pair": {
            "reference": _scene(registration.reference_id, registration.reference_hrefs),
            "secondary": _scene(registration.secondary_id, registration.secondary_hrefs),
        },
        "crs": _crs(registration),
        "verdict": str(estimate.verdict.code),
        "reasons": [str(reason) for reason in estimate.verdict.reasons],
        "explanation": [reason.sentence for reason in estimate.verdict.reasons],
        **_model(estimate.correction),
        "covariance": [[_finite(v) for v in row] for row in estimate.correction.covariance],
        "fitted": _model(estimate.fitted),
        "tie_points": {
            "planned": registration.planned,
            "matched": len(registration.points),
            "used": int(estimate.used.sum()),
        },
        "offset_m": {
            "median_x": _finite(estimate.median_offset_m[0]),
            "median_y": _finite(estimate.median_offset_m[1]),
        },
        "error_before_m": _error(estimate.error_before),
        "error_after_m": _error(estimate.error_after),
        "provenance": {
            "versions": dict(provenance.versions),
            "weights_sha256": provenance.weights_sha256,
            "settings_hash": provenance.settings_hash,
            "created_utc": provenance.created_utc.isoformat(),
            "seconds": _finite(provenance.seconds),
        },
    }


def to_geodataframe(registration: Registration) -> gpd.GeoDataFrame:
    """Tie points as a table, one row a tile, in the CRS of the common grid (none where there is no grid).

    Columns: `geometry` (reference position), `dx_m`, `dy_m` (offset: secondary minus reference), `sigma_m`,
    `confidence` (0..1), `used`, `residual_x_m`, `residual_y_m`, `row`, `col` (first pixel of the tile).
    """
    points, estimate = registration.points, registration.estimate
    return gpd.GeoDataFrame(
        {
            "dx_m": points.offset_m[:, 0],
            "dy_m": points.offset_m[:, 1],
            "sigma_m": points.sigma_m.astype(np.float32),
            "confidence": points.confidence.astype(np.float32),
            "used": estimate.used.astype(np.bool_),
            "residual_x_m": estimate.residual_m[:, 0],
            "residual_y_m": estimate.residual_m[:, 1],
            "row": points.row.astype(np.int64),
            "col": points.col.astype(np.int64),
        },
        geometry=gpd.points_from_xy(points.xy_m[:, 0], points.xy_m[:, 1]),
        crs=_crs(registration),
    )


def read_correction(store: Store, pair_key: str, run_key: str) -> dict[str, Any] | None:
    """Read `correction.json` of a committed run; None where there is no such run, or not yet.

    Raises
    ------
    StoreError : committed, yet the file is missing or of another schema
    """
    if not is_committed(store, pair_key, run_key):
        return None
    return _read_committed(store, ProductKey(pair_key, run_key).file("correction.json"))


def _read_committed(store: Store, key: str) -> dict[str, Any]:
    body = store.get(key)
    try:
        correction = json.loads(body or b"")
    except ValueError:
        correction = None
    if not isinstance(correction, dict) or correction.get("schema") != SCHEMA:
        raise StoreError(
            f"{store.url_of(key)} is committed but missing, broken or not of schema {SCHEMA}; "
            "delete its folder and run the pair again"
        )
    return correction


def committed(store: Store) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Walk over (pair_key, run_key, correction) of all committed runs, in the order of their keys."""
    for key in store.list():
        found = product_file(key)
        if found is not None and found.name == COMMIT:
            yield *found.product, _read_committed(store, found.product.file("correction.json"))


def _crs(registration: Registration) -> str | None:
    if registration.grid is None or registration.grid.crs is None:
        return None
    crs = registration.grid.crs
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs.to_wkt())


def _scene(scene_id: str, hrefs: tuple[str, ...]) -> dict[str, Any]:
    shown = [product_href(href) for href in hrefs]
    return {"id": scene_id, "href": shown[0]} | ({"hrefs": shown} if len(shown) > 1 else {})


def _model(correction: AffineCorrection) -> dict[str, Any]:
    return {"model": str(correction.model), "affine": [_finite(v) for v in correction.affine]}


def _error(error: Error) -> dict[str, float | None]:
    return {"rmse": _finite(error.rmse_m), "ce90": _finite(error.ce90_m)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
