"""A catalog behind `storage.endpoint` is read there, whoever asks; the environment names no server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from counting_proxy import CountingProxy, counting
from s3_server import s3_server

from crosstie.config import Settings, load_settings
from crosstie.flows.discovery.pairs import find_pairs, find_plan, scene_by_id, wanted_scenes
from crosstie.flows.discovery.periods import find
from crosstie.flows.doctor import examine
from crosstie.io.simulation.pairs import write_simulated_catalog

KEYS = {"aws_access_key_id": "somebody", "aws_secret_access_key": "kept-to-myself"}
CATALOG = "s3://scenes/simulated/catalog.json"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server on loopback that holds the items of two places, without their pixels."""
    folder = write_simulated_catalog(tmp_path_factory.mktemp("catalog"), scenes=2, size_px=64).parent
    with s3_server("scenes") as server:
        for path in folder.rglob("*.json"):
            server.client.upload_file(str(path), "scenes", f"simulated/{path.relative_to(folder).as_posix()}")
        yield server.url


@pytest.fixture
def proxy(upstream: str) -> Iterator[CountingProxy]:
    with counting(upstream) as counted:
        yield counted


@pytest.fixture
def settings(proxy: CountingProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """The endpoint is in the settings alone."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return load_settings(options={"storage.endpoint": proxy.url})


@pytest.mark.parametrize(
    "ask",
    [
        lambda settings: len(find_pairs(CATALOG, settings)),
        lambda settings: len(find_plan(CATALOG, settings).pairs),
        lambda settings: len(find(CATALOG, settings)),
        lambda settings: len(wanted_scenes(CATALOG, settings)) // 2,
    ],
    ids=["find_pairs", "find_plan", "find", "wanted_scenes"],
)
def test_pairs_are_found_behind_the_endpoint_of_the_settings(
    proxy: CountingProxy, settings: Settings, ask: Callable[[Settings], int]
) -> None:
    assert ask(settings) == 2
    assert proxy.requests("/scenes/simulated/") > 4  # the catalog and four items


def test_one_scene_is_found_there_by_its_id(proxy: CountingProxy, settings: Settings) -> None:
    known = wanted_scenes(CATALOG, settings)[0]
    before = proxy.requests()
    assert scene_by_id(CATALOG, known.id, settings) == known
    assert proxy.requests() > before


def test_doctor_looks_there_too(proxy: CountingProxy, settings: Settings) -> None:
    (finding,) = [f for f in examine(settings, catalog=CATALOG) if f.subject == "catalog"]
    assert (finding.ok, finding.state) == (True, f"{CATALOG}: 4 scenes, 2 pairs")
    assert proxy.requests("/scenes/simulated/") > 4


def test_doctor_shows_no_password_of_an_address(settings: Settings) -> None:
    (finding,) = [
        f
        for f in examine(settings, catalog="http://me:pw-of-mine@127.0.0.1:9/c.json")
        if f.subject == "catalog"
    ]
    assert not finding.ok
    assert "pw-of-mine" not in finding.state + str(finding.remedy)
