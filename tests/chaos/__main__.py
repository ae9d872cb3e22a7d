"""`python -m chaos`: many faults, drawn from a seed, with a table of how they ended; exit code 1 if one broke a rule.

Four archives at a time: most of them wait, for a lease to run out or between two tries.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from chaos.material import FILE, make_material
from s3_server import s3_server

BUCKET = "chaos"
AT_ONCE = 4


@contextmanager
def chaos_services() -> Iterator[object]:
    """Start the S3 server and the process that all others are forked from."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise
    with tempfile.TemporaryDirectory(prefix="crosstie-chaos-") as name, s3_server(BUCKET) as server:
        folder = Path(name)
        folder.chmod(0o755)
        more = {key: value for key, value in server.environment.items() if "ENDPOINT" not in key}
        more[FILE] = str(make_material(folder))
        more["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        before = {key: os.environ.get(key) for key in more}
        os.environ.update(more)
        from chaos.world import Services, use_rendered_files

        try:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["chaos.child"])
            use_rendered_files()
            yield Services(server.url, BUCKET, folder, context)
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})


def drawn(injections: int, seed: int, only: str = "") -> list[tuple[object, str]]:
    """Kinds and seeds: each kind as often as any other."""
    from chaos.kinds import KINDS

    kinds = [kind for kind in KINDS if only in kind.name]
    return [(kinds[number % len(kinds)], f"{seed}/{number}") for number in range(injections)]


def table(outcomes: Iterable[object]) -> str:
    """One line a kind."""
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        count = said[outcome.kind]
        count["all"] += 1
        count["struck"] += outcome.struck
        count["violations"] += bool(outcome.violation)
        count[outcome.said] += 1
    columns = ("all", "struck", "done", "done before", "told why", "claim lost", "killed", "violations")
    lines = [f"{'kind':<45}" + "".join(f"{name:>12}" for name in columns)]
    for kind, count in said.items():
        lines.append(f"{kind:<45}" + "".join(f"{count[name]:>12}" for name in columns))
    whole = sum(said.values(), Counter())
    lines.append(f"{f'{len(said)} kinds':<45}" + "".join(f"{whole[name]:>12}" for name in columns))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--injections", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="kinds whose name holds this text")
    parser.add_argument("--without", help="take a guard out of the writers: see GUARDS in child.py")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no more after this time")
    chosen = parser.parse_args(arguments)
    with chaos_services() as services, ThreadPoolExecutor(AT_ONCE) as pool:
        from chaos.world import inject

        begin = time.monotonic()

        def one(work):
            if time.monotonic() - begin > chosen.seconds:
                return None
            return inject(*work, services, without=chosen.without)

        outcomes = []
        for done in as_completed([pool.submit(one, w) for w in drawn(chosen.injections, chosen.seed, chosen.only)]):
            outcome = done.result()
            if outcome is None:
                continue
            outcomes.append(outcome)
            if outcome.violation:
                print(f"VIOLATION {outcome.kind} ({outcome.place}, {outcome.seed}): {outcome.violation}", flush=True)
            if len(outcomes) % 50 == 0:
                print(f"{len(outcomes)} of {chosen.injections}, {time.monotonic() - begin:.0f} s", flush=True)
    print(table(outcomes))
    return int(any(outcome.violation for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
