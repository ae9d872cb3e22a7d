"""Ids of any kind: their corrections are in the index and on the site, and none gets hold of a terminal."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from committed_runs import commit, write_secondary
from hypothesis import given
from hypothesis import strategies as st
from site_archive import Site, fail
from typer.testing import CliRunner

from crosstie.cli import app
from crosstie.flows.observe.printable_log import keep_log_printable
from crosstie.flows.site.app import make_site_app
from crosstie.flows.site.watch import Watch
from crosstie.io.archive.failures import Failure, record_failure
from crosstie.io.archive.index import read_index, update_index
from crosstie.io.archive.listing import list_archive
from crosstie.io.simulation.pairs import write_simulated_catalog
from crosstie.io.storage.redaction import printable
from crosstie.io.storage.store import Store, open_store
from crosstie.types import Registration

HARMFUL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

EVIL = "S1\x1b]0;mine\x07\x1b[2J\x9b31m\u202eTIFF\nfailed: nothing\r\x00"

ODD = [
    "_S2", "__S2", "_", "-", ".", "..", "a__b", "場面", "Сцена", "🛰", "1", "é", " ", "a b", "a/b",
    "../../etc", "_index", "_runs", "S1_", "S1__", "C:\\x", "%2e%2e", "A" * 300, "'\"<b>", "\u202e", EVIL,
]  # fmt: skip


pytestmark = pytest.mark.filterwarnings("ignore:Glyph")  # of the pictures, whose font lacks some letters


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "products"))


def test_every_committed_pair_is_in_the_index_and_on_the_site(
    store: Store, make_registration: Callable[..., Registration], tmp_path: Path
) -> None:
    registration = make_registration(secondary_hrefs=(write_secondary(tmp_path),), n=20)
    runs = {commit(store, registration, reference_id=odd) for odd in ODD}
    runs |= {commit(store, registration, secondary_id=odd) for odd in ODD}
    runs |= {commit(store, registration, reference_id=odd, secondary_id=odd) for odd in ODD}
    assert len(runs) == 3 * len(ODD)
    assert list_archive(store).committed == runs
    assert update_index(store).rows == 3 * len(ODD)
    assert set(read_index(store)["reference_id"].to_pylist()) >= set(ODD)
    site = Site(make_site_app(Watch(store, every_s=60), None, local=True))
    assert {site.head(f"/runs/{run.prefix}/correction.json").status_code for run in runs} == {200}


@pytest.fixture
def hostile(store: Store, make_registration: Callable[..., Registration], tmp_path: Path) -> Store:
    """An archive with ids, messages, owners and file names that take hold of a terminal."""
    registration = make_registration(secondary_hrefs=(write_secondary(tmp_path),), n=20)
    run = commit(store, registration, secondary_id=EVIL)
    record_failure(store, Failure("A__B", "0" * 16, EVIL, EVIL, EVIL, EVIL, EVIL, 1))
    fail(store, "S1A", "time_limit")
    store.put("C__D/0000000000000000/_CLAIM.1", json.dumps(
        {"owner": EVIL, "expires_utc": "2026-01-01T00:00:00+00:00"}
    ).encode())  # fmt: skip
    folder = Path(store.url.removeprefix("file://"), run.prefix)
    (folder / "\x9b2J\u202ex.tif").write_bytes(b"")
    return store


def test_no_command_prints_a_control_character(hostile: Store) -> None:
    for command in (
        ["index", "--rebuild"],
        ["index", "--scene", EVIL],
        ["index", "--scene", EVIL, "--format", "json"],
        ["status"],
        ["status", "--format", "json"],
        ["verify"],
        ["verify", "--json"],
        ["gc", "--older-than", "0", "--dry-run"],
    ):
        done = CliRunner().invoke(app, [*command, "--out", hostile.url])
        assert done.exit_code in {0, 3}, done.output
        assert not HARMFUL.search(done.stdout + done.stderr), command
        if command[-1] in {"json", "--json"}:
            json.loads(done.stdout)
        assert "\nfailed: nothing" not in done.stdout
    said = CliRunner().invoke(app, ["index", "--scene", EVIL, "--out", hostile.url]).stdout
    assert "secondary S1\\u001b]0;mine\\u0007" in said


def test_ids_of_a_catalog_do_not_reach_a_terminal(tmp_path: Path) -> None:
    path = write_simulated_catalog(tmp_path / "catalog", seed=0, scenes=2, size_px=64)
    for file in path.parent.rglob("*.json"):
        text = file.read_text()
        for name in re.findall(r'"id": "(SIM_S1_[^"]+)"', text):
            text = text.replace(f'"id": "{name}"', f'"id": {json.dumps(name + EVIL)}')
        file.write_text(text)
    for command in (
        ["pairs", "--catalog", str(path)],
        ["pairs", "--catalog", str(path), "--out", str(tmp_path / "products")],
        ["pairs", "--catalog", str(path), "--max-days", "0.01"],
        ["status", "--catalog", str(path), "--out", str(tmp_path / "products")],
    ):
        done = CliRunner().invoke(app, command)
        assert not HARMFUL.search(done.stdout + done.stderr), command
        if "--max-days" in command:  # which leaves out scenes, and names them
            assert "S1\\u001b]0;mine" in done.stdout


def test_no_log_line_holds_a_control_character(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogRecordFactory()
    keep_log_printable()
    try:
        logging.getLogger("crosstie.x").warning("%s: %s", EVIL, ValueError(EVIL))
        try:
            raise ValueError(EVIL)
        except ValueError:
            logging.getLogger("crosstie.x").exception("failed")
    finally:
        logging.setLogRecordFactory(before)
    assert "\\u001b" in caplog.text
    assert not HARMFUL.search(caplog.text)
    assert not any(line.startswith("failed: nothing") for line in caplog.messages[0].splitlines())


@given(st.text())
def test_printable_text_is_harmless_and_json_stays_what_it_is(text: str) -> None:
    assert not HARMFUL.search(printable(text))
    assert "\n" not in printable(text)
    assert json.loads(printable(json.dumps(text, ensure_ascii=False), block=True)) == text
    if not HARMFUL.search(text) and not re.search(r"[\n\t]", text):
        assert printable(text) == text
