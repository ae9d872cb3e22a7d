"""The corrected secondary as a VRT: new coordinates, the same pixels, not one of them copied."""

from __future__ import annotations

import os
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio.shutil

from crosstie.io.raster.gdal import IMAGE_DRIVERS, check_href, opened, shown_name
from crosstie.io.raster.georeference import Georeference, corrected, georeference_of
from crosstie.io.storage.href import local_path, public_href
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affine import Affine


def place_of(
    href: str, storage: S3Options = FROM_ENVIRONMENT, *, drivers: tuple[str, ...] = IMAGE_DRIVERS
) -> Georeference:
    """Read where a raster lies, without its pixels.

    Parameters
    ----------
    drivers : that may open it: those of its `RasterSource`

    Raises
    ------
    UnreadableRasterError : missing or no raster
    NoGeoreferenceError : neither CRS and transform nor control points
    """
    with opened(_absolute(href), drivers=drivers, storage=storage) as raster:
        return georeference_of(raster)


def corrected_vrt(
    hrefs: Sequence[str],
    *,
    affine: Sequence[float],
    grid_crs: str | None,
    storage: S3Options = FROM_ENVIRONMENT,
    drivers: tuple[str, ...] = IMAGE_DRIVERS,
    folder: Path | None = None,
    root: Path | None = None,
) -> bytes:
    """Describe a raster with a correction applied to its coordinates (`georeference.corrected` says how).

    Local sources under `root` are named by their path from `folder`, so that the root can be moved as a
    whole; others by absolute path, remote ones by `/vsis3/` or `/vsicurl/` without any signature:
    who opens the VRT brings the right to read them.

    Parameters
    ----------
    hrefs : files of the raster. Further files add their bands where they share the first one's pixel grid;
        those on another grid are left out and named in the metadata item `CROSSTIE_LEFT_OUT`
    affine : (a, b, c, d, e, f) in rasterio's order, metres of `grid_crs`
    grid_crs : None where there is no common grid; the coordinates then stay
    storage : how S3 is reached
    drivers : that may open the files: those of the raster's `RasterSource`
    folder : where the VRT will lie, on this machine; None where it lies elsewhere
    root : of the products

    Raises
    ------
    UnreadableRasterError, NoGeoreferenceError : as `place_of`
    """
    first = place_of(hrefs[0], storage, drivers=drivers)
    place = first if grid_crs is None else corrected(first, affine=affine, grid_crs=grid_crs)
    described = _described(hrefs[0], storage, drivers)
    left_out = []
    for href in hrefs[1:]:
        other = place_of(href, storage, drivers=drivers)
        if other.shape == first.shape and _same_place(other, first):
            _add_bands(described, _described(href, storage, drivers))
        else:
            left_out.append(public_href(href))
    if left_out:
        metadata = ET.SubElement(described, "Metadata", domain="CROSSTIE")
        ET.SubElement(metadata, "MDI", key="CROSSTIE_LEFT_OUT").text = " ".join(left_out)
    _georeference(described, place)
    if folder is not None and root is not None:
        _name_from(folder, root, described)
    ET.indent(described)
    body: bytes = ET.tostring(described, encoding="utf-8")
    return body + b"\n"


def _described(href: str, storage: S3Options, drivers: tuple[str, ...]) -> ET.Element:
    """VRT of a raster as GDAL writes it, its sources made absolute and public."""
    with tempfile.TemporaryDirectory(prefix="crosstie-") as folder:
        path = Path(folder) / "described.vrt"
        with opened(_absolute(href), drivers=drivers, storage=storage) as raster:
            rasterio.shutil.copy(raster, path, driver="VRT")
        root = ET.fromstring(path.read_text("utf-8"))  # noqa: S314  (GDAL's own output)
        for source in [*root.iter("SourceFilename"), *root.iter("SourceDataset")]:
            name = source.text or ""
            if source.get("relativeToVRT") == "1":
                name = str((Path(folder) / name).resolve())
            source.text = shown_name(name)
            source.set("relativeToVRT", "0")
    return root


def _name_from(folder: Path, root: Path, described: ET.Element) -> None:
    """Name the sources that lie under `root` by their path from `folder`; both without links."""
    folder, root = folder.resolve(), root.resolve()
    for source in [*described.iter("SourceFilename"), *described.iter("SourceDataset")]:
        path = Path(source.text or "").resolve()
        if (source.text or "").startswith("/") and path.is_relative_to(root):
            source.text = os.path.relpath(path, folder)
            source.set("relativeToVRT", "1")


def _absolute(href: str) -> str:
    """GDAL would write a relative path as it is: true in this process's folder, wrong in the VRT's."""
    path = local_path(href)
    return check_href(href if path is None else path)


def _add_bands(root: ET.Element, other: ET.Element) -> None:
    count = len(root.findall("VRTRasterBand"))
    at = max(i for i, child in enumerate(root) if child.tag == "VRTRasterBand") + 1
    for n, band in enumerate(other.findall("VRTRasterBand")):
        band.set("band", str(count + n + 1))
        root.insert(at + n, band)


def _same_place(a: Georeference, b: Georeference) -> bool:
    if a.transform is None or b.transform is None:
        return [(g.row, g.col, g.x, g.y) for g in a.gcps] == [(g.row, g.col, g.x, g.y) for g in b.gcps]
    return a.crs == b.crs and a.transform.almost_equals(b.transform, precision=1e-9)


def _georeference(root: ET.Element, place: Georeference) -> None:
    """Replace the coordinates of a VRT; 17 digits, so that nothing is lost in the text."""
    for tag in ("SRS", "GeoTransform", "GCPList"):
        for old in root.findall(tag):
            root.remove(old)
    # Without `dataAxisToSRSAxisMapping` GDAL takes x for east, as every number here has it.
    if place.transform is not None:
        srs = ET.Element("SRS")
        srs.text = place.crs
        transform = ET.Element("GeoTransform")
        transform.text = ", ".join(f"{v:.17g}" for v in _gdal_order(place.transform))
        root[:0] = [srs, transform]
        return
    points = ET.Element("GCPList", Projection=place.crs)
    for n, g in enumerate(place.gcps, start=1):
        ET.SubElement(
            points,
            "GCP",
            Id=str(g.id or n),
            Pixel=f"{g.col:.17g}",
            Line=f"{g.row:.17g}",
            X=f"{g.x:.17g}",
            Y=f"{g.y:.17g}",
            Z=f"{g.z or 0.0:.17g}",
        )
    root.insert(0, points)


def _gdal_order(transform: Affine) -> tuple[float, ...]:
    order: tuple[float, ...] = transform.to_gdal()
    return order
