"""What the program says of itself, as Markdown: its options, its settings, its codes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel
from sentences import page as error_sentences

from crosstie.config import Settings, each_setting
from crosstie.train_settings import TrainSettings
from crosstie.types import Reason

COMMAND = re.compile(r"^## `(crosstie [a-z-]+)`\n\n(.+?)(?=\n\n)", re.MULTILINE | re.DOTALL)


def commands() -> str:
    """Every command with its arguments and options, as typer documents it."""
    typer = Path(sys.executable).with_name("typer")
    told = subprocess.run(
        [typer, "crosstie.cli", "utils", "docs", "--name", "crosstie"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    text = told[told.index("## `crosstie ") :]
    text = re.sub(r'<span style="font-weight: bold">(.*?)</span>', r"**\1**", text, flags=re.DOTALL)
    rows = [
        f"| [`{name}`](#{name.replace(' ', '-')}) | {' '.join(first.split())} |"
        for name, first in COMMAND.findall(text)
    ]
    return "\n".join(
        ["| command | |", "|---|---|", *rows, "", text.replace("&gt;", ">").replace("&lt;", "<")]
    )


def settings() -> str:
    """Every setting of the runs: name, default, what it means."""
    return _tables(Settings())


def train_settings() -> str:
    """Every setting of training."""
    return _tables(TrainSettings())


def reasons() -> str:
    """Every reason for which a pair is unreliable."""
    rows = [f"| `{reason}` | {reason.sentence} |" for reason in Reason]
    return "\n".join(["| code | sentence |", "|---|---|", *rows])


def _tables(model: BaseModel) -> str:
    """One section a group; settings that belong to no group come last."""
    lines: list[str] = []
    alone: list[str] = []
    head = ["| setting | default | |", "|---|---|---|"]
    for setting in each_setting(model):
        if setting.is_group:
            lines += ["", f"## {setting.name}", "", setting.description, "", *head]
            continue
        row = f"| `{setting.name}` | `{_yaml(setting.value)}` | {_cell(setting.description)} |"
        (lines if "." in setting.name else alone).append(row)
    return "\n".join([*lines, "", "## Without a group", "", *head, *alone])


def _yaml(value: object) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("|", r"\|")


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "settings": settings,
    "train-settings": train_settings,
    "reasons": reasons,
    "errors": error_sentences,
}
"""What a page asks for with `<!-- made: NAME -->`."""
