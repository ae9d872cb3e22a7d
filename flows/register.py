"""Register two rasters in this process, without Prefect or Dask."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crosstie.config import Settings
from crosstie.flows.registration.load_matcher import load_matcher
from crosstie.flows.registration.pipeline import InProcess, Progress, register_plan
from crosstie.flows.registration.plan import plan_pair
from crosstie.flows.registration.publish import PairNames, assemble, publish
from crosstie.io.products.tie_points import to_geodataframe
from crosstie.io.raster import open_pair
from crosstie.io.storage.href import local_path, public_href
from crosstie.io.storage.store import open_store

if TYPE_CHECKING:
    import geopandas as gpd

    from crosstie.flows.registration.measure import TileMatcher
    from crosstie.types import AffineCorrection, Kind, Registration, Verdict

Hrefs = str | Path | Sequence[str | Path]
"""One raster: a path or URL, or several of one band each."""


@dataclass(frozen=True, slots=True, eq=False)
class RegisterResult:
    """Result of `register`."""

    registration: Registration
    """All details: the grid, the tie points, the estimate, and what made them."""
    products: str | None
    """URL of the folder of the products; None if none were written."""

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


def register(
    reference: Hrefs,
    secondary: Hrefs,
    *,
    out: str | Path | None = None,
    settings: Settings | None = None,
    reference_kind: Kind | None = None,
    secondary_kind: Kind | None = None,
    matcher: TileMatcher | None = None,
    progress: Progress | None = None,
) -> RegisterResult:
    """Measure the offset between two rasters, and fit the affine that corrects it.

    Parameters
    ----------
    reference : str, Path or sequence of them
        Raster that stays, usually Sentinel-2: a path or URL, or one for each band.
    secondary : str, Path or sequence of them
        Raster that is corrected, usually Sentinel-1.
    out : str or Path, optional
        Folder or URL (`file://`, `s3://`) of the product root; None writes nothing.
    settings : Settings, optional
        None takes the defaults; `crosstie.load_settings` reads a file and the environment.
    reference_kind, secondary_kind : Kind, optional
        Kind of sensor; None detects it.
    matcher : TileMatcher, optional
        A loaded matcher, to register many pairs with; None loads the one that the settings name.
    progress : callable, optional
        Called with (tiles done, tiles planned).

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
    begin = time.monotonic()
    sources = open_pair(
        reference,
        secondary,
        reference_kind=reference_kind,
        secondary_kind=secondary_kind,
        storage=settings.storage,
    )
    store = None if out is None else open_store(str(out), settings.storage)
    matcher = matcher or load_matcher(settings)
    plan = plan_pair(*sources, settings)
    measured = register_plan(plan, InProcess(matcher), settings, progress=progress)
    names = PairNames(
        reference_id=file_id(sources[0].hrefs),
        secondary_id=file_id(sources[1].hrefs),
        reference_hrefs=sources[0].hrefs,
        secondary_hrefs=sources[1].hrefs,
    )
    registration = assemble(
        names,
        plan,
        measured,
        settings,
        weights_sha256=matcher.weights_sha256,
        seconds=time.monotonic() - begin,
    )
    return RegisterResult(
        registration, None if store is None else publish(store, registration, plan, names, settings)
    )


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
