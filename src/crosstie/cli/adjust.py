"""`crosstie adjust`: one position for each scene of an archive, from all its pairs together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from crosstie.cli.app import EXIT_UNRELIABLE, app, exit_codes
from crosstie.cli.options import ConfigOption, DryRunOption, JsonOption, OutOption
from crosstie.cli.printing import print_table, say_json, show_progress
from crosstie.flows.runs.in_words import counted

if TYPE_CHECKING:
    from crosstie.flows.archive.adjusting import PlaceOutcome

MOST_REJECTED = 20
"""Number of rejected pairs that are printed; `--json` has all of them."""


@app.command("adjust")
@exit_codes
def adjust_command(
    out: OutOption,
    datum: Annotated[
        str | None,
        typer.Option(
            help="Where position 0 lies: mean-s2 (the mean of a place's Sentinel-2 scenes), scene:ID, or "
            "held:FILE (scenes held fixed where a CSV table says: scene, dx_m, dy_m, perhaps place).",
            show_default=False,
        ),
    ] = None,
    place: Annotated[
        list[str] | None,
        typer.Option(help="Only this place; may be given again.", show_default=False),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Adjust all products as one network: one position for each scene, from all its pairs together.

    Reads the committed pairs of a product root and solves them place by place. Writes
    OUT/_adjusted/PLACE/scenes.parquet, with a STAC item a scene; the products of the pairs stay as they are.
    A place whose pairs have not changed is left as it is. Names the pairs that contradict the others. Exit
    code 3 if a place cannot be solved or a pair cannot be read.

    [bold]Example:[/bold] crosstie adjust --out products

    [bold]Example:[/bold] crosstie adjust --out s3://archive/products --place T31UFS --json
    """
    from crosstie.config import ComputeSettings, load_settings
    from crosstie.flows.archive.adjusting import adjust_archive
    from crosstie.flows.archive.solving import AdjustOptions
    from crosstie.flows.archive.workers import place_solver
    from crosstie.io.storage.store import open_store

    settings = load_settings(config, options={"adjust.datum": datum})
    options = AdjustOptions.of(settings.adjust)
    store = open_store(out, settings.storage)
    compute = ComputeSettings() if dry_run else settings.compute
    with show_progress(Console(stderr=True), "places") as progress, place_solver(compute) as solver:
        found = adjust_archive(
            store, options, only=place or (), dry_run=dry_run, progress=progress, solver=solver
        )
        places = list(found)
    if as_json:
        said = {"root": store.url, "datum": options.datum, "places": [one.as_dict() for one in places]}
        say_json(said)
    else:
        _print_places(places, store.url)
    if any(one.action == "failed" or one.problems for one in places):
        raise typer.Exit(EXIT_UNRELIABLE)


def _print_places(places: list[PlaceOutcome], root: str) -> None:
    if not places:
        typer.echo(f"{root} has no trusted pair yet, so there is nothing to adjust")
        return
    print_table([_place_row(place) for place in places])
    for place in places:
        for part in place.summary.get("parts", []):
            if not part["as_asked"]:
                typer.echo(f"{place.place}: {part['datum']}")
        affines = place.summary.get("affines", {})
        if affines.get("used"):
            scenes = counted(affines["scenes"], "scene")
            typer.echo(f"{place.place}: {scenes} with an affine. {affines['sentence']}")
        for sensor, told in place.summary.get("systematic", {}).items():
            for part in told["parts"]:
                if part["seen"]:
                    typer.echo(f"{place.place}, {sensor}: {part['sentence']}")
        for problem in place.problems:
            typer.echo(f"{place.place}: left out: {problem}", err=True)
    rejected = [(place.place, pair) for place in places for pair in place.rejected]
    if rejected:
        typer.echo(f"\nrejected pairs, which contradict the others: {len(rejected)}")
    for name, pair in rejected[:MOST_REJECTED]:
        off = "" if pair["off_m"] is None else f", off by {pair['off_m']:.1f} m"
        typer.echo(f"  {name}: {pair['pair_key']}{off}")
    if len(rejected) > MOST_REJECTED:
        typer.echo(f"  … and {len(rejected) - MOST_REJECTED} more; --json lists all")


def _place_row(place: PlaceOutcome) -> dict[str, str]:
    said = place.summary
    return {
        "place": place.place,
        "what": place.action,
        "scenes": str(said["placed"]) if said else "-",
        "untied": str(said["scenes"] - said["placed"]) if said else "-",
        "pairs": str(place.pairs),
        "rejected": str(len(place.rejected)) if said else "-",
        "residual_m": _median_m(said, "residual_m"),
        "sigma_m": _median_m(said, "sigma_m"),
    }


def _median_m(said: dict[str, dict[str, float] | None], name: str) -> str:
    of = said.get(name)
    return "-" if of is None else f"{of['median']:.2f}"
