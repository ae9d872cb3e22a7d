"""What the pages tell a user to type is what the program takes: commands, options, settings, marks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from docs_blocks import FENCE, PAGES, ROOT, blocks, code_of

from crosstie.cli import app
from crosstie.config import Settings, each_setting, load_settings
from crosstie.train_settings import TrainSettings

COMMAND = re.compile(
    r"(?:^|[|;&(]|\bthen\b|\belse\b)\s*(?:[A-Z_0-9]+=\S*\s+)*(?:exec\s+)?crosstie\s+([a-z][^|;&>#)]*)"
)
FILES = {"json", "parquet", "yaml", "csv", "py", "tif", "vrt", "png", "safetensors", "html", "log", "gpkg"}
GAP = ("…", "...")

USAGE_ERROR = typer.BadParameter.__bases__[0]

KNOWN = {setting.name for model in (Settings(), TrainSettings()) for setting in each_setting(model)}
GROUPS = {name.split(".")[0] for name in KNOWN if "." in name}


PROGRAM = typer.main.get_command(app)


def complaint(words: str, *, whole: bool) -> str | None:
    """Why the program would not take a command, or None. Not whole: only names are looked at."""
    name, *arguments = shlex.split(words)
    command = PROGRAM.commands.get(name)
    if command is None:
        return f"there is no command {name!r}"
    options = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    options |= {"--help", "-h"}
    unknown = [word for word in arguments if re.match(r"-+[a-z]", word) and word.split("=")[0] not in options]
    if unknown:
        return f"crosstie {name} has no option {unknown[0]}"
    if not whole or any(gap in word for word in arguments for gap in GAP):
        return None
    try:
        command.make_context(name, arguments, parent=typer.Context(PROGRAM, info_name="crosstie"))
    except typer.Exit:
        return None
    except USAGE_ERROR as problem:
        return str(problem.format_message())
    return None


def commands_of(page: Path) -> list[tuple[str, bool]]:
    """Commands of a page, and whether each is whole."""
    found = []
    for text, is_block in code_of(page):
        for line in re.sub(r"\\\n\s*", " ", text).splitlines():
            found += [(words.strip(), is_block) for words in COMMAND.findall(line.removeprefix("$ "))]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one_that_the_program_takes(page: Path) -> None:
    wrong = {words: why for words, whole in commands_of(page) if (why := complaint(words, whole=whole))}
    assert not wrong


def test_the_pages_have_commands_and_the_check_sees_what_is_wrong_with_one() -> None:
    assert sum(len(commands_of(page)) for page in PAGES) > 80
    assert complaint("pairs --catalog x --max-days 3", whole=True) is None
    assert "no option --max-day" in (complaint("pairs --catalog x --max-day 3", whole=False) or "")
    assert "no command" in (complaint("pear --catalog x", whole=False) or "")
    assert complaint("pairs --catalog x --max-days three", whole=True)
    assert "--catalog" in (complaint("pairs", whole=True) or "")


def test_the_examples_of_the_help_are_ones_that_the_program_takes() -> None:
    for name, command in PROGRAM.commands.items():
        text = " ".join((command.help or "").split())
        for example in re.findall(r"\[bold\]Example:\[/bold\] (.*?)(?=\[bold\]|$)", text):
            for words in COMMAND.findall(example):
                assert complaint(words, whole=True) is None, f"crosstie {name} --help: {words}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_setting_that_is_named_exists(page: Path) -> None:
    names = set()
    for text, is_block in code_of(page):
        for variable in re.findall(r"\bCROSSTIE_([A-Z]+__[A-Z0-9_]+)\b", text):
            names.add(variable.lower().replace("__", "."))
        dotted = re.fullmatch(r"([a-z_]+)\.([a-z0-9_]+)(?:: .*)?", text)
        if not is_block and dotted and dotted[1] in GROUPS and dotted[2] not in FILES:
            names.add(f"{dotted[1]}.{dotted[2]}")
    assert names <= KNOWN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_settings_file_that_is_shown_can_be_read(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.language == "yaml" and block.text.startswith("# crosstie.yaml"):
            (tmp_path / "crosstie.yaml").write_text(block.text)
            load_settings(tmp_path / "crosstie.yaml")


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_a_block_with_a_command_is_run_or_says_why_not(page: Path) -> None:
    unsaid = [
        str(block)
        for block in blocks(page)
        if block.language in {"bash", "python", "console"}
        and (block.what not in {"run", "not run"} or (block.what == "not run" and not block.more))
    ]
    assert not unsaid
    rest = FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
    unmarked = [line for line in rest if line.startswith("    ") and COMMAND.search(line[4:])]
    assert not unmarked, "commands stand in fenced blocks"
