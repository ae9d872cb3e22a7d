"""What a raster file is: georeference, sensor, bands and units, from its header and a few values."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio.crs
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from crosstie.errors import BadInputError, UnreadableRasterError
from crosstie.io.raster.delivered.safe import image_of
from crosstie.io.raster.gdal import IMAGE_DRIVERS, OWN_DRIVERS, check_href, opened
from crosstie.io.raster.georeference import georeference_of, points_of
from crosstie.io.raster.source import RasterSource
from crosstie.io.raster.values import palette as palettes
from crosstie.io.raster.values import plausible, scaling
from crosstie.io.raster.values import sensor as kinds
from crosstie.io.raster.values.units import SAMPLE_PX, find_units, undeclared_fills, valid_values
from crosstie.io.storage.href import public_href
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options
from crosstie.types import Kind

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.io import DatasetReader

    from crosstie.io.raster.control_points import Point
    from crosstie.types import FloatArray

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Header:
    """Everything read from one file, before the kind of the image is decided."""

    href: str
    labels: tuple[str, ...]
    colours: tuple[str, ...]
    bands: tuple[int, ...]
    """Numbers, from 1, of all bands that are not alpha."""
    dtype: str
    sample: FloatArray | None
    """(N,) valid values in their unit, without fills, where they can decide something."""
    bare: frozenset[int]
    """Positions, from 0, of those sampled bands that hold nothing or zeros only."""
    fills: tuple[float, ...]
    """Undeclared fill values, as stored."""
    blank_zeros: bool
    """Pixels that are 0 in all bands hold nothing, though no header declares it."""
    wild_share: float
    scalings: tuple[scaling.Scaling, ...]
    """(scale, offset) of each of `bands`."""
    palette: palettes.Palette | None
    """Colours of the only band."""
    shape: tuple[int, int]
    crs: str
    transform: tuple[float, float, float, float, float, float] | None
    gcps: tuple[Point, ...] | None
    nodata: float | None
    drivers: tuple[str, ...]

    @property
    def name(self) -> str:
        return Path(self.href.split("?", 1)[0]).name

    @property
    def place(self) -> tuple[object, ...]:
        return self.shape, self.crs, self.transform, self.gcps


def open_source(
    hrefs: str | Path | Sequence[str | Path],
    *,
    kind: Kind | None = None,
    other_kind: Kind | None = None,
    from_catalog: bool = False,
    declared: scaling.Scalings = (),
    storage: S3Options = FROM_ENVIRONMENT,
) -> RasterSource:
    """Read what a raster is: header, and a small sample of values where only they tell.

    Parameters
    ----------
    hrefs : str or Path or Sequence[str or Path]
        One file, or several of one band each.
    kind : Kind or None, optional
        What formed the image; found from names, bands and values where None.
    other_kind : Kind or None, optional
        Kind of the image it is paired with: where nothing tells, this one is the other kind.
    from_catalog : bool, optional
        A catalog named the files, not the user: they are then never opened as VRT, which could lead on to any
        other file.
    declared : scaling.Scalings, optional
        What a catalog says of the file's values: of each band, or one for all. It is used where the file says
        nothing itself.
    storage : S3Options, optional
        How S3 is reached.

    Raises
    ------
    UnreadableRasterError
        Missing, no raster, cut short, or an address that is not allowed.
    NoGeoreferenceError
        Neither CRS and transform nor GCPs that fix a place.
    BadInputError
        The kind cannot be told, or several files do not fit together.
    """
    files, found = _read_headers(
        hrefs, kind=kind, from_catalog=from_catalog, declared=declared, storage=storage
    )
    found = found or (other_kind.other if other_kind else None)
    if found is None:
        raise BadInputError(
            f"{public_href(files[0].href)}: nothing in it tells optical from SAR; say which with"
            " --reference-kind or --secondary-kind (kind='optical' or 'sar')"
        )
    return _source_of(files, found, storage)


def open_pair(
    reference: str | Path | Sequence[str | Path],
    secondary: str | Path | Sequence[str | Path],
    *,
    reference_kind: Kind | None = None,
    secondary_kind: Kind | None = None,
    from_catalog: bool = False,
    declared: tuple[scaling.Scalings, scaling.Scalings] = ((), ()),
    storage: S3Options = FROM_ENVIRONMENT,
) -> tuple[RasterSource, RasterSource]:
    """Open both rasters of a pair; a kind that cannot be told is the complement of the other.

    If neither can be told, the reference is optical and the secondary SAR. Two rasters of one kind are
    allowed. Raises the same errors as `open_source`.
    """
    first, first_kind = _read_headers(
        reference,
        kind=reference_kind,
        from_catalog=from_catalog,
        declared=declared[0],
        storage=storage,
    )
    second, second_kind = _read_headers(
        secondary,
        kind=secondary_kind,
        from_catalog=from_catalog,
        declared=declared[1],
        storage=storage,
    )
    kind = first_kind or (second_kind.other if second_kind else Kind.OPTICAL)
    return _source_of(first, kind, storage), _source_of(second, second_kind or kind.other, storage)


def image_bands(raster: DatasetReader) -> tuple[int, ...]:
    """Numbers, from 1, of all bands that are not alpha."""
    return tuple(n for n, colour in enumerate(raster.colorinterp, start=1) if colour is not ColorInterp.alpha)


def _read_headers(
    hrefs: str | Path | Sequence[str | Path],
    *,
    kind: Kind | None,
    from_catalog: bool,
    declared: scaling.Scalings,
    storage: S3Options,
) -> tuple[list[_Header], Kind | None]:
    """Read each file, and find their kind: the one they agree on, else the one of all together."""
    given = [hrefs] if isinstance(hrefs, str | Path) else list(hrefs)
    if not given:
        raise BadInputError("a raster needs at least one file; give its path or URL")
    checked = [check_href(href) for href in given]
    if not from_catalog:
        checked = [image_of(href) for href in checked]
    drivers = IMAGE_DRIVERS if from_catalog else OWN_DRIVERS
    if len(checked) > 1:
        declared = ()  # it is of one file
    files = [_read_one(href, drivers, storage, kind, declared) for href in checked]
    if kind is not None:
        return files, kind
    _refuse_contradiction(files)
    if len(files) == 1:
        found = _find_kind(files)
        _refuse_unclear_colours(files[0], found, storage)
        return files, found
    said = {_find_kind([file]) for file in files} - {None}
    if len(said) > 1:
        names = ", ".join(file.name for file in files)
        raise BadInputError(
            f"{names}: some look optical, some SAR; give the files of one image, or say its kind"
        )
    return files, said.pop() if said else _find_kind(files)


def _find_kind(files: list[_Header]) -> Kind | None:
    return kinds.find_kind(
        names=[file.name for file in files],
        descriptions=[label for file in files for label in file.labels],
        count=sum(3 if _is_coloured(file) else len(file.bands) for file in files),
        sample=files[0].sample if np.dtype(files[0].dtype).kind == "f" else None,
    )


def _read_one(
    href: str, drivers: tuple[str, ...], storage: S3Options, kind: Kind | None, declared: scaling.Scalings
) -> _Header:
    with opened(href, drivers=drivers, storage=storage) as raster:
        place = georeference_of(raster)
        if place.control is not None:
            facts = place.control.facts
            level = logging.WARNING if facts.left_out else logging.INFO
            LOG.log(level, "%s: %s", public_href(href), facts.sentence)
        _refuse_unusable(href, raster)
        _refuse_truncated(href, raster)
        bands = image_bands(raster)
        labels = tuple(raster.descriptions[n - 1] or "" for n in bands)
        dtype = raster.dtypes[bands[0] - 1]
        scalings = tuple(scaling.declared(raster, band) for band in bands)
        if declared and set(scalings) == {scaling.NONE}:
            scalings = _by_catalog(href, raster, bands, kind, declared)
        fills: tuple[float, ...] = ()
        wild_share = 0.0
        sample, bare = None, frozenset[int]()
        plain = dtype == "uint8" and set(scalings) == {scaling.NONE}
        # Of plain bytes every value is plausible, and none tells anything but which of two bands is empty.
        if not plain or len(bands) == 2 or kinds.labelled(labels)[0]:
            chosen = kinds.sar_bands(labels) if kinds.labelled(labels)[0] else range(min(2, len(bands)))
            found = _sample_values(
                raster, tuple(bands[n] for n in chosen), tuple(scalings[n] for n in chosen)
            )
            stored, in_unit, of_band = found
            fills = () if plain else undeclared_fills(found)
            measured = plausible.are_measured(stored, fills) & np.isfinite(in_unit)
            bare = frozenset(n for n in chosen if _is_bare(in_unit[measured & (of_band == bands[n])]))
            if not plain:
                wild_share = 1 - float(measured.mean()) if len(stored) else 0.0
                _warn_of_wild_sample(href, stored[~measured], of=len(stored))
                empty = [] if len(bare) == len(chosen) else [bands[n] for n in bare]
                sample = in_unit[measured & ~np.isin(of_band, empty)]
        return _Header(
            href=href,
            labels=labels,
            colours=tuple(raster.colorinterp[n - 1].name for n in bands),
            bands=bands,
            dtype=dtype,
            sample=sample,
            bare=bare,
            fills=fills,
            blank_zeros=_has_blank_zeros(href, raster, bands, labels),
            wild_share=wild_share,
            scalings=scalings,
            palette=palettes.palette_of(raster, bands),
            shape=place.shape,
            crs=_crs_text(place.crs),
            transform=None if place.transform is None else _six(place.transform),
            gcps=points_of(place.gcps) or None,
            nodata=None if raster.nodata is None else float(raster.nodata),
            drivers=drivers,
        )


def _by_catalog(
    href: str, raster: DatasetReader, bands: tuple[int, ...], kind: Kind | None, declared: scaling.Scalings
) -> scaling.Scalings:
    """Scale and offset of each band as a catalog declares them; none where the pixels contradict it."""
    as_stored = (scaling.NONE,) * len(bands)
    dtype = np.dtype(raster.dtypes[bands[0] - 1])
    # A picture of bytes is no reflectance, and SAR as floats is in its unit.
    if dtype == np.uint8 if kind is Kind.OPTICAL else dtype.kind == "f":
        return as_stored
    found = scaling.of_bands(declared, count=raster.count, bands=bands)
    if found is None:
        LOG.warning(
            "%s: the catalog declares scale and offset of %d bands, and it has %d: they are not applied",
            public_href(href),
            len(declared),
            len(bands),
        )
        return as_stored
    if kind is not Kind.OPTICAL:
        return found
    sampled = _sample_values(raster, bands[:1], found[:1])
    stored = sampled[0][plausible.are_measured(sampled[0], undeclared_fills(sampled))]
    kept = scaling.borne_out(found, stored)
    if kept != found:
        LOG.warning(
            "%s: with the scale %g and the offset %g that the catalog declares, its pixels are no"
            " reflectance; taken are scale %g and offset %g",
            public_href(href),
            *found[0],
            *kept[0],
        )
    return kept


def _source_of(files: list[_Header], kind: Kind, storage: S3Options) -> RasterSource:
    """Choose files, bands and units for an image of a known kind."""
    several = len(files) > 1
    if several:
        names = [file.name for file in files]
        bare = [n for n, file in enumerate(files) if 0 in file.bare]
        chosen = kinds.sar_bands(names, bare) if kind is Kind.SAR else kinds.optical_files(names)
        # Only those chosen: the 20 m and 60 m bands of Sentinel-2 lie on grids of their own.
        files = [files[n] for n in chosen]
        _refuse_unlike(files)
        bands = tuple(file.bands[0] for file in files)
        scalings = tuple(file.scalings[0] for file in files)
    else:
        labels, colours = files[0].labels, files[0].colours
        chosen = (
            kinds.sar_bands(labels, files[0].bare)
            if kind is Kind.SAR
            else kinds.optical_bands(labels, colours)
        )
        bands = tuple(files[0].bands[n] for n in chosen)
        scalings = tuple(files[0].scalings[n] for n in chosen)
    first = files[0]
    palette = None if several else palettes.for_kind(first.palette, kind)
    sample = first.sample
    if kind is Kind.OPTICAL and sample is not None:
        scalings, sample = _once(first, scalings, sample)
    units = (
        find_units(kind, first.dtype, sample, scalings)
        if palette is None
        else find_units(kind, "uint8", None, (scaling.NONE,))
    )
    zeros = set[float]()
    if units.is_db and first.sample is not None and plausible.are_zeros_no_echo(first.sample):
        LOG.warning("%s: exact zeros among its dB hold nothing", public_href(first.href))
        zeros.add(0.0)
    return RasterSource(
        hrefs=tuple(file.href for file in files),
        kind=kind,
        bands=bands,
        is_db=units.is_db,
        scale=units.scale,
        shape=first.shape,
        crs=first.crs,
        transform=first.transform,
        gcps=first.gcps,
        nodata=first.nodata,
        drivers=first.drivers,
        storage=storage,
        scalings=units.scalings,
        fills=() if palette else tuple(sorted({fill for file in files for fill in file.fills} | zeros)),
        blank_zeros=kind is Kind.OPTICAL
        and (all(file.blank_zeros for file in files) or scaling.zeros_are_blank(first.dtype, scalings)),
        wild_share=max(file.wild_share for file in files),
        palette=palette,
        limits=units.limits,
    )


def _once(
    file: _Header, scalings: scaling.Scalings, sample: FloatArray
) -> tuple[scaling.Scalings, FloatArray]:
    """Leave scale and offset out that the floats of an optical file have been through already.

    Some programs write scaled values, and what they were scaled with beside them.
    """
    scale, offset = scalings[0]
    if np.dtype(file.dtype).kind != "f" or (scale, offset) == scaling.NONE:
        return scalings, sample
    stored = (sample - offset) / scale
    if not scaling.are_in_unit(stored, in_unit=sample):
        return scalings, sample
    LOG.warning(
        "%s: declares scale %g and offset %g, but its pixels are reflectance without them: not applied",
        public_href(file.href),
        scale,
        offset,
    )
    return (scaling.NONE,) * len(scalings), stored


def _is_coloured(file: _Header) -> bool:
    return file.palette is not None and not palettes.is_grey(file.palette)


def _refuse_unclear_colours(file: _Header, kind: Kind | None, storage: S3Options) -> None:
    """Refuse a colour table that is no picture's for sure: the user says what it stands for."""
    if file.palette is None:
        return
    with opened(file.href, drivers=file.drivers, storage=storage) as raster:
        numbers = _sample_values(raster, file.bands, (scaling.NONE,))[0]
    count = palettes.count_colours(file.palette, numbers)
    if count >= palettes.FEW_COLOURS and (kind is Kind.OPTICAL or not _is_coloured(file)):
        return
    raise BadInputError(
        f"{public_href(file.href)}: its band has a colour table and shows {count} colours: a picture, a map"
        " of classes, or SAR in colours; give the image itself, or say with --reference-kind or"
        " --secondary-kind (kind='optical' or 'sar') that its colours (optical) or its numbers (sar) are"
        " to be matched"
    )


