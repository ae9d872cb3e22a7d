"""What the source says of itself: names with several homes, crowded folders and long functions."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SOURCES = ("io", "flows", "matcher", "src/crosstie")

SHARED_BY_CUSTOM = {
    "LOG",  # each module's own logger
    "dask_setup",  # the name that Dask looks for in a preloaded module
    "__all__",
}
"""Names that many files define on purpose."""

NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
"""Kinds of tokens that make no line of code. A string over many lines is one token, so it counts once."""


def source_files() -> list[Path]:
    """All Python files of the package, each once: `src/crosstie` links to the other folders."""
    return sorted(path for folder in SOURCES for path in _python_files(ROOT / folder))


def _python_files(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            yield from _python_files(entry)
        elif entry.suffix == ".py":
            yield entry


def names_with_several_homes(files: Iterable[Path]) -> dict[str, list[str]]:
    """Names that two or more files define at top level, and those files."""
    homes = defaultdict(set)
    for path in files:
        for name in _top_level_names(ast.parse(path.read_text(encoding="utf-8")).body):
            homes[name].add(_short(path))
    return {
        name: sorted(paths)
        for name, paths in sorted(homes.items())
        if len(paths) > 1 and name not in SHARED_BY_CUSTOM
    }


def _top_level_names(body: Iterable[ast.stmt]) -> Iterator[str]:
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield statement.name
            case ast.Assign():
                yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from _top_level_names(statement.body)


def crowded_folders(files: Iterable[Path], *, most: int) -> dict[str, int]:
    """Folders with more than `most` Python files directly in them."""
    count: defaultdict[str, int] = defaultdict(int)
    for path in files:
        count[_short(path.parent)] += 1
    return {folder: number for folder, number in sorted(count.items()) if number > most}


def long_functions(files: Iterable[Path], *, most: int) -> dict[str, int]:
    """Functions of more than `most` lines of code that hold no comment of their own."""
    found = {}
    for path in files:
        text = path.read_text(encoding="utf-8")
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        code = {token.start[0] for token in tokens if token.type not in NO_CODE}
        comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = _body_lines(node)
                length = len(code.intersection(lines))
                if length > most and comments.isdisjoint(range(node.lineno, lines.stop)):
                    found[f"{_short(path)}: {node.name}"] = length
    return found


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> range:
    """Numbers of the lines below the signature and the docstring."""
    first = function.body[0]
    start = first.lineno if ast.get_docstring(function) is None else (first.end_lineno or 0) + 1
    return range(start, (function.end_lineno or start) + 1)


def _short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
