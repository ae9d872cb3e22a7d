"""Damage of each kind to each file of a run is found; repaired, the pair is free and nothing else is gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from committed_runs import commit, write_secondary
from s3_server import S3Server, s3_server
from typer.testing import CliRunner, Result

from crosstie.cli import app
from crosstie.config import Settings
from crosstie.errors import DamagedProductError, StoreError
from crosstie.flows.status import take_status
from crosstie.io.archive.claims import Claim, take
from crosstie.io.archive.failures import DAMAGED, Failure, read_failure, record_failure
from crosstie.io.archive.listing import list_archive
from crosstie.io.archive.verify import REPAIRED, TOLD, verify_archive
from crosstie.io.storage.commit import DamageKind, damage_of
from crosstie.io.storage.root_layout import COMMIT, ProductKey
from crosstie.io.storage.store import Store, open_store
from crosstie.types import Registration

FILES = ("correction.json", "tie_points.parquet", "item.json", "corrected.vrt", "overview.png", "report.html")

CHANGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda body: None,
    "truncated": lambda body: body[:-1],
    "emptied": lambda body: b"",
    "one bit": lambda body: body[:10] + bytes([body[10] ^ 1]) + body[11:],
    "appended": lambda body: body + b" ",
}
KINDS = {
    "missing": DamageKind.MISSING,
    "truncated": DamageKind.TRUNCATED,
    "emptied": DamageKind.TRUNCATED,
    "one bit": DamageKind.EDITED,
    "appended": DamageKind.EDITED,
}


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


@pytest.fixture
def runs(
    store: Store, make_registration: Callable[..., Registration], tmp_path: Path
) -> tuple[ProductKey, ProductKey]:
    """A run to be damaged, and one to stay as it is."""
    registration = make_registration(secondary_hrefs=(write_secondary(tmp_path),), n=20)
    return commit(store, registration, secondary_id="S1A_HURT"), commit(store, registration)


def change(store: Store, key: str, how: str) -> bytes:
    """Damage an object; what it was before."""
    before = store.get(key)
    assert before is not None
    after = CHANGES[how](before)
    if after is None:
        store.delete(key)
    else:
        store.put(key, after)
    return before


def verify(store: Store, *options: str) -> Result:
    return CliRunner().invoke(app, ["verify", "--out", store.url, *options])


def test_a_whole_archive_is_well(store: Store, runs: tuple[ProductKey, ProductKey]) -> None:
    store.put("notes.txt", b"no product")
    store.put("_index/corrections.parquet", b"no product")
    assert list(verify_archive(store)) == []
    done = verify(store)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "2 runs checked" in done.stderr
    assert json.loads(verify(store, "--json").stdout) == {
        "schema": "crosstie/verify/1", "root": store.url, "checked": 2, "damage": [],
    }  # fmt: skip


def test_damage_of_each_kind_to_each_file_is_found_and_named(
    store: Store, runs: tuple[ProductKey, ProductKey]
) -> None:
    hurt, _ = runs
    for name in FILES:
        for how, kind in KINDS.items():
            before = change(store, hurt.file(name), how)
            (found,) = verify_archive(store)
            assert (found.product, found.outcome) == (hurt, TOLD)
            assert [(damage.name, damage.kind) for damage in found.damage] == [(name, kind)]
            store.put(hurt.file(name), before)
            assert list(verify_archive(store)) == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "no JSON"),
        (b'{"files": {"correction.json": {"si', "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"null", "lists no files"),
        (b'{"files": []}', "lists no files"),
        (b"{}", "does not list correction.json"),
        (b'{"files": {"../x": {"size": 1, "sha256": "' + b"0" * 64 + b'"}}}', "no name of a product"),
        (b'{"files": {"_FAILED.json": {"size": 1, "sha256": "' + b"0" * 64 + b'"}}}', "no name of a product"),
        (
            b'{"files": {"correction.json": {"size": -1, "sha256": "' + b"0" * 64 + b'"}}}',
            "no size and sha256",
        ),
        (b'{"files": {"correction.json": {"size": 1, "sha256": "no"}}}', "no size and sha256"),
        (b'{"files": {"correction.json": 7}}', "no size and sha256"),
        (b" " * 2**21, "bytes are no commit"),
    ],
)
def test_a_wrong_commit_is_damage(
    store: Store, runs: tuple[ProductKey, ProductKey], body: bytes, told: str
) -> None:
    hurt, _ = runs
    store.put(hurt.commit, body)
    (found,) = verify_archive(store)
    assert (found.damage[0].name, found.damage[0].kind) == (COMMIT, DamageKind.COMMIT)
    assert told in found.damage[0].detail
    assert any(damage.harms for damage in found.damage)


def test_the_commit_of_another_run_fits_no_file(store: Store, runs: tuple[ProductKey, ProductKey]) -> None:
    hurt, well = runs
    store.put(hurt.commit, store.get(well.commit) or b"")
    (found,) = verify_archive(store)
    assert {damage.name for damage in found.damage} >= {"correction.json", "item.json"}


def test_a_file_too_many_is_told_and_harms_nobody(store: Store, runs: tuple[ProductKey, ProductKey]) -> None:
    hurt, _ = runs
    store.put(hurt.file("aligned.tif"), b"left by a worker that died")
    store.put(hurt.claim(1), b"a claim is no file too many")
    done = verify(store, "--repair")
    assert done.exit_code == 3
    assert done.stdout.splitlines() == [
        f"{hurt.prefix}/aligned.tif: extra, _COMMIT does not list it (left: its products are whole)"
    ]
    assert list_archive(store).committed == set(runs)
    assert take_status(store, Settings()).failures == {}


def test_a_repair_frees_the_damaged_pair_and_removes_nothing_else(
    store: Store, runs: tuple[ProductKey, ProductKey]
) -> None:
    hurt, well = runs
    change(store, hurt.file("correction.json"), "one bit")
    change(store, hurt.file("overview.png"), "missing")
    before = {key: store.get(key) for key in store.list()}
    done = verify(store, "--repair", "--json")
    assert done.exit_code == 3
    said = json.loads(done.stdout)["damage"]
    assert [(one["file"], one["kind"], one["outcome"]) for one in said] == [
        ("correction.json", "edited", REPAIRED), ("overview.png", "missing", REPAIRED),
    ]  # fmt: skip
    after = {key: store.get(key) for key in store.list()}
    assert before.keys() - after.keys() == {hurt.commit}
    assert after.keys() - before.keys() == {hurt.failure}
    assert all(after[key] == before[key] for key in after.keys() & before.keys())
    assert list_archive(store).committed == {well}
    status = take_status(store, Settings())
    assert (status.done, status.failures) == ({"corrected": 1}, {DAMAGED: 1})
    assert verify(store).exit_code == 0


def test_a_repaired_pair_is_written_anew_and_whole(
    store: Store, make_registration: Callable[..., Registration], tmp_path: Path
) -> None:
    registration = make_registration(secondary_hrefs=(write_secondary(tmp_path),), n=20)
    hurt = commit(store, registration, secondary_id="S1A_HURT")
    for name in FILES:
        change(store, hurt.file(name), "one bit")
    assert verify(store, "--repair").exit_code == 3
    assert commit(store, registration, secondary_id="S1A_HURT") == hurt
    assert list_archive(store).committed == {hurt}
    assert damage_of(store, hurt) == []


def test_products_are_not_said_to_be_there_where_they_are_damaged(
    store: Store, make_registration: Callable[..., Registration], tmp_path: Path
) -> None:
    registration = make_registration(secondary_hrefs=(write_secondary(tmp_path),), n=20)
    hurt = commit(store, registration)
    assert commit(store, registration) == hurt  # it is there, and whole
    change(store, hurt.file("correction.json"), "one bit")
    with pytest.raises(DamagedProductError, match=r"correction\.json: edited"):
        commit(store, registration)


def test_a_pair_that_somebody_works_on_is_left_to_him(
    store: Store, runs: tuple[ProductKey, ProductKey]
) -> None:
    hurt, _ = runs
    change(store, hurt.file("item.json"), "truncated")
    claim = take(store, hurt, lease_s=60)
    assert isinstance(claim, Claim)
    with claim:
        (found,) = verify_archive(store, repair=True)
        assert "works on it" in found.outcome
        assert list_archive(store).committed == set(runs)
    (found,) = verify_archive(store, repair=True)
    assert found.outcome == REPAIRED


def test_damage_is_recorded_once_and_forgotten_when_the_files_are_back(
    store: Store, runs: tuple[ProductKey, ProductKey]
) -> None:
    hurt, well = runs
    record_failure(store, Failure(*well, "S2", "S1", "time_limit", "before it was committed", "", 1))
    before = change(store, hurt.file("item.json"), "one bit")
    assert len(list(verify_archive(store))) == 1
    first = read_failure(store, *hurt)
    assert first is not None
    assert first.code == DAMAGED
    assert len(list(verify_archive(store))) == 1
    assert read_failure(store, *hurt) == first
    assert take_status(store, Settings()).failures == {DAMAGED: 1}
    store.put(hurt.file("item.json"), before)
    assert list(verify_archive(store)) == []
    assert read_failure(store, *hurt) is None
    assert read_failure(store, *well) is not None  # another failure, not ours to forget


def test_who_may_only_read_can_verify(
    store: Store, runs: tuple[ProductKey, ProductKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Store, key: str, data: bytes) -> None:
        raise StoreError(f"cannot write {key}")

    for run in runs:
        change(store, run.file("item.json"), "truncated")
    monkeypatch.setattr(Store, "put", refused)
    found = list(verify_archive(store))
    assert [run.product for run in found] == sorted(runs)
    assert all("not recorded" in run.outcome for run in found)


def test_an_empty_root_is_bad_input(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["verify", "--out", str(tmp_path / "typo")])
    assert done.exit_code == 2
    assert "holds nothing" in done.stderr
    assert not (tmp_path / "typo").exists()
