"""`crosstie apply`: the pixels of a secondary scene, aligned with the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from crosstie.cli.app import EXIT_UNRELIABLE, app, exit_codes
from crosstie.cli.options import ConfigOption, read_time
from crosstie.cli.printing import say, show_progress
from crosstie.codes import Kernel, ModelChoice, VerdictCode
from crosstie.errors import BadInputError

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.flows.apply import AppliedFile, ApplyOptions


@app.command("apply")
@exit_codes
def apply_command(
    product: Annotated[
        str,
        typer.Argument(
            help="Product: its folder ROOT/PAIR/RUN, or its correction.json. With --all: the product root."
        ),
    ],
    rasters: Annotated[
        list[str] | None,
        typer.Argument(
            help="Rasters of the same scene to align (another polarisation, the incidence angle, a mask) "
            "instead of the one that was measured.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", help="File (.tif) or folder to write; a path or s3://…. With --all: a folder."
        ),
    ] = "aligned.tif",
    model: Annotated[
        ModelChoice,
        typer.Option(help="auto: the displacement field where one is offered, else the affine, else none."),
    ] = ModelChoice.AUTO,
    like: Annotated[
        str | None,
        typer.Option(help="Raster whose grid to use, instead of the reference's.", show_default=False),
    ] = None,
    resampling: Annotated[
        Kernel,
        typer.Option(metavar="KERNEL", help="cubic, lanczos, bilinear; nearest for masks and classes."),
    ] = Kernel.CUBIC,
    source_item: Annotated[
        str | None,
        typer.Option(
            help="STAC item of the secondary scene: its time and view:*, sar:*, sat:* are taken over.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Apply the latest correction of each pair in the index of a root.")
    ] = False,
    verdict: Annotated[
        list[VerdictCode] | None,
        typer.Option(
            help="With --all: only pairs of this verdict (corrected, already_aligned, unreliable); may be "
            "given again. Without: all but unreliable.",
            metavar="VERDICT",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="With --all: only corrections made since 2025-06-01, or with a time.", show_default=False
        ),
    ] = None,
    adjusted: Annotated[
        bool,
        typer.Option(
            "--adjusted",
            help="Place the secondary where all its pairs together say (crosstie adjust), not this one.",
        ),
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Align the pixels of a secondary scene with the reference, by its displacement field, else its affine.

    Writes a COG on the reference's grid, and a STAC item beside it.

    Applies all that the verdict allows, and says what: the displacement field, else the affine, else nothing
    (a copy on the grid). Each pixel is interpolated once. Exit code 3 if a pair is unreliable, or with --all
    if one cannot be applied. --all goes on where it was stopped.

    A product root may be shared: rasters that a product names are opened as those of a catalog are. If one is
    refused or gone, name it yourself: the secondary as a raster, the reference by --like.

    [bold]Example:[/bold] crosstie apply products/PAIR/RUN --out aligned.tif

    [bold]Example:[/bold] crosstie apply products/PAIR/RUN s1_vv.tif s1_angle.tif --out aligned/

    [bold]Example:[/bold] crosstie apply products --all --out aligned --since 2025-06-01

    [bold]Example:[/bold] crosstie apply products --all --adjusted --out stack
    """
    from crosstie.config import load_settings
    from crosstie.flows.apply import ApplyOptions, apply
    from crosstie.flows.heap import return_freed_memory

    return_freed_memory()
    settings = load_settings(config)
    if every:
        if rasters or source_item:
            raise BadInputError("--all applies each pair to its own secondary; leave rasters and items out")
        options = ApplyOptions(model, resampling, like, adjusted)
        verdicts = [name.value for name in verdict or (VerdictCode.CORRECTED, VerdictCode.ALREADY_ALIGNED)]
        _apply_all(product, out, options, verdicts, since, settings)
        return
    if verdict or since:
        raise BadInputError("--verdict and --since choose pairs of an index; give --all, too")
    with show_progress(Console(stderr=True), "blocks") as progress:
        files = apply(
            product,
            out,
            *(rasters or ()),
            model=model,
            like=like,
            resampling=resampling,
            source_item=source_item,
            adjusted=adjusted,
            settings=settings,
            progress=lambda done, total: progress(product, done, total),
        )
    for file in files:
        say(file.sentence())
    if any(file.verdict.reasons for file in files):
        raise typer.Exit(EXIT_UNRELIABLE)


def _apply_all(
    root: str,
    out: str,
    options: ApplyOptions,
    verdicts: list[str],
    since: str | None,
    settings: Settings,
) -> None:
    from crosstie.flows.apply import apply_all

    if out.lower().endswith((".tif", ".tiff")):
        raise BadInputError("--all writes one file a pair; name a folder by --out")
    written: list[AppliedFile] = []
    problems = 0
    with show_progress(Console(stderr=True), "blocks") as progress:
        results = apply_all(
            root,
            out,
            options=options,
            verdicts=verdicts,
            since=read_time("--since", since),
            settings=settings,
            progress=progress,
        )
        for result in results:
            if isinstance(result, str):
                problems += 1
                say(f"not applied: {result}", err=True)
            else:
                written.append(result)
                say(result.sentence())
    before = sum(not file.is_new for file in written)
    say(f"{len(written)} aligned ({before} of them were there already), {problems} could not be applied")
    if problems or any(file.verdict.reasons for file in written):
        raise typer.Exit(EXIT_UNRELIABLE)
