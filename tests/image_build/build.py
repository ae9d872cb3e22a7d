"""Builds the image with an engine, from the real Dockerfile; the base image has a stand-in of its name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from servers.engine import Engine

from image_build import context

BASE = "docker.io/library/python:3.11.14-slim-bookworm"
"""Debian 12 with the Python of these tests stands in for it, in /usr/local where that is not Debian's own."""

NOT_OF_A_BASE = (
    "lib/python3.11/site-packages/*",
    "!lib/python3.11/site-packages/pip*",
    "lib/python3.11/test",
    "share",
)
"""What the image `python` has not, either; the last two are large."""

IMAGE = "localhost/crosstie:0.1.0"


def build(engine: Engine, dockerfile: Path = context.DOCKERFILE, tag: str = IMAGE) -> str:
    """Build the CPU's variant; the name of the image.

    Raises
    ------
    ServerError : a step of the Dockerfile fails; the message holds its output
    ServerMissingError : the stand-in for the base image has not been made
    """
    take_base(engine)
    settings, folders = pip_settings()
    secret = engine.folder / "pip.conf"
    secret.touch(mode=0o600)
    secret.write_text("\n".join(["[global]", *(f"{name} = {value}" for name, value in settings.items()), ""]))
    volumes = [f"--volume={folder}:{folder}:ro" for folder in folders]
    try:
        engine.ask(
            "build", "--format=docker", "--pull=never", f"--secret=id=pip,src={secret}",
            # torch without CUDA is where pip's own configuration says, as for the environment of the tests
            *volumes, "--build-arg=TORCH_INDEX=", f"--file={dockerfile}", f"--tag={tag}", context.ROOT,
            timeout_s=1800,  # two minutes where nothing else runs
        )  # fmt: skip
    finally:
        secret.unlink()
    return tag


def take_base(engine: Engine) -> None:
    """Make what stands in for the base image."""
    engine.take("python", BASE)
    prefix = Path(sys.base_prefix).resolve()
    if prefix == Path("/usr"):
        return
    steps, ignored = engine.folder / "base.Dockerfile", engine.folder / "base.ignore"
    steps.write_text(f"FROM {BASE}\nCOPY . /usr/local/\nRUN ldconfig\n")
    ignored.write_text("\n".join(NOT_OF_A_BASE))
    engine.ask(
        "build", "--pull=never", f"--file={steps}", f"--ignorefile={ignored}", f"--tag={BASE}", prefix,
        timeout_s=300,
    )  # fmt: skip


def pip_settings() -> tuple[dict[str, str], list[Path]]:
    """What pip is told on this machine, and the folders that this names."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, str] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in ("global", "install", ":env:"):
            settings[option] = value.strip("'\"")
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        if name in os.environ:
            settings.setdefault("cert", os.environ[name])
    words = [word.removeprefix("file://") for value in settings.values() for word in value.split()]
    paths = [Path(word) for word in words if word.startswith("/") and Path(word).exists()]
    # An index of files names others beside its pages.
    folders = {path.parent if path.name == "simple" or path.is_file() else path for path in paths}
    return settings, sorted(folders)
