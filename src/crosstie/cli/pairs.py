"""`crosstie pairs`: a dry run over a catalog."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosstie.cli.app import app, exit_codes
from crosstie.cli.options import CatalogOption, JsonOption, LimitOption, Search, search_options
from crosstie.cli.plan import (
    PairsFormat,
    geojson,
    nothing_there,
    plan_json,
    prepare_file,
    text_table,
    write_parquet,
)
from crosstie.cli.printing import say_json
from crosstie.errors import SettingsError
from crosstie.flows.runs.in_words import counted
from crosstie.io.storage.href import public_href
from crosstie.io.storage.redaction import printable

if TYPE_CHECKING:
    from crosstie.io.pairing.pair_scenes import PairPlan


MOST_NAMED = 20
"""Up to this number, the scenes left out are named without --left-out."""


@app.command("pairs")
@exit_codes
@search_options()
def pairs_command(
    search: Search,
    catalog: CatalogOption,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Product root: also show which pairs are done.", show_default=False),
    ] = None,
    limit: LimitOption = None,
    form: Annotated[
        PairsFormat,
        typer.Option("--format", metavar="FORM", help="table, geojson or geoparquet."),
    ] = PairsFormat.TABLE,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Write the plan to this file instead of printing it; geoparquet requires it, and writes the "
            "scenes left out to a second file, NAME.left_out.parquet.",
            show_default=False,
        ),
    ] = None,
    left_out: Annotated[bool, typer.Option("--left-out", help="Name all scenes left out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the pairs that a run would register, and why other scenes are left out. Computes nothing.

    The catalog may be a STAC API, a static catalog or a stac-geoparquet file; all give the same pairs.

    [bold]Example:[/bold] crosstie pairs --catalog catalog.json --max-days 10 --format geojson > pairs.geojson

    [bold]Example:[/bold] crosstie pairs --catalog archive.parquet --start 2025-06-01 --end 2025-06-30
    --area area.geojson --orbit descending --format geoparquet --to plan.parquet
    """
    from crosstie.flows.discovery.pairs import done_keys, find_plan

    begin = time.monotonic()
    if form is PairsFormat.GEOPARQUET and to is None:
        raise SettingsError("--format geoparquet: needs a file, --to plan.parquet")
    if as_json and (form is not PairsFormat.TABLE or to is not None):
        raise SettingsError("--json prints a plan of its own; leave --format and --to out")
    settings = search.settings()
    plan = find_plan(catalog, settings).first(limit)
    done = done_keys(plan.pairs, out, settings) if out is not None else None
    if as_json:
        say_json(plan_json(plan, done, catalog=public_href(catalog)))
        return
    written = _output(plan, done, form, to)
    summary = sys.stderr if form is not PairsFormat.TABLE and to is None else sys.stdout
    named = left_out or len(plan.left_out) <= MOST_NAMED
    lines = [f"left out: {o.scene}: {o.why}" for o in plan.left_out] if named else []
    lines += [f"{count:>7} left out: {rule}" for rule, count in plan.by_rule()]
    to_do = len(plan.pairs) - (len(done) if done else 0)
    seconds = time.monotonic() - begin
    if not (plan.pairs or plan.left_out):
        lines.append(nothing_there(settings))
    lines.append(
        f"{counted(len(plan.pairs), 'pair')}, {to_do} to do; {counted(len(plan.left_out), 'scene')} left out"
        f"{'' if named else ' (--left-out names them)'}; planned in {seconds:.1f} s"
    )
    lines += [f"written: {path}" for path in written]
    summary.write("\n".join(map(printable, lines)) + "\n")


def _output(plan: PairPlan, done: set[str] | None, form: PairsFormat, to: Path | None) -> list[Path]:
    """Print the plan, or write it to files and return their paths."""
    if form is PairsFormat.GEOPARQUET and to is not None:
        return write_parquet(plan, done, to)
    text = geojson(plan, done) if form is PairsFormat.GEOJSON else text_table(plan.pairs, plan.overlap, done)
    if to is None:
        sys.stdout.write(text)
        return []
    prepare_file(to)
    to.write_text(text, encoding="utf-8")
    return [to]
