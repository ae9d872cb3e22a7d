"""An archive as version 0.1.0 wrote it is read, indexed and gone on with; nothing of it is made anew.

The archive holds the products of `crosstie nightly` with default settings over the catalog that is simulated
here. Where its run keys change, users register all their pairs again: raise `ALGORITHM_VERSION` or change a
setting of `Settings.hash` only for results that are worth that, and make this archive anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import geopandas as gpd
import pytest

from crosstie.config import Settings
from crosstie.flows.status import take_status
from crosstie.io.archive.index import read_index, update_index
from crosstie.io.archive.listing import list_archive
from crosstie.io.archive.run_log import last_success, newest_logs
from crosstie.io.products.correction import read_correction
from crosstie.io.products.keys import is_committed
from crosstie.io.simulation.pairs import write_simulated_catalog
from crosstie.io.storage.root_layout import COMMIT, ProductKey
from crosstie.io.storage.store import Store, open_store

GOLDEN = Path(__file__).parents[2] / "golden" / "archive-0.1.0"

CORRECTED = ProductKey("SIM_S2_20250604T103000_000__SIM_S1_20250606T053000_000", "ef88971bba2e0671")
CLOUDED = ProductKey("SIM_S2_20250609T103000_001__SIM_S1_20250611T053000_001", "c7cb988a3559d00d")

MOVED = ["assets", "products", "updated"]
"""Columns of the index that say where the archive lies, or when the row was made."""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The catalog that the archive was made from, drawn again."""
    return str(write_simulated_catalog(tmp_path_factory.mktemp("catalog"), seed=3, scenes=2, size_px=320))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the archive."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "products"))


@pytest.fixture
def store(root: Path) -> Store:
    return open_store(str(root))


def products(root: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a pair: its bytes, and when it was last written, ns."""
    files = [path for path in sorted(root.glob("*/*/*")) if path.is_file() and path.parts[-3][0] != "_"]
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_its_names_say_what_is_done(store: Store) -> None:
    listing = list_archive(store)
    assert listing.committed == {CORRECTED, CLOUDED}
    assert (listing.failed, listing.claimed, listing.flows) == (set(), set(), {"nightly"})


def test_status_says_that_all_pairs_of_the_catalog_are_done(store: Store, catalog: str) -> None:
    status = take_status(store, Settings(), catalog=catalog)
    assert status.done == {"corrected": 1, "unreliable": 1}
    assert status.reasons == {"clouded": 1, "too_few_tie_points": 1}
    assert (status.failed, status.in_progress) == ((), ())
    assert status.plan is not None
    assert (status.plan.pairs, status.plan.done, status.plan.pending) == (2, 2, ())
    (log,) = status.last_runs
    assert (log.flow, log.complete, log.pairs, log.version) == ("nightly", True, 2, "0.1.0")


def test_its_products_are_read(store: Store, root: Path) -> None:
    corrected, clouded = (read_correction(store, *product) for product in (CORRECTED, CLOUDED))
    assert corrected is not None
    assert clouded is not None
    assert (corrected["verdict"], corrected["model"]) == ("corrected", "translation")
    assert (clouded["verdict"], clouded["affine"]) == ("unreliable", [1, 0, 0, 0, 1, 0])
    points = gpd.read_parquet(root / CORRECTED.file("tie_points.parquet"))
    assert (len(points), int(points["used"].sum())) == (49, corrected["tie_points"]["used"])
    assert points[["dx_m", "dy_m"]].median().tolist() == pytest.approx(
        [corrected["offset_m"]["median_x"], corrected["offset_m"]["median_y"]]
    )
    assert not is_committed(store, CORRECTED.pair_key, "0" * 16)


@pytest.mark.parametrize("product", [CORRECTED, CLOUDED])
def test_its_commits_hold(store: Store, product: ProductKey) -> None:
    listing = json.loads(store.get(product.file(COMMIT)) or b"")["files"]
    for name, said in listing.items():
        body = store.get(product.file(name)) or b""
        assert (len(body), hashlib.sha256(body).hexdigest()) == (said["size"], said["sha256"])


def test_its_index_is_read_and_made_anew_with_the_same_rows(store: Store) -> None:
    before = read_index(store)
    assert update_index(store).added == 0
    update = update_index(store, rebuild=True)
    assert (update.rows, update.added, update.unreadable) == (2, 2, ())
    assert before.drop_columns(MOVED).equals(read_index(store).drop_columns(MOVED))
    assert read_index(store)["pair_key"].to_pylist() == [CORRECTED.pair_key, CLOUDED.pair_key]


@pytest.mark.usefixtures("prefect_home")
def test_the_night_after_goes_on_where_its_last_run_ended(store: Store) -> None:
    from crosstie.flows.nightly import scope_of

    (log,) = newest_logs(store, "nightly")
    assert last_success(store, "nightly", scope=scope_of("catalog/catalog.json", Settings())) == log


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.usefixtures("prefect_home")
def test_nightly_makes_nothing_anew(catalog: str, root: Path) -> None:
    from crosstie.flows.nightly import run_nightly

    before = products(root)
    outcomes = run_nightly(catalog, str(root), Settings())
    assert [(o.pair_key, o.verdict, o.already_done) for o in outcomes] == [
        (CORRECTED.pair_key, "corrected", True),
        (CLOUDED.pair_key, "unreliable", True),
    ]
    assert len(before) == 14
    assert products(root) == before
