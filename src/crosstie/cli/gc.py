"""`crosstie gc`: remove what belongs to no product."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from crosstie.cli.app import app, exit_codes
from crosstie.cli.options import ConfigOption, OutOption
from crosstie.cli.printing import say
from crosstie.flows.runs.in_words import counted


@app.command("gc")
@exit_codes
def gc_command(
    out: OutOption,
    config: ConfigOption = None,
    older_than: Annotated[
        float, typer.Option("--older-than", min=0, help="Only what was last written so many days ago.")
    ] = 7.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would go; remove nothing.")] = False,
) -> None:
    """Remove what killed runs left among the products: old, unfinished ones that no run works on.

    These are products without a _COMMIT, files that a _COMMIT does not list, and claims that have run out.
    Only files with names that crosstie gives are removed. Failure records stay. Prints the removed files.

    [bold]Example:[/bold] crosstie gc --out products --dry-run

    [bold]Example:[/bold] crosstie gc --out s3://archive/products --older-than 30
    """
    from crosstie.config import load_settings
    from crosstie.io.archive.leftovers import remove_leftovers
    from crosstie.io.storage.store import open_store

    store = open_store(out, load_settings(config).storage)
    count = size_bytes = 0
    for left in remove_leftovers(store, older_than=timedelta(days=older_than), dry_run=dry_run):
        count, size_bytes = count + 1, size_bytes + left.size_bytes
        say(left.key)
    would = "would be removed" if dry_run else "removed"
    say(f"{counted(count, 'file')}, {size_bytes / 1e6:.1f} MB {would}", err=True)
