"""A committed product, opened: what `crosstie.open` gives.

A product root may be shared, so what a product names is not what the user named. Its rasters are opened as
those of a catalog are: never as a VRT nor with side files, at addresses that `resolve_href` allows. One thing
differs: a product on a disk of this machine may name any raster of this machine, for it usually does.
"""

from __future__ import annotations

import html
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
from odc.geo import CRS
from pyproj.exceptions import CRSError

from crosstie.codes import Kernel, ModelChoice
from crosstie.errors import BadInputError, CatalogError, StoreError
from crosstie.io.products.aligned import BLOCK_PX
from crosstie.io.products.alignment import Alignment, NamedRaster
from crosstie.io.products.correction import read_correction
from crosstie.io.products.displacement import DISPLACEMENT, read_displacement
from crosstie.io.products.summary import as_html, as_text, figure_axes
from crosstie.io.storage.address import AddressPolicy
from crosstie.io.storage.commit import REPAIR, read_committed
from crosstie.io.storage.href import local_path, public_href
from crosstie.io.storage.href_policy import is_url, resolve_href
from crosstie.io.storage.root_layout import ProductKey, is_reserved
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options
from crosstie.io.storage.store import open_store
from crosstie.types import AffineCorrection, Model, Reason, Verdict, VerdictCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray
    from matplotlib.axes import Axes
    from odc.geo.geobox import GeoBox

    from crosstie.io.storage.store import Store
    from crosstie.types import DisplacementField

FILES = ("correction.json", "item.json")
"""Files of a product that may stand for it."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Product:
    """The committed result of one pair."""

    store: Store
    key: ProductKey
    record: dict[str, Any]
    """All of `correction.json`."""
    verdict: Verdict
    correction: AffineCorrection
    """What to apply to the map coordinates of the secondary; the identity unless `corrected`."""
    alignment: Alignment

    @property
    def url(self) -> str:
        """Folder of the product."""
        return self.store.url_of(self.key.prefix)

    @property
    def report(self) -> str:
        """Address of `report.html`."""
        return self.store.url_of(self.key.file("report.html"))

    @property
    def displacement(self) -> DisplacementField | None:
        """The displacement field; None where none is offered."""
        return self.alignment.field

    @property
    def item(self) -> dict[str, Any]:
        """Read the STAC item of the corrected secondary."""
        return _json_object(self._read("item.json"), self.store.url_of(self.key.file("item.json")))

    @property
    def tie_points(self) -> gpd.GeoDataFrame:
        """Read the tie points, one row a matched tile."""
        body = self._read("tie_points.parquet")
        try:
            return gpd.read_parquet(io.BytesIO(body))
        except (pa.ArrowException, ValueError, OSError) as problem:
            raise _broken(self.store.url_of(self.key.file("tie_points.parquet")), problem) from None

    def apply(
        self,
        raster: str | Path | None = None,
        *,
        model: str = ModelChoice.AUTO,
        like: str | Path | GeoBox | None = None,
        resampling: str = Kernel.CUBIC,
        chunk_px: int = BLOCK_PX,
    ) -> xarray.DataArray:
        """Align a raster of the secondary scene with the reference, lazily.

        Each pixel is interpolated once, from the raster as it was delivered. Nothing is read before the
        values are asked for.

        Parameters
        ----------
        raster : str or Path, optional
            Any raster of the same scene: another polarisation, the incidence angle, a mask. None takes the
            one that was measured.
        model : str, optional
            `auto` applies the displacement field if there is one, else the affine, else nothing; `affine` or
            `field` insists.
        like : str, Path or GeoBox, optional
            Grid of the result: a raster or a geobox. None takes the grid of the reference.
        resampling : str, optional
            `cubic`, `lanczos`, `bilinear`, or `nearest` for masks and classes.
        chunk_px : int, optional
            Rows and columns of a Dask chunk, px; a multiple of 32.

        Returns
        -------
        xarray.DataArray
            Dims (band, y, x), with coordinates, CRS and nodata as rioxarray and odc-geo expect.

        Raises
        ------
        BadInputError
            The raster or the reference cannot be read, lies elsewhere, or no field is offered.
        """
        return self.alignment.dataarray(
            raster, model=model, like=like, resampling=resampling, chunk_px=chunk_px
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the overview of the pair with matplotlib."""
        return figure_axes(self._read("overview.png"), ax)

    def __repr__(self) -> str:
        return as_text("Product", self.record, ("report", self.report))

    def _repr_html_(self) -> str:
        link = f'<a href="{html.escape(self.report)}">{html.escape(self.report)}</a>'
        return as_html("Product", self.record, ("report", link))

    def _read(self, name: str) -> bytes:
        return read_committed(self.store, self.key, name)


