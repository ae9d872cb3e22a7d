"""`make mutants`: small faults put into the code, one at a time. Do the tests notice?

The score is the share that they notice, of mutants drawn by a seed, the same number in each group of
`groups.py`; in brackets the range that holds the score of all mutants with 95 % (Wilson). What no test has
noticed is printed as a difference. Work is done in a copy of the committed files and of what git does not
ignore. Results are kept: a run that was stopped goes on where it ended, and a larger sample adds to it. They
count as long as neither the module nor the tests change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from checkout import ROOT, copy_checkout
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_item import MutationSpec, TestOutcome
from mutation.groups import GROUPS, Group
from mutation.places import drawn

TIMES_AS_LONG = 4
"""As the unchanged code needs; a mutant that takes longer hangs, and is noticed."""

Result = dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="mutation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=40, help="mutants of each group")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="groups whose name holds this text")
    parser.add_argument("--least", type=float, default=0.8, help="a lower score ends with exit code 1")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutation")
    chosen = parser.parse_args(arguments)
    groups = [group for group in GROUPS if chosen.only in group.name]
    if not groups:
        raise SystemExit(f"no group holds {chosen.only!r} in its name")
    shutil.rmtree(chosen.out / "copy", ignore_errors=True)
    copy = copy_checkout(chosen.out / "copy")
    kept = chosen.out / f"seed-{chosen.seed}.jsonl"
    results = [
        result
        for group in groups
        for result in _tried(group, copy, kept, sample=chosen.sample, seed=chosen.seed)
    ]
    print(table(results))
    noticed = sum(result["outcome"] != TestOutcome.SURVIVED for result in results)
    return int(noticed < chosen.least * len(results))


def _tried(group: Group, copy: Path, kept: Path, *, sample: int, seed: int) -> Iterator[Result]:
    """Results of a group's mutants, of which those in the file are known already."""
    mutants = drawn(group.files(copy), sample, Random(f"{seed} {group.name}"))
    names = [_name(mutant, group, copy) for mutant in mutants]
    known = {result["mutant"]: result for result in map(json.loads, _lines(kept))}
    tests = None if known.keys() >= set(names) else _Tests(group, copy)
    for number, (name, mutant) in enumerate(zip(names, mutants, strict=True), 1):
        result = known.get(name)
        if tests is not None and result is None:
            found = mutate_and_test([mutant], tests.command, tests.limit_s)
            if found.test_outcome in {None, TestOutcome.INCOMPETENT}:
                raise SystemExit(f"{name} could not be tried: {found.output}")
            outcome = found.test_outcome.value
            result = {"group": group.name, "mutant": name, "outcome": outcome, "diff": found.diff}
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
        assert result is not None
        print(f"{group.name}: {number} of {len(mutants)}, {result['outcome']}: {name}", flush=True)
        if result["outcome"] == TestOutcome.SURVIVED:
            print(result["diff"], flush=True)
        yield result


class _Tests:
    """The tests of a group, and how long they may take; they have to pass on the unchanged code."""

    def __init__(self, group: Group, copy: Path) -> None:
        python = ROOT / ".venv" / "bin" / "python"
        pytest = f"-m pytest -x -q -p no:cacheprovider {' '.join(group.tests)}"
        inside = f"PYTHONPATH=src OMP_NUM_THREADS=1 exec {shlex.quote(str(python))} {pytest}"
        self.command = f"sh -c {shlex.quote(f'cd {shlex.quote(str(copy))} && {inside}')}"
        begin = os.times().elapsed
        whole = subprocess.run(shlex.split(self.command), capture_output=True, text=True, check=False)
        if whole.returncode:
            raise SystemExit(f"{group.name}: tests fail without a mutant\n{whole.stdout[-4000:]}")
        self.limit_s = 30 + TIMES_AS_LONG * (os.times().elapsed - begin)


def _name(mutant: MutationSpec, group: Group, copy: Path) -> str:
    """Which mutant it is, of which code."""
    code = b"".join(path.read_bytes() for path in (mutant.module_path, *(copy / t for t in group.tests)))
    place = f"{mutant.module_path.relative_to(copy)}:{mutant.start_pos[0]}"
    operator = mutant.operator_name.removeprefix("core/")
    return f"{place} {operator} {mutant.occurrence} of {hashlib.sha256(code).hexdigest()[:12]}"


def _lines(file: Path) -> list[str]:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def table(results: Sequence[Result]) -> str:
    """One line a group, and one for all."""
    tried = Counter(result["group"] for result in results)
    noticed = Counter(result["group"] for result in results if result["outcome"] != TestOutcome.SURVIVED)
    rows = [*((name, noticed[name], tried[name]) for name in tried), ("all", noticed.total(), tried.total())]
    return "\n".join(f"{name:<24}{_score(got, of)}" for name, got, of in rows)


def _score(noticed: int, tried: int) -> str:
    z = 1.96
    p = noticed / tried
    middle = (p + z**2 / (2 * tried)) / (1 + z**2 / tried)
    half = z / (1 + z**2 / tried) * math.sqrt(p * (1 - p) / tried + z**2 / (4 * tried**2))
    return f"{noticed:>5} of {tried:<5}{p:>6.0%}   ({middle - half:.0%} to {middle + half:.0%})"


if __name__ == "__main__":
    sys.exit(main())
