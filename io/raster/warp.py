"""Pixels moved to other places by GDAL's warp, through positions that we computed ourselves.

GDAL gets its transformer as an array of positions (a geolocation array of the *output*), which it follows
exactly. That is why not `rasterio.warp.reproject`: it approximates, by up to 0.08 px, and takes no such array
for the output. And why not OpenCV's `remap`: its cubic kernel (a = -0.75) moves smooth images by up to
0.049 px, its Lanczos rounds positions to 1/32 px. GDAL's cubic (a = -0.5) is off by 0.0002 px.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import DatasetReader, MemoryFile
from scipy.ndimage import minimum_filter

from crosstie.codes import Kernel

if TYPE_CHECKING:
    from crosstie.types import FloatArray

Pixels = NDArray[Any]
"""(rows, cols) of any data type that GDAL has."""


_GDAL_KERNELS = {
    Kernel.CUBIC: "Cubic",
    Kernel.LANCZOS: "Lanczos",
    Kernel.BILINEAR: "Bilinear",
    Kernel.NEAREST: "NearestNeighbour",
}

GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
    "complex64": "CFloat32",
    "complex128": "CFloat64",
}
"""Data types that are warped, numpy's name -> GDAL's."""

_SETTINGS = {
    # With more, GDAL's own threads, which prepare the positions anew each, wait for each other without end.
    "GDAL_NUM_THREADS": 1,
    # The way back, from the source to the result, is not needed, but GDAL prepares it: BACKMAP, the default,
    # would write temporary files into the current folder.
    "GDAL_GEOLOC_INVERSE_METHOD": "QUADTREE",
}

_SOMEWHERE = Affine(1, 0, 1, 0, -1, 1)
"""Place of the files in memory. It means nothing, but without one rasterio warns."""


def warp(
    pixels: Pixels,
    valid: NDArray[np.bool_] | None,
    *,
    at: tuple[FloatArray, FloatArray],
    step_px: int,
    shape: tuple[int, int],
    kernel: Kernel,
    shrink: tuple[float, float] = (1.0, 1.0),
) -> tuple[Pixels, NDArray[np.bool_]]:
    """Interpolate pixels at positions, once; safe in many threads at a time.

    A pixel of the result is valid where the pixel of the source that holds its position is. Beside invalid
    pixels and at the edge the valid ones share the whole weight, so that no seam is darker or brighter.

    Parameters
    ----------
    pixels : (rows, cols) of the source
    valid : the same shape; None where all are
    at : (col, row) in the source, px from its outer corner, of the result's pixel corners every `step_px`
        pixels, the first of all included and the last covered; finite. In between they are bilinear
    shape : (rows, cols) of the result
    shrink : pixels of the source along (cols, rows) that one pixel of the result spans; above 1 the kernel
        is widened by it, so that nothing is skipped, and Lanczos gives way to the cubic

    Returns
    -------
    Pixels (rows, cols) of the same data type (integers rounded and clipped), 0 where invalid, and where they
    are valid.
    """
    ask = _Ask(at, step_px, shape, shrink)
    if kernel is Kernel.LANCZOS and max(shrink) > 1:
        kernel = Kernel.CUBIC  # GDAL's widened Lanczos gives a pixel right at the position a wrong weight
    if valid is None:
        return _warp(pixels, None, ask, kernel)
    # GDAL turns to bilinear beside invalid pixels where the kernel is a plain cubic. Elsewhere we do: what is
    # left of a kernel with negative lobes may have weights that sum to nearly nothing.
    safe = kernel in (Kernel.NEAREST, Kernel.BILINEAR) or (kernel is Kernel.CUBIC and max(shrink) == 1)
    out, reached = _warp(pixels, valid, ask, kernel if safe else Kernel.BILINEAR)
    # In the first row and column of a block GDAL gives invalid pixels the value of a neighbour.
    good = reached & (_warp(valid.astype(np.uint8), None, ask, Kernel.NEAREST)[0] > 0)
    if not safe:
        cols, rows = (2 * math.ceil(kernel.radius_px * factor) + 1 for factor in shrink)
        whole = minimum_filter(valid.astype(np.uint8), size=(rows, cols), mode="constant", cval=0)
        clear = _warp(whole, None, ask, Kernel.NEAREST)[0] > 0
        out[clear] = _warp(pixels, None, ask, kernel)[0][clear]
    out[~good] = 0
    return out, good


@dataclass(frozen=True, slots=True, eq=False)
class _Ask:
    """Where the result's pixels lie; as the arguments of `warp`."""

    at: tuple[FloatArray, FloatArray]
    step_px: int
    shape: tuple[int, int]
    shrink: tuple[float, float]


