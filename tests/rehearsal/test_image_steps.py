"""The Dockerfile's own steps in clean roots, without an engine, and the services' start in what they leave.

Not run, for want of an engine: the base image, Debian's packages, tini, the CUDA variant, layers and caches.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from image_build import context, recipe, tree
from image_build.build import Build
from image_build.root import Confinement, Mount, NamespacesMissingError, check_namespaces
from servers.process import LOOPBACK, free_ports

LIMIT_BYTES = 1_500_000_000

BASE_BYTES = 135_000_000
"""Of python:3.11-slim-bookworm with tini and libexpat1, rounded up; not measured here."""

SERVICE = Confinement(user=10001, group=10001, writable=("/tmp", "/var/lib/crosstie"))

PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """All stages of the Dockerfile, the CPU's variant, each step as root."""
    try:
        check_namespaces()
    except NamespacesMissingError as problem:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(problem))
    if "+cpu" not in torch.__version__:
        pytest.skip(
            "pip finds torch with CUDA here, several GB; set PIP_EXTRA_INDEX_URL as CONTRIBUTING.md says"
        )
    folder = tmp_path_factory.mktemp("image")
    # torch without CUDA is where pip's own configuration says, as for the environment of the tests.
    made = Build(recipe.read(context.DOCKERFILE.read_text()), folder, {"TORCH_INDEX": ""})
    try:
        made.root("crosstie")
        yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def image(build: Build) -> Path:
    return build.root("crosstie").path


