"""Of writers that race for one run, the files of one are committed, whoever sleeps, dies or wakes up when."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server, s3_server

from crosstie.errors import StoreError
from crosstie.io.storage.commit import damage_of, read_commit
from crosstie.io.storage.publication import Publication
from crosstie.io.storage.root_layout import COMMIT, ProductKey
from crosstie.io.storage.store import Store, open_store

RACES = 50

NAMES = ("correction.json", "item.json", "report.html", "tie_points.parquet")

RUN = ProductKey("A__B", "0123456789abcdef")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server("products") as server:
        yield server


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.server)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "file":
        return open_store(str(tmp_path / "products"))
    for name, value in request.getfixturevalue("s3").environment.items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://products/{tmp_path.name}")


def files_of(writer: str) -> dict[str, bytes]:
    return {name: f"{name} of {writer}".encode() for name in NAMES}


def publish(store: Store, product: ProductKey, writer: str) -> None:
    with Publication(store, product) as publication:
        publication.put(files_of(writer))
        publication.commit()


def the_writer(store: Store, product: ProductKey) -> str:
    """The one writer whose files are committed; nothing else is left in the folder."""
    assert damage_of(store, product) == []
    files = read_commit(store, product)
    assert files is not None
    assert set(files) == set(NAMES)
    writers = {(store.get(product.file(name)) or b"").decode().rpartition(" of ")[2] for name in NAMES}
    assert {key.removeprefix(f"{product.prefix}/") for key in store.list(product.prefix)} == {*NAMES, COMMIT}
    (writer,) = writers
    return writer


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write takes a while, another one each time: what goes wrong once in a million does so at once."""
    chance = random.Random(1)
    for name in ("put", "create", "move", "delete", "delete_folder"):
        step = getattr(Store, name)

        def later(self: Store, *given: Any, _step: Any = step, **named: Any) -> Any:
            time.sleep(chance.random() * 0.004)
            return _step(self, *given, **named)

        monkeypatch.setattr(Store, name, later)


@pytest.mark.usefixtures("slow")
def test_of_two_writers_that_race_one_is_committed(store: Store) -> None:
    with ThreadPoolExecutor(3) as pool:
        for race in range(RACES):
            product = ProductKey(f"A__{race}", RUN.run_key)
            racers = [pool.submit(publish, store, product, name) for name in ("one", "two", "three")]
            for racer in racers:
                racer.result()
            assert the_writer(store, product) in {"one", "two", "three"}


STEPS = ("put", "create", "move", "delete", "delete_folder")


class Asleep:
    """Makes one writer fall asleep before its n-th step of a kind, until it is woken up."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, step: str, number: int, *, dies: bool = False
    ) -> None:
        self.sleeps, self.woken = threading.Event(), threading.Event()
        self._left, self._dies, self.name = number, dies, ""
        self.over = False
        self._lock = threading.Lock()
        real = getattr(Store, step)

        def maybe(store: Store, *given: Any, **named: Any) -> Any:
            with self._lock:
                mine = any("_WRIT" in str(one) or COMMIT in str(one) for one in given)
                self._left -= mine
                now = mine and self._left == 0 and not self.over
            if now:
                self.sleeps.set()
                if self._dies:
                    raise StoreError("killed here")
                assert self.woken.wait(30)
            return real(store, *given, **named)

        monkeypatch.setattr(Store, step, maybe)


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("step", STEPS)
def test_who_sleeps_at_any_step_and_wakes_up_later_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    asleep = Asleep(monkeypatch, step, number)
    with ThreadPoolExecutor(1) as pool:
        sleeper = pool.submit(publish, store, RUN, "sleeper")
        while not (asleep.sleeps.wait(0.02) or sleeper.done()):
            pass
        asleep.over = True
        publish(store, RUN, "other")
        committed = store.get(RUN.commit)
        before = {name: store.get(RUN.file(name)) for name in NAMES}
        asleep.woken.set()
        sleeper.result()
    assert store.get(RUN.commit) == committed
    assert {name: store.get(RUN.file(name)) for name in NAMES} == before
    the_writer(store, RUN)


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("step", ["create", "move"])
def test_who_dies_at_any_step_is_finished_or_replaced_by_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    dies = Asleep(monkeypatch, step, number, dies=True)
    with suppress(StoreError):
        publish(store, RUN, "first")
    assert (read_commit(store, RUN) is None) is dies.sleeps.is_set()
    dies.over = True
    publish(store, RUN, "second")
    assert the_writer(store, RUN) in {"first", "second"}


def test_a_writer_whose_files_are_gone_is_given_up(store: Store) -> None:
    with Publication(store, RUN) as gone:
        gone.put(files_of("gone"))
        assert gone._chosen() is not None
        store.delete_folder(RUN.writing(gone._writer))
        publish(store, RUN, "next")
        gone.commit()
    assert the_writer(store, RUN) == "next"


def test_a_broken_record_of_the_writer_blocks_nobody(store: Store) -> None:
    store.put(RUN.writer, b"{")
    publish(store, RUN, "one")
    assert the_writer(store, RUN) == "one"


def test_what_a_writer_has_not_committed_is_not_there(store: Store) -> None:
    with Publication(store, RUN) as publication:
        publication.put(files_of("one"))
        assert store.get(RUN.file("item.json")) is None
        assert read_commit(store, RUN) is None
    assert list(store.list()) == []