def _warp(
    pixels: Pixels, valid: NDArray[np.bool_] | None, ask: _Ask, kernel: Kernel
) -> tuple[Pixels, NDArray[np.bool_]]:
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(**_SETTINGS))
        source = stack.enter_context(MemoryFile())
        _write(source, pixels[None], valid)
        geolocation = stack.enter_context(MemoryFile())
        _write(geolocation, np.stack(ask.at), None)
        text = _described(
            source.name,
            geolocation.name,
            ask,
            gdal_type=GDAL_TYPES[pixels.dtype.name],
            kernel=kernel,
            reach_px=max(pixels.shape),
        )
        result = stack.enter_context(DatasetReader(text, driver="VRT"))
        return result.read(1), result.read(2) > 0


def _write(file: MemoryFile, bands: Pixels, valid: NDArray[np.bool_] | None) -> None:
    count, rows, cols = bands.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        file.open(
            driver="GTiff", height=rows, width=cols, count=count, dtype=bands.dtype, transform=_SOMEWHERE
        ) as raster,
    ):
        raster.write(bands)
        if valid is not None:
            raster.write_mask(valid)


def _described(
    source: str,
    geolocation: str,
    ask: _Ask,
    *,
    gdal_type: str,
    kernel: Kernel,
    reach_px: int,
) -> str:
    """Describe the warp as a VRT; its one block is the whole result, its second band where that is valid.

    XSCALE and YSCALE are given because GDAL would guess them for each block, from a source cut at its edge.
    """
    # One piece: it is one document, and its parts mean nothing without one another.
    array = "".join(
        f'<MDI key="{key}">{value}</MDI>'
        for key, value in {
            "X_DATASET": geolocation,
            "X_BAND": 1,
            "Y_DATASET": geolocation,
            "Y_BAND": 2,
            "PIXEL_OFFSET": 0,
            "LINE_OFFSET": 0,
            "PIXEL_STEP": ask.step_px,
            "LINE_STEP": ask.step_px,
        }.items()
    )
    options = "".join(
        f'<Option name="{name}">{value}</Option>'
        for name, value in {
            "NUM_THREADS": 1,
            "INIT_DEST": 0,
            "SAMPLE_GRID": "YES",
            "SOURCE_EXTRA": reach_px,
            "XSCALE": f"{1 / ask.shrink[0]:.17g}",
            "YSCALE": f"{1 / ask.shrink[1]:.17g}",
        }.items()
    )
    rows, cols = ask.shape
    return f"""<VRTDataset rasterXSize="{cols}" rasterYSize="{rows}" subClass="VRTWarpedDataset">
<GeoTransform>1,1,0,1,0,-1</GeoTransform>
<VRTRasterBand dataType="{gdal_type}" band="1" subClass="VRTWarpedRasterBand"/>
<VRTRasterBand dataType="Byte" band="2" subClass="VRTWarpedRasterBand"><ColorInterp>Alpha</ColorInterp>
</VRTRasterBand>
<BlockXSize>{cols}</BlockXSize><BlockYSize>{rows}</BlockYSize>
<GDALWarpOptions>
<WarpMemoryLimit>2e9</WarpMemoryLimit>
<ResampleAlg>{_GDAL_KERNELS[kernel]}</ResampleAlg>
<WorkingDataType>{gdal_type}</WorkingDataType>
{options}
<SourceDataset relativeToVRT="0">{source}</SourceDataset>
<Transformer><GenImgProjTransformer>
<SrcGeoTransform>0,1,0,0,0,1</SrcGeoTransform><SrcInvGeoTransform>0,1,0,0,0,1</SrcInvGeoTransform>
<DstGeoLocTransformer><GeoLocTransformer><Reversed>0</Reversed><Metadata>{array}</Metadata>
</GeoLocTransformer></DstGeoLocTransformer>
</GenImgProjTransformer></Transformer>
<BandList><BandMapping src="1" dst="1"/></BandList>
<DstAlphaBand>2</DstAlphaBand>
</GDALWarpOptions>
</VRTDataset>"""
