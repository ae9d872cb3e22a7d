"""Only what is uncommitted, unclaimed and old is removed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from committed_runs import commit, write_secondary
from typer.testing import CliRunner

from crosstie.cli import app
from crosstie.io.archive.claims import Claim, take
from crosstie.io.archive.leftovers import remove_leftovers
from crosstie.io.storage.commit import damage_of
from crosstie.io.storage.publication import Publication
from crosstie.io.storage.root_layout import ProductKey
from crosstie.io.storage.store import Store, open_store
from crosstie.types import Registration

WEEK = timedelta(days=7)
DEAD = ProductKey("S2__S1A_DEAD", "0" * 16)
YOUNG = ProductKey("S2__S1A_YOUNG", "0" * 16)
CLAIMED = ProductKey("S2__S1A_CLAIMED", "0" * 16)
RUN_OUT = b'{"owner": "gone:1", "expires_utc": "2026-01-01T00:00:00+00:00"}'

KEPT = {
    "_index/corrections.parquet", "_index/parts/old.parquet", "_runs/nightly/old.json", "scenes/2024/s1.tif",
    "scenes/0123456789abcdef/s1.tif", "notes.txt", DEAD.failure, DEAD.file("notes.txt"),
    f"_adjusted/{'0' * 16}/correction.json",
}  # fmt: skip
GOES = {
    DEAD.file("correction.json"), DEAD.file("aligned.tif"), DEAD.claim(1), DEAD.claim(2), DEAD.writer,
    DEAD.written_by("abc", "item.json"), DEAD.file(".crosstie-x1/aligned.tif"),
}  # fmt: skip


def age(store: Store, key: str, *, days: float) -> None:
    then = time.time() - days * 86_400
    os.utime(Path(store.url.removeprefix("file://"), key), (then, then))


@pytest.fixture
def whole(tmp_path: Path, make_registration: Callable[..., Registration]) -> tuple[Store, ProductKey]:
    """An old archive with a committed run and its leftovers, and what else lies in a root."""
    store = open_store(str(tmp_path / "products"))
    run = commit(store, make_registration(secondary_hrefs=(write_secondary(tmp_path),), n=20))
    for key in KEPT | GOES:
        store.put(key, RUN_OUT)
    for key in (run.file("aligned.tif"), run.claim(1), run.written_by("abc", "item.json"), run.writer):
        store.put(key, RUN_OUT)
    for product in (YOUNG, CLAIMED):
        for name in ("correction.json", "item.json"):
            store.put(product.file(name), b"{}")
    for key in store.list():
        age(store, key, days=30)
    age(store, YOUNG.file("item.json"), days=6)
    return store, run


def test_only_what_is_uncommitted_unclaimed_and_old_goes(whole: tuple[Store, ProductKey]) -> None:
    store, run = whole
    before = set(store.list())
    claim = take(store, CLAIMED, lease_s=60)
    assert isinstance(claim, Claim)
    with claim:
        planned = {left.key for left in remove_leftovers(store, older_than=WEEK, dry_run=True)}
        assert set(store.list()) - {claim.key} == before
        gone = {left.key for left in remove_leftovers(store, older_than=WEEK)}
    own = {
        run.file("aligned.tif"),
        run.claim(1),
        run.written_by("abc", "item.json"),
        run.writer,
    }
    assert gone == planned == GOES | own
    assert before - set(store.list()) == gone
    assert damage_of(store, run) == []
    assert [left.key for left in remove_leftovers(store, older_than=WEEK)] == [
        CLAIMED.file("correction.json"), CLAIMED.file("item.json"),
    ]  # fmt: skip
    assert {left.key for left in remove_leftovers(store, older_than=timedelta(0))} == {
        YOUNG.file("correction.json"), YOUNG.file("item.json"),
    }  # fmt: skip
    assert set(store.list()) >= KEPT
    assert damage_of(store, run) == []


def test_a_run_whose_commit_makes_no_sense_is_left_to_verify(whole: tuple[Store, ProductKey]) -> None:
    store, run = whole
    store.put(run.commit, b"{")
    age(store, run.commit, days=30)
    assert not [left for left in remove_leftovers(store, older_than=WEEK) if left.key.startswith(run.prefix)]


def test_a_writer_that_wakes_up_during_the_cleaning_is_left_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "products"))
    writer = Publication(store, DEAD)
    writer.put({"correction.json": b"{}", "item.json": b"[]"})
    store.put(DEAD.file("correction.json"), b"half")  # of another writer, long ago
    for key in store.list():
        age(store, key, days=30)

    delete_folder = Store.delete_folder

    def delete_later(self: Store, prefix: str) -> None:
        """Let the writer commit between the last look at the run and the first removal."""
        monkeypatch.setattr(Store, "delete_folder", delete_folder)
        writer.commit()
        delete_folder(self, prefix)

    monkeypatch.setattr(Store, "delete_folder", delete_later)
    assert list(remove_leftovers(store, older_than=WEEK)) == []
    assert store.exists(DEAD.commit)
    assert damage_of(store, DEAD) == []


def test_the_command_prints_what_it_removes(whole: tuple[Store, ProductKey]) -> None:
    store, _ = whole
    would = CliRunner().invoke(app, ["gc", "--out", store.url, "--dry-run"])
    done = CliRunner().invoke(app, ["gc", "--out", store.url])
    assert (would.exit_code, done.exit_code) == (0, 0)
    assert would.stdout == done.stdout
    assert set(would.stdout.splitlines()) >= GOES
    assert "13 files" in done.stderr
    again = CliRunner().invoke(app, ["gc", "--out", store.url])
    assert (again.exit_code, again.stdout) == (0, "")
    assert CliRunner().invoke(app, ["gc", "--out", store.url, "--older-than", "-1"]).exit_code == 2
