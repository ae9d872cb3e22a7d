"""Templates are placed so that the truth is known, and what is measured is compared with it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_folders import GreyMatcher, save, textures, write_qxs, write_scene, write_sen12, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner, Result

from crosstie.cli import app
from crosstie.errors import BadInputError, SettingsError
from crosstie.flows.evaluation.datasets import load_pairs, some_of
from crosstie.flows.evaluation.evaluate import Evaluation, evaluate
from crosstie.flows.evaluation.placement import Protocol, place_picture, place_templates
from crosstie.flows.evaluation.report import csv_text, evaluation_report, picture
from crosstie.io.datasets.benchmark_pair import BenchmarkPair
from crosstie.io.datasets.names import Dataset, Part, Split
from crosstie.io.datasets.pair_table import read_pair_table
from crosstie.types import Kind

FIGURES = {
    "n", "cmr_1", "cmr_2", "cmr_5", "mean_distance_px", "rmse_px", "rmse_t5_px", "median_px", "ms_per_pair",
    "expected_calibration_error",
}  # fmt: skip


PLAIN = Protocol()


def crosstie(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)])


def measured(pairs: list[BenchmarkPair], protocol: Protocol = PLAIN, *, stuck: bool = False) -> Evaluation:
    return evaluate(place_templates(pairs, protocol), GreyMatcher(stuck=stuck), search_px=protocol.search_px)


@settings(deadline=None)
@given(
    side=st.integers(128, 256),
    size=st.integers(16, 192),
    search=st.integers(4, 32),
    dx=st.floats(-10, 10),
    dy=st.floats(-10, 10),
    seed=st.integers(0, 99),
)
def test_a_chip_holds_its_template_its_window_and_its_answer(
    side: int, size: int, search: int, dx: float, dy: float, seed: int
) -> None:
    pair = BenchmarkPair(f"pair {seed}", "here", Path("a.png"), Path("b.png"), dx_px=dx, dy_px=dy)
    if size + 2 * search > side:
        with pytest.raises(BadInputError, match="does not fit"):
            place_picture(pair, (side, side), size, Protocol(search, (), seed))
        return
    if max(abs(dx), abs(dy)) > 2 * search - 1:
        return
    chosen = place_picture(pair, (side, side), size, Protocol(search, (), seed))
    for start, shift, true in zip(
        (chosen.tile.row, chosen.tile.col), chosen.shift_px[::-1], chosen.true_px[::-1], strict=True
    ):
        assert 0 <= start <= side - size
        assert start >= search + shift  # the window, in the secondary before it is moved
        assert start + size + search - shift <= side
        assert abs(true) <= search - 1 + 1e-9


def test_known_shifts_are_spread_over_the_search_and_repeat_with_the_seed() -> None:
    pairs = [BenchmarkPair(f"{n}", "here", Path("a.png"), Path("b.png")) for n in range(300)]

    def drawn(seed: int) -> np.ndarray:
        chosen = [place_picture(pair, (256, 256), 192, Protocol(seed=seed)) for pair in pairs]
        return np.array([placement.true_px for placement in chosen])

    assert int(np.abs(drawn(0)).max()) == 31
    assert np.abs(drawn(0).mean(axis=0)).max() < 4
    assert (drawn(0).std(axis=0) > 15).all()  # 18 where all are equally likely
    np.testing.assert_array_equal(drawn(0), drawn(0))
    assert (drawn(0) != drawn(1)).any()


def test_a_known_offset_comes_back_with_its_sign(tmp_path: Path) -> None:
    offsets = [(0, 0), (3, -5), (-7, 2), (12, 9)]
    found = measured(read_pair_table(write_table(tmp_path, offsets)))
    np.testing.assert_array_equal(found.offset_px, offsets)
    assert evaluation_report(found)["cmr_1"] == 1
    assert found.sizes_px == [192] * 4


def test_a_matcher_that_sticks_to_zero_does_not_look_good(tmp_path: Path) -> None:
    pairs = load_pairs(Dataset.SEN12, write_sen12(tmp_path, scenes=4, patches=3), Protocol())
    assert evaluation_report(measured(pairs))["cmr_1"] == 1
    assert evaluation_report(measured(pairs, stuck=True))["cmr_5"] < 0.3


@pytest.mark.parametrize(("shape", "size"), [((300, 420), 236), ((640, 600), 512)])
def test_a_larger_picture_is_cut_at_its_centre(tmp_path: Path, shape: tuple[int, int], size: int) -> None:
    pairs = read_pair_table(write_table(tmp_path, [(6, -11)], shape=shape))
    ((placement,),) = place_templates(pairs, Protocol())
    assert placement.tile.size_px == size
    assert placement.shift_px == (0, 0)
    assert placement.tile.centre_px == (shape[1] // 2, shape[0] // 2)
    np.testing.assert_array_equal(measured(pairs).offset_px, [(6, -11)])


def test_small_pictures_are_matched_as_long_as_something_is_left_and_named_where_not(tmp_path: Path) -> None:
    pairs = read_pair_table(write_table(tmp_path, [(2, 1)], shape=(100, 110)))
    found = measured(pairs)
    assert found.sizes_px == [36]
    np.testing.assert_array_equal(found.offset_px, [(2, 1)])
    small = read_pair_table(write_table(tmp_path / "small", [(0, 0)], shape=(95, 95)))
    with pytest.raises(BadInputError, match=r"row 1: .*95 x 95 px leave no template of 32 px"):
        place_templates(small, Protocol())
    assert place_templates(small, Protocol(search_px=16))[0][0].tile.size_px == 63


def test_several_sizes_are_measured_apart(tmp_path: Path) -> None:
    pairs = read_pair_table(write_table(tmp_path, [(3, 4), (-2, 0)]))
    tree = evaluation_report(measured(pairs, Protocol(sizes_px=(128, 64))))
    assert {size: figures["n"] for size, figures in tree["per_size"].items()} == {"128": 2, "64": 2}
    assert tree["n"] == 4


@pytest.mark.parametrize("shape", [(256, 256), (400, 400)])
def test_an_offset_beyond_the_search_is_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    pairs = [
        BenchmarkPair(
            "far",
            "here",
            *(save(tmp_path / f"{n}.png", textures(0, 0, shape=shape)[n]) for n in (0, 1)),
            dx_px=70,
        )
    ]
    with pytest.raises(BadInputError, match=r"far: its true offset \(70, 0\) px .* 32 px"):
        place_templates(pairs, Protocol())


def test_holes_do_not_move_the_answer(tmp_path: Path) -> None:
    optical, sar = textures(5, -2)
    hole = np.full((256, 256), 255, np.uint8)
    hole[100:150, 60:200] = 0
    pair = BenchmarkPair(
        "a",
        "here",
        save(tmp_path / "o.png", np.dstack([optical] * 3 + [hole])),  # transparent there
        save(tmp_path / "s.png", sar),
        dx_px=5,
        dy_px=-2,
    )
    reference, _ = pair.read(row=0, col=0, shape=(256, 256))
    assert np.isnan(reference[100:150, 60:200]).all()
    np.testing.assert_array_equal(measured([pair]).offset_px, [(5, -2)])


def test_tiles_of_a_scene_share_a_pass_and_are_held_against_the_truth_at_their_centres(
    tmp_path: Path,
) -> None:
    write_scene(tmp_path / "scene")
    protocol = Protocol(sizes_px=(64,), search_px=16)
    groups = place_templates(load_pairs(Dataset.SCENES, tmp_path, protocol), protocol)
    assert len(groups) == 1
    assert groups[0][0].shift_px != (0, 0)
    found = evaluate(groups, GreyMatcher(), search_px=16)
    for placement, offset in zip(found.placements, found.offset_px, strict=True):
        x, _ = placement.tile.centre_px
        if abs(x - 224) > 48:  # wholly in one half
            np.testing.assert_array_equal(offset, [2 if x < 224 else 6, -4])
    assert evaluation_report(found)["cmr_1"] > 0.6
    assert np.ptp(found.ms) == 0


def test_parts_and_limits_take_what_they_say(tmp_path: Path) -> None:
    folder = write_sen12(tmp_path / "sen12", scenes=5, patches=1)
    test, train = (
        load_pairs(Dataset.SEN12, folder, Protocol(), part=part) for part in (Part.TEST, Part.TRAIN)
    )
    assert (len(test), len(train)) == (1, 4)
    numbered = write_qxs(tmp_path / "qxs", count=10)
    published = load_pairs(Dataset.QXS, numbered, Protocol(), part=Part.TEST, split=Split.PUBLISHED)
    assert len(published) == 2
    with pytest.raises(SettingsError, match="sebast144 has no such part"):
        load_pairs(Dataset.SEBAST144, folder, Protocol(), part=Part.TEST)
    few = some_of(train, 2, seed=3)
    assert few == some_of(train, 2, seed=3)
    assert [pair.name for pair in few] == sorted(pair.name for pair in few)
    assert some_of(train, None, seed=3) == train


def test_a_pair_is_cut_alike_whatever_else_is_measured(tmp_path: Path) -> None:
    pairs = read_pair_table(write_table(tmp_path, [(0, 0), (3, 1), (2, 2)]))
    whole = [group[0] for group in place_templates(pairs, Protocol())]
    assert place_templates(pairs[1:2], Protocol())[0][0] == whole[1]


def test_the_picture_and_the_table_show_the_pairs(tmp_path: Path) -> None:
    found = measured(read_pair_table(write_table(tmp_path, [(1, 0), (0, 4), (9, -9)])), stuck=True)
    with Image.open(io.BytesIO(picture(found, "stuck $_{x}", count=3))) as png:
        assert png.format == "PNG"
        assert png.size[0] == 1600
        tall = png.size[1]
    with Image.open(io.BytesIO(picture(found, "stuck", count=1))) as png:
        assert png.size[1] < tall
    rows = list(csv.DictReader(io.StringIO(csv_text(found))))
    assert [row["place"] for row in rows] == ["place 0", "place 1", "place 2"]
    for row, placement in zip(rows, found.placements, strict=True):
        # It answered zero: what is left, with the shift taken off, is the shift's opposite.
        assert float(row["dx_px"]) == -placement.shift_px[0]
        assert float(row["true_dx_px"]) == placement.pair.dx_px


def test_the_command_measures_a_table_with_the_shipped_weights(tmp_path: Path) -> None:
    # Both images named as SAR: one encoder sees one texture twice, and any network must find it again.
    table = write_table(tmp_path, [(3, -5), (0, 2), (-4, 4)])
    (tmp_path / "s2").rename(tmp_path / "sar")
    table.write_text(table.read_text().replace("s2/", "sar/"))
    for path in (tmp_path / "sar").iterdir():
        save(path, np.asarray(Image.open(path))[..., 0])
    json_path, csv_path, png_path = (tmp_path / "out" / name for name in ("e.json", "e.csv", "e.png"))
    outputs = ("--figures", json_path, "--csv", csv_path, "--picture", png_path)
    result = crosstie("--pairs", table, *outputs, "--per-pair")
    assert result.exit_code == 0, result.output
    assert "192 px" in result.stdout
    assert "place 2" in result.stdout
    assert result.stderr == ""
    tree = json.loads(json_path.read_text())
    assert tree.keys() >= FIGURES | {"per_place", "per_size", "pairs"}
    assert tree["n"] == 3
    assert tree["cmr_1"] == 1
    assert tree["per_place"].keys() == {"place 0", "place 1", "place 2"}
    assert tree["per_size"]["192"].keys() >= FIGURES
    np.testing.assert_allclose(
        [(row["dx_px"], row["dy_px"]) for row in tree["pairs"]], [(3, -5), (0, 2), (-4, 4)], rtol=0, atol=0.5
    )
    assert len(csv_path.read_text().splitlines()) == 4
    assert png_path.read_bytes().startswith(b"\x89PNG")
    again = crosstie("--pairs", table, "--figures", json_path)
    assert again.exit_code == 0
    assert "pairs" not in json.loads(json_path.read_text())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either --pairs TABLE, or --dataset NAME with --data FOLDER"),
        (("--dataset", "sen12"), "either --pairs"),
        (("--dataset", "sen12", "--data", "."), "no SEN1-2 there"),
        (("--pairs", "absent.csv"), "absent.csv: cannot be read"),
        (("--pairs", "pairs.csv", "--part", "test"), "has no parts"),
        (("--pairs", "pairs.csv", "--weights", "absent.safetensors"), "absent.safetensors: no weights there"),
        (("--pairs", "pairs.csv", "--template-px", "200"), "row 1: s2/0.png: a template of 200 px"),
        (("--pairs", "pairs.csv", "--promote-to", "best.safetensors"), "needs --weights"),
        (("--pairs", "pairs.csv", "--csv", "s1"), "s1: cannot be written"),
        (("--pairs", "pairs.csv", "--csv", "pairs.csv/e.csv"), "cannot be written"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    write_table(tmp_path, [(0, 0)])
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = crosstie(*arguments, "--figures", "out/e.json")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.real
def test_real_chips_are_found(real_data: Path) -> None:
    pairs = some_of(load_pairs(Dataset.OMBRIA, real_data / "pairs" / "ombria", Protocol()), 6, seed=0)
    from crosstie.matcher.matching import Matcher

    found = evaluate(place_templates(pairs, Protocol()), Matcher.load(device="cpu"), search_px=32)
    assert {pair.secondary_kind for pair in pairs} == {Kind.SAR}
    assert evaluation_report(found)["cmr_2"] >= 5 / 6  # of all 233, 98 % lie within 2 px