def open_product(
    url: str | Path,
    *,
    storage: S3Options = FROM_ENVIRONMENT,
    allow_hosts: Sequence[str] = (),
    allow_buckets: Sequence[str] = (),
) -> Product:
    """Open the product of one pair.

    Parameters
    ----------
    url : str or Path
        Folder `<root>/<pair_key>/<run_key>`, or its `correction.json` or `item.json`: a path, `file://` or
        `s3://`.
    storage : S3Options, optional
        How S3 is reached.
    allow_hosts, allow_buckets : sequence of str, optional
        Hosts on a private network, and the only buckets, that the product may name for its rasters: the
        settings `catalog.allow_hosts` and `catalog.allow_buckets`.

    Returns
    -------
    Product

    Raises
    ------
    StoreError
        There is no committed product, or it is not what was committed.
    """
    root, key = product_place(url)
    store = open_store(root, storage)
    record = read_correction(store, *key)
    if record is None:
        raise StoreError(
            f"{store.url_of(key.prefix)}: no committed product; give a folder <root>/<pair_key>/<run_key>"
            " that has a _COMMIT, or its correction.json"
        )
    where = store.url_of(key.file("correction.json"))
    try:
        verdict = Verdict(VerdictCode(record["verdict"]), tuple(Reason(code) for code in record["reasons"]))
        correction = _correction(record)
        crs = None if record["crs"] is None else str(record["crs"])
        if crs is not None:
            CRS(crs)
        hrefs = [str(record["pair"][role]["href"]) for role in ("reference", "secondary")]
        offered = bool((record.get("field") or {}).get("offered"))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, CRSError) as problem:
        raise _broken(where, problem) from None
    reference, secondary = (_named(href, root, allow_hosts, allow_buckets) for href in hrefs)
    field = _field(store, key) if offered else None
    if field is not None and (crs is None or field.grid.crs != CRS(crs)):
        raise _broken(store.url_of(key.file(DISPLACEMENT)), ValueError("it is in another CRS than the pair"))
    alignment = Alignment(key.pair_key, crs, correction.affine, field, reference, secondary, storage)
    return Product(store, key, record, verdict, correction, alignment)


def product_place(url: str | Path) -> tuple[str, ProductKey]:
    """Take the address of a product apart: its root, and its key.

    Raises
    ------
    StoreError
        It cannot be the address of a product.
    """
    path = url if isinstance(url, Path) else local_path(url)
    text = public_href(str(url)).rstrip("/") if path is None else str(path.resolve())
    parts = text.split("/")
    if parts[-1] in FILES:
        parts.pop()
    root, key = "/".join(parts[:-2]), ProductKey(*parts[-2:]) if len(parts) > 3 else None
    if (
        key is None
        or not root.strip("/")
        or (path is None and len(parts) < 5)
        or not all(key)
        or is_reserved(key.pair_key)
    ):
        raise StoreError(
            f"{text} is no product: give a folder <root>/<pair_key>/<run_key>, or its correction.json"
        )
    return root, key


def _correction(record: dict[str, Any]) -> AffineCorrection:
    affine = tuple(float(value) for value in record["affine"])
    covariance = np.array(record["covariance"], np.float64)
    a, b, _, d, e, _ = affine  # six, or an error
    if not all(map(math.isfinite, affine)) or abs(a * e - b * d) < 1e-12 or covariance.shape != (6, 6):
        raise ValueError(f"affine {affine} cannot be turned round, or its covariance is not 6 x 6")
    return AffineCorrection(Model(record["model"]), affine, covariance)  # type: ignore[arg-type]


def _named(href: str, root: str, hosts: Sequence[str], buckets: Sequence[str]) -> NamedRaster:
    """Agree to the address of a raster; a refusal matters only to those who read it.

    A product names files by absolute path. Where it lies on another machine, such a path is of the machine
    that made it; taken for one of this machine, it would let whoever writes there choose what is read here.
    """
    if is_url(href):
        home = root if is_url(root) else str(Path(root) / "root")
        try:
            address = resolve_href(href, catalog_href=home, policy=AddressPolicy.of(home, hosts, buckets))
        except CatalogError as problem:
            return NamedRaster(href, from_catalog=True, refused=str(problem))
        return NamedRaster(address, from_catalog=True)
    if is_url(root):
        refused = f"{href[:200]!r} is a file of the machine that made {root}, not of this one"
        return NamedRaster(Path(href), from_catalog=True, refused=refused)
    return NamedRaster(Path(href), from_catalog=True)


def _field(store: Store, key: ProductKey) -> DisplacementField:
    url = store.url_of(key.file(DISPLACEMENT))
    try:
        body = read_committed(store, key, DISPLACEMENT)
        with TemporaryDirectory(prefix="crosstie-") as folder:  # what was checked is what is read
            path = Path(folder) / DISPLACEMENT
            path.write_bytes(body)
            return read_displacement(path)
    except BadInputError as problem:
        raise _broken(url, problem) from None


def _json_object(body: bytes, url: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError as problem:
        raise _broken(url, problem) from None
    if not isinstance(value, dict):
        raise _broken(url, ValueError("no JSON object"))
    return value


def _broken(url: str, problem: Exception) -> StoreError:
    said = " ".join(f"{type(problem).__name__}: {problem}".split())[:200]
    return StoreError(f"{url} is committed, but broken ({said}); {REPAIR}")
