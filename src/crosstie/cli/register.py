"""`crosstie register`: two rasters."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from crosstie.cli.app import EXIT_UNRELIABLE, app, exit_codes
from crosstie.cli.options import ConfigOption, JsonOption, OutOption, WeightsOption, read_time
from crosstie.cli.printing import say, say_json
from crosstie.codes import Kind

if TYPE_CHECKING:
    from crosstie.flows.register import RegisterResult
    from crosstie.io.products.product import Product


KindOption = Annotated[
    Kind | None, typer.Option(help="Kind of sensor; detected if left out.", show_default=False)
]
MaskOption = Annotated[
    str | None,
    typer.Option(help="Pixels not to use: raster or GeoJSON.", metavar="FILE", show_default=False),
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
    reference_mask: MaskOption = None,
    secondary_mask: MaskOption = None,
    acquired: Annotated[
        str | None,
        typer.Option(
            help="When the secondary was acquired, for the STAC item: 2025-06-01, or with a time.",
            metavar="TIME",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Register a pair that is done already again, and replace its products."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Register two rasters, and write the correction, the tie points and a report.

    The rasters may differ in CRS, resolution and data type. S1 may be amplitude, power or dB, and may have
    ground control points only; S2 may be RGB or bands. Of a SAFE folder VH, or else HV or the only
    polarisation, or the true-colour image is read.

    A mask holds what you know to be useless in an image, such as clouds or open water: a geocoded raster,
    whose non-zero pixels are not used (except nodata), polygons as GeoJSON, or Sentinel-2's scene
    classification (a raster with SCL in its name), whose clouds and shadows are not used.

    If this pair was registered before with the same files, settings and weights, the stored result is
    printed and nothing is computed, unless --force is given. --json prints correction.json.

    [bold]Example:[/bold] crosstie register s2_tci.tif s1_vh.tif --out products
    """
    from crosstie.config import load_settings
    from crosstie.flows.register import committed, register
    from crosstie.flows.runs.progress import report_run_to, run_listener
    from crosstie.io.products.correction import correction_dict

    settings = load_settings(config, options={"weights": weights})
    about: dict[str, Any] = {
        "acquired": read_time("--acquired", acquired),
        "settings": settings,
        "reference_kind": reference_kind,
        "secondary_kind": secondary_kind,
        "reference_mask": reference_mask,
        "secondary_mask": secondary_mask,
    }
    done = None if force else committed(reference, secondary, out=out, **about)
    if done is not None:
        _tell_done(done, as_json=as_json)
        return
    with report_run_to(Console(stderr=True)):
        name = Path(secondary).name
        result = register(
            reference,
            secondary,
            out=out,
            force=force,
            **about,
            progress=functools.partial(run_listener().tiles, name),
            tell_phase=functools.partial(run_listener().phase, name),
        )
    if as_json:
        say_json(correction_dict(result.registration))
    else:
        _print_result(result)
    if result.verdict.reasons:
        raise typer.Exit(EXIT_UNRELIABLE)


def _tell_done(product: Product, *, as_json: bool) -> None:
    """Say what was committed before; the exit code is that of its verdict."""
    from crosstie.io.products.summary import rows

    if as_json:
        say_json(product.record)
    else:
        made = str(product.record["provenance"]["created_utc"])[:16].replace("T", " ")
        say(f"Already done on {made} UTC, with these settings and weights; --force does it again")
        for name, value in rows(product.record):
            say(f"  {name + ':':<27}{value}")
        for reason in product.verdict.reasons:
            say(f"  {reason.sentence}")
        say(f"  {'products:':<27}{product.url}")
        say(f"  {'report:':<27}{product.report}")
    if product.verdict.reasons:
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
