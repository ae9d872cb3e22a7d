"""The command line: parse, call, exit code. One module a command."""

# In the order in which `crosstie --help` lists them.
# isort: off
from crosstie.cli import (
    register,
    apply,
    pairs,
    runs,
    index,
    adjust,
    monitor,
    verify,
    gc,
    site,
    listen,
    train,
    evaluate,
    simulate,
    about,
)
from crosstie.cli.app import app

# isort: on

__all__ = [
    "about", "adjust", "app", "apply", "evaluate", "gc", "index", "listen", "monitor", "pairs", "register",
    "runs", "simulate", "site", "train", "verify",
]  # fmt: skip
