"""A catalog of simulated pairs whose true correction is known: for demos, benchmarks and tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy.ndimage import gaussian_filter

from crosstie.io.simulation.cog import write_cog
from crosstie.io.simulation.items import PairOfItems, write_static_catalog
from crosstie.io.simulation.landscape import PIXEL_M, Land, Noise, draw_land

if TYPE_CHECKING:
    from crosstie.types import BoolArray, ByteArray, FloatArray

PLACES = ((32632, 690_000, 5_330_000), (32614, 540_000, 3_330_000), (32643, 610_000, 3_420_000))
"""EPSG code, easting and northing of the upper left corners."""

MAX_SHIFT_M, MAX_ROTATION_DEG, MAX_SCALE = 60.0, 0.05, 0.0005

LOOKS = (1.0, 1.0, 1.0, 1.0, 0.22)
"""Weights of the looks: their sum has the speckle of 4.4 looks, as a ground-range product."""

DN_AT_MINUS_15_DB = 158.0
"""Stretch of the simulated amplitude, that of the VH quicklooks it imitates."""

CLEAR_SHARE = 0.06
"""Share of the clouded scene without cloud: too little to trust a correction."""

CLOUD_DN = 268.0
"""Brightness of thick cloud before it is clipped: a true-colour product saturates well below cloud."""

BLOCK_ROWS = 256
"""Rows drawn at a time: limits the memory, changes no pixel."""

FIRST_PAIR_UTC = datetime(2025, 6, 4, 10, 30, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TrueError:
    """The geolocation error given to one secondary."""

    shift_m: tuple[float, float]
    """Offset (secondary minus reference) at the middle of the scene, metres."""
    rotation_deg: float
    scale: float
    """Relative: 0.0005 makes the scene 0.05 % too large."""

    def affine(self, centre_m: tuple[float, float]) -> Affine:
        """Map coordinates of the secondary -> true map coordinates, about the middle of the scene."""
        x, y = centre_m
        wrong: Affine = (
            Affine.translation(x + self.shift_m[0], y + self.shift_m[1])
            @ Affine.rotation(self.rotation_deg)
            @ Affine.scale(1 + self.scale)
            @ Affine.translation(-x, -y)
        )
        right: Affine = ~wrong
        return right


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedPair:
    """One place, seen by both sensors."""

    grid: GeoBox
    land: Land
    error: TrueError
    optical: ByteArray
    """(3, rows, cols) uint8."""
    optical_valid: BoolArray
    """(rows, cols); False where the swath ends."""
    sar: ByteArray
    """(rows, cols) uint8 amplitude, 0 is no data; drawn with the error."""
    cloud_pct: float

    @property
    def true_affine(self) -> Affine:
        """Map coordinates of the secondary -> true map coordinates: the correction to be found."""
        return self.error.affine(_centre_m(self.grid))


def write_simulated_catalog(
    folder: str | Path, *, seed: int = 0, scenes: int = 3, size_px: int = 1024
) -> Path:
    """Write a static STAC catalog of simulated Sentinel-1 and Sentinel-2 pairs with known errors.

    Every Sentinel-1 scene is misplaced by its own affine (shift up to 60 m, rotation up to 0.05 degree, scale
    up to 0.05 %), kept as the item property `crosstie:true_affine` (map coordinates of the secondary -> true
    ones, rasterio's order) and in `truth.json`. Of two scenes and more the last is under cloud, and should be
    refused. The same seed gives the same pixels.

    Parameters
    ----------
    folder : str or Path
        Made where it is missing.
    scenes : int, optional
        Number of pairs.
    size_px : int, optional
        Rows and columns of every image, 10 m pixels.

    Returns
    -------
    Path
        Of `catalog.json`.
    """
    if scenes < 1 or size_px < 64:
        raise ValueError(f"needs at least 1 scene of 64 px, got {scenes} of {size_px} px")
    folder = Path(folder).resolve()
    listed: list[PairOfItems] = []
    truth = []
    for index in range(scenes):
        pair = simulate_pair(seed, index, size_px=size_px, clouded=scenes > 1 and index == scenes - 1)
        place = folder / f"place-{index:03d}"
        place.mkdir(parents=True, exist_ok=True)
        about = PairOfItems(
            name=f"{index:03d}",
            seen_utc=FIRST_PAIR_UTC + timedelta(days=5 * index),
            grid=pair.grid,
            sar_transform=pair.grid.affine,
            true_affine=pair.true_affine,
            cloud_pct=pair.cloud_pct,
            optical=place / "s2_tci.tif",
            sar=place / "s1_vh.tif",
        )
        listed.append(about)
        write_cog(about.optical, pair.optical, pair.grid, valid=pair.optical_valid)
        write_cog(about.sar, pair.sar[None], pair.grid, nodata=0)
        truth.append(
            {
                "reference": about.reference_id,
                "secondary": about.secondary_id,
                "crs": str(pair.grid.crs),
                "true_affine": list(pair.true_affine)[:6],
                "shift_m": list(pair.error.shift_m),
                "rotation_deg": pair.error.rotation_deg,
                "scale": pair.error.scale,
                "cloud_pct": pair.cloud_pct,
            }
        )
    (folder / "truth.json").write_text(json.dumps({"seed": seed, "pairs": truth}, indent=2) + "\n")
    what = "Simulated Sentinel-1 and Sentinel-2 pairs with known errors; no real imagery"
    return write_static_catalog(folder, listed, description=what)


def simulate_pair(
    seed: int, index: int, *, size_px: int, clouded: bool = False, error: TrueError | None = None
) -> SimulatedPair:
    """Draw the pair of place `index`: both images on one grid, the SAR with `error` (None: a drawn one)."""
    land_rng, error_rng, sensor_rng = (np.random.default_rng([seed, index, part]) for part in range(3))
    grid = _place_grid(index, size_px)
    land = draw_land(land_rng, size_m=size_px * PIXEL_M)
    error = error or _draw_error(error_rng)
    valid = _swath(size_px, cut=0.2 if index == 0 else 0.0)
    optical, cloud_pct = _optical_image(
        sensor_rng, _render(grid, Affine.identity(), land.optical), clouded=clouded
    )
    return SimulatedPair(
        grid=grid,
        land=land,
        error=error,
        optical=np.where(valid, optical, np.uint8(0)),
        optical_valid=valid,
        sar=_sar_image(sensor_rng, _render(grid, error.affine(_centre_m(grid)), land.sar_db)),
        cloud_pct=cloud_pct,
    )


def _draw_error(rng: np.random.Generator) -> TrueError:
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.0) * MAX_SHIFT_M
    return TrueError(
        shift_m=(float(length * np.cos(angle)), float(length * np.sin(angle))),
        rotation_deg=float(rng.uniform(-1, 1) * MAX_ROTATION_DEG),
        scale=float(rng.uniform(-1, 1) * MAX_SCALE),
    )


def _place_grid(index: int, size_px: int) -> GeoBox:
    epsg, east, north = PLACES[index % len(PLACES)]
    north += 200_000 * (index // len(PLACES))
    return GeoBox((size_px, size_px), Affine(PIXEL_M, 0, east, 0, -PIXEL_M, north), f"EPSG:{epsg}")


def _centre_m(grid: GeoBox) -> tuple[float, float]:
    x, y = grid.affine @ (grid.shape[1] / 2, grid.shape[0] / 2)
    return float(x), float(y)


def _render(
    grid: GeoBox, true_affine: Affine, look: Callable[[FloatArray, FloatArray], FloatArray]
) -> FloatArray:
    """Look at the land where each pixel of `grid` truly lies: (..., rows, cols)."""
    rows, cols = grid.shape
    from_corner = Affine.translation(-grid.affine.c, -grid.affine.f + rows * PIXEL_M)
    to_land = from_corner @ true_affine @ grid.affine
    blocks = []
    for first in range(0, rows, BLOCK_ROWS):
        row, col = np.mgrid[first : min(first + BLOCK_ROWS, rows), 0:cols] + 0.5
        x = to_land.a * col + to_land.b * row + to_land.c
        y = to_land.d * col + to_land.e * row + to_land.f
        seen = look(x.ravel(), y.ravel())
        blocks.append(seen.reshape(*seen.shape[:-1], *row.shape))
    return np.concatenate(blocks, axis=-2)


def _optical_image(rng: np.random.Generator, colour: FloatArray, *, clouded: bool) -> tuple[ByteArray, float]:
    """Add the sensor's blur, clouds, haze and noise: (3, rows, cols) uint8 and the cloud cover, %."""
    seen = gaussian_filter(colour, (0, 0.5, 0.5))
    cover = np.zeros(colour.shape[1:])
    if clouded:
        length_m = colour.shape[1] * PIXEL_M
        row, col = (PIXEL_M * (np.mgrid[0 : colour.shape[1], 0 : colour.shape[2]] + 0.5)).reshape(2, -1)
        thick, fleecy = (
            Noise.draw(rng, length_m=length_m, step_m=40.0, slope=slope).at(col, row).reshape(cover.shape)
            for slope in (1.9, 1.3)
        )
        height = thick + 0.25 * fleecy
        cover = np.clip((height - np.quantile(height, CLEAR_SHARE)) / 0.5 + 0.5, 0, 1)
        seen += cover * (CLOUD_DN + 16 * fleecy - seen)
    seen = seen + np.array([2.0, 8.0, 20.0])[:, None, None] + rng.normal(0, 1.5, seen.shape)
    return np.clip(np.rint(seen), 1, 255).astype(np.uint8), float(100 * (cover > 0.5).mean())


def _sar_image(rng: np.random.Generator, sigma_db: FloatArray) -> ByteArray:
    """Add the sensor's blur and correlated speckle: (rows, cols) uint8 amplitude, 1..255."""
    power = gaussian_filter(10 ** (sigma_db / 10), 0.6)
    speckle = np.zeros_like(power)
    for weight in LOOKS:
        for _ in "re", "im":
            # a resolution cell is wider than a pixel, so neighbours share their speckle
            part = gaussian_filter(rng.standard_normal(power.shape), 1.0, mode="wrap")
            speckle += weight * part**2 / part.var()
    speckle /= 2 * sum(LOOKS)
    amplitude = DN_AT_MINUS_15_DB * np.sqrt(power * speckle / 10**-1.5)
    image: ByteArray = np.clip(np.rint(amplitude), 1, 255).astype(np.uint8)
    return image


def _swath(size_px: int, *, cut: float) -> BoolArray:
    """Valid pixels: all but a triangle of `cut` times the side in the upper right corner."""
    row, col = np.mgrid[0:size_px, 0:size_px] + 0.5
    valid: BoolArray = (size_px - col) + row >= cut * size_px
    return valid
