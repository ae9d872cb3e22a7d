"""One engine for the tests that need one, and the image that it has built."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from image_build.build import build
from servers import engine as podman
from servers.compose import take_stand_ins
from servers.engine import Engine
from servers.process import ServerMissingError
from xdist.scheduler import LoadFileScheduling

ON_THE_ENGINE = ("test_image_steps.py", "test_compose_containers.py")
"""One engine and one image for both: they take one process of the two."""


class OneEngine(LoadFileScheduling):
    """A file stays in one process, and the files on the engine stay in the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return ON_THE_ENGINE[0] if file.endswith(ON_THE_ENGINE) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneEngine:
    return OneEngine(config, log)


@contextmanager
def _skipped_where_missing() -> Iterator[None]:
    """What is not installed skips tests, but for the build machine."""
    try:
        yield
    except ServerMissingError as problem:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(problem))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with _skipped_where_missing(), podman.engine() as made:
        yield made


@pytest.fixture(scope="session")
def built(engine: Engine) -> str:
    """Name of the image: the Dockerfile, all its stages, the CPU's variant."""
    if "+cpu" not in torch.__version__:
        pytest.skip(
            "pip finds torch with CUDA here, several GB; set PIP_EXTRA_INDEX_URL as CONTRIBUTING.md says"
        )
    with _skipped_where_missing():
        return build(engine)


@pytest.fixture(scope="session")
def of_others(engine: Engine) -> None:
    """What stands in for the images of PostgreSQL, SeaweedFS and Prometheus."""
    with _skipped_where_missing():
        take_stand_ins(engine)
