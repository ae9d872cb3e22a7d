"""`crosstie simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crosstie.cli.app import app, exit_codes
from crosstie.errors import BadInputError

DRAWN_PX, CROP_PX = 1024, 256
"""Sides of the images: drawn ones have room for clouds and rivers, crops are to be quick."""

REST_SETTINGS = {"tiles.size_px": 128, "tiles.stride_px": 32, "tiles.coarse_max_offset_m": 0.0}
"""How the scene is measured before crops are cut: with the tiles that crops are matched with, closely."""


@app.command("simulate")
@exit_codes
def simulate_command(
    folder: Annotated[Path, typer.Argument(help="Where the catalog goes; made where missing.")],
    scenes: Annotated[
        int, typer.Option(min=1, help="Pairs; of two and more that are drawn the last is under cloud.")
    ] = 3,
    size_px: Annotated[
        int | None,
        typer.Option(
            min=64,
            help=f"Rows and columns of every image; {DRAWN_PX} where they are drawn, {CROP_PX} where they "
            "are cut out.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pixels.")] = 0,
    real: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Cut the pairs out of a real, well aligned scene instead of drawing them: a folder with "
            "s2_tci.tif and s1_vh_refined.tif on one grid, or one that holds such a folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a catalog of scenes whose error is known, to try things out without any data.

    With --from the pixels are real. The scene is registered first, and what its two images are off one
    another is taken out of each crop: the shift that each crop is then given (1.5 to 6 px, in truth.json)
    is its error.

    [bold]Example:[/bold] crosstie simulate demo; crosstie nightly --catalog demo/catalog.json --out products

    [bold]Example:[/bold] crosstie simulate many --from scenes/T14RNT-2048 --scenes 2000
    """
    from crosstie.io.simulation.pairs import write_simulated_catalog

    if real is None:
        catalog = write_simulated_catalog(folder, seed=seed, scenes=scenes, size_px=size_px or DRAWN_PX)
    else:
        catalog = _cut(folder, real, scenes=scenes, size_px=size_px or CROP_PX, seed=seed)
    typer.echo(catalog)


def _cut(folder: Path, real: Path, *, scenes: int, size_px: int, seed: int) -> Path:
    from crosstie.config import load_settings
    from crosstie.flows.register import register
    from crosstie.io.simulation.crops import read_scene, write_crops

    optical, sar = _scene(real)
    found = register(optical, sar, settings=load_settings(options=REST_SETTINGS)).registration
    scene = read_scene(optical, sar, found.points, found.estimate.used)
    return write_crops(folder, scene, scenes=scenes, size_px=size_px, seed=seed)


def _scene(folder: Path) -> tuple[Path, Path]:
    """Optical and SAR image of the one scene in a folder."""
    found = [path for path in (folder, *sorted(folder.glob("*/"))) if (path / "s1_vh_refined.tif").is_file()]
    if len(found) != 1 or not (found[0] / "s2_tci.tif").is_file():
        raise BadInputError(
            f"--from {folder}: must hold s2_tci.tif and s1_vh_refined.tif, once; {len(found)} folders do"
        )
    return found[0] / "s2_tci.tif", found[0] / "s1_vh_refined.tif"
