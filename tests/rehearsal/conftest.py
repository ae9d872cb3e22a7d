"""One engine for the tests that need one, and the image that it has built."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from image_build.build import build
from servers import engine as podman
from servers.engine import Engine
from servers.process import ServerMissingError


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    try:
        with podman.engine() as made:
            yield made
    except ServerMissingError as problem:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(problem))


@pytest.fixture(scope="session")
def built(engine: Engine) -> str:
    """Name of the image: the Dockerfile, all its stages, the CPU's variant."""
    if "+cpu" not in torch.__version__:
        pytest.skip(
            "pip finds torch with CUDA here, several GB; set PIP_EXTRA_INDEX_URL as CONTRIBUTING.md says"
        )
    try:
        return build(engine)
    except ServerMissingError as problem:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(problem))
