"""`make chaos`: many faults, drawn from a seed, a table of how they ended; exit code 1 if one broke a rule.

Four archives at a time: most of them wait, for a lease to run out or between two tries.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from random import Random

from chaos.child import GUARDS
from chaos.kinds import KINDS, Kind
from chaos.services import chaos_services
from chaos.world import Outcome, inject

AT_ONCE = 4
COLUMNS = ("all", "struck", "done", "done before", "told why", "claim lost", "killed", "violations")


def drawn(injections: int, seed: int, only: str = "") -> list[tuple[Kind, str]]:
    """Kinds and seeds, in an order of the seed's own: each kind as often as any other."""
    kinds = [kind for kind in KINDS if only in kind.name]
    if not kinds:
        raise SystemExit(f"no kind holds {only!r} in its name")
    Random(seed).shuffle(kinds)
    return [(kinds[number % len(kinds)], f"{seed}/{number}") for number in range(injections)]


def table(outcomes: Iterable[Outcome]) -> str:
    """One line a kind."""
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        count = said[outcome.kind]
        count["all"] += 1
        count["struck"] += outcome.struck
        count["violations"] += bool(outcome.violation)
        count[outcome.said] += 1
    lines = [f"{'kind':<45}" + "".join(f"{name:>12}" for name in COLUMNS)]
    for kind, count in sorted(said.items()):
        lines.append(f"{kind:<45}" + "".join(f"{count[name]:>12}" for name in COLUMNS))
    whole = sum(said.values(), Counter())
    lines.append(f"{f'{len(said)} kinds':<45}" + "".join(f"{whole[name]:>12}" for name in COLUMNS))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--injections", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="kinds whose name holds this text")
    parser.add_argument("--without", choices=GUARDS, help="take a guard out of the writers")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no more after this time")
    chosen = parser.parse_args(arguments)
    logging.disable(logging.WARNING)  # what the code says of the faults, and the server of each request
    outcomes: list[Outcome] = []
    with chaos_services() as services, ThreadPoolExecutor(AT_ONCE) as pool:
        begin = time.monotonic()

        def one(work: tuple[Kind, str]) -> Outcome | None:
            if time.monotonic() - begin > chosen.seconds:
                return None
            return inject(*work, services, without=chosen.without)

        todo = [pool.submit(one, work) for work in drawn(chosen.injections, chosen.seed, chosen.only)]
        for done in as_completed(todo):
            outcome = done.result()
            if outcome is None:
                continue
            outcomes.append(outcome)
            if outcome.violation:
                place = f"{outcome.place}, seed {outcome.seed}"
                print(f"VIOLATION: {outcome.kind} ({place}): {outcome.violation}", flush=True)
            if len(outcomes) % 50 == 0:
                print(f"{len(outcomes)} of {len(todo)}, {time.monotonic() - begin:.0f} s", flush=True)
    print(table(outcomes))
    return int(any(outcome.violation for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
