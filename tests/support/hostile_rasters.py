"""Rasters that lead on to other files, or fill memory: what a catalog of a stranger may name."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine

PLACE = Affine(10, 0, 600_000, 0, -10, 3_300_000)
CRS = "EPSG:32614"
SHAPE = (640, 640)
SECRET = 231
"""The value of every pixel of the secret; honest files hold 7 and 8."""


def write(path: Path, values: np.ndarray | None = None, *, driver: str = "GTiff", **profile) -> Path:
    """Write a raster of 7 and 8 by default; JPEG 2000 without a loss and with its metadata."""
    if values is None:
        values = (7 + np.indices(SHAPE).sum(axis=0) % 2).astype(np.uint8)
    tags = profile.pop("tags", {})
    if driver == "JP2OpenJPEG":
        profile |= {"QUALITY": "100", "REVERSIBLE": "YES", "WRITE_METADATA": "YES"}
    profile = {"crs": CRS, "transform": PLACE} | profile
    with rasterio.open(
        path, "w", driver=driver, height=values.shape[0], width=values.shape[1], count=1,
        dtype=values.dtype, **profile,
    ) as raster:  # fmt: skip
        raster.write(values, 1)
        for domain, items in tags.items():
            raster.update_tags(ns=domain, **items)
    return path


def secret(folder: Path, shape: tuple[int, int] = (160, 160)) -> Path:
    """A file that no catalog may lead to."""
    folder.mkdir(parents=True, exist_ok=True)
    return write(folder / "secret.tif", np.full(shape, SECRET, np.uint8))


def vrt_of(target: str, shape: tuple[int, int] = (160, 160)) -> str:
    rows, cols = shape
    return (
        f'<VRTDataset rasterXSize="{cols}" rasterYSize="{rows}"><VRTRasterBand dataType="Byte" band="1">'
        f'<SimpleSource><SourceFilename relativeToVRT="0">{target}</SourceFilename><SourceBand>1</SourceBand>'
        f"</SimpleSource></VRTRasterBand></VRTDataset>"
    )


SIDES = {"tif": ("GTiff", "tfw"), "jp2": ("JP2OpenJPEG", "j2w")}


def with_side_file(folder: Path, kind: str, side: str, target: Path) -> Path:
    """An honest file, and beside it one that is not."""
    driver, world = SIDES[kind]
    profile = {} if kind == "jp2" or "w" not in side else {"crs": None, "transform": None}
    path = write(folder / f"scene.{kind}", driver=driver, **profile)
    beside = Path(f"{path}{side}")
    if side == ".ovr":
        shutil.copy(target, beside)
    elif side == ".vrt.ovr":
        Path(f"{path}.ovr").write_text(vrt_of(str(target)))
    elif side == ".aux":
        rasterio.shutil.copy(target, path.with_suffix(".aux"), driver="HFA", DEPENDENT_FILE=path.name)
    elif side == ".aux.xml":
        beside.write_text(
            "<PAMDataset><SRS>EPSG:3857</SRS><GeoTransform>1,2,0,3,0,-2</GeoTransform>"
            f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{target}</MDI></Metadata></PAMDataset>'
        )
    elif side == ".msk":
        with rasterio.open(
            beside, "w", driver="GTiff", height=SHAPE[0], width=SHAPE[1], count=1, dtype="uint8"
        ) as mask:
            mask.write(np.zeros((1, *SHAPE), np.uint8))
            mask.update_tags(INTERNAL_MASK_FLAGS_1="2")
    elif side == ".vrt.msk":
        Path(f"{path}.msk").write_text(
            vrt_of(str(target), SHAPE).replace(
                "<VRTRasterBand",
                '<Metadata><MDI key="INTERNAL_MASK_FLAGS_1">2</MDI></Metadata><VRTRasterBand',
                1,
            )
        )
    elif side == "world":
        path.with_suffix(f".{world}").write_text("2\n0\n0\n-2\n1\n3\n")
    return path


def directory(
    cols: int,
    rows: int,
    *,
    tile: int = 0,
    strip: int = 0,
    role: int = 0,
    bits: int = 8,
    bands: int = 1,
    packed: bool = False,
) -> dict[int, tuple[str, list[int]]]:
    """Tags of one image of a TIFF, sparse: nothing but the header is there. `role` 1: overview, 4: mask."""
    many = bands if bands < 100 else 1
    tags = {
        254: ("I", [role]), 256: ("I", [cols]), 257: ("I", [rows]), 258: ("H", [bits] * many),
        259: ("H", [32773 if packed else 1]), 262: ("H", [4 if role & 4 else 1]), 277: ("H", [bands]),
        284: ("H", [1]),
    }  # fmt: skip
    if tile:
        return tags | {322: ("I", [tile]), 323: ("I", [tile]), 324: ("I", [0]), 325: ("I", [0])}
    return tags | {273: ("I", [0]), 278: ("I", [strip or rows]), 279: ("I", [0])}


def place_tags() -> dict[int, tuple[str, list[int] | list[float]]]:
    keys = [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32614]
    return {
        33550: ("d", [10.0, 10.0, 0.0]),
        33922: ("d", [0.0, 0.0, 0.0, 600_000.0, 3_300_000.0, 0.0]),
        34735: ("H", keys),
    }


def tiff(path: Path, images: list[dict], *, nested: bool = False) -> Path:
    """Write a TIFF of these directories, one after the other, or those after the first inside it (SubIFD)."""
    out = bytearray(b"II*\0\0\0\0\0")

    def put(tags: dict) -> tuple[int, int]:
        entries = b""
        for tag, (code, values) in sorted(tags.items()):
            data = struct.pack(f"<{len(values)}{code}", *values)
            if len(data) > 4:
                data, at = b"", len(out)
                out.extend(struct.pack(f"<{len(values)}{code}", *values))
                data = struct.pack("<I", at)
            entries += struct.pack("<HHI", tag, {"H": 3, "I": 4, "d": 12}[code], len(values)) + data.ljust(
                4, b"\0"
            )
        at = len(out)
        out.extend(struct.pack("<H", len(tags)) + entries + b"\0" * 4)
        return at, len(out) - 4

    first, *others = images
    first = first | place_tags()
    link = 4
    if nested:
        first = first | {330: ("I", [put(tags)[0] for tags in others])}
        others = []
    for tags in [first, *others]:
        at, following = put(tags)
        struct.pack_into("<I", out, link, at)
        link = following
    path.write_bytes(out)
    return path


def claiming(path: Path, honest: Path, *, size: int, tile: int, code_block: int | None = None) -> Path:
    """A JPEG 2000 file that claims another size and other tiles than it has."""
    body = bytearray(honest.read_bytes())
    start = body.find(b"\xff\x4f\xff\x51")
    struct.pack_into(">II", body, start + 8, size, size)
    struct.pack_into(">II", body, start + 24, tile, tile)
    struct.pack_into(">II", body, body.find(b"ihdr") + 4, size, size)
    if code_block is not None:
        at = body.find(b"\xff\x52", start)
        body[at + 10 : at + 12] = bytes([code_block, code_block])
    path.write_bytes(body)
    return path
