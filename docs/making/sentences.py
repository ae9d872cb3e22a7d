"""Every sentence that an error of crosstie can say, read out of the places that raise it."""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crosstie import errors

ROOT = Path(__file__).resolve().parents[2]

FOLDERS = ("src/crosstie", "io", "flows", "matcher")
"""Where the program is; the links in src lead to the others."""

SHOWN = "‹{}›"
"""How a value stands in a sentence."""

MOST_DEPTH = 2
"""Functions that hand a sentence on to one another."""

CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, errors.CrosstieError)
}


@dataclass(frozen=True, slots=True, order=True)
class Said:
    """One sentence, and who says it."""

    sentence: str
    error: str
    """Name of the class."""
    module: str


@dataclass(frozen=True, slots=True)
class Program:
    """What is needed of all files to read one: constants that sentences share, and classes of errors."""

    constants: dict[str, str]
    """Strings with a name of their own, such as `REPAIR`."""
    classes: dict[str, str]
    """Class of an error -> the class of `crosstie.errors` that it is, or is a kind of."""

    @classmethod
    def of(cls, trees: Iterable[ast.Module]) -> Program:
        """Read the constants and the classes of some files."""
        strings: dict[str, set[str]] = defaultdict(set)
        bases: dict[str, list[str]] = {}
        for tree in trees:
            for node in tree.body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    value = node.value.value if isinstance(node.value, ast.Constant) else None
                    if node.targets[0].id.isupper() and isinstance(value, str):
                        strings[node.targets[0].id].add(value)
                elif isinstance(node, ast.ClassDef):
                    bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]
        classes = {name: name for name in CLASSES}
        for _ in bases:  # as often as the longest line of classes is long, and more
            classes |= {
                name: classes[base] for name, own in bases.items() for base in own if base in classes
            } | {name: name for name in CLASSES}
        constants = {name: values.pop() for name, values in strings.items() if len(values) == 1}
        return cls(constants, classes)


def sentences(files: Iterable[Path] | None = None) -> list[Said]:
    """Every sentence of every error that is raised on purpose, sorted; none twice."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files or _sources()}
    program = Program.of(trees.values())
    found: set[Said] = set()
    for file, tree in trees.items():
        module = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else file.name
        reader = _Reader(program, {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)})
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            error = program.classes.get(node.func.id)
            if error is not None:
                texts = reader.texts(node.args[0])
                found |= {Said(text, error, module) for text in texts if _says_something(text)}
    return sorted(found)


def pattern(sentence: str) -> re.Pattern[str]:
    """What a message of this sentence looks like, whatever the values."""
    parts = re.split(r"‹[^›]*›", sentence)
    return re.compile(".*".join(map(re.escape, parts)), re.DOTALL)


def page() -> str:
    """One section a class, in the order of `crosstie.errors`, each with its sentences."""
    by_class: dict[str, set[str]] = defaultdict(set)
    for said in sentences():
        by_class[said.error].add(said.sentence)
    lines: list[str] = []
    for name, kind in CLASSES.items():
        lines += ["", f"## {name}", "", f"{inspect.getdoc(kind)} {_exit_code(kind)}", ""]
        lines += [f"- `{sentence.replace('`', chr(39))}`" for sentence in sorted(by_class[name])]
    return "\n".join(lines)


def _exit_code(kind: type[Exception]) -> str:
    if issubclass(kind, errors.BadInputError):
        return "Exit code 2; in a run, the pair fails and the others go on: exit code 3."
    return "The pair fails, and the others go on: exit code 3."


def _sources() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(part.is_symlink() for part in path.parents if part != ROOT and ROOT in part.parents):
                yield path


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the sentences of one file."""

    program: Program
    functions: dict[str, ast.FunctionDef]

    def texts(self, node: ast.expr, depth: int = 0) -> list[str]:
        """What an expression may say; both sides of a choice, and all that a function of the file returns."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return [node.value]
        if isinstance(node, ast.JoinedStr):
            return [" ".join("".join(map(self._part, node.values)).split())]
        if isinstance(node, ast.IfExp):
            return [*self.texts(node.body, depth), *self.texts(node.orelse, depth)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            ends = self.texts(node.right, depth)
            return [begin + end for begin in self.texts(node.left, depth) for end in ends]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and depth < MOST_DEPTH:
            function = self.functions.get(node.func.id)
            returned = (
                [part for part in ast.walk(function) if isinstance(part, ast.Return)] if function else []
            )
            return [text for part in returned if part.value for text in self.texts(part.value, depth + 1)]
        return [self._shown(node)]

    def _part(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return str(node.value)
        return self._shown(node.value) if isinstance(node, ast.FormattedValue) else ""

    def _shown(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name) and node.id in self.program.constants:
            return self.program.constants[node.id]
        return SHOWN.format(_label(node))


def _label(node: ast.expr) -> str:
    """Name of a value, as short as the reader needs it."""
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr == "join" and node.args:
            return f"{_label(node.args[0])}, …"
        if node.args and not isinstance(node.args[0], ast.Starred):
            return _label(node.args[0])
        return _label(node.func.value if isinstance(node.func, ast.Attribute) else node.func)
    if isinstance(node, ast.Attribute):
        return _words(node.attr)
    if isinstance(node, ast.Subscript):
        return _label(node.value)
    if isinstance(node, ast.Name):
        return "cause" if node.id in {"problem", "error"} else _words(node.id)
    return "…"


def _words(name: str) -> str:
    return name.strip("_").replace("_", " ").lower()


def _says_something(text: str) -> bool:
    """Whether there are words besides the values: a message that is passed on is told where it was made."""
    return len(re.sub(r"‹[^›]*›|[^A-Za-z]", "", text)) > 8
