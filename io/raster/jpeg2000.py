"""Checks of a JPEG 2000 file before it is opened: opening alone makes OpenJPEG allocate every tile."""

from __future__ import annotations

import math
import struct
from xml.sax.saxutils import escape

from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from crosstie.errors import UnreadableRasterError
from crosstie.io.raster.untrusted import refuse_beyond

DRIVER = "JP2OpenJPEG"

MAX_TILES_BYTES = 128 * 2**20
"""Memory for OpenJPEG's bookkeeping of all tiles; a Sentinel-2 product needs 1 MB."""

TILE_BYTES, COMPONENT_BYTES = 6_000, 1_200
"""Bookkeeping for a tile and for each component in it (OpenJPEG 2.5: 65,025 tiles of one took 600 MB)."""

MAX_CODE_BLOCKS = 2**20
"""Code-blocks and precincts of one tile, about 330 bytes each while it is decoded. 10,980 px in one tile of
three components have 120,000."""

MAX_BOXES = 64
"""Maximum number of boxes searched for the image; GDAL and others write it within the first ten."""

LARGER_TILES = "write it in larger tiles"

_SIGNATURES = (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_PIECE = 4096


def is_jpeg2000(path: str) -> bool:
    """Whether GDAL's `path` begins as a JP2 file or a bare codestream does."""
    return _bytes(path, 0, 12).startswith(_SIGNATURES)


def refuse_greedy(path: str, name: str) -> None:
    """Refuse a JPEG 2000 file whose tiles or code-blocks alone would fill memory.

    Raises
    ------
    UnreadableRasterError
        Beyond a limit, or no image where one should be.
    """
    start = _codestream(path)
    head = b"" if start is None else _bytes(path, start, _PIECE)
    if start is None or len(head) < 42 or not head.startswith(_SIGNATURES[1]):
        raise UnreadableRasterError(f"{name}: a JPEG 2000 file without an image; fetch it again")
    x1, y1, x0, y0, tile_x, tile_y, tx0, ty0, components = struct.unpack_from(">8IH", head, 8)
    width, height = x1 - x0, y1 - y0
    if not (tile_x and tile_y and width > 0 and height > 0):
        raise UnreadableRasterError(f"{name}: a JPEG 2000 image of no size; fetch it again")
    tiles = math.ceil((x1 - tx0) / tile_x) * math.ceil((y1 - ty0) / tile_y)
    notes = tiles * (TILE_BYTES + components * COMPONENT_BYTES)
    refuse_beyond(name, f"bytes of notes on {tiles} tiles", notes, MAX_TILES_BYTES, next_step=LARGER_TILES)
    samples = min(width, tile_x) * min(height, tile_y) * components
    refuse_beyond(
        name, "code-blocks in one tile", _code_blocks(head, samples), MAX_CODE_BLOCKS, next_step=LARGER_TILES
    )


def _code_blocks(head: bytes, samples: int) -> int:
    """Count the code-blocks (or precincts, where there are more) of a tile, over all resolutions."""
    at = 2
    while at + 4 <= len(head):
        marker, length = struct.unpack_from(">HH", head, at)
        if marker == 0xFF52 and at + 14 <= len(head):  # COD
            levels, *log2 = struct.unpack_from(">3B", head, at + 9)
            blocks: float = samples / 2.0 ** (sum(log2) + 4)
            sizes = head[at + 14 : at + 15 + levels] if head[at + 4] & 1 else b"\xff" * (levels + 1)
            precincts = sum(
                samples / 4.0 ** (levels - n) / 2.0 ** ((size & 15) + (size >> 4))
                for n, size in enumerate(sizes)
            )
            most: float = max(blocks * 4 / 3, precincts)
            return math.ceil(most)
        if marker < 0xFF00 or marker == 0xFF90 or length < 2:
            break
        at += 2 + length
    return samples  # nothing says how it is cut up


def _codestream(path: str) -> int | None:
    """Find where the image begins: walk from box to box by their lengths."""
    if _bytes(path, 0, 4) == _SIGNATURES[1]:
        return 0
    at = 0
    for _ in range(MAX_BOXES):
        head = _bytes(path, at, 16)
        if len(head) < 16:
            return None
        length, kind = struct.unpack_from(">I4s", head)
        start = 16 if length == 1 else 8
        if kind == b"jp2c":
            return at + start
        length = struct.unpack_from(">Q", head, 8)[0] if length == 1 else length
        if length < start:
            return None
        at += length
    return None


def _bytes(path: str, offset: int, count: int) -> bytes:
    """Read bytes of a file through GDAL, which knows how to reach it and caches them; fewer at its end."""
    while count >= 4:
        described = (
            f'<VRTDataset rasterXSize="{count}" rasterYSize="1">'
            "<GeoTransform>0,1,0,0,0,-1</GeoTransform>"  # else rasterio warns that there is none
            '<VRTRasterBand dataType="Byte" band="1"'
            f' subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="0">{escape(path)}</SourceFilename>'
            f"<ImageOffset>{offset}</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>{count}</LineOffset>"
            "</VRTRasterBand></VRTDataset>"
        )
        try:
            with DatasetReader(described, driver=["VRT"]) as raw:
                return bytes(raw.read(1).tobytes())
        except RasterioError:
            count //= 2
    return b""
