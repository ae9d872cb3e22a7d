"""What stands in for the images of a compose file: programs of this machine, told the same way.

An image is named by its repository; of its tag it can only be said where the program here is another version.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from servers.process import ROOT, ServerMissingError, program

IMAGES = Path(__file__).with_name("images")
"""Entrypoints of images of others, as their documentation describes them."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class StandIn:
    """An image: what it starts, as whom, and what lies in it."""

    entrypoint: tuple[str, ...]
    command: tuple[str, ...] = ()
    """Where the service has none."""
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = "0:0"
    files: Mapping[str, Path] = field(default_factory=dict)
    """Path in the image -> path here."""
    owned: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Folders of the image that belong to somebody: a volume mounted there begins as theirs."""
    workdir: str = "/"
    init: bool = False
    """Whether a first process stands before the command, as `tini` does, that buries orphans."""


def stand_in(image: str) -> StandIn:
    """What to start for an image.

    Raises
    ------
    ServerMissingError : the program is not installed; or no program stands in for the image
    """
    repository = image.rpartition(":")[0]
    makers = {
        "crosstie": _crosstie,
        "postgres": _postgres,
        "chrislusf/seaweedfs": _seaweed,
        "prom/prometheus": _prometheus,
    }
    if repository not in makers:
        raise ServerMissingError(f"no program of this machine stands in for the image {image}")
    return makers[repository]()


def seen() -> tuple[str, ...]:
    """Folders that programs need at the place where they are here: the checkout, and Python's own."""
    python = Path(sys.base_prefix).resolve()
    return (str(ROOT), *(() if python.is_relative_to("/usr") else (str(python),)))


def _crosstie() -> StandIn:
    """What the last stage of our own recipe says, over the environment of the checkout."""
    recipe = last_stage(ROOT / "deploy" / "docker" / "Dockerfile")
    entrypoint = json.loads(recipe["ENTRYPOINT"][-1])
    init = entrypoint[:2] == ["/usr/bin/tini", "--"]
    files = {"/opt/crosstie/venv": ROOT / ".venv"}
    for line in recipe["COPY"]:
        if "--from=" not in line:
            *sources, target = [word for word in shlex.split(line) if not word.startswith("--")]
            for source in sources:
                files[f"{target}{Path(source).name}" if target.endswith("/") else target] = ROOT / source
    return StandIn(
        entrypoint=tuple(entrypoint[2:] if init else entrypoint),
        environment=dict(pair.split("=", 1) for line in recipe["ENV"] for pair in shlex.split(line)),
        user=recipe["USER"][-1],
        files=files,
        owned={recipe["WORKDIR"][-1]: (10001, 10001)},
        workdir=recipe["WORKDIR"][-1],
        init=init,
    )


def last_stage(path: Path) -> dict[str, list[str]]:
    """Instructions of the last stage of a Dockerfile: what follows each word, in order."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            found.clear()
        found[word].append(rest.strip())
    return found


def _postgres() -> StandIn:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    if not found:
        raise ServerMissingError("PostgreSQL is missing; tests/servers/install-postgis.sh installs it")
    return StandIn(
        entrypoint=("docker-entrypoint.sh",),
        command=("postgres",),
        environment={"PATH": f"{found[0].parent}:{SYSTEM_PATH}", "PGDATA": "/var/lib/postgresql/data"},
        files={"/usr/local/bin/docker-entrypoint.sh": IMAGES / "postgres-entrypoint.sh"},
    )


def _seaweed() -> StandIn:
    return StandIn(
        entrypoint=("/entrypoint.sh",),
        environment={"PATH": SYSTEM_PATH},
        files={"/entrypoint.sh": IMAGES / "seaweedfs-entrypoint.sh", "/usr/bin/weed": program("weed")},
        owned={"/data": (1000, 1000)},
    )


def _prometheus() -> StandIn:
    found = shutil.which("prometheus")
    if found is None:
        raise ServerMissingError("Prometheus is missing; tests/servers/install-promtool.sh installs it")
    return StandIn(
        entrypoint=("/bin/prometheus",),
        environment={"PATH": SYSTEM_PATH},
        user="65534:65534",
        owned={"/prometheus": (65534, 65534)},
    )
