"""`crosstie monitor` on series whose changes are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from measured_archive import MeasuredArchive, optical_id, sar_id
from numpy.typing import NDArray
from shapely.geometry import Point
from typer.testing import CliRunner

import crosstie
from crosstie.cli import app
from crosstie.errors import StoreError
from crosstie.estimation.change_points import MonitorSettings
from crosstie.flows.archive.adjusting import adjust_archive
from crosstie.flows.archive.monitoring import MonitorReport, monitor_positions
from crosstie.flows.archive.series import place_series, usable
from crosstie.flows.archive.solving import AdjustOptions
from crosstie.io.adjusted.layout import current_key
from crosstie.io.adjusted.publish import read_positions
from crosstie.io.adjusted.tables import POSITIONS
from crosstie.io.storage.store import open_store

FIRST = pd.Timestamp("2020-01-01T17:00:00Z")
SIGMA_M, DATE_M = 0.4, 1.0

Move = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def scenes(
    rng: np.random.Generator,
    *,
    places: int = 1,
    n: int = 60,
    platform: str = "sentinel-1a",
    track: str = "R058",
    step: float = 12.0,
    start: float = 0.0,
    date_m: float = DATE_M,
    at: tuple[float, float] = (0.0, 0.0),
    move: Move | None = None,
) -> pd.DataFrame:
    """Adjusted scenes of one track: every place has its constant, every date its own shift at all of them."""
    days = start + step * np.arange(n)
    of_date = rng.normal(0, date_m, (n, 2)) + np.array(at)
    if move is not None:
        of_date = of_date + move(days)
    found = []
    for p in range(places):
        position = of_date + np.random.default_rng(p).normal(0, 5, 2) + rng.normal(0, SIGMA_M, (n, 2))
        found.append(
            pd.DataFrame(
                {
                    "scene": [f"{platform}-{track}-{p}-{k:04d}" for k in range(n)],
                    "sensor": platform[:10], "platform": platform, "track": track, "baseline": "",
                    "date": FIRST + pd.to_timedelta(days + p * 1e-4, unit="D"),
                    "dx_m": position[:, 0], "dy_m": position[:, 1],
                    "sigma_x_m": SIGMA_M, "sigma_y_m": SIGMA_M, "verdict": "placed", "part": 0,
                    "place": f"T{p:02d}ABC",
                }
            )
        )  # fmt: skip
    return pd.concat(found)


def watch(*tables: pd.DataFrame, **settings: float) -> MonitorReport:
    table = pd.concat(tables, ignore_index=True)
    return monitor_positions(
        gpd.GeoDataFrame(table, geometry=[Point(0, 0)] * len(table), crs=4326), MonitorSettings(**settings)
    )


def jump(size: float, day: float) -> Move:
    return lambda days: np.where(days[:, None] >= day, [0.8 * size, -0.6 * size], 0.0)


@pytest.mark.parametrize("places", [1, 6])
def test_stable_scenes_raise_no_more_alarms_than_set(places: int) -> None:
    """Places of one pass share its shift: taken for independent they would raise alarms by the dozen."""
    rng = np.random.default_rng(0)
    rate, count, watched = 0.01, 0, 0
    for _ in range(40):
        report = watch(scenes(rng, places=places), false_alarms_per_scene=rate)
        of_dates = [finding for finding in report.findings if finding.scope != "place"]
        count += len(of_dates) if places > 1 else len(report.findings)
        watched += 60
    assert count <= rate * watched + 3 * np.sqrt(rate * watched)


def test_a_jump_at_all_places_is_one_finding_within_three_scenes() -> None:
    report = watch(scenes(np.random.default_rng(1), places=4, move=jump(20.0, 360.0)))
    [found] = report.findings
    assert (found.scope, found.what, found.places) == ("track", "jump", 4)
    assert (found.platform, found.track, found.place) == ("sentinel-1a", "R058", "")
    assert found.since_utc[:10] == "2020-12-26"
    assert pd.Timestamp(found.seen_utc) <= pd.Timestamp(found.since_utc) + pd.Timedelta(days=24.1)
    assert abs(found.east_m - 16) < 3 * found.sigma_m
    assert abs(found.north_m + 12) < 3 * found.sigma_m
    assert "over 4 places" in found.sentence
    assert "since 2020-12-26" in found.sentence


def test_a_jump_at_one_place_is_told_of_that_place_alone() -> None:
    rng = np.random.default_rng(2)
    rest = scenes(rng, places=8)
    here = rest["place"] == "T03ABC"
    late = rest["date"] >= FIRST + pd.Timedelta(days=359)
    rest.loc[here & late, "dx_m"] += 20
    report = watch(rest)
    found = [finding for finding in report.findings if finding.what == "jump"]
    assert [(finding.scope, finding.place) for finding in found] == [("place", "T03ABC")]


def test_a_change_of_the_processor_shows_on_all_tracks_of_a_platform() -> None:
    """Small beside the scatter of a date on each track, plain on six together."""
    rng = np.random.default_rng(3)
    tracks = [
        scenes(rng, track=f"R{t:03d}", start=t, date_m=2.0, move=jump(3.0, 360.0), n=60) for t in range(1, 7)
    ]
    other = [
        scenes(rng, platform="sentinel-1c", track=f"R{t:03d}", start=t + 6, date_m=2.0) for t in range(1, 7)
    ]
    report = watch(*tracks, *other)
    found = [finding for finding in report.findings if finding.scope == "platform"]
    assert [finding.platform for finding in found] == ["sentinel-1a"]
    assert abs(pd.Timestamp(found[0].since_utc) - (FIRST + pd.Timedelta(days=360))) < pd.Timedelta(days=31)
    assert abs(found[0].east_m - 2.4) < 3 * found[0].sigma_m
    assert "sentinel-1a over 1 place:" in found[0].sentence  # six tracks see it


def test_two_platforms_of_a_track_are_compared_and_the_same_are_not_told_apart() -> None:
    rng = np.random.default_rng(4)
    first = scenes(rng, places=3)
    same = scenes(rng, places=3, platform="sentinel-1b", start=6.0)
    apart = scenes(rng, places=3, platform="sentinel-1c", start=3.0, at=(5.0, 0.0))
    report = watch(first, same, apart)
    found = {
        (finding.against, finding.platform): finding.east_m
        for finding in report.findings
        if finding.scope == "difference"
    }
    assert set(found) == {("sentinel-1a", "sentinel-1c"), ("sentinel-1b", "sentinel-1c")}
    assert all(abs(east - 5) < 1 for east in found.values())


def test_a_drift_is_found_within_a_year_where_dates_are_quiet() -> None:
    rng = np.random.default_rng(5)
    report = watch(
        scenes(rng, n=61, step=6.0, date_m=0.3, move=lambda days: np.outer(days / 365.25, [2.0, 0.0]))
    )
    assert [finding.what for finding in report.findings][:1] == ["drift"]


def test_parts_and_scenes_that_nothing_controls_are_not_mixed_in() -> None:
    rng = np.random.default_rng(6)
    table = scenes(rng, n=60)
    apart = table["date"] >= FIRST + pd.Timedelta(days=359)
    table.loc[apart, ["dx_m", "dy_m"]] += 50
    table.loc[apart, "part"] = 1
    wild = scenes(rng, n=60).assign(verdict="unchecked", dx_m=1e4)
    report = watch(
        table, wild, scenes(rng, n=3).assign(date=pd.Series([pd.NaT] * 3, dtype=table["date"].dtype))
    )
    assert report.findings == ()
    assert (report.scenes, report.series, report.left_out) == (60, 2, 63)


def test_findings_can_be_limited_to_what_is_new() -> None:
    report = watch(scenes(np.random.default_rng(7), move=jump(20.0, 360.0)))
    [found] = report.findings
    assert report.since(datetime(2021, 6, 1, tzinfo=UTC)).findings == ()
    assert report.since(datetime(2020, 12, 1, tzinfo=UTC)).findings == (found,)


def test_the_command_says_what_moved_and_exits_with_3(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "products"))
    archive = MeasuredArchive(store, np.random.default_rng(0))
    archive.place("31UFS", optical=4, sar=9, wrong=0)
    list(adjust_archive(store, AdjustOptions()))
    quiet = CliRunner().invoke(app, ["monitor", "--out", store.url])
    assert (quiet.exit_code, "nothing has moved" in quiet.output) == (0, True)
    references = [optical_id("31UFS", n) for n in range(4)]
    for n in range(9, 12):
        archive.scene(sar_id("31UFS", n), references, at=(32.0, -7.0))
    list(adjust_archive(store, AdjustOptions()))
    loud = CliRunner().invoke(app, ["monitor", "--out", store.url])
    assert loud.exit_code == 3
    assert "sentinel-1a R058 at T31UFS: scenes lie off by" in loud.output
    said = json.loads(CliRunner().invoke(app, ["monitor", "--out", store.url, "--json"]).stdout)
    assert said["findings"][0]["scene"] == sar_id("31UFS", 9)
    late = CliRunner().invoke(app, ["monitor", "--out", store.url, "--since", "2030-01-01"])
    assert late.exit_code == 0
    wrong = CliRunner().invoke(app, ["monitor", "--out", store.url, "--false-alarms", "2"])
    assert wrong.exit_code == 2
    assert "false_alarms_per_scene" in wrong.output


def test_an_archive_that_is_not_adjusted_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["monitor", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "crosstie adjust" in result.output


def test_what_is_watched_is_read_alone_and_is_the_same(tmp_path: Path) -> None:
    archive = MeasuredArchive(open_store(str(tmp_path / "products")), np.random.default_rng(0))
    for tile in ("31UFS", "31UGS"):
        archive.place(tile, optical=3, sar=6)
    list(adjust_archive(archive.store, AdjustOptions()))
    whole = crosstie.read_adjusted(archive.store)
    positions = read_positions(archive.store)
    pd.testing.assert_frame_equal(positions, pd.DataFrame(whole)[POSITIONS.names])
    assert set(read_positions(archive.store, "T31UGS")["place"]) == {"T31UGS"}
    with pytest.raises(StoreError, match="crosstie adjust"):
        read_positions(archive.store, "T00XXX")
    archive.store.put(current_key("T31UGS"), b"broken")
    with pytest.raises(StoreError, match="T31UGS"):
        read_positions(archive.store)


def test_each_series_is_of_its_own_rows_in_order_of_time() -> None:
    rng = np.random.default_rng(2)
    table = pd.concat(
        [scenes(rng, places=3, n=20), scenes(rng, places=2, n=7, track="R131", platform="sentinel-1c")]
    ).sample(frac=1, random_state=0)
    found = place_series(usable(table))
    assert [(one.place, one.platform, one.track) for one in found] == sorted(
        {*zip(table["place"], table["platform"], table["track"], strict=True)}
    )
    for one in found:
        own = table[(table["place"] == one.place) & (table["track"] == one.track)].sort_values("date")
        assert (one.scene == own["scene"].to_numpy()).all()
        assert (one.series.position_m == own[["dx_m", "dy_m"]].to_numpy()).all()
