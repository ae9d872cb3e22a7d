"""`crosstie adjust` on archives whose scenes have known positions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pystac.validation
import pytest
from committed_runs import commit, write_secondary
from measured_archive import (
    MeasuredArchive,
    commit_without_pictures,
    measured_registration,
    optical_id,
    sar_id,
)
from s3_server import s3_server
from typer.testing import CliRunner, Result

import crosstie
from crosstie.cli import app
from crosstie.errors import BadInputError, StoreError
from crosstie.flows.archive import adjusting
from crosstie.flows.archive.adjusting import adjust_archive
from crosstie.flows.archive.solving import AdjustOptions
from crosstie.io.adjusted.layout import PlaceVersion
from crosstie.io.adjusted.publish import adjusted_places, read_edges
from crosstie.io.archive.index import update_index
from crosstie.io.archive.listing import list_archive
from crosstie.io.storage.store import Store, open_store
from crosstie.types import AffineCorrection, Model, Reason, Registration, Verdict, VerdictCode, pair_key

FOREST, COAST = "31UFS", "31UGS"

OPTIONS = AdjustOptions()


def drawn(folder: Path, seed: int = 0, *, wrong: float = 0.05) -> MeasuredArchive:
    archive = MeasuredArchive(open_store(str(folder)), np.random.default_rng(seed))
    archive.place(FOREST, wrong=wrong)
    archive.place(COAST, wrong=wrong)
    return archive


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MeasuredArchive]:
    folder = tmp_path_factory.mktemp("archive") / "products"
    return folder, drawn(folder)


@pytest.fixture
def archive(whole: tuple[Path, MeasuredArchive], tmp_path: Path) -> MeasuredArchive:
    """A copy that a test may change."""
    folder, made = whole
    shutil.copytree(folder, tmp_path / "products")
    store = open_store(str(tmp_path / "products"))
    return replace(made, store=store, truth_m=dict(made.truth_m), wrong=set(made.wrong))


def adjust(store: Store, options: AdjustOptions = OPTIONS) -> list[adjusting.PlaceOutcome]:
    return list(adjust_archive(store, options))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["adjust", *arguments])


def files_of(store: Store, prefix: str) -> dict[str, bytes | None]:
    return {key: store.get(key) for key in store.list(prefix)}


def errors_m(table: gpd.GeoDataFrame, archive: MeasuredArchive) -> np.ndarray:
    truth = np.array([archive.truth_m[scene] for scene in table["scene"]])
    return table[["dx_m", "dy_m"]].to_numpy() - truth


def test_scenes_are_recovered_and_wrong_pairs_are_named(archive: MeasuredArchive) -> None:
    places = adjust(archive.store)
    table = crosstie.read_adjusted(archive.store)
    assert set(table["scene"]) == set(archive.truth_m)
    # Noise of a pair 1 m, six or ten pairs a scene: 0.4 m; pair by pair it is 1 m and the reference's 3 m.
    error = errors_m(table, archive)
    assert np.sqrt((error**2).mean()) < 0.5
    named = {pair["pair_key"] for place in places for pair in place.rejected}
    assert archive.wrong <= named
    assert len(named - archive.wrong) <= 1
    sigma = table[["sigma_x_m", "sigma_y_m"]].to_numpy()
    assert 0.7 < np.sqrt(((error / sigma) ** 2).mean()) < 1.4
    assert set(table["verdict"]) == {"placed"}


def test_the_mean_of_sentinel_2_is_position_0(archive: MeasuredArchive) -> None:
    adjust(archive.store)
    table = crosstie.read_adjusted(archive.store, f"T{FOREST}")
    optical = table[table["sensor"] == "sentinel-2"]
    assert np.abs(optical[["dx_m", "dy_m"]].mean()).max() < 1e-9
    assert set(table["platform"]) == {"sentinel-1a", "sentinel-2a", "sentinel-2b"}
    assert set(table["track"]) == {"R058", "R008"}
    assert table.crs == "EPSG:4326"
    assert not table.geometry.is_empty.any()
    assert table["date"].is_monotonic_increasing or table["date"].notna().all()


def test_pairs_that_are_already_aligned_have_their_say(archive: MeasuredArchive) -> None:
    """Nothing was applied to them, so their product holds no covariance; their tie points do."""
    rng = np.random.default_rng(1)
    reference, near = optical_id(FOREST, 0), sar_id(FOREST, 40)
    for n in range(3):
        commit_without_pictures(
            archive.store, measured_registration(optical_id(FOREST, n), near, np.array([1.0, 2.0]), rng)
        )
    index = update_index(archive.store)
    assert index.rows
    adjust(archive.store)
    edges = read_edges(archive.store, version(archive.store, FOREST))
    assert edges is not None
    row = edges[edges["pair_key"] == pair_key(reference, near)].iloc[0]
    assert row["kept"]
    # 64 points of 2 m each.
    assert 0.15 < row["sigma_m"] < 0.4


def version(store: Store, tile: str) -> PlaceVersion:
    return PlaceVersion(f"T{tile}", crosstie.read_adjusted(store, f"T{tile}")["version"].iloc[0])


def test_a_second_run_changes_no_byte_and_a_new_scene_its_own_place_alone(archive: MeasuredArchive) -> None:
    adjust(archive.store)
    first = files_of(archive.store, "_adjusted")
    assert [place.action for place in adjust(archive.store)] == ["unchanged"] * 2
    assert files_of(archive.store, "_adjusted") == first
    new = sar_id(COAST, 20)
    archive.scene(new, [optical_id(COAST, n) for n in range(6)], at=(12.0, -7.0))
    assert [place.action for place in adjust(archive.store)] == ["unchanged", "solved"]
    now = files_of(archive.store, "_adjusted")
    forest = f"_adjusted/T{FOREST}/"
    assert {k: v for k, v in now.items() if k.startswith(forest)} == {
        k: v for k, v in first.items() if k.startswith(forest)
    }
    # The version of before stays as it was; the current table is another.
    current = f"_adjusted/T{COAST}/scenes.parquet"
    assert {key for key in first if now[key] != first[key]} == {current}
    table = crosstie.read_adjusted(archive.store, f"T{COAST}")
    assert np.hypot(*errors_m(table[table["scene"] == new], archive)[0]) < 1.5


def test_what_an_earlier_version_measured_is_not_read_again(archive: MeasuredArchive) -> None:
    adjust(archive.store)
    for key in list(archive.store.list()):
        if key.endswith("tie_points.parquet") and COAST in key:
            archive.store.delete(key)
    archive.scene(sar_id(COAST, 20), [optical_id(COAST, n) for n in range(6)], at=(12.0, -7.0))
    places = adjust(archive.store)
    assert [place.problems for place in places] == [(), ()]


def test_a_run_killed_between_places_goes_on_where_it_stopped(archive: MeasuredArchive) -> None:
    running = adjust_archive(archive.store, OPTIONS)
    next(running)
    running.close()
    assert adjusted_places(archive.store) == [f"T{FOREST}"]
    first = files_of(archive.store, "_adjusted")
    assert [place.action for place in adjust(archive.store)] == ["unchanged", "solved"]
    assert files_of(archive.store, f"_adjusted/T{FOREST}") == first


def test_a_run_killed_between_commit_and_current_table_is_finished(archive: MeasuredArchive) -> None:
    adjust(archive.store)
    before = files_of(archive.store, "_adjusted")
    archive.store.delete(f"_adjusted/T{FOREST}/scenes.parquet")
    assert adjusted_places(archive.store) == [f"T{COAST}"]
    adjust(archive.store)
    assert files_of(archive.store, "_adjusted") == before


def test_files_without_a_commit_are_written_anew(archive: MeasuredArchive) -> None:
    """A run that was killed while it wrote a version."""
    adjust(archive.store)
    whole = files_of(archive.store, "_adjusted")
    at = version(archive.store, FOREST)
    archive.store.delete(at.commit)
    archive.store.delete(f"_adjusted/T{FOREST}/scenes.parquet")
    archive.store.put(at.file("edges.parquet"), b"half")
    assert [place.action for place in adjust(archive.store)] == ["solved", "unchanged"]
    assert files_of(archive.store, "_adjusted") == whole


def test_a_broken_table_is_made_anew(archive: MeasuredArchive) -> None:
    adjust(archive.store)
    whole = files_of(archive.store, "_adjusted")
    archive.store.put(f"_adjusted/T{FOREST}/scenes.parquet", b"broken")
    with pytest.raises(StoreError, match="crosstie adjust"):
        crosstie.read_adjusted(archive.store)
    adjust(archive.store)
    assert files_of(archive.store, "_adjusted") == whole


@pytest.mark.server
def test_an_archive_on_s3_is_adjusted_as_one_on_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server("products") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        tables = []
        for root in ("s3://products/archive", str(tmp_path / "archive")):
            archive = MeasuredArchive(open_store(root), np.random.default_rng(5))
            archive.place(FOREST, optical=3, sar=5)
            assert [place.action for place in adjust(archive.store)] == ["solved"]
            assert [place.action for place in adjust(archive.store)] == ["unchanged"]
            tables.append(files_of(archive.store, "_adjusted"))
        assert tables[0] == tables[1]


def test_two_roots_with_the_same_pairs_get_the_same_bytes(archive: MeasuredArchive, tmp_path: Path) -> None:
    adjust(archive.store)
    other = drawn(tmp_path / "other")
    adjust(other.store)
    ours, theirs = (files_of(store, "_adjusted") for store in (archive.store, other.store))
    assert ours == theirs


def test_a_scene_can_be_the_datum(archive: MeasuredArchive) -> None:
    scene = sar_id(FOREST, 3)
    mean = crosstie_positions(archive.store, OPTIONS)
    [place] = adjust(archive.store, AdjustOptions(datum=f"scene:{scene}"))
    assert place.place == f"T{FOREST}"
    table = crosstie.read_adjusted(archive.store, f"T{FOREST}").set_index("scene")
    assert np.abs(table.loc[scene, ["dx_m", "dy_m"]].to_numpy(float)).max() < 1e-9
    apart = table[["dx_m", "dy_m"]] - mean.loc[table.index]
    assert np.ptp(apart.to_numpy(), axis=0).max() < 1e-6
    # And back, from the version that is still there.
    adjust(archive.store)
    again = crosstie.read_adjusted(archive.store, f"T{FOREST}").set_index("scene")
    assert (again[["dx_m", "dy_m"]] == mean.loc[again.index]).all(axis=None)


def crosstie_positions(store: Store, options: AdjustOptions) -> gpd.GeoDataFrame:
    adjust(store, options)
    return crosstie.read_adjusted(store).set_index("scene")[["dx_m", "dy_m"]]


def test_a_datum_or_place_that_is_not_there_is_said(archive: MeasuredArchive) -> None:
    with pytest.raises(BadInputError, match="no trusted pair"):
        adjust(archive.store, AdjustOptions(datum="scene:S1_NOWHERE"))
    with pytest.raises(BadInputError, match="no such place"):
        list(adjust_archive(archive.store, OPTIONS, only=["T99XXX"]))
    with pytest.raises(BadInputError, match="must be mean-s2"):
        AdjustOptions(datum="mean-s1")
    with pytest.raises(StoreError, match=r"no adjusted place '\.\./_index'"):
        crosstie.read_adjusted(archive.store, "../_index")


def test_a_scene_that_wrong_pairs_alone_tie_has_no_position(archive: MeasuredArchive) -> None:
    lost = sar_id(FOREST, 30)
    rng = np.random.default_rng(2)
    for n, off in enumerate([(60.0, 0.0), (-60.0, 10.0)]):
        commit_without_pictures(
            archive.store, measured_registration(optical_id(FOREST, n), lost, np.array(off), rng)
        )
    alone = sar_id(FOREST, 31)
    commit_without_pictures(
        archive.store, measured_registration(optical_id(FOREST, 0), alone, np.array([9.0, 9.0]), rng)
    )
    adjust(archive.store)
    table = crosstie.read_adjusted(archive.store, f"T{FOREST}").set_index("scene")
    assert table.loc[lost, "verdict"] == "untied"
    assert np.isnan(table.loc[lost, "dx_m"])
    assert table.loc[lost, "rejected_edges"] == 2
    assert table.loc[alone, "verdict"] == "unchecked"


def test_unreliable_pairs_have_no_say(archive: MeasuredArchive) -> None:
    adjust(archive.store)
    before = crosstie.read_adjusted(archive.store)
    wild = measured_registration(
        optical_id(FOREST, 0), sar_id(FOREST, 50), np.array([500.0, 0.0]), np.random.default_rng(3)
    )
    estimate = replace(
        wild.estimate,
        verdict=Verdict(VerdictCode.UNRELIABLE, (Reason.CLOUDED,)),
        correction=AffineCorrection.identity(),
    )
    commit_without_pictures(archive.store, replace(wild, estimate=estimate))
    assert [place.action for place in adjust(archive.store)] == ["unchanged"] * 2
    assert set(crosstie.read_adjusted(archive.store)["scene"]) == set(before["scene"])


def test_a_broken_product_is_named_and_the_others_are_solved(archive: MeasuredArchive) -> None:
    broken = sorted(p.prefix for p in list_archive(archive.store).committed if FOREST in p.pair_key)[0]
    whole = archive.store.get(f"{broken}/tie_points.parquet") or b""
    archive.store.put(f"{broken}/tie_points.parquet", whole[:200])
    forest, coast = adjust(archive.store)
    assert broken in forest.problems[0]
    assert (forest.action, coast.action, forest.summary["pairs"]) == ("solved", "solved", 59)
    assert [place.action for place in adjust(archive.store)] == ["unchanged"] * 2
    archive.store.put(f"{broken}/tie_points.parquet", whole)
    forest, _ = adjust(archive.store)
    assert (forest.action, forest.problems, forest.summary["pairs"]) == ("solved", (), 60)


def test_a_rotation_of_a_scene_is_taken_at_the_middle_of_the_place(
    make_registration: Callable[..., Registration], tmp_path: Path
) -> None:
    """Products of the ordinary writer, whole; every pair has the same affine, so its shift there is known."""
    store = open_store(str(tmp_path / "products"))
    secondary = (write_secondary(tmp_path),)
    made = make_registration(secondary_hrefs=secondary)
    for n in range(2):
        commit(store, made, reference_id=f"S2B_{n}", secondary_id="S1A_IW")
    [place] = adjust(store)
    x, y = place.summary["centre_m"]
    a, b, c, d, e, f = made.estimate.fitted.affine
    assert made.estimate.fitted.model is Model.AFFINE
    table = crosstie.read_adjusted(store).set_index("scene")
    moved = table.loc["S1A_IW", ["dx_m", "dy_m"]].to_numpy(float)
    np.testing.assert_allclose(moved, [x - (a * x + b * y + c), y - (d * x + e * y + f)], rtol=0, atol=1e-3)


def test_the_command_prints_a_table_and_names_wrong_pairs(archive: MeasuredArchive) -> None:
    result = run("--out", archive.store.url)
    assert result.exit_code == 0, result.output
    assert f"T{FOREST}" in result.output
    assert all(key in result.output for key in archive.wrong)
    said = json.loads(run("--out", archive.store.url, "--json", "--place", f"T{COAST}").stdout)
    assert [place["action"] for place in said["places"]] == ["unchanged"]
    assert said["places"][0]["adjustment"]["schema"] == "crosstie/adjusted/1"
    assert run("--out", archive.store.url, "--datum", "here").exit_code == 2


def test_a_dry_run_writes_nothing(archive: MeasuredArchive) -> None:
    before = files_of(archive.store, "")
    result = run("--out", archive.store.url, "--dry-run")
    assert result.exit_code == 0
    assert result.output.count("to solve") == 2
    assert files_of(archive.store, "") == before


def test_an_empty_root_has_nothing_to_adjust(tmp_path: Path) -> None:
    result = run("--out", str(tmp_path / "nothing"))
    assert result.exit_code == 0
    assert "nothing to adjust" in result.output
    with pytest.raises(StoreError, match="crosstie adjust"):
        crosstie.read_adjusted(open_store(str(tmp_path / "nothing")))


def test_items_are_stac_and_the_commit_lists_all_files(archive: MeasuredArchive) -> None:
    adjust(archive.store)
    at = version(archive.store, FOREST)
    said = json.loads(archive.store.get(at.file("items.json")) or b"")
    items = pystac.ItemCollection.from_dict(said).items
    assert len(items) == 16
    for item in items:
        # Without the schemas of extensions, which would be fetched.
        pystac.validation.validate_dict(item.to_dict(transform_hrefs=False), extensions=[])
    listed = set(json.loads(archive.store.get(at.commit) or b"")["files"])
    there = {key.rpartition("/")[2] for key in archive.store.list(f"_adjusted/{at.place}/{at.version}")}
    assert there == listed | {"_COMMIT"}
