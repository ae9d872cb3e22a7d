"""The image, built by podman from the Dockerfile, and run as a service is.

Debian 12 stands in for the base image, with its own Python. Not built: the CUDA variant.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from image_build import context, recipe, tree
from image_build.build import BASE
from servers.engine import Engine

pytestmark = [pytest.mark.server, pytest.mark.slow]

LIMIT_BYTES = 1_500_000_000

BASE_BYTES = 135_000_000
"""Of python:3.11-slim-bookworm with tini and libexpat1, rounded up; not measured here."""

PATIENCE_S = 120.0

LIKE_A_SERVICE = (
    "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges",
    # a volume begins with the folder of the image, its owner and its mode
    "--tmpfs=/tmp:mode=1777", "--volume=/var/lib/crosstie",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Container:
    """Starts commands in the image as a service is: read-only, without rights, reached by nobody."""

    engine: Engine
    image: str

    def run(
        self, *command: str, secrets: Sequence[Path] = (), entry: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        mounts = [f"--volume={path}:/run/secrets/{path.name}:ro" for path in secrets]
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        entrypoint = [] if entry else [f"--entrypoint={json.dumps(command)}"]
        return self.engine.run(
            "run", "--rm", "--network=none", *LIKE_A_SERVICE, *mounts, *variables, *entrypoint,
            self.image, *(command if entry else ()), timeout_s=600,
        )  # fmt: skip


@pytest.fixture(scope="module")
def container(engine: Engine, built: str) -> Container:
    return Container(engine, built)


@pytest.fixture(scope="module")
def image(engine: Engine, built: str) -> Path:
    """The files of the image."""
    return Path(engine.ask("image", "mount", built))


def installed(image: Path) -> dict[str, str]:
    """Version of each package of Debian."""
    found = {}
    for entry in (image / "var/lib/dpkg/status").read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status") == "install ok installed":
            found[fields["Package"]] = fields["Version"]
    return found


def asked_for(stage: str) -> dict[str, str]:
    """Packages of Debian that a stage of the Dockerfile installs: name, version with its `*`."""
    steps = recipe.read(context.DOCKERFILE.read_text()).stage(stage).steps
    words = [word for step in steps if step.text.startswith("apt-get") for word in shlex.split(step.text)]
    return {name: version for name, _, version in (word.partition("=") for word in words if "=" in word)}


def test_debian_has_given_the_packages(image: Path) -> None:
    asked, found = asked_for("base"), installed(image)
    assert asked.keys() == {"libexpat1", "tini"}
    for name, version in asked.items():
        assert found[name].startswith(version.rstrip("*"))
    assert asked_for("tools").keys() == {"binutils"}
    assert "binutils" not in found  # it stays behind, with all that builds


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


def test_nothing_is_missing_but_what_was_taken_out(image: Path, container: Container) -> None:
    # pip of the base image: this one has none
    check = f"PATH=/usr/local/bin:/usr/bin:/bin exec python3.11 -m pip --python /{tree.VENV}/bin/python check"
    said = container.run("sh", "-c", check).stdout
    missing = [line for line in said.splitlines() if not line.startswith("No broken")]
    assert missing == [line for line in missing if line.startswith("geopandas ") and "pyogrio" in line]
    assert missing or "No broken" in said
    assert not (image / tree.PACKAGES / "pip").exists()


def test_it_is_small(engine: Engine, built: str) -> None:
    whole, base = (int(engine.ask("image", "inspect", "--format={{.Size}}", name)) for name in (built, BASE))
    assert 0 < whole - base + BASE_BYTES <= LIMIT_BYTES


def test_the_system_has_every_library(image: Path) -> None:
    needed = tree.libraries_of_the_system(image)
    assert "libc.so.6" in needed
    packages = {tree.OF_DEBIAN.get(name, f"? for {name}") for name in needed}
    assert packages <= tree.EVERYWHERE | asked_for("base").keys()
    assert packages <= installed(image).keys()


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
    # an engine lists its own group among the others, and no second one
    assert (seen["user"], seen["group"], seen["groups"]) == (10001, 10001, [10001])
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
    program = "import json, os, sys; print(json.dumps([dict(os.environ), open('/proc/self/cmdline').read()]))"
    said = container.run(
        "python", "-c", program, secrets=[secret], AWS_SECRET_ACCESS_KEY_FILE="/run/secrets/s3_secret_key"
    )
    assert said.returncode == 0, said.stderr
    variables, line = json.loads(said.stdout)
    assert variables["AWS_SECRET_ACCESS_KEY"] == "Xq$7 'quoted'"
    assert "AWS_SECRET_ACCESS_KEY_FILE" not in variables
    assert "Xq$7" not in line


def test_a_secret_of_another_user_is_refused_in_words(container: Container, secret: Path) -> None:
    os.chown(secret, 0, 0)
    said = container.run("env", secrets=[secret], AWS_SECRET_ACCESS_KEY_FILE="/run/secrets/s3_secret_key")
    assert (said.returncode, said.stdout) == (2, "")
    assert "user 10001 may not read /run/secrets/s3_secret_key" in said.stderr
    assert "Xq$7" not in said.stderr


SERVE = """
until [ -e /tmp/begin ]; do sleep 0.1; done
dask scheduler --host 127.0.0.1 --port 0 --dashboard-address 127.0.0.1:8787 &
echo $! >/tmp/pid
wait
sleep 600
"""


def test_the_health_check_of_the_image_sees_a_service_come_and_go(container: Container) -> None:
    engine = container.engine
    url = "--env=HEALTHCHECK_URL=http://127.0.0.1:8787/health"
    name = engine.ask(
        "run", "--detach", "--network=none", *LIKE_A_SERVICE, url, container.image, "sh", "-c", SERVE
    )

    def until(code: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while engine.run("healthcheck", "run", name).returncode != code:
            assert time.monotonic() < deadline, engine.ask("logs", name)
            time.sleep(0.5)

    try:
        assert engine.run("healthcheck", "run", name).returncode == 1
        engine.ask("exec", name, "touch", "/tmp/begin")
        until(0)
        engine.ask("exec", name, "sh", "-c", "kill $(cat /tmp/pid)")
        until(1)
    finally:
        engine.ask("rm", "--force", "--volumes", "--time=0", name)


def test_the_first_process_buries_orphans_and_hands_signals_on(container: Container) -> None:
    engine = container.engine
    script = "trap 'echo told; exit 7' TERM; (sleep 1 &); echo $PPID; while :; do sleep 0.2; done"
    name = engine.ask(
        "run", "--detach", "--network=none", *LIKE_A_SERVICE, container.image, "sh", "-c", script
    )
    try:
        time.sleep(3)
        states = engine.ask("exec", name, "sh", "-c", "cat /proc/[0-9]*/stat")
        assert "(tini)" in next(line for line in states.splitlines() if line.startswith("1 "))
        assert ") Z " not in states
        engine.ask("stop", "--time=20", name)
        assert engine.ask("inspect", "--format={{.State.ExitCode}}", name) == "7"
        assert engine.ask("logs", name).splitlines() == ["1", "told"]
    finally:
        engine.ask("rm", "--force", "--volumes", "--time=0", name)


def test_a_check_with_nothing_to_ask_says_so(container: Container) -> None:
    said = container.run("healthcheck", entry=False)
    assert (said.returncode, "HEALTHCHECK_URL" in said.stdout) == (0, True)