def _refuse_contradiction(files: list[_Header]) -> None:
    labels = [label for file in files for label in file.labels]
    if all(kinds.labelled(labels)):
        raise BadInputError(
            f"{public_href(files[0].href)}: its bands are labelled as SAR and as optical"
            f" ({', '.join(label for label in labels if label)}); say which is meant with --reference-kind or"
            " --secondary-kind (kind='optical' or 'sar')"
        )


def _refuse_unlike(files: list[_Header]) -> None:
    first = files[0]
    for file in files:
        if len(file.bands) != 1:
            raise BadInputError(
                f"{public_href(file.href)}: has {len(file.bands)} bands, but of several files each must"
                " have one; give it alone or leave it out"
            )
        if file.place != first.place:
            raise BadInputError(
                f"{public_href(file.href)}: its {file.shape} pixels do not lie on the grid of"
                f" {public_href(first.href)}, {first.shape}; give files of one pixel grid"
            )


def _refuse_unusable(href: str, raster: DatasetReader) -> None:
    if any(dtype.startswith("complex") for dtype in raster.dtypes):
        raise UnreadableRasterError(
            f"{public_href(href)}: holds complex values (SLC); give detected amplitude or backscatter"
        )
    if kinds.are_complex_parts([text or "" for text in raster.descriptions]):
        raise UnreadableRasterError(
            f"{public_href(href)}: its bands are the parts of complex values (i, q); give detected amplitude"
            " or backscatter"
        )
    if all(colour is ColorInterp.alpha for colour in raster.colorinterp):
        raise UnreadableRasterError(
            f"{public_href(href)}: has an alpha band only; give a raster with image bands"
        )


