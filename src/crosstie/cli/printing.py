"""Tables and summaries on the terminal."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from crosstie.flows.runs.in_words import counted
from crosstie.io.storage.href import public_href
from crosstie.io.storage.redaction import printable

if TYPE_CHECKING:
    from crosstie.flows.runs.outcome import Outcome
    from crosstie.flows.runs.tally import Tally

OUTCOMES_SCHEMA = "crosstie/outcomes/1"

WIDE = 400
"""Width of a table in a pipe or a file, columns: wide enough that nothing is folded."""


def say(text: str = "", *, err: bool = False) -> None:
    """Print one line; what could move the cursor or begin another line is written out."""
    typer.echo(printable(text), err=err)


def say_json(value: object, **how: Any) -> None:
    """Print a value as JSON."""
    typer.echo(printable(json.dumps(value, indent=1, ensure_ascii=False, **how), block=True))


def print_table(rows: Sequence[dict[str, str]]) -> None:
    """Print a table with the names of its columns; long cells are folded, never cut."""
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row.values()))
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, markup=False)
    console.print(table)


@contextmanager
def show_progress(console: Console, unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress of named pieces of work, called as (name, done, total): bars, or a line for each.

    Parameters
    ----------
    unit : str
        What is counted.
    """
    if not console.is_terminal:
        begun: set[str] = set()

        def say(name: str, done: int, total: int) -> None:
            del done
            if name not in begun and total > 1:
                begun.add(name)
                console.print(
                    f"{printable(name)}: {total} {unit}", highlight=False, soft_wrap=True, markup=False
                )

        yield say
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        bars: dict[str, TaskID] = {}

        def draw(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(printable(name))
            progress.update(bars[name], completed=done, total=total, visible=done < total)

        yield draw


@contextmanager
def show_waiting(what: str) -> Iterator[None]:
    """Turn a spinner on a terminal while something is waited for."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


def outcomes_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Values fit for JSON, schema `crosstie/outcomes/1`: the result of every pair of a run."""
    return {
        "schema": OUTCOMES_SCHEMA,
        "pairs": len(outcomes),
        "already_done": sum(outcome.already_done for outcome in outcomes),
        "verdicts": dict(Counter(outcome.verdict for outcome in outcomes)),
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


def tally_json(tally: Tally) -> dict[str, Any]:
    """As `outcomes_json`, where only the first outcomes of many are known: the counts are of all."""
    return {
        "schema": OUTCOMES_SCHEMA,
        "pairs": tally.over,
        "already_done": tally.already_done,
        "verdicts": dict(tally.verdicts),
        "outcomes": [asdict(outcome) for outcome in (*tally.unwell, *tally.well)],
    }


def print_outcomes(outcomes: Sequence[Outcome], catalog: str) -> None:
    """Print the result of every pair."""
    # Scene ids are long: first one line of figures a pair, then the id and the report of each number.
    rows = [outcome.row() for outcome in outcomes]
    short = [name for name in (rows[0] if rows else ()) if name not in {"pair", "products"}]
    print_table([{"#": str(n), **{name: row[name] for name in short}} for n, row in enumerate(rows, 1)])
    if not outcomes:
        catalog = public_href(catalog)
        say(f"no pair in {catalog}; `crosstie pairs --catalog {catalog}` says which scenes are left out")
        return
    for n, outcome in enumerate(outcomes, 1):
        say()
        say(f"#{n} {outcome.pair_key}")
        for sentence in outcome.explanation:
            say(f"   {sentence}")
        if outcome.products is not None:
            say(f"   {outcome.products}/report.html")
    say()
    counts = Counter(outcome.verdict for outcome in outcomes)
    before = sum(outcome.already_done for outcome in outcomes)
    became = ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items()))
    say(f"{counted(len(outcomes), 'pair')}: {became}")
    if before == len(outcomes):
        say("All of them were already done; nothing was computed.")
    elif before:
        say(f"{before} of them were already done and were not computed again.")
