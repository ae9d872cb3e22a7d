"""`crosstie pairs`: a dry run over a catalog."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosstie.cli.app import app, exit_codes
from crosstie.cli.options import CatalogOption, LimitOption, Search, search_options
from crosstie.codes import Orbit, Slices
from crosstie.errors import SettingsError
from crosstie.io.storage.redaction import printable

if TYPE_CHECKING:
    from crosstie.io.pairing.pair_scenes import PairPlan


MOST_NAMED = 20
"""Up to this number, the scenes left out are named without --left-out."""


class PairsFormat(StrEnum):
    """Form of the plan."""

    TABLE = "table"
    GEOJSON = "geojson"
    GEOPARQUET = "geoparquet"


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
    orbit: Annotated[
        Orbit | None, typer.Option(help="Orbit direction of the SAR scenes.", show_default=False)
    ] = None,
    track: Annotated[
        list[int] | None,
        typer.Option(help="Relative orbit of the SAR scenes; repeat for several.", show_default=False),
    ] = None,
    platform: Annotated[
        list[str] | None, typer.Option(help="S1A, S1C, S2B, ...; repeat for several.", show_default=False)
    ] = None,
    product: Annotated[
        list[str] | None, typer.Option(help="GRD, RTC, L1C, L2A; repeat for several.", show_default=False)
    ] = None,
    best: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of secondaries for one reference.", show_default=False),
    ] = None,
    best_per_tile: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of pairs for one Sentinel-2 tile.", show_default=False),
    ] = None,
    slices: Annotated[
        Slices | None,
        typer.Option(
            help="Slices of one SAR pass: pair the largest only, or each.",
            show_default=False,
        ),
    ] = None,
    limit: LimitOption = None,
    form: Annotated[PairsFormat, typer.Option("--format", help="Form of the plan.")] = PairsFormat.TABLE,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Write the plan to this file instead of printing it; geoparquet requires it, and writes the "
            "scenes left out to a second file, NAME.left_out.parquet.",
            show_default=False,
        ),
    ] = None,
    left_out: Annotated[bool, typer.Option("--left-out", help="Name all scenes left out.")] = False,
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
    settings = search.settings(
        {
            "catalog.orbit": orbit,
            "catalog.tracks": tuple(track or ()) or None,
            "catalog.platforms": tuple(platform or ()) or None,
            "catalog.product_types": tuple(product or ()) or None,
            "pairing.best_n": best,
            "pairing.best_n_per_tile": best_per_tile,
            "pairing.slices": slices,
        }
    )
    plan = find_plan(catalog, settings).first(limit)
    done = done_keys(plan.pairs, out, settings) if out is not None else None
    written = _output(plan, done, form, to)
    summary = sys.stderr if form is not PairsFormat.TABLE and to is None else sys.stdout
    named = left_out or len(plan.left_out) <= MOST_NAMED
    lines = [f"left out: {o.scene}: {o.why}" for o in plan.left_out] if named else []
    lines += [f"{count:>7} left out: {rule}" for rule, count in plan.by_rule()]
    to_do = len(plan.pairs) - (len(done) if done else 0)
    seconds = time.monotonic() - begin
    lines.append(
        f"{len(plan.pairs)} pairs, {to_do} to do; {len(plan.left_out)} scenes left out"
        f"{'' if named else ' (--left-out names them)'}; planned in {seconds:.1f} s"
    )
    lines += [f"written: {path}" for path in written]
    summary.write("\n".join(map(printable, lines)) + "\n")


def _output(plan: PairPlan, done: set[str] | None, form: PairsFormat, to: Path | None) -> list[Path]:
    """Print the plan, or write it to files and return their paths."""
    if form is PairsFormat.GEOPARQUET and to is not None:
        from crosstie.io.pairing.pair_scenes import left_out_frame

        beside = to.with_suffix(".left_out.parquet")
        _prepare_file(to)
        _frame(plan, done).to_parquet(to)
        left_out_frame(plan).to_parquet(beside)
        return [to, beside]
    text = _geojson(plan, done) if form is PairsFormat.GEOJSON else _text_table(plan, done)
    if to is None:
        sys.stdout.write(text)
        return []
    _prepare_file(to)
    to.write_text(text, encoding="utf-8")
    return [to]


def _prepare_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as problem:
        raise SettingsError(
            f"--to {path}: cannot be written ({problem.strerror}); give another path"
        ) from None


def _frame(plan: PairPlan, done: set[str] | None):  # type: ignore[no-untyped-def]
    from crosstie.io.pairing.pair_scenes import plan_frame

    frame = plan_frame(plan)
    if done is not None:
        frame["done"] = frame["pair_key"].isin(done)
    return frame


def _geojson(plan: PairPlan, done: set[str] | None) -> str:
    """Pairs as features; the scenes left out are a foreign member, which GeoJSON allows."""
    import json

    left_out = [{"scene": o.scene, "rule": o.rule, "why": o.why} for o in plan.left_out]
    return json.dumps(json.loads(_frame(plan, done).to_json()) | {"left_out": left_out}) + "\n"


def _text_table(plan: PairPlan, done: set[str] | None) -> str:
    """Plain text, because rich is slow: a plan may have a hundred thousand rows."""
    from crosstie.io.pairing.pair_scenes import gap_days

    if not plan.pairs:
        return ""
    keys = [pair.key for pair in plan.pairs]
    width = max(map(len, keys))
    head = f"{'pair':<{width}}  days apart  overlap" + ("" if done is None else "  state")
    lines = [head.rstrip()]
    for key, pair, share in zip(keys, plan.pairs, plan.overlap, strict=True):
        state = "" if done is None else "  already done" if key in done else "  to do"
        lines.append(f"{key:<{width}}  {gap_days(pair):>+10.1f}  {share:>5.0%}{state}".replace("%", " %"))
    return "\n".join(lines) + "\n"
