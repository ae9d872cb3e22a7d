"""Mining a simulated catalog: tiles that matching would draw, read once, labelled where it is sure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from measured_offset import measured_offset
from numpy.typing import NDArray

from crosstie.config import Settings, load_settings
from crosstie.errors import BadInputError, SettingsError
from crosstie.flows.training import mine
from crosstie.flows.training.mine import (
    MiningRules,
    draw_keys,
    labelled_side_px,
    mine_catalog,
)
from crosstie.flows.training.mined_scenes import read_mined_scenes
from crosstie.io.datasets.mined import (
    MinedTiles,
    read_mined,
    read_mining_index,
    tiles_path,
    write_mined,
    write_mining_index,
)
from crosstie.io.raster import open_source, read_plane
from crosstie.io.raster.values.plane import optical_plane
from crosstie.io.simulation.pairs import write_simulated_catalog
from crosstie.matcher.training.plan import TrainingPlan
from crosstie.matcher.training.samples import draw_batch, truth_at
from crosstie.matcher.training.unlabelled import draw_views
from crosstie.types import Kind

SIDE = 352
PLAN = TrainingPlan(crop_px=96, unlabelled_crop_px=128, search_px=16, jitter_px=12, unlabelled_jitter_px=8)
RULES = MiningRules(
    pairs=10, tiles_per_pair=3, side_px=SIDE, search_px=16, pseudo_labels=True, least_confidence=0.9, seed=0
)
SETTINGS = load_settings(
    options={
        "tiles.size_px": SIDE,
        "tiles.stride_px": 48,
        "tiles.search_px": 16,
        "tiles.coarse_max_offset_m": 0,
    }
)


@dataclass
class Said:
    offset_px: NDArray[np.float64]
    sigma_px: NDArray[np.float64]
    confidence: NDArray[np.float64]


@dataclass
class OnceSure:
    """Sure of every second tile, and always of the same offset."""

    weights_sha256: str = "0" * 64
    halo_px: int = 0
    asked: int = 0
    kinds: set[tuple[Kind, Kind]] = field(default_factory=set)

    def match(
        self, reference: NDArray, secondary: NDArray, rows: NDArray, cols: NDArray, **how: object
    ) -> Said:
        self.asked += 1
        self.kinds.add((how["reference_kind"], how["secondary_kind"]))  # type: ignore[arg-type]
        return Said(np.array([[4.25, -1.5]]), np.array([0.1]), np.array([0.95 if self.asked % 2 else 0.5]))

    def offset_probability(self, reference: NDArray, secondary: NDArray, **how: object) -> NDArray:
        """A sharp peak at (+20, -10) px."""
        reach = int(how["search_px"])  # type: ignore[call-overload]
        surface = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
        surface[reach - 10, reach + 20] = 1
        return surface


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three places: a good one, one whose SAR file is cut short, one under cloud."""
    path = write_simulated_catalog(tmp_path_factory.mktemp("catalog"), scenes=3, size_px=448)
    broken = path.parent / "place-001" / "s1_vh.tif"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 3])
    return path


