"""Adjusted places of before scenes had affines: read as they were, and solved again to the same positions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from measured_archive import MeasuredArchive

import crosstie
from crosstie.errors import StoreError
from crosstie.flows.archive.adjusting import adjust_archive
from crosstie.flows.archive.solving import AdjustOptions
from crosstie.io.adjusted.layout import PlaceVersion
from crosstie.io.adjusted.position import AdjustedPositions
from crosstie.io.adjusted.publish import read_edges, read_positions
from crosstie.io.storage.store import Store, open_store

GOLDEN = Path(__file__).parents[2] / "golden" / "adjusted-1"
PLACE = "T31UFS"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The pairs that the golden version was made of, and that version."""
    store = open_store(str(tmp_path / "products"))
    MeasuredArchive(store, np.random.default_rng(11)).place("31UFS", optical=3, sar=4, wrong=0)
    shutil.copytree(GOLDEN / "_adjusted", tmp_path / "products" / "_adjusted")
    return store


def test_an_earlier_table_is_read_as_one_of_translations(store: Store) -> None:
    table = crosstie.read_adjusted(store)
    assert len(table) == 7
    assert set(table["model"]) == {"translation"}
    for row in table.to_dict("records"):
        assert row["affine"] == pytest.approx([1, 0, -row["dx_m"], 0, 1, -row["dy_m"]], abs=1e-12)
        spread = np.reshape(row["affine_covariance"], (6, 6))
        assert spread[np.ix_([2, 5], [2, 5])].ravel() == pytest.approx(row["covariance"], abs=1e-12)
        assert np.count_nonzero(spread) <= 4
    assert len(read_positions(store)) == 7
    positions = AdjustedPositions.read(store)
    assert all(one.affine is None for [one] in positions.of_scene.values())


def test_places_of_translations_are_solved_to_the_positions_of_before(store: Store) -> None:
    before = crosstie.read_adjusted(store)
    old = PlaceVersion(PLACE, before["version"].iloc[0])
    [place] = adjust_archive(store, AdjustOptions())
    assert (place.action, place.problems) == ("solved", ())
    after = crosstie.read_adjusted(store)
    new = PlaceVersion(PLACE, after["version"].iloc[0])
    assert new != old
    assert store.exists(old.commit)
    for column in before.columns.drop(["version", "geometry"]):
        was, now = before[column].to_list(), after[column].to_list()
        if column in ("affine", "affine_covariance", "covariance") or before[column].dtype == np.float64:
            np.testing.assert_allclose(now, was, rtol=0, atol=1e-9)
        else:
            assert now == was
    edges = [read_edges(store, version) for version in (old, new)]
    assert edges[0] is not None
    assert edges[1] is not None
    np.testing.assert_allclose(edges[1]["residual_x_m"], edges[0]["residual_x_m"], rtol=0, atol=1e-9)
    assert place.summary["affines"]["used"] is False
    said = json.loads(store.get(old.file("adjustment.json")) or b"")
    assert {name: place.summary[name] for name in ("parts", "datum", "rejected")} == {
        name: said[name] for name in ("parts", "datum", "rejected")
    }


def test_a_table_that_lacks_another_column_is_broken(store: Store) -> None:
    key = f"_adjusted/{PLACE}/scenes.parquet"
    table = crosstie.read_adjusted(store)
    body = Path(store.url_of(key).removeprefix("file://"))
    table.drop(columns=["model", "affine", "affine_covariance", "datum"]).to_parquet(body)
    with pytest.raises(StoreError, match="no column affine"):
        crosstie.read_adjusted(store)
