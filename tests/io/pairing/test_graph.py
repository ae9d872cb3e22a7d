"""`pairing.graph: network`: each scene has partners near and far in time; a new one changes no old choice."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from crosstie.config import load_settings
from crosstie.errors import SettingsError
from crosstie.flows.nightly import scope_of
from crosstie.io.pairing.pair_scenes import PairingRules, pair_scenes
from crosstie.types import Kind, SceneRef

DAY0 = datetime(2025, 1, 1, 10, tzinfo=UTC)
RULES = PairingRules(graph="network", partners=4, max_days=400)
BOXES = {"31UFS": (4.0, 50.0, 5.0, 51.0), "31UGS": (5.5, 50.0, 6.5, 51.0)}


def s2(tile: str, day: float) -> SceneRef:
    return SceneRef(
        f"S2_{tile}_{day:05.1f}", Kind.OPTICAL, DAY0 + timedelta(days=day), shapely.box(*BOXES[tile]).wkt,
        ("a.tif",), platform="sentinel-2a", mgrs_tile=tile,
    )  # fmt: skip


def s1(day: float, *, seconds: float = 0.0, east: float = 7.0) -> SceneRef:
    """A swath over both tiles."""
    return SceneRef(
        f"S1_{day:05.1f}_{seconds:02.0f}", Kind.SAR, DAY0 + timedelta(days=day, hours=7, seconds=seconds),
        shapely.box(3.5, 49.5, east, 51.5).wkt, ("b.tif",), platform="sentinel-1a",
    )  # fmt: skip


def year() -> list[SceneRef]:
    optical = [s2(tile, 5.0 * n) for tile in BOXES for n in range(60)]
    return optical + [s1(12.0 * n) for n in range(25)]


def keys(scenes: list[SceneRef], rules: PairingRules = RULES) -> set[tuple[str, str]]:
    return {(pair.reference.id, pair.secondary.id) for pair in pair_scenes(scenes, rules).pairs}


def test_each_scene_has_several_partners_at_each_place_and_all_hang_together() -> None:
    pairs = keys(year())
    for tile in BOXES:
        here = [(a, b) for a, b in pairs if tile in a]
        degree = Counter(scene for pair in here for scene in pair)
        assert len(degree) == 85
        assert min(degree.values()) >= 2
        # Each scene chooses 4 at most: the cost is known.
        assert len(here) <= 4 * 85
        names = sorted(degree)
        i, j = np.array([[names.index(scene) for scene in pair] for pair in here]).T
        n, _ = connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(85, 85)))
        assert n == 1


def test_seasons_are_bridged() -> None:
    days = {scene.id: scene.acquired_utc for scene in year()}
    gaps = np.array([abs((days[a] - days[b]).days) for a, b in keys(year())])
    assert (gaps > 90).mean() > 0.15
    assert (gaps < 20).mean() > 0.35
    nearest = PairingRules(max_days=400)
    gaps = np.array([abs((days[a] - days[b]).days) for a, b in keys(year(), nearest)])
    assert gaps.max() < 20


def test_a_new_scene_adds_its_own_pairs_and_changes_no_other() -> None:
    before = keys(year())
    for new in (s1(305.0), s2("31UFS", 300.0)):
        after = keys([*year(), new])
        assert before < after
        added = after - before
        assert all(new.id in pair for pair in added)
        assert 4 <= len(added) <= 8


def test_the_order_of_the_scenes_changes_nothing() -> None:
    scenes = year()
    rng = np.random.default_rng(0)
    assert keys([scenes[n] for n in rng.permutation(len(scenes))]) == keys(scenes)


def test_of_the_slices_of_a_pass_the_largest_is_used() -> None:
    slices = [s1(12.0 * n, seconds=25.0, east=4.4) for n in range(25)]
    assert keys(year() + slices) == keys(year())


def test_overlap_and_time_still_count() -> None:
    far = PairingRules(graph="network", max_days=3)
    days = {scene.id: scene.acquired_utc for scene in year()}
    assert all(abs(days[a] - days[b]) <= timedelta(days=3) for a, b in keys(year(), far))
    assert keys(year(), PairingRules(graph="network", min_overlap=1.0, max_days=400)) == keys(year())
    edge = SceneRef("S1_edge", Kind.SAR, DAY0, shapely.box(3.5, 50.0, 4.05, 51.0).wkt, ("c.tif",))
    assert not any("S1_edge" in pair for pair in keys([*year(), edge], RULES))


def test_one_partner_is_refused() -> None:
    with pytest.raises(SettingsError, match="one pair controls no other"):
        load_settings(options={"pairing.partners": 1})


def test_a_night_of_an_earlier_version_is_still_the_last_one() -> None:
    """What a network would be made of is no part of what is asked for without one."""
    default, other = load_settings(), load_settings(options={"pairing.partners": 6})
    network = load_settings(options={"pairing.graph": "network"})
    assert scope_of("catalog.json", default) == scope_of("catalog.json", other)
    assert scope_of("catalog.json", default) != scope_of("catalog.json", network)
