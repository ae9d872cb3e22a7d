"""Register two rasters in this process, without Prefect or Dask."""

from __future__ import annotations

import hashlib
import html
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from crosstie.codes import Kernel, ModelChoice
from crosstie.config import Settings
from crosstie.errors import BadInputError
from crosstie.flows.registration.committed import open_committed, withdraw
from crosstie.flows.registration.load_matcher import load_matcher, weights_sha256
from crosstie.flows.registration.phases import Phase
from crosstie.flows.registration.pipeline import InProcess, Progress, TellPhase, register_plan
from crosstie.flows.registration.plan import plan_pair
from crosstie.flows.registration.publish import PairNames, assemble, publish, run_key_of, thumbnails_of
from crosstie.io.archive.index import index_committed
from crosstie.io.products.aligned import BLOCK_PX
from crosstie.io.products.alignment import Alignment, NamedRaster
from crosstie.io.products.correction import correction_dict, crs_of
from crosstie.io.products.overview import overview_png
from crosstie.io.products.summary import as_html, as_text, figure_axes
from crosstie.io.products.tie_points import to_geodataframe
from crosstie.io.raster import open_mask, open_pair
from crosstie.io.raster.in_memory import named_files
from crosstie.io.storage.href import local_path, public_href
from crosstie.io.storage.root_layout import INDEX, ProductKey
from crosstie.io.storage.store import open_store
from crosstie.types import pair_key

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray
    from matplotlib.axes import Axes
    from odc.geo.geobox import GeoBox
    from rasterio.io import DatasetReader

    from crosstie.flows.registration.measure import TileMatcher
    from crosstie.io.products.overview import Thumbnails
    from crosstie.io.products.product import Product
    from crosstie.io.raster import RasterSource
    from crosstie.io.storage.s3 import S3Options
    from crosstie.types import AffineCorrection, Kind, Registration, Verdict

    Raster: TypeAlias = str | Path | Sequence[str | Path] | DatasetReader | xarray.DataArray | xarray.Dataset
    """One raster: a path or URL, several of one band each, or an open one."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RegisterResult:
    """Result of `register`."""

    registration: Registration
    """All details: the grid, the tie points, the estimate, and what made them."""
    products: str | None
    """URL of the folder of the products; None if none were written."""
    _storage: S3Options
    _thumbnails: Thumbnails | None = field(repr=False)

    @property
    def verdict(self) -> Verdict:
        """Whether the secondary was corrected; if not, why."""
        return self.registration.estimate.verdict

    @property
    def correction(self) -> AffineCorrection:
        """What to apply to the map coordinates of the secondary; the identity unless `corrected`."""
        return self.registration.estimate.correction

    @property
    def tie_points(self) -> gpd.GeoDataFrame:
        """One row per matched tile, with the columns of `tie_points.parquet`."""
        return to_geodataframe(self.registration)

    def apply(
        self,
        raster: str | Path | None = None,
        *,
        model: str = ModelChoice.AUTO,
        like: str | Path | GeoBox | None = None,
        resampling: str = Kernel.CUBIC,
        chunk_px: int = BLOCK_PX,
    ) -> xarray.DataArray:
        """Align a raster of the secondary scene with the reference, lazily; see `Product.apply`."""
        return self._alignment().dataarray(
            raster, model=model, like=like, resampling=resampling, chunk_px=chunk_px
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the overview of the pair with matplotlib."""
        return figure_axes(overview_png(self._thumbnails, self.registration), ax)

    def __repr__(self) -> str:
        return as_text("RegisterResult", correction_dict(self.registration), *self._where())

    def _repr_html_(self) -> str:
        where = ((name, html.escape(value)) for name, value in self._where())
        return as_html("RegisterResult", correction_dict(self.registration), *where)

    def _where(self) -> list[tuple[str, str]]:
        return [] if self.products is None else [("report", f"{self.products}/report.html")]

    def _alignment(self) -> Alignment:
        done = self.registration
        return Alignment(
            name=done.pair_key,
            crs=crs_of(done),
            affine=done.estimate.correction.affine,
            field=None if done.field is None else done.field.field,
            reference=NamedRaster(done.reference_hrefs[0]),
            secondary=NamedRaster(done.secondary_hrefs[0]),
            storage=self._storage,
        )