def _refuse_truncated(href: str, raster: DatasetReader) -> None:
    """Compare where the TIFF's blocks end with the size of a local file, before any work is done.

    Sparse blocks have no offset: legal, they read as nodata. Looks at no more than about 2,000 blocks.
    """
    if raster.driver != "GTiff" or not Path(href).is_file():
        return
    size = Path(href).stat().st_size
    block_rows, block_cols = raster.block_shapes[0]
    across, down = -(-raster.width // block_cols), -(-raster.height // block_rows)
    every = max(1, across * down // 2000)
    for number in [*range(0, across * down, every), across * down - 1]:
        name = f"{number % across}_{number // across}"
        offset = raster.get_tag_item(f"BLOCK_OFFSET_{name}", "TIFF", bidx=raster.count)
        length = raster.get_tag_item(f"BLOCK_SIZE_{name}", "TIFF", bidx=raster.count)
        if offset and length and int(offset) + int(length) > size:
            raise UnreadableRasterError(
                f"{href}: cut short: {size} bytes, but block {name} ends at {int(offset) + int(length)};"
                " fetch the file again"
            )


def _sample_values(
    raster: DatasetReader, bands: tuple[int, ...], scalings: tuple[scaling.Scaling, ...]
) -> FloatArray:
    """Read `valid_values`, (3, N), spread over the raster: from an overview or a few windows."""
    rows, cols = raster.shape
    everything = Window(0, 0, cols, rows)
    if max(rows, cols) <= 4 * SAMPLE_PX or raster.overviews(bands[0]):
        values = valid_values(raster, bands, scalings, everything)
    else:
        corners = [
            (int(r), int(c))
            for r in np.linspace(0, rows - min(64, rows), 5)
            for c in np.linspace(0, cols - min(64, cols), 5)
        ]
        parts = [
            valid_values(raster, bands, scalings, Window(c, r, min(64, cols), min(64, rows)))
            for r, c in corners
        ]
        values = np.concatenate(parts, axis=1)
        if not values.size:  # sparse: the windows missed what there is
            values = valid_values(raster, bands, scalings, everything)
    return values


def _has_blank_zeros(
    href: str, raster: DatasetReader, bands: tuple[int, ...], labels: tuple[str, ...]
) -> bool:
    """Say whether zeros stand for nothing in a local image that declares no nodata and has no mask.

    Remote ones are not sampled for this: it would cost each a request, and catalogs declare nodata.
    """
    if not Path(href).is_file():
        return False
    colours = tuple(raster.colorinterp[n - 1].name for n in bands)
    chosen = tuple(bands[n] for n in kinds.optical_bands(labels, colours))
    if any(raster.mask_flag_enums[band - 1] != [MaskFlags.all_valid] for band in chosen):
        return False
    stored = _sample_values(raster, chosen, (scaling.NONE,) * len(chosen))[0]
    if not stored.size or stored.size % len(chosen) or stored.min() < 0:
        return False
    pixels = stored.reshape(len(chosen), -1)
    palette = palettes.palette_of(raster, bands)
    return plausible.are_zeros_blank(
        pixels if palette is None else palettes.looked_up(pixels, palette)[0][:, 0].astype(np.float64)
    )


def _warn_of_wild_sample(href: str, wild: FloatArray, *, of: int) -> None:
    """Warn of values in the sample that stand for no measurement although nothing declares them."""
    if len(wild):
        shown = ", ".join(f"{value:g}" for value in np.unique(wild)[:3])
        LOG.warning(
            "%s: %.2g %% of its sampled pixels hold %s, which nothing declares as nodata; such pixels are"
            " taken as invalid",
            public_href(href),
            100 * len(wild) / of,
            shown,
        )


def _is_bare(values: FloatArray) -> bool:
    """Say whether a band holds nothing: no value, or zeros only, as of a clear mask."""
    return not values.any()


def _six(affine: Affine) -> tuple[float, float, float, float, float, float]:
    return affine.a, affine.b, affine.c, affine.d, affine.e, affine.f


def _crs_text(wkt: str) -> str:
    """Name a CRS by EPSG code where that is the same CRS, else by its WKT."""
    crs = rasterio.crs.CRS.from_wkt(wkt)
    code = crs.to_epsg(confidence_threshold=100)
    return f"EPSG:{code}" if code is not None else wkt
