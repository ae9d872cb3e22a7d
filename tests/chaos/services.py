"""What all injections share: an S3 server, a folder, and the process that all others are forked from."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.material import FILE, make_material, material
from chaos.world import Services, rendered_files
from s3_server import s3_server

BUCKET = "chaos"


@contextmanager
def chaos_services() -> Iterator[Services]:
    """Start what the injections need, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="crosstie-chaos-") as name, s3_server(BUCKET) as server:
        folder = Path(name)
        folder.chmod(0o755)
        keys = {key: value for key, value in server.environment.items() if "ENDPOINT" not in key}
        material.cache_clear()
        more = {
            **keys,
            FILE: str(make_material(folder)),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        with _environment(more), rendered_files():
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["chaos.child"])
            yield Services(server.url, BUCKET, folder, context)


@contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
