from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.fleet import Fleet
from integration.fleet import fleet as started
from servers.pgstac import StacApi
from servers.process import ServerMissingError, program


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for mark in ("integration", "server", "slow"):
                item.add_marker(mark)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> Iterator[Fleet]:
    """Prefect with a worker, Dask, SeaweedFS and pgstac, with the real scenes loaded."""
    try:
        program("weed")
    except ServerMissingError as problem:
        pytest.fail(str(problem))
    with started(tmp_path_factory.mktemp("fleet"), real_data / "scenes") as fleet:
        yield fleet


@pytest.fixture
def api(fleet: Fleet) -> StacApi:
    """The STAC API, where it can be had."""
    if fleet.api is None:
        pytest.skip(fleet.why_no_api)
    return fleet.api
