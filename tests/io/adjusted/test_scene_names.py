from __future__ import annotations

from datetime import UTC, datetime

import pytest

from crosstie.io.adjusted.scene_names import read_scene_name

S1 = "S1{}_IW_GRDH_1SDV_{}T172417_{}T172442_{}_07611C_0D2A"


def sar(letter: str, day: str, orbit: int) -> str:
    return S1.format(letter, day, day, f"{orbit:06d}")


@pytest.mark.parametrize(
    ("scene", "track"),
    [
        # Catalogs say these tracks of these products.
        ("S1A_EW_GRDM_1SDH_20221130T014342_20221130T014446_046117_058549", "R020"),
        ("S1A_IW_GRDH_1SDV_20210809T173953_20210809T174018_039156_049F13", "R059"),
        ("S1A_IW_SL1__1_SH_20141031T095929_20141031T100002_003072_003842", "R025"),
        (sar("B", "20161121", 3_050), "R049"),
        (sar("C", "20250604", 2_618), "R172"),
        (sar("C", "20260615", 8_000), ""),
        (sar("C", "20260801", 8_700), "R027"),
    ],
)
def test_the_track_of_sentinel_1_follows_from_its_orbit(scene: str, track: str) -> None:
    assert read_scene_name(scene).track == track


def test_orbits_of_a_cycle_have_all_tracks_and_the_next_cycle_the_same() -> None:
    tracks = [read_scene_name(sar("A", "20250601", 59_449 + n)).track for n in range(350)]
    assert len(set(tracks[:175])) == 175
    assert tracks[:175] == tracks[175:]


def test_an_id_of_sentinel_2_says_all() -> None:
    name = read_scene_name("S2B_MSIL1C_20250602T103629_N0511_R008_T31UFS_20250602T124233")
    assert (name.sensor, name.platform, name.track) == ("sentinel-2", "sentinel-2b", "R008")
    assert (name.baseline, name.tile) == ("N0511", "31UFS")
    assert name.acquired_utc == datetime(2025, 6, 2, 10, 36, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("scene", "sensor", "tile"),
    [
        ("S2B_31UFS_20250602_0_L1C", "sentinel-2", "31UFS"),
        ("SIM_S1_20250606T053000_000", "sentinel-1", ""),
        ("s2_03", "sentinel-2", ""),
        ("LC08_L1TP_196024_20250602", "", ""),
        ("S1A_IW_GRDH_1SDV_20250601T172417_20250601T172442_059449_07611C_0D2A_T31UFS", "sentinel-1", "31UFS"),
    ],
)
def test_other_ids_say_what_they_say(scene: str, sensor: str, tile: str) -> None:
    name = read_scene_name(scene)
    assert (name.sensor, name.tile) == (sensor, tile)


def test_a_pattern_wins_and_what_it_leaves_out_stays() -> None:
    pattern = r"^(?P<place>[a-z]+)_(?P<sensor>s[12])_(?P<track>asc|desc)?"
    name = read_scene_name("farm_s1_asc_20250606", pattern)
    assert (name.place, name.sensor, name.track) == ("farm", "sentinel-1", "asc")
    assert name.acquired_utc == datetime(2025, 6, 6, tzinfo=UTC)
    assert read_scene_name("elsewhere", pattern).place == ""


def test_a_number_that_is_no_date_is_none() -> None:
    assert read_scene_name("scene_20251399").acquired_utc is None
