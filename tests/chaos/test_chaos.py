"""Faults at every step of writing and reading an archive break no rule; without a guard they do.

`make chaos INJECTIONS=1000 SEED=7` tries more of them, and others.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from chaos.__main__ import AT_ONCE, drawn, table
from chaos.kinds import KINDS
from chaos.services import chaos_services
from chaos.world import Outcome, Services, inject

pytestmark = [pytest.mark.server, pytest.mark.slow]

INJECTIONS = 20
SEED = 1


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with chaos_services() as found:  # once in a process: the one that is forked from keeps what it was given
        yield found


def outcomes(
    services: Services, injections: int, *, only: str = "", without: str | None = None
) -> list[Outcome]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        chosen = drawn(injections, SEED, only)
        return list(pool.map(lambda work: inject(*work, services, without=without), chosen))


def test_kinds_are_many_and_told_apart_by_their_names() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 30


def test_no_fault_breaks_a_rule(services: Services) -> None:
    found = outcomes(services, INJECTIONS)
    broken = [
        f"{outcome.kind}, {outcome.seed}: {outcome.violation}" for outcome in found if outcome.violation
    ]
    assert not broken, "\n".join(broken)
    assert sum(outcome.struck for outcome in found) > INJECTIONS / 2, table(found)


def test_a_writer_that_slept_spoils_nothing(services: Services) -> None:
    assert not any(outcome.violation for outcome in outcomes(services, 6, only="stopped without a claim"))


@pytest.mark.parametrize("guard", ["commit", "files"])
def test_without_a_guard_it_spoils_what_is_committed(services: Services, guard: str) -> None:
    found = outcomes(services, 6, only="stopped without a claim", without=guard)
    assert any("committed and not whole" in outcome.violation for outcome in found), table(found)