@pytest.fixture(scope="module")
def mined(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    folder = tmp_path_factory.mktemp("run") / "mined"
    said: list[str] = []
    keys = mine_catalog(str(catalog), SETTINGS, RULES, folder, OnceSure, tell=said.append)
    return folder, keys, said


def test_each_pair_gives_tiles_or_says_why_not(mined: tuple[Path, list[str], list[str]]) -> None:
    folder, keys, said = mined
    counts = [len(read_mined(tiles_path(folder, key))) for key in keys]
    assert counts == [3, 0, 0]
    assert "left out" in said[0]
    assert "s1_vh.tif" in said[0]
    assert "cloud" in said[1]


def test_tiles_hold_the_bands_that_use_would_read(
    mined: tuple[Path, list[str], list[str]], catalog: Path
) -> None:
    folder, keys, _ = mined
    tiles = read_mined(tiles_path(folder, keys[0]))
    assert tiles.optical.shape == (3, 3, SIDE, SIDE)
    source = open_source(catalog.parent / "place-000" / "s2_tci.tif", kind=Kind.OPTICAL)
    whole = read_plane(source, source.geobox)
    plane = optical_plane(tiles.optical[1].astype(np.float32) / 255)
    plane = np.where(tiles.optical_valid[1], plane, np.nan)
    found = [
        (row, col)
        for row in (0, 48, 96)
        for col in (0, 48, 96)
        if np.allclose(whole[row : row + SIDE, col : col + SIDE], plane, rtol=0, atol=2 / 255, equal_nan=True)
    ]
    assert len(found) == 1


def test_nothing_is_read_twice_and_a_cut_run_goes_on(
    mined: tuple[Path, list[str], list[str]], catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, keys, _ = mined

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(mine, "find_pairs", forbidden)
    monkeypatch.setattr(mine, "open_scenes", forbidden)
    done: list[tuple[int, int]] = []
    load: Callable[[], OnceSure] = forbidden  # type: ignore[assignment]
    again = mine_catalog(
        str(catalog), SETTINGS, RULES, folder, load, progress=lambda *count: done.append(count)
    )
    assert again == keys
    assert done == [(1, 3), (2, 3), (3, 3)]
    monkeypatch.undo()

    whole = tiles_path(folder, keys[0]).read_bytes()
    tiles_path(folder, keys[0]).unlink()
    assert mine_catalog(str(catalog), SETTINGS, RULES, folder, OnceSure) == keys
    assert len(tiles_path(folder, keys[0]).read_bytes()) == len(whole)


def test_other_rules_are_another_run(mined: tuple[Path, list[str], list[str]], catalog: Path) -> None:
    folder, _, _ = mined
    with pytest.raises(SettingsError, match="mined by other settings"):
        mine_catalog(str(catalog), SETTINGS, replace(RULES, seed=1), folder, OnceSure)
    tree = SETTINGS.model_dump()
    few_clouds = Settings.model_validate(tree | {"catalog": tree["catalog"] | {"max_cloud_pct": 1.0}})
    with pytest.raises(SettingsError, match="mined by other settings"):
        mine_catalog(str(catalog), few_clouds, RULES, folder, OnceSure)


def test_a_folder_of_an_older_version_is_gone_on_with(
    mined: tuple[Path, list[str], list[str]], catalog: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mined"
    shutil.copytree(mined[0], folder)
    index = read_mining_index(folder)
    assert index is not None
    del index["asked"]["catalog_settings"]
    write_mining_index(folder, index)
    assert mine_catalog(str(catalog), SETTINGS, RULES, folder, OnceSure) == mined[1]


def test_what_the_matcher_is_sure_of_is_learnt_like_a_label(mined: tuple[Path, list[str], list[str]]) -> None:
    folder, keys, _ = mined
    labelled, unlabelled = read_mined_scenes(folder, keys, with_labels=True)
    assert (len(labelled), len(unlabelled)) == (2, 1)
    np.testing.assert_array_equal(truth_at(labelled[0], SIDE / 2, SIDE / 2), [4.25, -1.5])
    rng = np.random.default_rng(0)
    batch = draw_batch(labelled, rng, size=12, crop_px=PLAN.crop_px, jitter_px=PLAN.jitter_px)
    assert np.isfinite(batch.truth_px).all()
    draw_views(unlabelled, rng, size=4, crop_px=PLAN.unlabelled_crop_px, jitter_px=PLAN.unlabelled_jitter_px)
    assert read_mined_scenes(folder, keys, with_labels=False)[0] == []
    assert labelled_side_px(PLAN) <= SIDE


def test_the_sar_image_is_moved_by_the_coarse_offset(catalog: Path, tmp_path: Path) -> None:
    """What lay at +20, -10 px lies there no more: both tiles show the same ground again, moved by that."""
    moved = Settings.model_validate(
        SETTINGS.model_dump() | {"tiles": SETTINGS.tiles.model_dump() | {"coarse_max_offset_m": 300.0}}
    )
    rules = replace(RULES, pairs=10, tiles_per_pair=99, side_px=SIDE, pseudo_labels=False)
    tiles = {}
    for name, settings in (("still", SETTINGS), ("moved", moved)):
        keys = mine_catalog(str(catalog), settings, rules, tmp_path / name, OnceSure)
        tiles[name] = read_mined(tiles_path(tmp_path / name, keys[0]))
    assert tiles["moved"].note == "coarse offset (+20, -10) px taken off"
    still, there = tiles["still"], tiles["moved"]
    pairs = [
        (a, b)
        for a in range(len(still))
        for b in range(len(there))
        if (still.optical[a] == there.optical[b]).all()
    ]
    a, b = pairs[0]
    planes = [np.nan_to_num(t.sar_db[n].astype(np.float32), nan=-15.0) for t, n in ((still, a), (there, b))]
    assert measured_offset(*(plane - plane.mean() for plane in planes)) == (-20, 10)


def test_the_optical_image_is_the_reference_whatever_the_pairing_says(catalog: Path, tmp_path: Path) -> None:
    turned = load_settings(options={**SETTINGS_OPTIONS, "pairing.secondary": "optical"})
    matcher = OnceSure()
    keys = mine_catalog(str(catalog), turned, RULES, tmp_path / "mined", lambda: matcher)
    assert sum(len(read_mined(tiles_path(tmp_path / "mined", key))) for key in keys) == 3
    assert matcher.kinds == {(Kind.OPTICAL, Kind.SAR)}


SETTINGS_OPTIONS = {
    "tiles.size_px": SIDE, "tiles.stride_px": 48, "tiles.search_px": 16, "tiles.coarse_max_offset_m": 0,
}  # fmt: skip


def test_pairs_are_drawn_by_the_seed_and_stay_in_order() -> None:
    keys = [f"{n:03d}" for n in range(50)]
    assert draw_keys(keys, 60, seed=0) == keys
    drawn = draw_keys(keys, 7, seed=0)
    assert drawn == sorted(drawn) == draw_keys(keys, 7, seed=0)
    assert len(drawn) == 7
    assert drawn != draw_keys(keys, 7, seed=1)


def test_a_catalog_without_a_pair_is_bad_input(catalog: Path, tmp_path: Path) -> None:
    never = load_settings(options={"catalog.end_utc": "2001-01-01"})
    with pytest.raises(SettingsError, match="no pair to mine"):
        mine_catalog(str(catalog), never, RULES, tmp_path / "mined", OnceSure)
    assert not (tmp_path / "mined").exists()


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_mined(path, MinedTiles.none("nothing"))
    assert read_mined(path).note == "nothing"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BadInputError, match=r"a\.npz.*remove it"):
        read_mined(path)
    (tmp_path / "index.json").write_text(json.dumps({})[:1])
    with pytest.raises(BadInputError, match=r"index\.json"):
        mine_catalog("x", SETTINGS, RULES, tmp_path, OnceSure)
