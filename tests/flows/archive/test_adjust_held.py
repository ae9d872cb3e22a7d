"""`adjust.datum: held:FILE`: scenes stay where a table says, and carry the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from measured_archive import (
    MeasuredArchive,
    commit_without_pictures,
    measured_registration,
    optical_id,
    sar_id,
)
from typer.testing import CliRunner

import crosstie
from crosstie.cli import app
from crosstie.errors import BadInputError
from crosstie.flows.archive.adjusting import PlaceOutcome, adjust_archive
from crosstie.flows.archive.solving import AdjustOptions
from crosstie.io.storage.store import Store, open_store

FOREST, COAST = "31UFS", "31UGS"


@pytest.fixture
def archive(tmp_path: Path) -> MeasuredArchive:
    made = MeasuredArchive(open_store(str(tmp_path / "products")), np.random.default_rng(4))
    for tile in (FOREST, COAST):
        made.place(tile, optical=4, sar=5, wrong=0)
    return made


def held_at(path: Path, *rows: tuple[object, ...], header: str = "scene,dx_m,dy_m") -> str:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return f"held:{path}"


def adjust(store: Store, datum: str) -> list[PlaceOutcome]:
    return list(adjust_archive(store, AdjustOptions(datum=datum)))


def test_held_scenes_stay_and_carry_the_others(archive: MeasuredArchive, tmp_path: Path) -> None:
    """Ground control says where two S2 scenes lie: 100 m east of what their mean would be."""
    known = [optical_id(FOREST, 0), sar_id(FOREST, 2)]
    control = np.array([100.0, -40.0])
    rows = [(scene, *(archive.truth_m[scene] + control)) for scene in known]
    [place] = adjust(archive.store, held_at(tmp_path / "held.csv", *rows))
    assert (place.place, place.action) == (f"T{FOREST}", "solved")
    table = crosstie.read_adjusted(archive.store, f"T{FOREST}").set_index("scene")
    for scene, x, y in rows:
        assert table.loc[scene, ["dx_m", "dy_m", "sigma_x_m"]].to_list() == pytest.approx([x, y, 0], abs=1e-9)
    error = [
        table.loc[s, ["dx_m", "dy_m"]].to_numpy(float) - archive.truth_m[s] - control for s in table.index
    ]
    # Pairs of 1 m, four or five a scene.
    assert np.sqrt(np.mean(np.square(error))) < 0.9
    assert set(table["datum"]) == {"2 scenes are held fixed where they were given."}
    assert place.summary["datum"] == "held"
    assert place.summary["held"] == {scene: [x, y] for scene, x, y in sorted(rows)}
    sigma = table.drop(known)["sigma_x_m"]
    assert ((sigma > 0.1) & (sigma < 2)).all()


def test_the_positions_of_an_earlier_version_hold_and_a_new_scene_is_placed_among_them(
    archive: MeasuredArchive, tmp_path: Path
) -> None:
    adjust(archive.store, "mean-s2")
    before = crosstie.read_adjusted(archive.store)
    path = tmp_path / "held.csv"
    before[["scene", "place", "dx_m", "dy_m"]].to_csv(path, index=False)
    # All scenes are held: nothing is unknown, and nothing moves.
    assert [place.action for place in adjust(archive.store, f"held:{path}")] == ["solved"] * 2
    same = crosstie.read_adjusted(archive.store)
    assert (same[["dx_m", "dy_m"]].to_numpy() == before[["dx_m", "dy_m"]].to_numpy()).all()
    new = sar_id(FOREST, 20)
    archive.scene(new, [optical_id(FOREST, n) for n in range(4)], at=(12.0, -7.0))
    assert [place.action for place in adjust(archive.store, f"held:{path}")] == ["solved", "unchanged"]
    after = crosstie.read_adjusted(archive.store).set_index("scene")
    old = before.set_index("scene")
    assert (after.loc[old.index, ["dx_m", "dy_m"]] == old[["dx_m", "dy_m"]]).all(axis=None)
    assert np.abs(after.loc[new, ["dx_m", "dy_m"]].to_numpy(float) - archive.truth_m[new]).max() < 2


def test_a_version_follows_the_rows_of_its_place_and_not_the_file(
    archive: MeasuredArchive, tmp_path: Path
) -> None:
    rows = [(optical_id(FOREST, 0), 1, 2), (optical_id(COAST, 0), 3, 4)]
    adjust(archive.store, held_at(tmp_path / "one.csv", *rows))
    first = {key: archive.store.get(key) for key in archive.store.list("_adjusted")}
    other = adjust(archive.store, held_at(tmp_path / "two.csv", *rows, ("S2_ELSEWHERE", 0, 0)))
    assert [place.action for place in other] == ["unchanged"] * 2
    assert {key: archive.store.get(key) for key in archive.store.list("_adjusted")} == first
    moved = adjust(archive.store, held_at(tmp_path / "two.csv", rows[0], (rows[1][0], 3, 5)))
    assert [place.action for place in moved] == ["unchanged", "solved"]


def test_a_row_for_one_place_wins_there(archive: MeasuredArchive, tmp_path: Path) -> None:
    scene = optical_id(FOREST, 1)
    rows = [(scene, "", 1, 2), (scene, f"T{FOREST}", 7, 8), (scene, "T99XXX", 5, 6)]
    datum = held_at(tmp_path / "held.csv", *rows, header="scene,place,dx_m,dy_m")
    adjust(archive.store, datum)
    table = crosstie.read_adjusted(archive.store, f"T{FOREST}").set_index("scene")
    assert table.loc[scene, ["dx_m", "dy_m"]].to_list() == pytest.approx([7, 8], abs=1e-9)


def test_a_part_without_a_held_scene_says_so(archive: MeasuredArchive, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for n in (30, 31):
        for m in (20, 21):
            pair = measured_registration(optical_id(FOREST, m), sar_id(FOREST, n), np.array([3.0, 4.0]), rng)
            commit_without_pictures(archive.store, pair)
    scene = optical_id(FOREST, 0)
    [place] = adjust(archive.store, held_at(tmp_path / "held.csv", (scene, 0, 0)))
    asked = {part["as_asked"]: part["datum"] for part in place.summary["parts"]}
    assert asked[True] == "1 scenes are held fixed where they were given."
    assert asked[False].startswith("No scene that is held is in this part. Position 0 is the mean")


def test_what_cannot_be_held_ends_in_one_line_and_exit_code_2(
    archive: MeasuredArchive, tmp_path: Path
) -> None:
    def run(datum: str) -> str:
        done = CliRunner().invoke(app, ["adjust", "--out", archive.store.url, "--datum", datum])
        assert done.exit_code == 2, done.output
        assert "Traceback" not in done.output
        return " ".join(done.output.split())

    assert "no such file" in run(f"held:{tmp_path / 'none.csv'}")
    assert "no trusted pair" in run(held_at(tmp_path / "held.csv", ("S2_NOWHERE", 0, 0)))
    assert "dx_m = 'here'" in run(held_at(tmp_path / "held.csv", (optical_id(FOREST, 0), "here", 0)))
    run("held:")
    with pytest.raises(BadInputError, match="held:FILE"):
        AdjustOptions(datum="held")
    assert not list(archive.store.list("_adjusted"))


def test_a_place_whose_held_scenes_have_broken_pairs_alone_fails_by_itself(
    archive: MeasuredArchive, tmp_path: Path
) -> None:
    scene = sar_id(FOREST, 1)
    for key in list(archive.store.list()):
        if scene in key and key.endswith("tie_points.parquet"):
            archive.store.put(key, b"broken")
    rows = [(scene, 0, 0), (optical_id(COAST, 0), 0, 0)]
    forest, coast = adjust(archive.store, held_at(tmp_path / "held.csv", *rows))
    assert (forest.action, coast.action) == ("failed", "solved")
    assert "no scene that is to be held" in forest.problems[-1]


def test_json_names_the_scenes_that_were_held(archive: MeasuredArchive, tmp_path: Path) -> None:
    scene = optical_id(FOREST, 0)
    datum = held_at(tmp_path / "held.csv", (scene, 1, 2))
    done = CliRunner().invoke(app, ["adjust", "--out", archive.store.url, "--datum", datum, "--json"])
    assert done.exit_code == 0, done.output
    [place] = json.loads(done.stdout)["places"]
    assert place["adjustment"]["held"] == {scene: [1.0, 2.0]}
