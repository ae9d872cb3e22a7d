"""A new user follows deploy/README.md, block by block, to a scheduled run and through what comes after."""

from __future__ import annotations

import hashlib
import json
import shutil
import site
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from checkout import copy_checkout
from rehearsal.runbook import BLOCK, Block, User, blocks
from safetensors.torch import load_file, save_file
from servers.prefect_server import QUICK, PrefectServer
from servers.process import ROOT, ServerError, free_ports

PAGE = ROOT / "deploy" / "README.md"
BLOCKS = list(blocks(PAGE.read_text()))

PORTS = ("4200", "8080", "8090", "8091")

SCHEDULED = "7. A scheduled run"
ARRIVED = "A run for each scene that arrives"

ENDS_WITH = {(SCHEDULED, 2): 3, ("Resubmit failures", 0): 3}
"""Exit codes that the page speaks of: pairs that failed or cannot be trusted. All others are 0."""

PATIENCE_S = 600.0

HIDDEN = "scenes/place-001/s1_vh.tif"
"""A raster that is gone when the first night comes, and back when its failure is resubmitted."""


ORIGIN = "origin"
"""Where the user's checkout comes from."""

NEWS = "NEWS.md"
"""A file that only a later version has."""


@dataclass(slots=True)
class Walk:
    """What happened on the way."""

    user: User
    said: dict[tuple[str, int], str] = field(default_factory=dict)
    """Output of each block: section, number within it."""
    seen: dict[str, Any] = field(default_factory=dict)
    """What was looked at on the way."""

    @property
    def state(self) -> Path:
        return self.user.home / "crosstie"

    def ask(self, path: str, body: object = None, *, auth: str | None = None) -> Any:
        server = self.user.shells["server"]
        secret = auth or (self.state / "secrets" / "prefect_auth").read_text().strip()
        url = self.user.here("http://127.0.0.1:4200/api")
        return PrefectServer(url, self.state, self.state, server, server, secret).ask(path, body)

    def runs(self, flow: str) -> list[dict[str, Any]]:
        wanted = {"flows": {"name": {"any_": [f"crosstie-{flow}"]}}, "sort": "START_TIME_ASC"}
        found: list[dict[str, Any]] = self.ask("/flow_runs/filter", wanted)
        return [run for run in found if run["start_time"]]

    def failed(self) -> list[Path]:
        return sorted((self.state / "products").glob("*/*/_FAILED.json"))

    def committed(self) -> dict[str, str]:
        """Verdict of each committed run, by its pair."""
        found = sorted((self.state / "products").glob("*/*/_COMMIT"))
        corrections = [json.loads((path.parent / "correction.json").read_text()) for path in found]
        return {path.parts[-3]: about["verdict"] for path, about in zip(found, corrections, strict=True)}


def hide(walk: Walk) -> None:
    (walk.state / HIDDEN).rename(walk.state / "hidden.tif")


def bring_back(walk: Walk) -> None:
    walk.seen["failed"] = [json.loads(path.read_text())["code"] for path in walk.failed()]
    (walk.state / "hidden.tif").rename(walk.state / HIDDEN)


