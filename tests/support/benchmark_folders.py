"""Benchmark sets in their published layouts, of textures that are shifted by a known number of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from crosstie.matcher.correlate import correlate
from crosstie.matcher.matching import Matches
from crosstie.types import Kind

Bytes = NDArray[np.uint8]


def textures(dx: int, dy: int, *, shape: tuple[int, int] = (256, 256), seed: int = 0) -> tuple[Bytes, Bytes]:
    """Two pictures: what the first shows at (x, y), the second shows at (x + dx, y + dy)."""
    rows, cols = shape
    land = gaussian_filter(np.random.default_rng(seed).normal(size=(rows + 100, cols + 100)), 2)
    land = np.clip(128 + 40 * (land - land.mean()) / land.std(), 1, 255).astype(np.uint8)
    moved = land[50 - dy : 50 - dy + rows, 50 - dx : 50 - dx + cols]
    return land[50 : 50 + rows, 50 : 50 + cols], moved


def save(path: Path, pixels: Bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_sen12(folder: Path, *, scenes: int = 4, patches: int = 2, shift: tuple[int, int] = (0, 0)) -> Path:
    for scene in range(1, scenes + 1):
        for patch in range(patches):
            optical, sar = textures(*shift, seed=100 * scene + patch)
            base = folder / "ROIs1158_spring"
            save(
                base / f"s2_{scene}" / f"ROIs1158_spring_s2_{scene}_p{patch + 9}.png",
                np.dstack([optical] * 3),
            )
            save(base / f"s1_{scene}" / f"ROIs1158_spring_s1_{scene}_p{patch + 9}.png", sar)
    return folder


def write_qxs(folder: Path, *, count: int) -> Path:
    for n in range(1, count + 1):
        optical, sar = textures(0, 0, shape=(128, 128), seed=n)
        save(folder / "opt_256_oc_0.2" / f"{n}.png", np.dstack([optical] * 3))
        save(folder / "sar_256_oc_0.2" / f"{n}.png", sar)
    return folder


def write_table(folder: Path, offsets: list[tuple[int, int]], *, shape: tuple[int, int] = (256, 256)) -> Path:
    lines = ["reference,secondary,dx_px,dy_px,place"]
    for n, (dx, dy) in enumerate(offsets):
        optical, sar = textures(dx, dy, shape=shape, seed=n)
        save(folder / "s2" / f"{n}.png", np.dstack([optical] * 3))
        save(folder / "s1" / f"{n}.png", sar)
        lines.append(f"s2/{n}.png,s1/{n}.png,{dx},{dy},place {n % 3}")
    table = folder / "pairs.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def write_scene(folder: Path, *, side: int = 448) -> Path:
    """One labelled scene whose offset grows from (2, -4) in the west to (6, -4) in the east: two halves."""
    folder.mkdir(parents=True)
    grid = Affine(10, 0, 500_000, 0, -10, 4_000_000)
    west_optical, west = textures(2, -4, shape=(side, side))
    _, east = textures(6, -4, shape=(side, side))
    nodes = np.arange(side // 32 + 1) * 32
    truth = np.empty((2, len(nodes), len(nodes)), np.float32)
    truth[0] = np.where(nodes < side // 2, 2, 6)
    truth[1] = -4
    truth[:, 0] = np.nan
    half = np.arange(side) < side // 2
    for name, bands, transform in (
        ("s1_vh", np.where(half, west, east)[None], grid),
        ("s2_tci", np.stack([west_optical] * 3), grid),
        ("truth_offsets", truth, grid @ Affine.scale(32) @ Affine.translation(-0.5, -0.5)),
    ):
        profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
        profile |= {"dtype": bands.dtype, "crs": "EPSG:3395", "transform": transform}
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
            file.write(bands)
    return folder


@dataclass(frozen=True)
class GreyMatcher:
    """Correlates grey values: right on textures that both images show alike, and needs no weights."""

    weights_sha256: str = "0" * 64
    halo_px: int = 16
    stuck: bool = False
    """Answers zero whatever it sees."""

    def match(
        self,
        reference: NDArray[np.float32],
        secondary: NDArray[np.float32],
        rows: NDArray[np.int64],
        cols: NDArray[np.int64],
        *,
        size_px: int,
        search_px: int,
        reference_kind: Kind,
        secondary_kind: Kind,
    ) -> Matches:
        assert reference.shape == secondary.shape
        found = np.zeros((len(rows), 2))
        for n, (row, col) in enumerate(zip(rows.tolist(), cols.tolist(), strict=True)):
            assert min(row, col) >= search_px
            assert row + size_px + search_px <= reference.shape[0]
            assert col + size_px + search_px <= reference.shape[1]
            template = reference[row : row + size_px, col : col + size_px]
            side = size_px + 2 * search_px
            window = secondary[row - search_px :, col - search_px :][:side, :side]
            if not self.stuck:
                images = [torch.from_numpy(np.nan_to_num(x))[None, None] for x in (template, window)]
                masks = [
                    torch.from_numpy(np.isfinite(x).astype(np.float32))[None, None]
                    for x in (template, window)
                ]
                surface = correlate(*images, *masks)[0].numpy()
                i, j = np.unravel_index(int(surface.argmax()), surface.shape)
                found[n] = j - search_px, i - search_px
        return Matches(found, np.full(len(rows), 0.1), np.full(len(rows), 0.95))

    def offset_probability(self, *arguments: object, **options: object) -> NDArray[np.float32]:
        raise NotImplementedError