class Container:
    """Starts commands in the image as an engine does: entrypoint, environment, user, a read-only root."""

    def __init__(self, build: Build) -> None:
        stage = build.recipe.stage("crosstie")
        self._root = build.root("crosstie")
        self._environment = build.values(stage)
        self._cwd = next(step.text for step in reversed(stage.steps) if step.word == "WORKDIR")
        entry = next(step for step in stage.steps if step.word == "ENTRYPOINT").form
        assert entry[:2] == ["/usr/bin/tini", "--"]
        self._entry = entry[2:]

    def command(
        self, command: Sequence[str], environment: dict[str, str], mounts: Sequence[Mount], *, entry: bool
    ) -> list[str]:
        return self._root.command(
            [*(self._entry if entry else []), *command],
            self._environment | environment,
            cwd=self._cwd,
            mounts=mounts,
            confined=SERVICE,
        )

    def run(
        self, *command: str, mounts: Sequence[Mount] = (), entry: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        line = self.command(command, environment, mounts, entry=entry)
        return subprocess.run(line, capture_output=True, text=True)


@pytest.fixture(scope="module")
def container(build: Build) -> Container:
    return Container(build)


def test_only_packages_of_debian_are_left_out(build: Build) -> None:
    assert len(build.left_out) == 2
    assert all(line.startswith("apt-get update") for line in build.left_out)


def test_debian_has_the_packages(build: Build) -> None:
    named = {word for line in build.left_out for word in line.split() if "=" in word}
    if "bookworm" not in Path("/etc/os-release").read_text():
        pytest.skip("asks Debian 12's own index, as the image does")
    ask = ["apt-get", "install", "--simulate", "--no-install-recommends", *sorted(named)]
    said = subprocess.run(ask, capture_output=True, text=True)
    if said.returncode != 0:  # a machine that has not looked for a while
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=True)
        said = subprocess.run(ask, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert {word.partition("=")[0] for word in named} == {"libexpat1", "tini", "binutils"}


def test_versions_are_those_of_the_constraints(image: Path) -> None:
    found = tree.distributions(image)
    pins = tree.pinned(context.ROOT / "constraints.txt")
    assert {"torch", "prefect", "distributed", "rasterio"} <= found.keys()
    not_pinned = found.keys() - pins.keys() - {"crosstie", "setuptools"}
    assert not_pinned == set()
    others = {
        name: version
        for name, version in found.items()
        if name in pins and version.removesuffix("+cpu") != pins[name]
    }
    assert others == {}
    assert not [name for name in found if name.startswith(("nvidia", "cuda", "triton"))]


def test_nothing_is_missing_but_what_was_taken_out(image: Path) -> None:
    assert tree.pip_check(image) == [
        line for line in tree.pip_check(image) if line.startswith("geopandas ") and "pyogrio" in line
    ]
    assert not (image / tree.PACKAGES / "pip").exists()


def test_it_is_small(image: Path) -> None:
    assert tree.size_bytes(image) + BASE_BYTES <= LIMIT_BYTES


def test_the_system_has_every_library(image: Path, build: Build) -> None:
    installed = {word.partition("=")[0] for word in build.left_out[0].split() if "=" in word}
    needed = tree.libraries_of_the_system(image)
    assert "libc.so.6" in needed
    packages = {tree.OF_DEBIAN.get(name, f"? for {name}") for name in needed}
    assert packages <= tree.EVERYWHERE | installed


def test_the_list_of_parts_is_complete(image: Path) -> None:
    listed = tree.inventory(image / "opt/crosstie/sbom.cdx.json")
    assert listed == tree.distributions(image)
    assert listed["torch"].endswith("+cpu")


def test_all_belongs_to_root_but_the_folders_of_the_service(image: Path) -> None:
    program = [image / "opt/crosstie", *(image / "opt/crosstie").rglob("*")]
    assert {path.lstat().st_uid for path in program} == {0}
    for path in program:
        mode = path.lstat().st_mode
        assert path.is_symlink() or (mode & 0o022 == 0 and mode & 0o004), path
    own = [image / "var/lib/crosstie", *(image / "var/lib/crosstie").rglob("*")]
    assert {(path.stat().st_uid, path.stat().st_gid, oct(path.stat().st_mode)) for path in own} == {
        (10001, 10001, "0o40770")
    }


LOOK = """
import json, os, pathlib, sys
def may(path):
    try:
        (pathlib.Path(path) / "probe").write_text("x")
    except OSError as problem:
        return problem.strerror
    return "written"
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "user": os.getuid(), "group": os.getgid(), "groups": os.getgroups(), "rights": int(status["CapEff"], 16),
    "bounds": int(status["CapBnd"], 16), "new": status["NoNewPrivs"].strip(), "home": os.environ["HOME"],
    "cwd": os.getcwd(), "python": sys.executable,
    "may": {path: may(path) for path in sys.argv[1:]},
}))
"""


def test_a_service_has_no_rights_and_a_read_only_root(container: Container) -> None:
    folders = (
        "/opt/crosstie/venv",
        "/etc",
        "/run",
        "/",
        "/tmp",
        "/var/lib/crosstie",
        "/var/lib/crosstie/prefect",
    )
    said = container.run("python", "-c", LOOK, *folders)
    assert said.returncode == 0, said.stderr
    seen = json.loads(said.stdout)
    assert (seen["user"], seen["group"], seen["groups"]) == (10001, 10001, [])
    assert (seen["rights"], seen["bounds"], seen["new"]) == (0, 0, "1")
    assert (seen["home"], seen["cwd"]) == ("/var/lib/crosstie", "/var/lib/crosstie")
    assert seen["python"] == "/opt/crosstie/venv/bin/python"
    written = {path for path, answer in seen["may"].items() if answer == "written"}
    assert written == {"/tmp", "/var/lib/crosstie", "/var/lib/crosstie/prefect"}


IMPORT_ALL = """
import importlib, pkgutil
import crosstie
modules = [found.name for found in pkgutil.walk_packages(crosstie.__path__, "crosstie.")]
for name in modules:
    if not name.endswith(("__main__", "flows.kubernetes")):
        importlib.import_module(name)
import asyncpg, distributed.cli.dask_scheduler, distributed.cli.dask_worker
import prefect.server.api.server, prefect.workers.process
print(len(modules))
"""


def test_every_module_is_there(container: Container) -> None:
    """What slim.sh takes out is nothing that a service imports."""
    said = container.run("python", "-c", IMPORT_ALL)
    assert said.returncode == 0, said.stderr
    assert int(said.stdout) > 50


def test_a_pair_is_registered(container: Container) -> None:
    """Simulated scenes with a known error, from the catalog to the report."""
    script = (
        "crosstie simulate /tmp/scenes --scenes 1 --size-px 512 > /dev/null && cd /tmp/scenes/place-000 "
        "&& crosstie register s2_tci.tif s1_vh.tif --out /tmp/products"
    )
    said = container.run("sh", "-c", script)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "Corrected" in said.stdout


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "s3_secret_key"
    path.write_text("Xq$7 'quoted'\n")
    os.chown(path, 10001, 10001)
    path.chmod(0o400)
    return path


def test_a_secret_comes_from_a_file(container: Container, secret: Path) -> None:
    mount = Mount(secret, "/run/secrets/s3_secret_key")
    program = "import json, os, sys; print(json.dumps([dict(os.environ), open('/proc/self/cmdline').read()]))"
    said = container.run(
        "python", "-c", program, mounts=[mount], AWS_SECRET_ACCESS_KEY_FILE="/run/secrets/s3_secret_key"
    )
    assert said.returncode == 0, said.stderr
    variables, line = json.loads(said.stdout)
    assert variables["AWS_SECRET_ACCESS_KEY"] == "Xq$7 'quoted'"
    assert "AWS_SECRET_ACCESS_KEY_FILE" not in variables
    assert "Xq$7" not in line


def test_a_secret_of_another_user_is_refused_in_words(container: Container, secret: Path) -> None:
    os.chown(secret, 0, 0)
    mount = Mount(secret, "/run/secrets/s3_secret_key")
    said = container.run("env", mounts=[mount], AWS_SECRET_ACCESS_KEY_FILE="/run/secrets/s3_secret_key")
    assert (said.returncode, said.stdout) == (2, "")
    assert "user 10001 may not read /run/secrets/s3_secret_key" in said.stderr
    assert "Xq$7" not in said.stderr


def test_the_health_check_sees_a_service_come_and_go(container: Container) -> None:
    rpc, http = free_ports(2)
    url = f"http://{LOOPBACK}:{http}/health"
    line = container.command(
        [
            "dask",
            "scheduler",
            "--host",
            LOOPBACK,
            "--port",
            str(rpc),
            "--dashboard-address",
            f"{LOOPBACK}:{http}",
        ],
        {},
        [],
        entry=True,
    )

    def asked() -> int:
        return container.run("healthcheck", entry=False, HEALTHCHECK_URL=url).returncode

    def until(code: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while asked() != code:
            assert time.monotonic() < deadline
            time.sleep(0.5)

    assert asked() == 1
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as service:
        try:
            until(0)
        finally:
            # `unshare` lets SIGTERM pass by.
            service.kill()
            service.wait()
    until(1)


def test_a_check_with_nothing_to_ask_says_so(container: Container) -> None:
    said = container.run("healthcheck", entry=False)
    assert (said.returncode, "HEALTHCHECK_URL" in said.stdout) == (0, True)
