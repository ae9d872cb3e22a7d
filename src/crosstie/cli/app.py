"""The typer application and its exit codes: 0 done, 1 bug, 2 bad input, 3 some pairs unreliable or failed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, ParamSpec, TypeVar

import typer

from crosstie.cli.printing import say
from crosstie.errors import BadInputError
from crosstie.flows.observe.printable_log import keep_log_printable
from crosstie.flows.runs.signals import ended_by

P = ParamSpec("P")
R = TypeVar("R")

EXIT_BAD_INPUT, EXIT_UNRELIABLE = 2, 3

EXIT_SIGNAL = 128
"""Plus the number of the signal that ended a command, as shells count: 130, 143, 129."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Co-register Sentinel-1 to Sentinel-2: measure the offset between two images of one place, fit an "
    "affine correction and, where relief needs it, a displacement field, and report how reliable it is.\n\n"
    "Start with [bold]crosstie doctor[/bold], then [bold]crosstie register REFERENCE SECONDARY[/bold].\n\n"
    "Exit codes: 0 done, 2 bad input, 3 some pairs unreliable or failed (doctor: something is missing), "
    "1 a bug.",
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"crosstie {version('crosstie')}")
        raise typer.Exit


@app.callback()
def _options_of_all(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    pass


def exit_codes(command: Callable[P, R]) -> Callable[P, R]:
    """Turn bad input into one line and exit code 2, a signal into 128 plus its number."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        keep_log_printable()
        try:
            return command(*args, **kwargs)
        except BadInputError as problem:
            say(f"error: {' '.join(str(problem).split())}", err=True)
            raise typer.Exit(EXIT_BAD_INPUT) from None
        except KeyboardInterrupt:
            say("stopped; committed results are kept, run the command again to continue", err=True)
            raise typer.Exit(EXIT_SIGNAL + ended_by()) from None

    run.__doc__ = _paragraphs(command.__doc__ or "")
    return run


def _paragraphs(docstring: str) -> str:
    """Join the lines of each paragraph: a terminal breaks them where it is wide, the source where it is."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
