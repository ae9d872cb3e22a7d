"""`crosstie verify`: every committed product against its commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from crosstie.cli.app import EXIT_UNRELIABLE, app, exit_codes
from crosstie.cli.options import ConfigOption, JsonOption, OutOption
from crosstie.cli.printing import say, say_json, show_progress
from crosstie.flows.runs.in_words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosstie.io.archive.verify import DamagedRun

VERIFY_SCHEMA = "crosstie/verify/1"


@app.command("verify")
@exit_codes
def verify_command(
    out: OutOption,
    config: ConfigOption = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Take the _COMMIT of damaged runs away: they count as not done, and the next nightly or "
            "backfill computes them again. Nothing else is removed.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the files of all finished products against their checksums.

    Reads all of the archive. Prints a line for each file that is missing, truncated, edited or too many, and
    for a _COMMIT that makes no sense. Damage is recorded as the failure of its pair (`damaged_product`), so
    that status, index and site tell it too. Exit code 3 if anything is damaged.

    [bold]Example:[/bold] crosstie verify --out products

    [bold]Example:[/bold] crosstie verify --out s3://archive/products --repair
    """
    from crosstie.config import load_settings
    from crosstie.io.archive.verify import verify_archive
    from crosstie.io.storage.store import open_store

    store = open_store(out, load_settings(config).storage)
    found, checked = [], 0
    with show_progress(Console(stderr=True), "runs to check") as show:

        def progress(done: int, total: int) -> None:
            nonlocal checked
            checked = done
            show("verify", done, total)

        for run in verify_archive(store, repair=repair, progress=progress):
            found.append(run)
            if not as_json:
                _print_run(run)
    if as_json:
        say_json(_json_object_of(store.url, checked, found))
    else:
        say(f"{counted(checked, 'run')} checked, {len(found)} of them not as committed", err=True)
    if found:
        raise typer.Exit(EXIT_UNRELIABLE)


def _print_run(run: DamagedRun) -> None:
    for damage in run.damage:
        say(f"{run.product.prefix}/{damage.name}: {damage.kind}, {damage.detail} ({run.outcome})")


def _json_object_of(url: str, checked: int, found: Sequence[DamagedRun]) -> dict[str, object]:
    """Values fit for JSON, schema `crosstie/verify/1`."""
    return {
        "schema": VERIFY_SCHEMA,
        "root": url,
        "checked": checked,
        "damage": [
            {
                "pair_key": run.product.pair_key,
                "run_key": run.product.run_key,
                "file": damage.name,
                "kind": str(damage.kind),
                "detail": damage.detail,
                "outcome": run.outcome,
            }
            for run in found
            for damage in run.damage
        ],
    }
