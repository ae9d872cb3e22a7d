"""Small pairs cut out of one real scene, each with a known error: as many as an archive has.

Nothing is resampled: the error is given to the geotransform of the SAR crop. What the two images of the scene
were off before (the rest) has been measured once over the whole scene; the middle of it is taken out of each
crop in the same way, and only places are used where the rest is about the same everywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from crosstie.errors import BadInputError
from crosstie.io.simulation.cog import JPEG, write_cog
from crosstie.io.simulation.items import PairOfItems, write_static_catalog

if TYPE_CHECKING:
    from crosstie.types import BoolArray, ByteArray, FloatArray, TiePoints

JPEG_LATTICE_PX = 16
"""Crops begin on the lattice of the JPEG cells of a true-colour image: compressing anew loses nothing."""

MARGIN_PX = 60
"""Tie points nearer to the edge of a crop are ignored: they describe ground outside it."""

MIN_SHARE = 0.9
"""Share of a place's tie points that must agree with the scene's correction."""

MAX_SPREAD_PX = 0.6
"""Of the rest within a place: robust standard deviation, both axes together."""

MIN_SHIFT_PX, MAX_SHIFT_PX = 1.5, 6.0
"""Length of the error, in any direction: never so small that no correction would be right."""

PLACE_TRIES = 200
"""Maximum number of places drawn for each one that is used."""

CROPS_A_ROW = 50
"""Crops in a row of the map. Each has a place of its own there, so none overlaps another's partner."""

GAP_PX = 64
"""Between the crops on the map."""

PER_DAY = 10
"""Crops acquired on one day."""

