"""What aligns the rasters of one secondary scene: the correction that its verdict allows, and the grid."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from odc.geo.geobox import GeoBox
from rasterio.transform import from_gcps

from crosstie.codes import Kernel, ModelChoice
from crosstie.errors import BadInputError, UnreadableRasterError
from crosstie.io.products.aligned import BLOCK_PX, aligned_dataarray, write_aligned
from crosstie.io.products.mapping import Mapping
from crosstie.io.raster.gdal import IMAGE_DRIVERS, OWN_DRIVERS, check_href, opened
from crosstie.io.raster.georeference import georeference_of
from crosstie.io.storage.href import local_path, public_href
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options
from crosstie.types import IDENTITY_AFFINE

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray

    from crosstie.io.storage.store import Store, StoredFile
    from crosstie.types import DisplacementField

Choice = TypeVar("Choice", bound=StrEnum)


class AppliedModel(StrEnum):
    """What was applied to the pixels."""

    FIELD = "field"
    AFFINE = "affine"
    IDENTITY = "identity"


@dataclass(frozen=True, slots=True)
class NamedRaster:
    """A raster, and who named it."""

    href: str | Path
    from_catalog: bool = False
    """A file named it, not the user: it is never opened as a VRT, nor with what lies beside it."""
    refused: str | None = None
    """Why it may not be opened at all; None if it may."""

    def checked(self) -> str | Path:
        """Address for a reader.

        Raises
        ------
        UnreadableRasterError
            It may not be opened.
        """
        if self.refused is not None:
            raise UnreadableRasterError(f"{self.refused}; if it is meant, name the raster yourself")
        path = None if isinstance(self.href, Path) else local_path(self.href)
        return self.href if path is None else path


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """A correction that can be applied to any raster of the secondary scene."""

    name: str
    """Of the pair, for messages."""
    crs: str | None
    """Of the correction; None where the images do not overlap."""
    affine: tuple[float, ...]
    field: DisplacementField | None
    reference: NamedRaster
    """Its grid is the default."""
    secondary: NamedRaster
    """Aligned where no other raster is named."""
    storage: S3Options = FROM_ENVIRONMENT

    def applied(self, model: ModelChoice | str = ModelChoice.AUTO) -> AppliedModel:
        """Say what a choice comes to.

        Raises
        ------
        BadInputError
            A field is asked for, and none is offered; or another word than `auto`, `affine`, `field`.
        """
        choice = _choice(ModelChoice, model, "model")
        if choice is ModelChoice.FIELD and self.field is None:
            raise BadInputError(
                f"{self.name}: no displacement field is offered for this pair (correction.json says why); "
                "take --model auto or affine"
            )
        if self.field is not None and choice is not ModelChoice.AFFINE:
            return AppliedModel.FIELD
        return AppliedModel.IDENTITY if self.affine == IDENTITY_AFFINE else AppliedModel.AFFINE

    def mapping(self, model: ModelChoice | str, grid: GeoBox) -> Mapping:
        """Make the map from reference to secondary; a plain copy on `grid` where there is no correction."""
        applied = self.applied(model)
        if self.crs is None:
            return Mapping(str(grid.crs))
        return Mapping(self.crs, self.affine, self.field if applied is AppliedModel.FIELD else None)

    def grid(self, like: str | Path | GeoBox | None = None) -> GeoBox:
        """Pixel grid of a raster; None takes that of the reference.

        Raises
        ------
        BadInputError
            The raster cannot be read. The message says so if another grid can be given.
        """
        if isinstance(like, GeoBox):
            return like
        if like is not None:
            return _grid_of(NamedRaster(like), self.storage)
        try:
            return _grid_of(self.reference, self.storage)
        except BadInputError as problem:
            raise type(problem)(
                f"the reference of {self.name} cannot be read: {problem}; or name any raster of the grid "
                "that you want (--like RASTER)"
            ) from None

    def dataarray(
        self,
        raster: str | Path | None = None,
        *,
        model: ModelChoice | str = ModelChoice.AUTO,
        like: str | Path | GeoBox | None = None,
        resampling: Kernel | str = Kernel.CUBIC,
        chunk_px: int = BLOCK_PX,
    ) -> xarray.DataArray:
        """Align a raster lazily; see `aligned_dataarray`."""
        source = self._source(raster)
        grid = self.grid(like)
        array = aligned_dataarray(
            source.checked(),
            grid=grid,
            mapping=self.mapping(model, grid),
            resampling=_choice(Kernel, resampling, "resampling"),
            from_catalog=source.from_catalog,
            storage=self.storage,
            chunk_px=chunk_px,
        )
        array.attrs |= {
            "crosstie_model": str(self.applied(model)),
            "crosstie_source": self.source_name(raster),
        }
        return array.rename(Path(self.source_name(raster)).stem)

    def write(
        self,
        store: Store,
        key: str,
        raster: str | Path | None = None,
        *,
        model: ModelChoice | str,
        grid: GeoBox,
        resampling: Kernel | str,
        progress: Callable[[int, int], None] | None = None,
    ) -> StoredFile:
        """Align a raster and write it as a COG; see `write_aligned`."""
        source = self._source(raster)
        return write_aligned(
            source.checked(),
            store,
            key,
            grid=grid,
            mapping=self.mapping(model, grid),
            resampling=_choice(Kernel, resampling, "resampling"),
            from_catalog=source.from_catalog,
            storage=self.storage,
            progress=progress,
        )

    def source_name(self, raster: str | Path | None = None) -> str:
        """Address, as it may be shown, of what is aligned."""
        return public_href(str(self._source(raster).href))

    def _source(self, raster: str | Path | None) -> NamedRaster:
        return self.secondary if raster is None else NamedRaster(raster)


def _grid_of(named: NamedRaster, storage: S3Options) -> GeoBox:
    drivers = IMAGE_DRIVERS if named.from_catalog else OWN_DRIVERS
    with opened(check_href(named.checked()), drivers=drivers, storage=storage) as raster:
        place = georeference_of(raster)
    transform = from_gcps(place.gcps) if place.transform is None else place.transform
    return GeoBox(place.shape, transform, place.crs)


def _choice(kind: type[Choice], value: Choice | str, name: str) -> Choice:
    try:
        return kind(value)
    except ValueError:
        raise BadInputError(f"{name} {value!r}: take one of {', '.join(kind)}") from None
