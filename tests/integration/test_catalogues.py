"""One archive behind a STAC API and in a stac-geoparquet file: equal scenes, equal pairs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from integration.fleet import Fleet
from servers.pgstac import StacApi, pgstac
from servers.process import ServerMissingError

from crosstie.io.catalog.query import SceneQuery
from crosstie.io.catalog.search import find_scene, find_scenes
from crosstie.io.pairing.pair_scenes import pair_scenes
from crosstie.io.simulation.archive import (
    archive_collections,
    archive_items,
    simulated_archive,
    write_archive,
)

EACH = 1500
"""Scenes of each sensor in the simulated archive, over three months."""

QUERIES = {
    "everything": SceneQuery(),
    "thirty days": SceneQuery(start_utc=date(2021, 1, 3), end_utc=date(2021, 2, 1)),
    "clear skies": SceneQuery(max_cloud_pct=20),
    "across the antimeridian": SceneQuery(bbox=(178.0, -60.0, -178.0, 60.0)),
    "far north": SceneQuery(bbox=(-180.0, 70.0, 180.0, 85.0)),
}


def test_the_real_scenes_are_the_same_in_the_api_and_in_a_table(fleet: Fleet, api: StacApi):
    by_api, by_table = (find_scenes(catalog) for catalog in (api.url, fleet.table))
    assert list(by_api) == list(by_table)
    assert len(by_api) == 6
    plan = pair_scenes(by_api)
    assert plan == pair_scenes(by_table)
    assert len(plan.pairs) == 3
    assert {pair.secondary.hrefs[0].split("/")[2] for pair in plan.pairs} == {"scenes"}
    wanted = fleet.s2_items["T11SLT"]["id"]
    found = find_scene(api.url, wanted)
    assert found == find_scene(fleet.table, wanted)
    assert found is not None
    assert found.id == wanted


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A simulated archive, in an API of its own and in a table."""
    folder = tmp_path_factory.mktemp("archive")
    table = simulated_archive(EACH, years=0.25)
    write_archive(folder / "archive.parquet", table)
    try:
        with pgstac(folder) as api:
            api.load(archive_collections(), archive_items(table))
            yield api.url, folder / "archive.parquet"
    except ServerMissingError as problem:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(problem))


@pytest.mark.parametrize("name", QUERIES)
def test_an_archive_gives_the_same_pairs_by_the_api_and_by_a_table(name: str, archive: tuple[str, Path]):
    by_api, by_table = (pair_scenes(find_scenes(catalog, QUERIES[name])) for catalog in archive)
    assert by_api.pairs == by_table.pairs
    assert by_api == by_table
    assert by_table.pairs
