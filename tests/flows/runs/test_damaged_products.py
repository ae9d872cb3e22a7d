"""Damage to one product is the failure of its pair: told everywhere, served nowhere, and nobody else's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from committed_runs import commit, write_secondary
from site_archive import Site
from typer.testing import CliRunner

import crosstie
from crosstie.cli import app
from crosstie.config import Settings
from crosstie.errors import DamagedProductError, StoreError
from crosstie.flows.registration.load_matcher import weights_sha256
from crosstie.flows.registration.publish import run_key_of
from crosstie.flows.runs.done import done_outcomes
from crosstie.flows.runs.outcome import FAILED
from crosstie.flows.site.app import make_site_app
from crosstie.flows.site.snapshot import take_snapshot
from crosstie.flows.site.watch import Watch
from crosstie.flows.status import take_status
from crosstie.io.archive.failures import DAMAGED, Failure, read_failure, record_failure
from crosstie.io.archive.index import read_index, update_index
from crosstie.io.products.correction import read_correction
from crosstie.io.simulation.pairs import write_simulated_catalog
from crosstie.io.storage.commit import DamageKind, damage_of
from crosstie.io.storage.root_layout import COMMIT, ProductKey
from crosstie.io.storage.store import Store, open_store
from crosstie.types import Registration, ScenePair

GOLDEN = Path(__file__).parents[2] / "golden" / "archive-0.1.0"
HURT = ProductKey("SIM_S2_20250604T103000_000__SIM_S1_20250606T053000_000", "ef88971bba2e0671")
WELL = ProductKey("SIM_S2_20250609T103000_001__SIM_S1_20250611T053000_001", "c7cb988a3559d00d")


def truncate(body: bytes) -> bytes:
    return body[: len(body) // 2]


def edit_affine(body: bytes) -> bytes:
    """Move the scene by a thousand kilometres; the file stays what any reader takes for a correction."""
    said = json.loads(body)
    said["affine"][2] += 1e6
    return json.dumps(said).encode()


def other_digest(body: bytes) -> bytes:
    said = json.loads(body)
    said["files"]["correction.json"]["sha256"] = "0" * 64
    return json.dumps(said).encode()


DAMAGE = {
    "correction truncated": ("correction.json", truncate),
    "correction emptied": ("correction.json", lambda body: b""),
    "correction edited": ("correction.json", edit_affine),
    "correction gone": ("correction.json", None),
    "correction nested": ("correction.json", lambda body: b"[" * 100_000),
    "commit truncated": (COMMIT, truncate),
    "commit emptied": (COMMIT, lambda body: b""),
    "commit without files": (COMMIT, lambda body: b'{"files": {}}'),
    "commit of another kind": (COMMIT, lambda body: b"[1]"),
    "commit that lies": (COMMIT, other_digest),
    "commit that leads away": (
        COMMIT,
        lambda body: body.replace(b"correction.json", b"../../" + WELL.prefix.encode() + b"/correction.json"),
    ),
}


@pytest.fixture(params=DAMAGE)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An archive of two pairs, one of them damaged."""
    root = Path(shutil.copytree(GOLDEN, tmp_path / "products"))
    harm(root, *DAMAGE[request.param])
    return root


def harm(root: Path, name: str, change: Callable[[bytes], bytes] | None) -> None:
    path = root / HURT.file(name)
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_simulated_catalog(tmp_path_factory.mktemp("catalog"), seed=3, scenes=2, size_px=320))


@pytest.fixture(scope="module")
def pairs(catalog: str) -> list[ScenePair]:
    from crosstie.flows.discovery.pairs import find_pairs

    return find_pairs(catalog, Settings())