FIRST_CROP_UTC = datetime(2025, 1, 1, 10, 30, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class RealScene:
    """Two images of the same pixels, and what is known of how far one is off the other."""

    optical: ByteArray
    """(3, rows, cols)."""
    sar: ByteArray
    """(rows, cols), 0 is no data."""
    grid: GeoBox
    at_px: FloatArray
    """(N, 2) places (col, row) where the rest was measured."""
    rest_px: FloatArray
    """(N, 2) offset there (cols, rows): SAR minus optical. NaN where no measurement is to be trusted."""

    def rest(self, *, row: int, col: int, size_px: int) -> tuple[float, float] | None:
        """Middle of the rest in a window, px; None where it is not known well enough or is not even."""
        low, high = np.array([col, row]) + MARGIN_PX, np.array([col, row]) + size_px - MARGIN_PX
        here = self.rest_px[((self.at_px >= low) & (self.at_px <= high)).all(axis=1)]
        known = here[np.isfinite(here).all(axis=1)]
        if len(known) == 0 or len(known) < MIN_SHARE * len(here):
            return None
        middle = np.median(known, axis=0)
        spread = 1.4826 * np.median(np.abs(known - middle), axis=0)
        return None if np.hypot(*spread) > MAX_SPREAD_PX else (float(middle[0]), float(middle[1]))


def read_scene(optical: Path, sar: Path, points: TiePoints, used: BoolArray) -> RealScene:
    """Read a scene whose images lie on one grid, and the rest that `points` tell of.

    Parameters
    ----------
    points : TiePoints
        Of the whole scene, closely spaced.
    used : BoolArray
        (N,) which of them agree.

    Raises
    ------
    BadInputError
        The images are not uint8 RGB and uint8 amplitude on one grid.
    """
    with rasterio.open(optical) as a, rasterio.open(sar) as b:
        if (a.shape, a.transform, a.crs) != (b.shape, b.transform, b.crs):
            raise BadInputError(f"{sar}: must lie on the grid of {optical}, pixel on pixel")
        if a.dtypes != ("uint8",) * 3 or b.dtypes != ("uint8",):
            raise BadInputError(f"{optical}, {sar}: must be three bands and one band of uint8")
        grid = GeoBox(a.shape, a.transform, str(a.crs))
        bands, plane = a.read(), b.read(1)
    to_px = ~grid.affine
    at = np.column_stack(to_px @ tuple(points.xy_m.T))
    rest = np.where(used[:, None], points.offset_m / np.array([grid.affine.a, grid.affine.e]), np.nan)
    return RealScene(bands, plane, grid, at, rest)


def write_crops(
    folder: str | Path, scene: RealScene, *, scenes: int = 2000, size_px: int = 256, seed: int = 0
) -> Path:
    """Write a static STAC catalog of small real pairs, each with its own known shift.

    The shift is the item property `crosstie:true_affine` of the SAR item (its map coordinates -> true ones)
    and in `truth.json`, with the place in the scene and the rest that was taken out. Pairs have places on the
    map of their own, so that each scene has exactly one partner. The same seed gives the same pairs.

    Parameters
    ----------
    folder : str or Path
        Made where it is missing.
    scenes : int, optional
        Number of pairs.
    size_px : int, optional
        Rows and columns of every image.

    Returns
    -------
    Path
        Of `catalog.json`.

    Raises
    ------
    BadInputError
        The scene has too few places where the rest is known.
    """
    folder = Path(folder).resolve()
    rng = np.random.default_rng(seed)
    listed, truth = [], []
    for index in range(scenes):
        row, col, rest_px = _draw_place(rng, scene, size_px)
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(MIN_SHIFT_PX, MAX_SHIFT_PX)
        shift_px = length * np.cos(angle), length * np.sin(angle)
        pair = _write_crop(
            folder, scene, index, row=row, col=col, size_px=size_px, shift_px=shift_px, rest_px=rest_px
        )
        listed.append(pair)
        truth.append(
            {
                "reference": pair.reference_id,
                "secondary": pair.secondary_id,
                "crs": str(scene.grid.crs),
                "true_affine": list(pair.true_affine)[:6],
                "shift_m": [-pair.true_affine.c, -pair.true_affine.f],
                "pixel_m": [scene.grid.affine.a, -scene.grid.affine.e],
                "row": row,
                "col": col,
                "rest_px": list(rest_px),
            }
        )
    (folder / "truth.json").write_text(json.dumps({"seed": seed, "pairs": truth}, indent=1) + "\n")
    what = (
        "Crops of one real Sentinel-1 and Sentinel-2 scene, moved to places of their own, with known errors"
    )
    return write_static_catalog(folder, listed, description=what)


def _draw_place(
    rng: np.random.Generator, scene: RealScene, size_px: int
) -> tuple[int, int, tuple[float, float]]:
    most = (np.array(scene.grid.shape) - size_px) // JPEG_LATTICE_PX
    if most.min() < 0:
        raise BadInputError(f"crops of {size_px} px do not fit into a scene of {scene.grid.shape} px")
    for _ in range(PLACE_TRIES):
        row, col = (int(JPEG_LATTICE_PX * n) for n in rng.integers(0, most + 1))
        rest = scene.rest(row=row, col=col, size_px=size_px)
        if rest is not None:
            return row, col, rest
    raise BadInputError(
        f"at none of {PLACE_TRIES} places of {size_px} px is the offset between the two images known; take a"
        " scene that is better aligned, or larger crops"
    )


def _write_crop(
    folder: Path,
    scene: RealScene,
    index: int,
    *,
    row: int,
    col: int,
    size_px: int,
    shift_px: tuple[float, float],
    rest_px: tuple[float, float],
) -> PairOfItems:
    step = size_px + GAP_PX
    down, across = divmod(index, CROPS_A_ROW)
    home = scene.grid.affine @ Affine.translation(step * across, step * down)
    wrong = home @ Affine.translation(shift_px[0] - rest_px[0], shift_px[1] - rest_px[1])
    x, y = shift_px[0] * home.a, shift_px[1] * home.e
    place = folder / f"pair-{index:05d}"
    place.mkdir(parents=True, exist_ok=True)
    block_px = -(-size_px // JPEG_LATTICE_PX) * JPEG_LATTICE_PX  # one block: one request
    window = (slice(row, row + size_px), slice(col, col + size_px))
    pair = PairOfItems(
        name=f"{index:05d}",
        seen_utc=FIRST_CROP_UTC + timedelta(days=index // PER_DAY, minutes=index % PER_DAY),
        grid=GeoBox((size_px, size_px), home, scene.grid.crs),
        sar_transform=wrong,
        true_affine=Affine.translation(-x, -y),
        cloud_pct=0.0,
        optical=place / "s2_tci.tif",
        sar=place / "s1_vh.tif",
    )
    write_cog(pair.optical, scene.optical[:, *window], pair.grid, compression=JPEG, block_px=block_px)
    sar_grid = GeoBox(pair.grid.shape, wrong, pair.grid.crs)
    write_cog(pair.sar, scene.sar[None, *window], sar_grid, nodata=0, block_px=block_px)
    return pair
