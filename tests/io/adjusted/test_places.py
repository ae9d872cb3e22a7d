from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from crosstie.io.adjusted.layout import is_place_name
from crosstie.io.adjusted.places import ArchivePair, places_of
from crosstie.io.storage.root_layout import ProductKey

MADE = datetime(2026, 1, 1, tzinfo=UTC)


def pair(
    reference: str, secondary: str, *, crs: str = "EPSG:32635", x: float = 25.15, hours: float = 0
) -> ArchivePair:
    outline = shapely.to_wkb(shapely.box(x, 62.05, x + 0.1, 62.15))
    product = ProductKey(f"{reference}__{secondary}", "a" * 16)
    return ArchivePair(product, reference, secondary, crs, outline, None, MADE + timedelta(hours=hours))


def tile(name: str, n: int) -> str:
    return f"S2A_MSIL1C_2025010{n}T103629_N0511_R008_T{name}_2025010{n}T124233"


def test_a_tile_is_a_place_however_wide_the_swath_is() -> None:
    swath = "S1A_IW_GRDH_1SDV_20250601T172417_20250601T172442_059449_07611C_0D2A"
    pairs = [pair(tile(name, n), swath) for name in ("35VMJ", "35VNJ") for n in (1, 2)]
    places = places_of(pairs)
    assert [place.name for place in places] == ["T35VMJ", "T35VNJ"]
    assert all(len(place.pairs) == 2 for place in places)


def test_offsets_in_two_crs_are_never_solved_together() -> None:
    pairs = [pair(tile("35VMJ", 1), "s", crs=crs) for crs in ("EPSG:32635", "EPSG:32634", "EPSG:3035")]
    assert [place.name for place in places_of(pairs)] == ["T35VMJ", "T35VMJ-3035", "T35VMJ-32634"]


def test_other_scenes_are_of_one_place_where_pairs_connect_them() -> None:
    pairs = [pair("a", "b"), pair("c", "b", hours=-1), pair("x", "y", x=-2.95)]
    places = places_of(pairs)
    assert [(place.name, len(place.pairs)) for place in places] == [
        ("n62.1e025.2-32635", 2),
        ("n62.1w002.9-32635", 1),
    ]


def test_a_pair_that_comes_later_does_not_rename_its_place() -> None:
    first = [pair("a", "b")]
    more = [*first, pair("a", "c", x=27.0, hours=1), pair("0", "c", x=29.0, hours=2)]
    assert [place.name for place in places_of(more)] == [place.name for place in places_of(first)]


def test_a_pattern_names_the_place() -> None:
    pairs = [pair("farm_s2_1", "farm_s1_1"), pair("wood_s2_1", "farm_s1_1")]
    names = [place.name for place in places_of(pairs, r"^(?P<place>[a-z]+)_")]
    assert names == ["farm-32635", "wood-32635"]


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_any_text_makes_a_safe_name_and_two_texts_make_two(one: str, other: str) -> None:
    pattern = r"(?s)^(?P<place>.+)$"
    names = [places_of([pair(text, "s")], pattern)[0].name for text in (one, other)]
    assert all(is_place_name(name) or name.startswith("-") for name in names)
    assert (names[0] == names[1]) == (one == other)


@pytest.mark.parametrize("name", ["", "..", "../x", "_index", "a/b", ".hidden", "x" * 101])
def test_what_is_no_name_of_a_place(name: str) -> None:
    assert not is_place_name(name)