def test_only_the_damaged_pair_has_failed_when_a_run_looks_up_what_is_done(
    root: Path, pairs: list[ScenePair]
) -> None:
    settings = Settings()
    store, digest = open_store(str(root)), weights_sha256(settings)
    keys = [ProductKey(pair.key, run_key_of(pair.key, settings, weights_sha256=digest)) for pair in pairs]
    assert set(keys) == {HURT, WELL}
    found = done_outcomes(store, pairs, settings, weights_sha256=digest)
    hurt, well = found[HURT.pair_key], found[WELL.pair_key]
    assert (hurt.verdict, hurt.reasons, hurt.already_done) == (FAILED, (DAMAGED,), False)
    assert HURT.prefix in hurt.explanation[0]
    assert "crosstie verify --repair" in hurt.explanation[0]
    assert (well.verdict, well.already_done) == ("unreliable", True)


def test_the_correction_of_another_pair_is_damage(tmp_path: Path, pairs: list[ScenePair]) -> None:
    """A folder copied to the place of another is whole in itself, and applies a wrong affine all the same."""
    root = Path(shutil.copytree(GOLDEN, tmp_path / "products"))
    shutil.rmtree(root / WELL.prefix)
    shutil.copytree(root / HURT.prefix, root / WELL.prefix)
    settings = Settings()
    store, digest = open_store(str(root)), weights_sha256(settings)
    found = done_outcomes(store, pairs, settings, weights_sha256=digest)
    assert found[HURT.pair_key].already_done
    assert found[WELL.pair_key].reasons == (DAMAGED,)
    assert "of another pair" in found[WELL.pair_key].explanation[0]


@pytest.mark.parametrize("name", ["correction.json", COMMIT])
def test_a_file_that_the_disk_does_not_give_is_damage_of_its_pair(
    name: str, tmp_path: Path, pairs: list[ScenePair]
) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "products"))
    path = root / HURT.file(name)
    path.unlink()
    path.symlink_to(path.name)  # leads round for ever: an error of the disk for whoever opens it
    store, settings = open_store(str(root)), Settings()
    found = done_outcomes(store, pairs, settings, weights_sha256=weights_sha256(settings))
    assert found[HURT.pair_key].reasons == (DAMAGED,)
    assert found[WELL.pair_key].already_done
    (damage,) = damage_of(store, HURT, names=[])
    assert (damage.name, damage.kind) == (name, DamageKind.UNREADABLE)


def test_a_damaged_correction_is_never_served(root: Path) -> None:
    store = open_store(str(root))
    with pytest.raises(DamagedProductError, match="is committed but"):
        read_correction(store, *HURT)
    with pytest.raises(StoreError):
        crosstie.open(root / HURT.prefix)
    site = Site(make_site_app(Watch(store, every_s=60), None, local=True))
    assert site.get(f"/runs/{HURT.prefix}/correction.json").status_code in {404, 503}
    assert site.get(f"/runs/{WELL.prefix}/correction.json").status_code == 200


def test_status_index_and_site_tell_it_and_count_the_others(root: Path) -> None:
    shutil.rmtree(root / "_index")
    store = open_store(str(root))
    status = take_status(store, Settings())
    assert (status.done, status.failures) == ({"unreliable": 1}, {DAMAGED: 1})
    assert status.failed[0].pair_key == HURT.pair_key
    update = update_index(store)
    assert (update.rows, len(update.unreadable)) == (1, 1)
    assert HURT.prefix in update.unreadable[0]
    snapshot = take_snapshot(store)
    assert (snapshot.unreadable, snapshot.table.num_rows) == (1, 1)
    watch = Watch(store, every_s=60)
    watch.look()
    assert HURT.pair_key in Site(make_site_app(watch, None, local=True)).get("/failures").text
    told = CliRunner().invoke(app, ["status", "--out", str(root)])
    assert told.exit_code == 3
    assert DAMAGED in told.stdout