def look_at_the_night(walk: Walk) -> None:
    walk.seen["night"] = [
        (run["auto_scheduled"], run["state_type"])
        for run in walk.runs("nightly")
        if run["state_type"] == "COMPLETED"
    ]
    walk.seen["committed"] = walk.committed()
    (nightly,) = walk.ask("/deployments/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
    walk.seen["schedules"] = [schedule["schedule"].get("cron") for schedule in nightly["schedules"]]


def wait_for_the_arrived(walk: Walk) -> None:
    """Until the runs for the scene that arrived, of the notice and of the event, are over."""

    def over() -> bool:
        walk.seen["arrived"] = [run["state_type"] for run in walk.runs("new-scene")]
        return len(walk.seen["arrived"]) >= 2 and not {*walk.seen["arrived"]} & {"PENDING", "RUNNING"}

    walk.user.shells["worker"].until(over, timeout_s=PATIENCE_S, every_s=1)


def look_at_the_secrets(walk: Walk) -> None:
    walk.seen["old"] = (walk.state / "secrets" / "prefect_auth").read_text().strip()
    walk.seen["modes"] = {oct(path.stat().st_mode & 0o777) for path in (walk.state / "secrets").iterdir()}


def try_the_old_secret(walk: Walk) -> None:
    with pytest.raises(ServerError, match=" 401 "):
        walk.ask("/flow_runs/filter", auth=walk.seen["old"])
    walk.seen["runs after the rotation"] = len(walk.runs("nightly"))


def promote_bad_weights(walk: Walk) -> None:
    """Leave weights as two retrainings do, the second one bad."""
    from crosstie.flows.evaluation.promote import promote
    from crosstie.matcher.weights_file import SHIPPED

    target = walk.state / "weights" / "matcher.safetensors"
    promote(SHIPPED, target)
    tensors = load_file(SHIPPED)
    bad = walk.state / "bad.safetensors"
    save_file({name: torch.zeros_like(values) for name, values in tensors.items()}, bad)
    digest = hashlib.sha256(bad.read_bytes()).hexdigest()
    bad.with_name("bad.safetensors.sha256").write_text(f"{digest}  bad.safetensors\n")
    promote(bad, target)
    walk.seen["bad"] = digest


def checkout(folder: Path) -> Path:
    """A clone of what is here now, without what git ignores; where it came from is beside it."""
    origin = copy_checkout(folder.with_name(ORIGIN))
    subprocess.run(["git", "init", "--quiet", origin], check=True)
    commit_all(origin)
    subprocess.run(["git", "clone", "--quiet", origin, folder], check=True)
    return folder


def commit_all(repository: Path) -> None:
    who = ["-c", "user.name=crosstie", "-c", "user.email=crosstie@example.org"]
    subprocess.run(["git", "-C", repository, "add", "--all"], check=True)
    subprocess.run(["git", "-C", repository, *who, "commit", "--quiet", "--message", "."], check=True)


def publish_a_change(walk: Walk) -> None:
    """What an upgrade brings."""
    (walk.user.home / ORIGIN / NEWS).write_text("new")
    commit_all(walk.user.home / ORIGIN)


AFTER: dict[tuple[str, int], Callable[[Walk], None]] = {
    ("3. Scenes to try it with", 0): hide,
    (SCHEDULED, 2): look_at_the_night,
    (ARRIVED, 2): wait_for_the_arrived,
    ("Restart", 2): try_the_old_secret,
}
BEFORE: dict[tuple[str, int], Callable[[Walk], None]] = {
    ("Resubmit failures", 1): bring_back,
    ("Upgrade", 0): publish_a_change,
    ("Rotate secrets", 0): look_at_the_secrets,
    ("Roll back a model", 0): promote_bad_weights,
}
"""The world, which goes on while the user reads: done before or after a block."""


def lent(home: Path) -> dict[str, str]:
    """Environment of a new user whose index of packages is near: dependencies are those of this environment.

    `pip install` finds them met, and installs crosstie alone; that they install is for the rehearsal of the
    image to show. Programs of theirs that pip did not install run in the user's own environment.
    """
    (packages,) = (path for path in site.getsitepackages() if path.endswith("site-packages"))
    programs = home / "lent"
    programs.mkdir(parents=True)
    (programs / "prefect").write_text('#!/bin/sh\nexec python -m prefect "$@"\n')
    (programs / "prefect").chmod(0o755)
    python = shutil.which("python3.11")
    assert python is not None
    return {
        "PATH": f"{programs}:{Path(python).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "PYTHONPATH": packages,
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as --build-isolation=0: setuptools is lent, too
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
        "PREFECT_CLI_PROMPT": "false",
        **QUICK,
    }


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    home = tmp_path_factory.mktemp("new-user")
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    user = User(home, checkout(home / "checkout"), ports, lent(home))
    found = Walk(user)
    try:
        for place, block in numbered():
            if place in BEFORE:
                BEFORE[place](found)
            found.said[place] = follow(user, place, block)
            if place in AFTER:
                AFTER[place](found)
        yield found
    finally:
        user.leaves()


def numbered() -> Iterator[tuple[tuple[str, int], Block]]:
    """The blocks that are run, by section and number in it."""
    counts: dict[str, int] = {}
    for block in BLOCKS:
        if block.not_run is None:
            n = counts.setdefault(block.section, 0)
            counts[block.section] += 1
            yield (block.section, n), block


def follow(user: User, place: tuple[str, int], block: Block) -> str:
    if block.shell is not None:
        return user.opens(block, timeout_s=PATIENCE_S).tail()
    code, said = user.types(block, timeout_s=PATIENCE_S)
    logs = "\n".join(f"--- {name}\n{child.tail()}" for name, child in user.shells.items())
    assert code == ENDS_WITH.get(place, 0), f"{place}: exit code {code}\n{block.text}\n{said}\n{logs}"
    return said


def test_every_command_of_the_page_is_run() -> None:
    assert [(block.section, block.not_run) for block in BLOCKS if block.not_run is not None] == []
    assert page_without_blocks().count("```") == 0  # no block in another language, where a command could hide
    assert "\n    " not in page_without_blocks()  # nor one that is only indented


def page_without_blocks() -> str:
    return BLOCK.sub("", PAGE.read_text())


def test_places_of_the_world_are_on_the_page() -> None:
    assert {*AFTER, *BEFORE, *ENDS_WITH} <= {place for place, _ in numbered()}


def test_a_comment_that_is_misspelt_is_no_block_that_is_left_out() -> None:
    with pytest.raises(ValueError, match="'no run' is none of"):
        list(blocks("# Page\n\n<!-- no run: needs a cluster -->\n```sh\ntrue\n```\n"))
    (block,) = blocks("# Page\n\n```sh\n# no heading\ntrue\n```\n")
    assert (block.section, block.text, block.not_run) == ("Page", "# no heading\ntrue\n", None)


@pytest.mark.server
@pytest.mark.slow
def test_a_new_user_reaches_a_scheduled_run(walk: Walk) -> None:
    assert (True, "COMPLETED") in walk.seen["night"]
    assert sorted(walk.seen["committed"].values()) == ["corrected", "unreliable"]
    assert walk.seen["failed"] == ["unreadable_raster"]
    assert walk.seen["schedules"] == ["30 2 * * *"]  # that of every half minute is gone again


@pytest.mark.server
@pytest.mark.slow
def test_a_verdict_can_be_read(walk: Walk) -> None:
    said = walk.said["Read a verdict", 0]
    assert "2 corrections" in said
    assert "corrected: affine" in said or "corrected: translation" in said
    assert "secondary SIM_S1_20250606T053000_000 onto reference SIM_S2_20250604T103000_000" in said


@pytest.mark.server
@pytest.mark.slow
def test_what_failed_is_done_when_it_is_resubmitted(walk: Walk) -> None:
    assert "unreadable_raster" in walk.said["Resubmit failures", 0]
    assert walk.failed() == []
    assert sorted(walk.committed().values()) == ["corrected", "corrected", "unreliable"]


@pytest.mark.server
@pytest.mark.slow
def test_a_notice_and_an_event_each_start_a_run(walk: Walk) -> None:
    answer = json.loads(walk.said[ARRIVED, 1].splitlines()[0])
    assert answer["scene_id"] == "SIM_S1_20250606T053000_000"
    assert walk.seen["arrived"] == ["COMPLETED", "COMPLETED"]


@pytest.mark.server
@pytest.mark.slow
def test_after_upgrade_and_rotation_the_history_is_there_and_the_old_secret_is_not(walk: Walk) -> None:
    assert (walk.user.home / "checkout" / NEWS).is_file()
    assert walk.seen["modes"] == {"0o600"}
    assert walk.seen["runs after the rotation"] >= 1
    written = [path for path in walk.state.rglob("*") if path.is_file() and "secrets" not in path.parts]
    assert [path for path in written if walk.seen["old"].encode() in path.read_bytes()] == []


@pytest.mark.server
@pytest.mark.slow
def test_the_model_is_the_one_of_before(walk: Walk) -> None:
    from crosstie.matcher.weights_file import SHIPPED, verified_sha256

    target = walk.state / "weights" / "matcher.safetensors"
    assert verified_sha256(target) == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert walk.user.variables["bad"] == walk.seen["bad"]
    assert str(target) in walk.said["Roll back a model", 0]
