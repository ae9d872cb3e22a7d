"""Neighbours are read by one reader; no window is lost or read twice, whoever comes and goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crosstie.flows.cluster.window_shares import Shares

READERS = ("a", "b", "c")


def test_each_of_three_readers_has_a_third_of_the_scene_in_order() -> None:
    shares = Shares(12, readers=3)
    had: dict[str, list[int]] = {name: [] for name in READERS}
    for _ in range(4):
        at_once = [share for share in (shares.take(READERS) for _ in READERS) if share]
        for window, reader in at_once:
            had[reader].append(window)
            shares.done(window)
    assert shares.take(READERS) is None
    assert sorted(had.values()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_who_has_the_fewest_under_way_is_next_and_who_is_done_takes_half_of_the_longest_run() -> None:
    shares = Shares(16, readers=2)
    first = shares.take(("a", "b"))
    second = shares.take(("a", "b"))
    assert first is not None
    assert second is not None
    assert {first[1], second[1]} == {"a", "b"}
    slow, quick = first, second
    taken = []
    while share := shares.take(("a", "b")):
        if share[1] == quick[1]:
            taken.append(share[0])
            shares.done(share[0])
        if len(taken) > 9:
            break
    assert taken[:7] == list(range(quick[0] + 1, quick[0] + 8))  # its own run to the end
    assert taken[7] >= slow[0] + 4  # then the far half of the other's: not under the nose of its cache
    assert taken[7:] == list(range(taken[7], taken[7] + len(taken) - 7))


def test_the_run_of_a_reader_that_has_gone_is_taken_over() -> None:
    shares = Shares(6, readers=2)
    for _ in range(2):
        shares.take(("a", "b"))
    rest = []
    while share := shares.take(("b",)):
        rest.append(share[0])
    assert sorted(rest) == [1, 2, 4, 5]
    assert shares.again(0, ("b",)) == shares.reader_of(0) == "b"


@given(
    count=st.integers(0, 40),
    at_start=st.integers(0, 5),
    crew=st.lists(st.sets(st.sampled_from("abcde"), min_size=1), min_size=1, max_size=12),
    finish=st.booleans(),
)
def test_every_window_is_taken_once(count: int, at_start: int, crew: list[set[str]], finish: bool) -> None:
    shares = Shares(count, readers=at_start)
    seen = []
    turn = 0
    while True:
        readers = sorted(crew[turn % len(crew)])
        turn += 1
        share = shares.take(readers)
        if share is None:
            break
        assert share[1] in readers
        seen.append(share[0])
        if finish:
            shares.done(share[0])
    assert sorted(seen) == list(range(count))
