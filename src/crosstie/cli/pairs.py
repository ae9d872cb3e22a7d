"""`crosstie pairs`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from crosstie.cli.app import app, told
from crosstie.cli.options import (
    BboxOption,
    CatalogOption,
    ConfigOption,
    EndOption,
    LimitOption,
    MaxCloudOption,
    MaxDaysOption,
    StartOption,
    search_settings,
)
from crosstie.cli.printing import print_table

if TYPE_CHECKING:
    from crosstie.io.pairing import PairPlan


class PairsFormat(StrEnum):
    """How `crosstie pairs` prints."""

    TABLE = "table"
    GEOJSON = "geojson"


@app.command("pairs")
@told
def pairs_command(
    catalog: CatalogOption,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Products: says which pairs are done.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    start: StartOption = None,
    end: EndOption = None,
    bbox: BboxOption = None,
    max_days: MaxDaysOption = None,
    max_cloud: MaxCloudOption = None,
    limit: LimitOption = None,
    form: Annotated[PairsFormat, typer.Option("--format", help="How to print.")] = PairsFormat.TABLE,
) -> None:
    """Show what would be done, and which scenes are left out and why. Computes nothing.

    [bold]Example:[/bold] crosstie pairs --catalog catalog.json --max-days 10 --format geojson > pairs.geojson
    """
    from crosstie.flows.plan_pairs import done_keys
    from crosstie.io.catalog import find_scenes
    from crosstie.io.pairing import PairPlan, pair_scenes

    settings = search_settings(config, start, end, bbox, max_days, max_cloud)
    plan = pair_scenes(find_scenes(catalog, settings.catalogue), settings.pairing)
    plan = PairPlan(plan.pairs[:limit], plan.left_out)
    done = done_keys(plan.pairs, out, settings) if out is not None else None
    _print_pairs(plan, done, form)


def _print_pairs(plan: PairPlan, done: set[str] | None, form: PairsFormat) -> None:
    from crosstie.io.pairing import plan_frame

    frame = plan_frame(plan)
    if done is not None:
        frame["done"] = frame["pair_key"].isin(done)
    if form is PairsFormat.GEOJSON:
        typer.echo(frame.to_json())
    else:
        rows = [
            {
                "pair": row.pair_key,
                "days apart": f"{row.gap_days:+.1f}",
                "overlap": f"{row.overlap_pct:.0f} %",
                **({} if done is None else {"state": "already done" if row.done else "to do"}),
            }
            for row in frame.itertuples()
        ]
        print_table(rows)
        to_do = len(plan.pairs) - (len(done) if done else 0)
        typer.echo(f"{len(plan.pairs)} pairs, {to_do} to do; {len(plan.left_out)} scenes left out")
    for scene, why in plan.left_out:
        typer.echo(f"left out: {scene}: {why}", err=form is PairsFormat.GEOJSON)
