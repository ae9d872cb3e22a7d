"""`pairing.graph: network`: each scene has partners near and far in time; a new one changes no old choice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
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


def s1(day: float, *, seconds: float = 0.0, east: float = 7.0, orbit: int = 58) -> SceneRef:
    """A swath over both tiles."""
    return SceneRef(
        f"S1_{day:05.1f}_{seconds:02.0f}", Kind.SAR, DAY0 + timedelta(days=day, hours=7, seconds=seconds),
        shapely.box(3.5, 49.5, east, 51.5).wkt, ("b.tif",), platform="sentinel-1a",
        orbit_state="ascending", relative_orbit=orbit,
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


def sparse(rng: np.random.Generator) -> list[SceneRef]:
    """Few dates at random times, in bursts of one sensor: what leaves scenes with a single partner."""
    optical = {round(day, 1) for day in rng.uniform(0, 380, 25)}
    sar = {round(start + step, 1) for start in rng.uniform(0, 380, 5) for step in (0, 1, 2, 3)}
    return [s2("31UFS", day) for day in optical] + [s1(day) for day in sar]


def test_no_scene_of_a_network_hangs_by_one_pair_once_another_could_hold_it() -> None:
    rules = PairingRules(graph="network", partners=2, max_days=120)
    for seed in range(20):
        scenes = sparse(np.random.default_rng(seed))
        by_id = {scene.id: scene for scene in scenes}
        pairs = keys(scenes, rules)
        degree = Counter(scene for pair in pairs for scene in pair)
        for single in (by_id[name] for name, count in degree.items() if count == 1):
            [pair] = [pair for pair in pairs if single.id in pair]
            tied = max(by_id[name].acquired_utc for name in pair)
            # A scene chooses among earlier ones: what came after it was tied could have held it.
            assert not [
                other
                for other in scenes
                if other.kind is not single.kind
                and tied < other.acquired_utc <= single.acquired_utc + timedelta(days=120)
            ]


def test_scenes_of_one_kind_are_paired_where_that_is_asked_for() -> None:
    rules = PairingRules(graph="network", partners=4, max_days=400, same_kind=2)
    scenes = [*year(), *(s1(12.0 * n + 5, orbit=131) for n in range(25))]
    by_id = {scene.id: scene for scene in scenes}
    across, every = keys(scenes), keys(scenes, rules)
    assert across < every
    own = [(by_id[a], by_id[b]) for a, b in every - across]
    assert all(a.kind is b.kind and a.acquired_utc < b.acquired_utc for a, b in own)
    assert all(a.mgrs_tile == b.mgrs_tile and a.relative_orbit == b.relative_orbit for a, b in own)
    degree = Counter(scene.id for pair in own for scene in pair)
    assert set(degree) == set(by_id)
    assert min(degree.values()) >= 2
    # Half of them bridge the seasons, too.
    gaps = np.array([(b.acquired_utc - a.acquired_utc).days for a, b in own])
    assert 0.2 < (gaps > 60).mean() < 0.7


def test_a_new_scene_changes_no_pair_of_one_kind_either() -> None:
    rules = PairingRules(graph="network", max_days=400, same_kind=2)
    before = keys(year(), rules)
    for new in (s1(305.0), s2("31UFS", 300.0)):
        after = keys([*year(), new], rules)
        assert before < after
        assert all(new.id in pair for pair in after - before)


def test_slices_of_one_pass_and_scenes_of_unknown_track_make_no_pair_of_one_kind() -> None:
    rules = PairingRules(graph="network", max_days=400, same_kind=2)
    two = [s1(0.0), s1(0.0, seconds=25.0)]
    assert keys(two, rules) == set()
    unknown = [replace(s1(day), relative_orbit=None) for day in (0.0, 12.0)]
    assert keys(unknown, rules) == set()
    assert len(keys([s1(0.0), s1(12.0)], rules)) == 1
    assert keys([s1(0.0), s1(12.0)], replace(rules, graph="nearest")) == set()


def test_one_partner_is_refused() -> None:
    with pytest.raises(SettingsError, match="one pair controls no other"):
        load_settings(options={"pairing.partners": 1})


def test_a_night_of_an_earlier_version_is_still_the_last_one() -> None:
    """What a network would be made of is no part of what is asked for without one."""
    default, other = load_settings(), load_settings(options={"pairing.partners": 6})
    network = load_settings(options={"pairing.graph": "network"})
    assert scope_of("catalog.json", default) == scope_of("catalog.json", other)
    assert scope_of("catalog.json", default) != scope_of("catalog.json", network)
    same = load_settings(options={"pairing.graph": "network", "pairing.same_kind": 2})
    assert scope_of("catalog.json", network) != scope_of("catalog.json", same)
