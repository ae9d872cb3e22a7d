"""`crosstie register`: two rasters."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from crosstie.cli.app import EXIT_UNRELIABLE, app, exit_codes
from crosstie.cli.options import ConfigOption, OutOption, WeightsOption, read_time
from crosstie.cli.printing import say, say_json
from crosstie.codes import Kind

if TYPE_CHECKING:
    from crosstie.flows.register import RegisterResult


KindOption = Annotated[
    Kind | None, typer.Option(help="Kind of sensor; detected if left out.", show_default=False)
]


@app.command("register")
@exit_codes
def register_command(
    reference: Annotated[str, typer.Argument(help="Raster that stays, usually Sentinel-2.")],
    secondary: Annotated[str, typer.Argument(help="Raster that is corrected, usually Sentinel-1.")],
    out: OutOption = "crosstie-products",
    config: ConfigOption = None,
    reference_kind: KindOption = None,
    secondary_kind: KindOption = None,
    weights: WeightsOption = None,
    acquired: Annotated[
        str | None,
        typer.Option(
            help="When the secondary was acquired, for the STAC item: 2025-06-01, or with a time.",
            metavar="TIME",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print correction.json instead of a summary.")
    ] = False,
) -> None:
    """Register two rasters, and write the correction, the tie points and a report.

    The rasters may differ in CRS, resolution and data type. S1 may be amplitude, power or dB, and may have
    ground control points only; S2 may be RGB or bands.

    [bold]Example:[/bold] crosstie register s2_tci.tif s1_vh.tif --out products
    """
    from crosstie.config import load_settings
    from crosstie.flows.register import register
    from crosstie.flows.runs.progress import report_run_to, run_listener
    from crosstie.io.products.correction import correction_dict

    settings = load_settings(config, options={"weights": weights})
    with report_run_to(Console(stderr=True)):
        name = Path(secondary).name
        result = register(
            reference,
            secondary,
            out=out,
            acquired=read_time("--acquired", acquired),
            settings=settings,
            reference_kind=reference_kind,
            secondary_kind=secondary_kind,
            progress=functools.partial(run_listener().tiles, name),
        )
    if as_json:
        say_json(correction_dict(result.registration))
    else:
        _print_result(result)
    if result.verdict.reasons:
        raise typer.Exit(EXIT_UNRELIABLE)


def _print_result(result: RegisterResult) -> None:
    from crosstie.ground import ground_frame
    from crosstie.io.products.text import figures, headline, sentences

    registration = result.registration
    say(headline(registration))
    for sentence in sentences(registration):
        say(f"  {sentence}")
    rows = [row for row in figures(registration) if row[0] != "Made by"]
    if registration.grid is not None and registration.estimate.used.any():
        x_m, y_m = registration.estimate.median_offset_m
        a, on_ground = registration.grid.affine, ground_frame(registration.grid).scale
        pixels = f"{x_m / a.a:+.2f} columns, {y_m / a.e:+.2f} rows of {a.a * on_ground:.3g} m"
        rows.append(("Median offset, px", pixels))
    for name, value in rows:
        say(f"  {name + ':':<27}{value}")
    if result.verdict.reasons:
        say(f"  {'Reasons:':<27}{', '.join(result.verdict.reasons)}")
    if result.products is not None:
        say(f"  {'Products:':<27}{result.products}")
        say(f"  {'Report:':<27}{result.products}/report.html")
