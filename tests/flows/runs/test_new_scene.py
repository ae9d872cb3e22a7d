"""What is new: one scene that has come, or all since the last success; and networks that fail meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fleet_runs import Archive, Fleet, commits, failures, fleet_of, moved, write_archive

from crosstie.errors import CatalogError, SettingsError
from crosstie.flows.discovery.periods import between, pairs_of_period, pairs_since, parted

pytestmark = [pytest.mark.server, pytest.mark.slow]

PLACES = 3


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet_of(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_archive(tmp_path_factory.mktemp("archive"), PLACES)


def visits(archive: Archive) -> list[dict[str, Any]]:
    """One place seen by the optical sensor twice, five days apart, and by the radar three times."""
    optical, radar = archive.items[:2]
    day = timedelta(days=1)
    return [
        moved(optical, name="OPT_A", by=0 * day),
        moved(optical, name="OPT_B", by=5 * day),
        moved(radar, name="SAR_FAR", by=-4 * day),  # two days before A
        moved(radar, name="SAR_A", by=-1.5 * day),  # half a day after A
        moved(radar, name="SAR_B", by=3 * day),  # on the day of B
    ]


def test_a_new_optical_scene_is_registered_with_its_best_partner(
    fleet: Fleet, archive: Archive, tmp_path: Path
) -> None:
    from crosstie.flows.new_scene import run_new_scene

    catalog = archive.write("visits.json", visits(archive))
    (outcome,) = run_new_scene("OPT_B", catalog, str(tmp_path), fleet.settings())
    assert outcome.pair_key == "OPT_B__SAR_B"
    assert set(commits(tmp_path)) == {"OPT_B__SAR_B"}
    (again,) = run_new_scene("OPT_B", catalog, str(tmp_path), fleet.settings())
    assert again.already_done


def test_a_scene_that_the_catalog_has_only_later_is_waited_for(
    fleet: Fleet, archive: Archive, tmp_path: Path
) -> None:
    from crosstie.flows.new_scene import run_new_scene

    all_visits = visits(archive)
    catalog = archive.write("late.json", [item for item in all_visits if item["id"] != "OPT_B"])
    with pytest.raises(CatalogError, match="OPT_B"):
        run_new_scene("OPT_B", catalog, str(tmp_path), fleet.settings())
    later = threading.Timer(2.0, archive.write, ("late.json", all_visits))
    later.start()
    (outcome,) = run_new_scene("OPT_B", catalog, str(tmp_path), fleet.settings(runs__scene_wait_s=8))
    later.join()
    assert outcome.pair_key == "OPT_B__SAR_B"


def test_a_new_radar_scene_is_registered_where_it_is_the_best(
    fleet: Fleet, archive: Archive, tmp_path: Path
) -> None:
    from crosstie.flows.new_scene import partners_of, run_new_scene

    catalog = archive.write("visits.json", visits(archive))
    settings = fleet.settings()
    (outcome,) = run_new_scene("SAR_A", catalog, str(tmp_path), settings)
    assert outcome.pair_key == "OPT_A__SAR_A"
    # It lies within max_days of both, and each has a better partner: rivals are looked at, too.
    nobodys = partners_of(catalog, "SAR_FAR", settings)
    assert nobodys.pairs == ()
    assert "better" in str(nobodys.why_none)
    both = fleet.settings(pairing__best_n=3)
    assert {pair.key for pair in partners_of(catalog, "SAR_FAR", both).pairs} == {
        "OPT_A__SAR_FAR",
        "OPT_B__SAR_FAR",
    }


def test_a_scene_that_nobody_knows_is_bad_input(fleet: Fleet, archive: Archive, tmp_path: Path) -> None:
    from crosstie.flows.new_scene import run_new_scene

    catalog = archive.write("visits.json", visits(archive))
    with pytest.raises(CatalogError, match=r"visits\.json.* no scene 'S2_ABSENT'"):
        run_new_scene("S2_ABSENT", catalog, str(tmp_path / "out"), fleet.settings())
    assert not (tmp_path / "out").exists()


def test_a_night_looks_at_what_is_new_since_the_last_success(
    fleet: Fleet, archive: Archive, tmp_path: Path
) -> None:
    from crosstie.flows.nightly import run_nightly

    def night(look_back_days: float, *pairs: Sequence[dict[str, Any]]) -> dict[str, bool]:
        """Pairs that a night looks at, and whether it registers them."""
        catalog = archive.write("growing.json", [item for pair in pairs for item in pair])
        settings = fleet.settings(nightly__look_back_days=look_back_days)
        outcomes = run_nightly(catalog, str(tmp_path), settings)
        return {outcome.pair_key: not outcome.already_done for outcome in outcomes}

    long_ago, other = archive.pairs[0], archive.pairs[1]
    since = datetime.now(UTC) - datetime.fromisoformat(other[0]["properties"]["datetime"])
    today = [moved(item, name=f"NEW_{n}", by=since) for n, item in enumerate(other)]
    late = [moved(item, name=f"LATE_{n}", by=since - timedelta(days=30)) for n, item in enumerate(other)]
    assert list(night(5, long_ago).values()) == [True]  # the first night looks at all there is
    assert night(5, long_ago, late, today) == {"NEW_0__NEW_1": True}
    assert night(40, long_ago, late, today) == {"LATE_0__LATE_1": True, "NEW_0__NEW_1": False}


def test_a_night_that_was_not_whole_is_no_success(fleet: Fleet, archive: Archive, tmp_path: Path) -> None:
    from crosstie.flows.nightly import run_nightly

    catalog = archive.write("two.json", archive.items[:4])
    settings = fleet.settings(nightly__look_back_days=1)
    assert len(run_nightly(catalog, str(tmp_path), settings, limit=1)) == 1
    hasty = fleet.settings(nightly__look_back_days=1, runs__pair_timeout_s=0.001)
    assert [o.verdict for o in run_nightly(catalog, str(tmp_path), hasty)].count("failed") == 1
    assert len(run_nightly(catalog, str(tmp_path), settings)) == 2
    assert run_nightly(catalog, str(tmp_path), settings) == []  # now it was one, and nothing is new


def test_parts_by_time_hold_the_pairs_of_the_whole(fleet: Fleet, archive: Archive) -> None:
    catalog = archive.write("visits.json", visits(archive))
    settings = fleet.settings(pairing__max_days=5, pairing__best_n=2)
    start, end = datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 6, 30, tzinfo=UTC)
    whole = [pair.key for pair in pairs_since(catalog, settings, start)]
    assert len(whole) == 4
    for days in (0.7, 3, 5, 100):
        periods = parted(start, end, days=days, newest_first=False)
        parts = [pair for period in periods for pair in pairs_of_period(catalog, settings, period)]
        assert sorted(pair.key for pair in parts) == whole
    # A secondary is new, its reference is not; and the better partner of that one is older still.
    new = pairs_since(catalog, settings, datetime(2025, 6, 4, 12, tzinfo=UTC))
    assert {pair.key for pair in new} == {"OPT_A__SAR_A", "OPT_B__SAR_A", "OPT_B__SAR_B"}


def test_the_last_moment_of_a_span_belongs_to_it() -> None:
    start, end = datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 6, 3, tzinfo=UTC)
    periods = parted(start, end, days=2, newest_first=True)
    assert [period.start_utc for period in periods] == [end, start]
    assert periods[0].start_utc <= end < periods[0].end_utc
    assert periods[1].end_utc == end


def test_a_window_never_asks_for_more_than_the_settings_do(fleet: Fleet) -> None:
    settings = fleet.settings(catalog__start_utc="2025-06-10", catalog__end_utc="2025-06-20")
    day = partial(datetime, 2025, 6, tzinfo=UTC)
    wider = between(settings, day(1), day(30)).catalog.interval_utc
    assert wider == settings.catalog.interval_utc
    assert between(settings, day(12), day(15)).catalog.interval_utc == (day(12), day(15))
    start, end = between(settings, day(25), None).catalog.interval_utc
    assert start == end  # nothing


class Network:
    """A web server over a folder, which can be told to break for files of some name."""

    def __init__(self, folder: Path) -> None:
        self.broken: str | None = None
        self.breaks = 0
        """Requests that are still to be cut off."""
        self.hangs = False
        self.let_go = threading.Event()
        """Ends what hangs."""
        self.cut = 0
        network = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if network.broken is None or network.broken not in self.path:
                    super().do_GET()
                elif network.hangs:
                    network.let_go.wait(600)
                elif network.breaks > 0:
                    network.breaks -= 1
                    network.cut += 1
                    self.close_connection = True
                    self.connection.close()
                else:
                    super().do_GET()

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.let_go.set()
        self._server.shutdown()


@pytest.fixture
def network(archive: Archive) -> Iterator[Network]:
    network = Network(archive.folder)
    yield network
    network.close()


def runs_of_task(pair: str) -> list[int]:
    """How often the newest task of a pair was tried."""
    from prefect import get_client
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterName
    from prefect.client.schemas.sorting import TaskRunSort

    named = TaskRunFilter(name=TaskRunFilterName(like_=f"register {pair}"))
    with get_client(sync_client=True) as client:
        deadline = time.monotonic() + 120  # states reach the server as events, a little later
        while time.monotonic() < deadline:
            found = client.read_task_runs(task_run_filter=named, sort=TaskRunSort.END_TIME_DESC)
            if found and all(run.end_time for run in found):
                return [run.run_count for run in found]
            time.sleep(0.2)
    return []


def test_an_error_of_the_network_is_tried_again_and_bad_input_is_not(
    fleet: Fleet, archive: Archive, network: Network, tmp_path: Path
) -> None:
    from crosstie.flows.nightly import run_nightly

    good, bad = ([moved(item, name=f"{name}_{n}", by=timedelta(0)) for n, item in enumerate(pair)]
                 for name, pair in zip(("GOOD", "BAD"), archive.pairs, strict=False))  # fmt: skip
    (archive.folder / "place-001" / "notes.tif").write_text("no raster at all")
    bad[1]["assets"] = {"vh": {**bad[1]["assets"]["vh"], "href": "./place-001/notes.tif"}}
    local = archive.write("bad.json", [*bad])
    archive.write("good.json", [*good])
    network.broken, network.breaks = "place-000/s1_vh.tif", 3
    settings = fleet.settings(runs__retries=3)
    (outcome,) = run_nightly(f"{network.url}/good.json", str(tmp_path), settings)
    assert network.cut > 0
    assert outcome.verdict != "failed", outcome
    assert runs_of_task("GOOD_0__GOOD_1")[0] > 1
    (outcome,) = run_nightly(local, str(tmp_path), settings)
    assert outcome.reasons == ("unreadable_raster",)
    assert runs_of_task("BAD_0__BAD_1") == [1]


def test_a_pair_that_hangs_is_left_to_itself_and_the_others_are_done(
    fleet: Fleet, archive: Archive, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crosstie.flows.nightly import run_nightly
    from crosstie.flows.runs import pair as register_pair

    monkeypatch.setattr(register_pair, "GRACE_S", 0.5)
    names = ("HANGS_0", "HANGS_1", "RUNS_0", "RUNS_1")
    items = [
        moved(item, name=name, by=timedelta(0)) for item, name in zip(archive.items, names, strict=False)
    ]
    archive.write("hangs.json", items)
    network.broken, network.hangs = "place-000/s1_vh.tif", True
    settings = fleet.settings(runs__pair_timeout_s=15, compute__pairs_at_once=1)
    outcomes = run_nightly(f"{network.url}/hangs.json", str(tmp_path), settings)
    assert not network.let_go.is_set(), "the night has ended, and the file hangs still"
    assert outcomes[0].reasons == ("time_limit",)
    assert set(commits(tmp_path)) == {"RUNS_0__RUNS_1"}
    assert [failure.code for failure in failures(tmp_path)] == ["time_limit"]


def test_no_secret_of_an_address_reaches_prefect_or_the_products(
    fleet: Fleet, archive: Archive, network: Network, tmp_path: Path
) -> None:
    from prefect import get_client

    from crosstie.flows.nightly import nightly, run_nightly

    archive.write("one.json", archive.items[:2])
    address = network.url.replace("//", "//me:kept-to-myself@") + "/one.json?token=kept-to-myself&v=1"
    (outcome,) = run_nightly(address, str(tmp_path), fleet.settings())
    assert outcome.verdict != "failed"
    with pytest.raises(CatalogError) as told:
        run_nightly(address.replace("one.json", "absent.json"), str(tmp_path), fleet.settings())
    assert "kept-to-myself" not in str(told.value)
    with pytest.raises(SettingsError, match="withdraw that secret"):
        nightly("https://example.org/c.json?token=nobodys", str(tmp_path))
    with get_client(sync_client=True) as client:
        stored = [run.model_dump_json() for run in client.read_flow_runs()]
        stored += [run.model_dump_json() for run in client.read_task_runs()]
    stored += [artifact.model_dump_json() for artifact in artifacts()]
    assert any("one.json" in text for text in stored)
    assert not [text for text in stored if "kept-to-myself" in text]
    bodies = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [body for body in bodies if b"kept-to-myself" in body]


def artifacts() -> list[Any]:
    from prefect import get_client

    with get_client(sync_client=True) as client:
        return client.read_artifacts()
