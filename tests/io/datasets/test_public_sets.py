"""The public sets in their published layouts, and tables of one's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
from benchmark_folders import save, textures, write_qxs, write_scene, write_sen12, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from crosstie.errors import BadInputError, SettingsError, UnreadableRasterError
from crosstie.io.datasets.benchmark_pair import BenchmarkPair
from crosstie.io.datasets.names import Part
from crosstie.io.datasets.pair_table import read_pair_table
from crosstie.io.datasets.public_sets import ombria, qxs, sebast144, sen12
from crosstie.io.datasets.scene_tiles import scenes, sih1733
from crosstie.io.datasets.split import split_at_random, split_by_place
from crosstie.types import Kind

NOWHERE = Path("nowhere.png")


def test_sen12_pairs_optical_with_sar_of_the_same_patch(tmp_path: Path) -> None:
    pairs = sen12(write_sen12(tmp_path, scenes=2, patches=2))
    assert [pair.name for pair in pairs] == [f"ROIs1158_spring_{s}_p{p}" for s in (1, 2) for p in (9, 10)]
    assert {pair.place for pair in pairs} == {"ROIs1158_spring_1", "ROIs1158_spring_2"}
    assert pairs[0].reference.name == "ROIs1158_spring_s2_1_p9.png"
    assert pairs[0].secondary.name == "ROIs1158_spring_s1_1_p9.png"
    assert (pairs[0].reference_kind, pairs[0].secondary_kind) == (Kind.OPTICAL, Kind.SAR)
    assert (pairs[0].dx_px, pairs[0].dy_px) == (0, 0)
    assert pairs[0].shape() == (256, 256)


def test_a_set_that_is_not_there_or_not_whole_is_named(tmp_path: Path) -> None:
    for loader in (sen12, qxs, sebast144, ombria):
        with pytest.raises(BadInputError, match=str(tmp_path)):
            loader(tmp_path)
    with pytest.raises(BadInputError, match="no labelled scene"):
        scenes(tmp_path, sizes_px=(64,), search_px=32)
    with pytest.raises(BadInputError, match="no template"):
        sih1733(tmp_path, sizes_px=(64,), search_px=32)
    write_sen12(tmp_path, scenes=1, patches=2)
    (tmp_path / "ROIs1158_spring/s2_1/ROIs1158_spring_s2_1_p10.png").unlink()
    with pytest.raises(BadInputError, match=r"s2_1_p10\.png: no such file"):
        sen12(tmp_path)


def test_qxs_numbers_in_order_and_neighbours_share_a_place(tmp_path: Path) -> None:
    pairs = qxs(write_qxs(tmp_path, count=45))
    assert [pair.name for pair in pairs] == [str(n) for n in range(1, 46)]
    assert pairs[0].place == pairs[1].place != pairs[2].place
    assert max(Counter(pair.place for pair in pairs).values()) == 2


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=40),
    seed=st.integers(0, 99),
)
def test_a_split_by_place_shares_no_place_and_loses_no_pair(counts: list[int], seed: int) -> None:
    pairs = [
        BenchmarkPair(f"{place}-{n}", f"place {place}", NOWHERE, NOWHERE)
        for place, count in enumerate(counts)
        for n in range(count)
    ]
    test, train = (split_by_place(pairs, part, seed=seed) for part in (Part.TEST, Part.TRAIN))
    assert test
    assert train
    assert not {p.place for p in test} & {p.place for p in train}
    assert sorted(p.name for p in [*test, *train]) == sorted(p.name for p in pairs)
    assert test == split_by_place(pairs, Part.TEST, seed=seed)


def test_another_seed_tests_on_other_places() -> None:
    pairs = [BenchmarkPair(str(n), f"place {n}", NOWHERE, NOWHERE) for n in range(50)]
    parts = {tuple(p.name for p in split_by_place(pairs, Part.TEST, seed=seed)) for seed in range(5)}
    assert len(parts) == 5
    assert all(len(part) == 10 for part in parts)


def test_the_published_split_is_by_pair_and_as_large_as_published() -> None:
    pairs = [BenchmarkPair(str(n), f"place {n % 5}", NOWHERE, NOWHERE) for n in range(100)]
    test, train = (
        split_at_random(pairs, part, seed=1, test_share=4_000 / 20_000) for part in (Part.TEST, Part.TRAIN)
    )
    assert (len(test), len(train)) == (20, 80)
    assert not {p.name for p in test} & {p.name for p in train}
    assert {p.place for p in test} & {p.place for p in train}  # which is what is wrong with it


def test_one_place_cannot_be_split() -> None:
    pairs = [BenchmarkPair(str(n), "here", NOWHERE, NOWHERE) for n in range(5)]
    with pytest.raises(SettingsError, match="--part all"):
        split_by_place(pairs, Part.TEST, seed=0)
    assert split_by_place(pairs, Part.ALL, seed=0) == pairs


def test_a_scene_is_cut_into_tiles_with_the_truth_at_their_centres(tmp_path: Path) -> None:
    pairs = scenes(write_scene(tmp_path / "west-east").parent, sizes_px=(128, 64), search_px=32)
    assert {pair.place for pair in pairs} == {"west-east"}
    assert {pair.tile.size_px for pair in pairs if pair.tile} == {64, 128}
    for pair in pairs:
        assert pair.tile is not None
        x, y = pair.tile.centre_px
        assert y > 32  # the northernmost row of nodes is unknown
        assert pair.dy_px == -4
        assert pair.dx_px == (2 if x <= 192 else 6 if x >= 224 else pytest.approx(2 + 4 * (x - 192) / 32))


def test_a_table_gives_paths_beside_it_kinds_places_and_offsets(tmp_path: Path) -> None:
    pairs = read_pair_table(write_table(tmp_path, [(3, -5), (0, 2), (1, 1), (4, 4)]))
    assert [(p.dx_px, p.dy_px) for p in pairs] == [(3, -5), (0, 2), (1, 1), (4, 4)]
    assert [p.place for p in pairs] == ["place 0", "place 1", "place 2", "place 0"]
    assert {(p.reference_kind, p.secondary_kind) for p in pairs} == {(Kind.OPTICAL, Kind.SAR)}
    assert pairs[0].secondary == tmp_path / "s1" / "0.png"


def test_a_table_without_places_takes_each_row_for_one(tmp_path: Path) -> None:
    table = write_table(tmp_path, [(0, 0), (0, 0)])
    text = [line.rpartition(",")[0] for line in table.read_text().splitlines()]
    table.write_text("\n".join(text))
    assert [pair.place for pair in read_pair_table(table)] == ["row 1", "row 2"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("dx_px,", ""), "no column dx_px"),
        (("s1/1.png", "s1/9.png"), r"row 2: secondary .*9\.png: no such file"),
        (("s1/1.png", ""), "row 2: secondary is empty"),
        (("1.png,3,", "1.png,three,"), "row 2: dx_px = 'three' is not a number"),
        (("1.png,3,", "1.png,nan,"), "row 2: dx_px = 'nan' is not a number"),
        (("s1/1.png", "small.png"), r"row 2: 1\.png has 256 x 256 px .* and small\.png 200 x 256"),
        (("s1/1.png", "text.png"), r"row 2: .*text\.png: cannot be opened"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    table = write_table(tmp_path, [(0, 0), (3, 1)])
    save(tmp_path / "small.png", textures(0, 0, shape=(200, 256))[1])
    (tmp_path / "text.png").write_text("not a picture")
    table.write_text(table.read_text().replace(*change))
    with pytest.raises(BadInputError, match=said):
        read_pair_table(table)


def test_a_table_of_nothing_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    with pytest.raises(BadInputError, match="cannot be read"):
        read_pair_table(table)
    table.write_text("reference,secondary,dx_px,dy_px\n")
    with pytest.raises(BadInputError, match="no row"):
        read_pair_table(table)
    table.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(BadInputError):
        read_pair_table(table)


def test_a_window_sticks_out_as_nothing_and_a_moved_secondary_moves_right_and_down(tmp_path: Path) -> None:
    optical, sar = textures(0, 0, shape=(40, 50))
    pair = BenchmarkPair("a", "here", save(tmp_path / "o.png", optical), save(tmp_path / "s.png", sar))
    reference, secondary = pair.read(row=-2, col=-3, shape=(50, 60), shift_px=(5, 7))
    assert np.isnan(reference[:2]).all()
    assert np.isnan(reference[:, :3]).all()
    assert np.isnan(reference[42:]).all()
    np.testing.assert_allclose(reference[2:42, 3:53], optical / 255, rtol=0, atol=1e-6)
    np.testing.assert_allclose(secondary[9:49, 8:58], 10 * np.log10(sar.astype(float)), rtol=0, atol=1e-4)
    assert np.isnan(secondary[:9]).all()


def test_black_is_dark_in_a_picture_and_missing_in_a_raster(tmp_path: Path) -> None:
    sar = np.full((40, 40), 100, np.uint8)
    sar[:10] = 0
    picture = save(tmp_path / "s1.png", sar)
    raster = tmp_path / "s1.tif"
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(raster, "w", driver="GTiff", dtype="uint8", count=1, height=40, width=40) as file,
    ):
        file.write(sar[None])
    for path, missing in ((picture, False), (raster, True)):
        pair = BenchmarkPair("a", "here", path, path, Kind.SAR, Kind.SAR)
        plane, _ = pair.read(row=0, col=0, shape=(40, 40))
        assert np.isnan(plane[:10]).all() == missing
        np.testing.assert_allclose(plane[10:], 20, rtol=0, atol=1e-5)


def test_images_of_two_sizes_and_missing_ones_are_no_pair(tmp_path: Path) -> None:
    here = save(tmp_path / "o.png", textures(0, 0)[0])
    there = save(tmp_path / "s.png", textures(0, 0, shape=(256, 200))[1])
    with pytest.raises(BadInputError, match=r"a: o\.png has 256 x 256 .* s\.png 256 x 200"):
        BenchmarkPair("a", "here", here, there).shape()
    with pytest.raises(UnreadableRasterError, match=r"nowhere\.png"):
        BenchmarkPair("a", "here", here, NOWHERE).shape()


@pytest.mark.real
def test_the_sets_at_hand_are_what_they_are_said_to_be(real_data: Path) -> None:
    chips = ombria(real_data / "pairs" / "ombria")
    assert len(chips) == 233
    assert len({pair.place for pair in chips}) == 7
    assert len(ombria(real_data / "pairs" / "ombria", role="test")) == 124
    assert 0.5 < float(np.median([np.hypot(pair.dx_px, pair.dy_px) for pair in chips])) < 0.9
    months = sebast144(real_data / "pairs" / "sebast144")
    assert len(months) == 144
    assert set(Counter(pair.place for pair in months).values()) == {12}
    texas = scenes(real_data / "scenes" / "T14RNT-2048", sizes_px=(192,), search_px=32)
    assert len(texas) == 225
    assert 2 < float(np.median([np.hypot(pair.dx_px, pair.dy_px) for pair in texas])) < 5
    india = sih1733(real_data / "pairs" / "sih1733", sizes_px=(192,), search_px=32)
    assert {pair.place for pair in india} == {"Pair-1", "Pair-3"}