def test_what_a_run_has_found_is_told_until_the_files_are_put_back(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "products"))
    store = open_store(str(root))
    update_index(store, rebuild=True)
    before = (root / HURT.file("correction.json")).read_bytes()
    harm(root, "correction.json", edit_affine)
    record_failure(store, Failure(*HURT, "S2", "S1", DAMAGED, "noticed", "2026-01-01T00:00:00+00:00", 1))
    status = take_status(store, Settings())
    assert (status.done, status.failures) == ({"unreliable": 1}, {DAMAGED: 1})
    assert (status.failed[0].reference, status.failed[0].attempts) == ("S2", 1)
    assert take_snapshot(store).table["pair_key"].to_pylist() == [WELL.pair_key]
    update = update_index(store)
    assert (update.rows, update.dropped, len(update.unreadable)) == (1, 0, 1)
    (root / HURT.file("correction.json")).write_bytes(before)
    assert take_status(store, Settings()).failures == {}
    update = update_index(store)
    assert (update.rows, update.added, update.unreadable) == (2, 1, ())


@pytest.mark.parametrize("name", ["item.json", "tie_points.parquet", "overview.png"])
@pytest.mark.parametrize("change", [truncate, lambda body: body[:-9] + b"otherwise", None])
def test_every_file_is_checked_where_it_is_read(
    name: str, change: Callable[[bytes], bytes] | None, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "products"))
    product = crosstie.open(root / HURT.prefix)
    harm(root, name, change)
    with pytest.raises(DamagedProductError, match=f"{name} is committed but damaged"):
        _ = {
            "item.json": lambda: product.item,
            "tie_points.parquet": lambda: product.tie_points,
            "overview.png": product.plot,
        }[name]()
    site = Site(make_site_app(Watch(open_store(str(root)), every_s=60), None, local=True))
    assert site.get(f"/runs/{HURT.prefix}/{name}").status_code == 503
    assert site.get(f"/runs/{HURT.prefix}/correction.json").status_code == 200
    if name == "overview.png":
        assert site.get(f"/runs/{HURT.prefix}/thumbnail.webp").status_code == 503


def test_the_end_of_a_large_file_is_held_back_until_all_of_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_registration: Callable[..., Registration]
) -> None:
    monkeypatch.setattr("crosstie.flows.site.files.MOST_CHECKED_BYTES", 1000)
    store = open_store(str(tmp_path / "products"))
    run = commit(store, make_registration(secondary_hrefs=(write_secondary(tmp_path),)))
    address = f"/runs/{run.prefix}/report.html"
    whole = store.get(run.file("report.html")) or b""
    site = Site(make_site_app(Watch(store, every_s=60), None, local=True))
    assert site.get(address).content == whole
    store.put(run.file("report.html"), whole[:-1] + b"!")
    with pytest.raises(RuntimeError) as broken_off:  # too late for another answer
        site.get(address)
    assert isinstance(broken_off.value.__cause__, DamagedProductError)


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.usefixtures("prefect_home")
def test_a_night_over_a_damaged_archive_ends_and_records_the_damage(catalog: str, tmp_path: Path) -> None:
    from crosstie.flows.nightly import run_nightly

    root = Path(shutil.copytree(GOLDEN, tmp_path / "products"))
    harm(root, "correction.json", truncate)
    for attempts in (1, 2):
        outcomes = run_nightly(catalog, str(root), Settings())
        assert [(o.pair_key, o.verdict, o.already_done) for o in outcomes] == [
            (HURT.pair_key, FAILED, False),
            (WELL.pair_key, "unreliable", True),
        ]
        found = read_failure(open_store(str(root)), *HURT)
        assert found is not None
        assert (found.code, found.attempts) == (DAMAGED, attempts)
        assert read_index(open_store(str(root)))["pair_key"].to_pylist() == [WELL.pair_key]
    assert take_status(open_store(str(root)), Settings()).failures == {DAMAGED: 1}


def test_the_golden_archive_is_well(tmp_path: Path) -> None:
    """What the tests above damage is whole before."""
    store: Store = open_store(str(shutil.copytree(GOLDEN, tmp_path / "products")))
    assert take_status(store, Settings()).failures == {}