def register(
    reference: Raster,
    secondary: Raster,
    *,
    out: str | Path | None = None,
    force: bool = False,
    acquired: datetime | None = None,
    settings: Settings | None = None,
    reference_kind: Kind | None = None,
    secondary_kind: Kind | None = None,
    reference_mask: str | Path | None = None,
    secondary_mask: str | Path | None = None,
    matcher: TileMatcher | None = None,
    progress: Progress | None = None,
    tell_phase: TellPhase | None = None,
) -> RegisterResult:
    """Measure the offset between two rasters, and fit the affine that corrects it.

    Parameters
    ----------
    reference : str, Path, sequence or open raster
        Raster that stays, usually Sentinel-2: a path or URL, one for each band, or an open raster: a rasterio
        dataset, or an xarray object with a geobox. Pixels that lie in memory are written to a temporary
        GeoTIFF, which is there until this process ends.
    secondary : str, Path, sequence or open raster
        Raster that is corrected, usually Sentinel-1.
    out : str or Path, optional
        Folder or URL (`file://`, `s3://`) of the product root; None writes nothing. Products name the files
        that they are of, so rasters that lie in memory must be saved first.
    force : bool, optional
        Replace the products where this pair is committed already for these settings and weights. Without it
        they stay as they are; the result is then that of the new measurement.
    acquired : datetime, optional
        When the secondary was acquired, for the STAC item; without a zone it is UTC.
    settings : Settings, optional
        None takes the defaults; `crosstie.load_settings` reads a file and the environment.
    reference_kind, secondary_kind : Kind, optional
        Kind of sensor; None detects it.
    reference_mask, secondary_mask : str or Path, optional
        Pixels not to use: a geocoded raster, masked where its first band is neither 0 nor nodata, or a
        GeoJSON file of polygons.
    matcher : TileMatcher, optional
        A loaded matcher, to register many pairs with; None loads the one that the settings name.
    progress : callable, optional
        Called with (tiles done, tiles planned).
    tell_phase : callable, optional
        Called with the name of each phase as it begins: plan, search, tiles, fit, write.

    Returns
    -------
    RegisterResult
        Verdict, correction and tie points. A pair that cannot be corrected is a result as well.

    Raises
    ------
    BadInputError
        A raster, a setting, the weights or the product root is wrong. The message says which, and nothing
        has been written.
    """
    settings = settings or Settings()
    tell_phase = tell_phase or (lambda _phase: None)
    begin = time.monotonic()
    files = [
        named_files(raster, name) for raster, name in ((reference, "reference"), (secondary, "secondary"))
    ]
    if out is not None and any(is_temporary for _, is_temporary in files):
        raise BadInputError(
            "products name the files that they are of, and a raster lies in memory: save it and give its"
            " path, or leave `out` away"
        )
    asked = _Asked((reference_kind, secondary_kind), (reference_mask, secondary_mask), acquired)
    sources = asked.open_pair(files[0][0], files[1][0], settings.storage)
    store = None if out is None else open_store(str(out), settings.storage)
    matcher = matcher or load_matcher(settings)
    tell_phase(Phase.PLAN)
    plan = plan_pair(*sources, settings)
    measured = register_plan(plan, InProcess(matcher), settings, progress=progress, tell_phase=tell_phase)
    names = PairNames(
        reference_id=file_id(sources[0].hrefs),
        secondary_id=file_id(sources[1].hrefs),
        reference_hrefs=sources[0].hrefs,
        secondary_hrefs=sources[1].hrefs,
        secondary_acquired_utc=asked.acquired_utc,
    )
    registration = assemble(
        names,
        plan,
        measured,
        settings,
        weights_sha256=matcher.weights_sha256,
        seconds=time.monotonic() - begin,
        given=asked.given(sources),
    )
    products = None
    if store is not None:
        tell_phase(Phase.WRITE)
        key = ProductKey(registration.pair_key, registration.run_key)
        was_committed = force and withdraw(store, key)
        products = publish(store, registration, plan, names, settings)
        if was_committed and store.exists(INDEX):
            index_committed(store, [key])  # the row of the earlier products is replaced
    return RegisterResult(registration, products, settings.storage, thumbnails_of(plan))


def committed(
    reference: str | Path,
    secondary: str | Path,
    *,
    out: str | Path,
    settings: Settings,
    acquired: datetime | None = None,
    reference_kind: Kind | None = None,
    secondary_kind: Kind | None = None,
    reference_mask: str | Path | None = None,
    secondary_mask: str | Path | None = None,
) -> Product | None:
    """Open what `register` has committed for two files with these settings; None where it has not.

    Raises
    ------
    BadInputError
        A raster, the weights or the product root is wrong, or what was committed is damaged.
    """
    asked = _Asked((reference_kind, secondary_kind), (reference_mask, secondary_mask), acquired)
    sources = asked.open_pair(reference, secondary, settings.storage)
    key = pair_key(file_id(sources[0].hrefs), file_id(sources[1].hrefs))
    run_key = run_key_of(key, settings, weights_sha256=weights_sha256(settings), given=asked.given(sources))
    return open_committed(open_store(str(out), settings.storage), ProductKey(key, run_key), settings)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the user says of the two files, beyond where they are."""

    kinds: tuple[Kind | None, Kind | None]
    masks: tuple[str | Path | None, str | Path | None]
    acquired: datetime | None

    @property
    def acquired_utc(self) -> datetime | None:
        moment = self.acquired
        if moment is None:
            return None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

    def open_pair(
        self,
        reference: str | Path | Sequence[str | Path],
        secondary: str | Path | Sequence[str | Path],
        storage: S3Options,
    ) -> tuple[RasterSource, RasterSource]:
        """Open both rasters, and lay the masks on them."""
        masks = [None if href is None else open_mask(href, storage=storage) for href in self.masks]
        first, second = open_pair(
            reference, secondary, reference_kind=self.kinds[0], secondary_kind=self.kinds[1], storage=storage
        )
        return replace(first, mask=masks[0]), replace(second, mask=masks[1])

    def given(self, sources: tuple[RasterSource, RasterSource]) -> tuple[str, ...]:
        """Say it for the key of the run; nothing where nothing was said."""
        said = {
            "reference_kind": self.kinds[0],
            "secondary_kind": self.kinds[1],
            "reference_mask": sources[0].mask and sources[0].mask.sha256,
            "secondary_mask": sources[1].mask and sources[1].mask.sha256,
            "acquired": self.acquired_utc and self.acquired_utc.isoformat(),
        }
        return tuple(f"{name}={value}" for name, value in said.items() if value is not None)


def file_id(hrefs: Sequence[str]) -> str:
    """Name a raster that has no id in a catalog: the name of its file, and 8 hex digits.

    The digits are a hash of the address and, for a local file, of its size and time: a file that has changed
    gets another name.
    """
    marks = []
    for href in hrefs:
        path = local_path(href)
        if path is None:
            marks.append(public_href(href))
        else:
            state = path.stat()
            marks.append(f"{path} {state.st_size} {state.st_mtime_ns}")
    digest = hashlib.sha256("\n".join(marks).encode()).hexdigest()[:8]
    return f"{Path(public_href(hrefs[0]).split('?')[0]).stem}-{digest}"
