"""Where code can be mutated, and a sample of it.

A sum can be turned into nine other operations and a comparison of names into one, so mutants are drawn in two
steps: a place in the code, each as likely as any other, then one of the mutants there.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random

from cosmic_ray.commands.init import init
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec

Span = tuple[tuple[int, int], tuple[int, int]]
"""First (line, column) of a piece of code, and the first after it."""


def drawn(modules: list[Path], count: int, random: Random) -> list[MutationSpec]:
    """Mutants of at most `count` places of the modules; a larger count begins with the same ones."""
    by_place: dict[tuple[Path, Span], list[MutationSpec]] = defaultdict(list)
    never_run = {module: list(_never_run(module)) for module in modules}
    for mutant in _all_mutants(modules):
        span = mutant.start_pos, mutant.end_pos
        if not any(first <= span[0] and span[1] <= end for first, end in never_run[mutant.module_path]):
            by_place[mutant.module_path, span].append(mutant)
    places = sorted(by_place)
    random.shuffle(places)
    return [random.choice(by_place[place]) for place in places][:count]


def _all_mutants(modules: list[Path]) -> Iterator[MutationSpec]:
    with use_db(":memory:", WorkDB.Mode.create) as work:
        init(modules, work, {})
        for item in sorted(work.work_items, key=lambda item: str(item.mutations)):
            yield from item.mutations


def _never_run(module: Path) -> Iterator[Span]:
    """Annotations, and what stands under `if TYPE_CHECKING`: no test can notice a change there."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if part is not None:
                yield _span(part)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield _span(node)


def _span(node: ast.expr | ast.stmt) -> Span:
    return (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)
