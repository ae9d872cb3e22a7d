"""Notices in every form that storage services send, and nothing believed of them but an id."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from notices import JSON, NAMES, S1, S2, event_bridge, filer_event, item, minio_event, s3_event

from crosstie.io.events.notices import NoticeError, NoticeRules, read_json, read_notices
from crosstie.io.scenes.ids import SceneIds, ids_in_path, kind_of
from crosstie.types import Kind

RULES = NoticeRules(sar_collections=("sentinel-1-grd",), optical_collections=("sentinel-2-l1c",))

OPTICAL = [
    S2,
    "S2B_MSIL2A_20240101T183541_R027_T01CDE_20240101T203551",
    "S2A_11SLT_20201104_0_L2A",
    "S2C_T11SLT_20250104T183901_L2A",
]
SAR = [
    S1,
    f"{S1}_COG",
    f"{S1}_T11SLT",
    S1[:-5],
    f"{S1[:-5]}_rtc",
    "S1C_IW_SLC__1SDH_20250107T135241_20250107T135306_035143_041A16_322B",
]
NO_ID = [
    "",
    "S2A",
    S2 + "x",
    S2 + "\n",
    " " + S2,
    S2.lower(),
    S2.replace("T11SLT", "T11SIT"),  # no I in a grid square
    S2.replace("20201104", "２０２０１１０４"),
    f"{S2}__{S1}",
    S1.replace("S1A", "S1E"),
    "../../etc/passwd",
    "SIM_S2_20250601T103000_000",
]


@pytest.mark.parametrize("scene_id", OPTICAL)
def test_ids_of_sentinel_2(scene_id: str) -> None:
    assert kind_of(scene_id) is Kind.OPTICAL


@pytest.mark.parametrize("scene_id", SAR)
def test_ids_of_sentinel_1(scene_id: str) -> None:
    assert kind_of(scene_id) is Kind.SAR


@pytest.mark.parametrize("text", NO_ID)
def test_anything_else_is_no_id(text: str) -> None:
    assert not SceneIds().accepts(text)


def test_an_archive_of_ones_own_has_other_ids() -> None:
    ids = SceneIds(also=r"SIM_S[12]_\d{8}T\d{6}_\d{3}")
    assert ids.accepts("SIM_S2_20250601T103000_000")
    assert not ids.accepts("SIM_S2_20250601T103000_000/..")
    assert ids.accepts(S2)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"tiles/{S2}.SAFE/GRANULE/L1C_T11SLT_A028052_20201104T184027/IMG_DATA/T11SLT_TCI.jp2", (S2,)),
        (f"GRD/2020/11/7/IW/DV/{S1}/manifest.safe", (S1,)),
        (f"{S2}.zip", (S2,)),
        (f"11/S/LT/2020/11/{OPTICAL[2]}/{OPTICAL[2]}.json", (OPTICAL[2],)),
        (f"{S2}/{S1}.tif", (S2, S1)),
        (f"products/{S2}__{S1}/0123456789abcdef/_COMMIT", ()),  # our own: they must not start a run
        (f"{S2}_TCI.jp2", ()),
        ("thumbnails/index.html", ()),
    ],
)
def test_the_id_is_a_whole_part_of_the_path(path: str, found: tuple[str, ...]) -> None:
    assert ids_in_path(path, SceneIds()) == found


@pytest.mark.parametrize("form", [s3_event, minio_event, event_bridge, filer_event])
@pytest.mark.parametrize("key", [f"in box+1/{S2}/visual.tif", f"{S2}.SAFE/manifest.safe"])
def test_every_form_names_the_scene(form: Any, key: str) -> None:
    notices = read_notices(form(key), RULES)
    assert notices.scene_ids == (S2,)
    assert not notices.refused


@pytest.mark.parametrize(
    "message",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2020-11-04T23:00:00Z", "Bucket": "scenes"},
        s3_event(f"{S2}/a.tif", "ObjectRemoved:Delete"),
        minio_event(f"{S2}/a.tif", "s3:ObjectRemoved:Delete"),
        event_bridge(f"{S2}/a.tif", "Object Deleted"),
        filer_event(f"{S2}/a.tif", "delete"),
        filer_event(S2, is_directory=True),  # made before its files are there
        filer_event(".uploads/0123_abc/0001_def.part"),
    ],
)
def test_what_is_no_arrival_is_understood_and_starts_nothing(message: dict[str, Any]) -> None:
    notices = read_notices(message, RULES)
    assert (notices.scene_ids, notices.ignored) == ((), 1)


def test_a_renamed_file_counts_by_its_new_name() -> None:
    event = filer_event(f"{S2}/a.tif", "rename")
    event["key"] = "/buckets/scenes/incoming/a.tif"
    assert read_notices(event, RULES).scene_ids == (S2,)


def test_several_records_are_several_scenes_each_once() -> None:
    records = [
        s3_event(key)["Records"][0]
        for key in (f"{S2}/a.tif", f"{S1}/b.tif", f"{S2}/c.tif", "readme.txt", "other.txt")
    ]
    notices = read_notices({"Records": records}, RULES)
    assert notices.scene_ids == (S2, S1)
    assert len(notices.refused) == 1


@pytest.mark.parametrize("collection", ["sentinel-2-l1c", None])
def test_an_item_names_its_scene(collection: str | None) -> None:
    assert read_notices(item(collection=collection), RULES).scene_ids == (S2,)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ([], "no JSON object"),
        ("text", "no JSON object"),
        ({}, "no known form"),
        ({"Records": []}, "no record"),
        ({"Records": [{}]}, "no eventName"),
        ({"Records": [{}] * 101}, "at most 100"),
        (s3_event("readme.txt"), "no part of the key"),
        (s3_event(f"{S2}/{S1}.tif"), "two scenes"),
        (item("SECRET"), "item's id"),
        (item(7), "item's id"),
        (item([S2]), "item's id"),
        (item(S2, "sentinel-1-grd"), "collection"),
        (item(S1, "sentinel-2-l1c"), "collection"),
        (item(S2, ["sentinel-2-l1c"]), "collection"),
        ({**item(), "type": "FeatureCollection"}, "no known form"),
    ],
)
def test_what_names_no_scene_is_refused_with_a_reason(message: Any, why: str) -> None:
    with pytest.raises(NoticeError, match=why) as caught:
        read_notices(message, RULES)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 10_000, '{"a": "é"}'.encode("utf-16")]
)
def test_no_json_is_a_reason_and_no_crash(body: bytes) -> None:
    with pytest.raises(NoticeError, match="not JSON"):
        read_json(body)


@settings(deadline=None)  # a busy machine is no fault of the code
@given(st.dictionaries(NAMES, JSON))
def test_any_json_gives_ids_or_a_reason(message: dict[str, Any]) -> None:
    try:
        notices = read_notices(message, RULES)
    except NoticeError:
        return
    assert all(SceneIds().accepts(scene_id) for scene_id in notices.scene_ids)
