"""`crosstie simulate`: scenes with known errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crosstie.cli.app import app, exit_codes
from crosstie.cli.printing import say
from crosstie.errors import BadInputError

DRAWN_PX, CROP_PX = 1024, 256
"""Sides of the images, px: drawn ones need room for clouds and rivers, crops must be quick to match."""

WHOLE_SCENE_SETTINGS = {"tiles.size_px": 128, "tiles.stride_px": 32, "tiles.coarse_max_offset_m": 0.0}
"""Settings to register the whole scene before crops are cut: the tiles of the crops, densely."""


@app.command("simulate")
@exit_codes
def simulate_command(
    folder: Annotated[Path, typer.Argument(help="Folder of the catalog; created if it is missing.")],
    scenes: Annotated[
        int, typer.Option(min=1, help="Number of pairs; of two or more drawn ones, the last is under cloud.")
    ] = 3,
    size_px: Annotated[
        int | None,
        typer.Option(
            min=64,
            help=f"Rows and columns of every image; by default {DRAWN_PX} for drawn ones, {CROP_PX} for "
            "crops.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pixels.")] = 0,
    real: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Cut the pairs out of a real, well aligned scene instead of drawing them: a folder with "
            "s2_tci.tif and s1_vh_refined.tif on one grid, or its parent folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a catalog of scenes with known errors, to try crosstie without any data.

    With --from the pixels are real. The scene is registered first, and the offset between its two images is
    removed from each crop. Each crop is then shifted by 1.5 to 6 px, and truth.json holds that shift.

    [bold]Example:[/bold] crosstie simulate demo; crosstie nightly --catalog demo/catalog.json --out products

    [bold]Example:[/bold] crosstie simulate many --from scenes/T14RNT-2048 --scenes 2000
    """
    from crosstie.io.simulation.pairs import write_simulated_catalog

    if real is None:
        catalog = write_simulated_catalog(folder, seed=seed, scenes=scenes, size_px=size_px or DRAWN_PX)
    else:
        catalog = _cut_pairs(folder, real, scenes=scenes, size_px=size_px or CROP_PX, seed=seed)
    say(str(catalog))


def _cut_pairs(folder: Path, real: Path, *, scenes: int, size_px: int, seed: int) -> Path:
    from crosstie.config import load_settings
    from crosstie.flows.register import register
    from crosstie.io.simulation.crops import read_scene, write_crops

    optical, sar = _find_scene(real)
    found = register(optical, sar, settings=load_settings(options=WHOLE_SCENE_SETTINGS)).registration
    scene = read_scene(optical, sar, found.points, found.estimate.used)
    return write_crops(folder, scene, scenes=scenes, size_px=size_px, seed=seed)


def _find_scene(folder: Path) -> tuple[Path, Path]:
    """Find the optical and the SAR image of the one scene in a folder."""
    found = [path for path in (folder, *sorted(folder.glob("*/"))) if (path / "s1_vh_refined.tif").is_file()]
    if len(found) != 1 or not (found[0] / "s2_tci.tif").is_file():
        raise BadInputError(
            f"--from {folder}: must hold s2_tci.tif and s1_vh_refined.tif, once; {len(found)} folders do"
        )
    return found[0] / "s2_tci.tif", found[0] / "s1_vh_refined.tif"
