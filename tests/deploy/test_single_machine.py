"""The recipes without containers: units of systemd, a line of cron, a job of SLURM; nothing is started."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prefect.client.schemas.schedules import CronSchedule
from servers.process import ROOT

UNITS = ROOT / "deploy" / "single-machine" / "systemd"
CRON = ROOT / "deploy" / "single-machine" / "crosstie.cron"
USERS = ROOT / "deploy" / "single-machine" / "crosstie.sysusers"
ENVIRONMENT = ROOT / "deploy" / "single-machine" / "crosstie.env"
JOB = ROOT / "deploy" / "hpc" / "crosstie.sbatch"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))

MOST_EXPOSED = 25
"""Tenths of systemd's measure of exposure, 0 to 100."""


def analyze(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze over the units of a folder; starts nothing."""
    if shutil.which("systemd-analyze") is None:
        why = "systemd-analyze is missing; get it with: sudo apt-get install systemd"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    return subprocess.run(
        ["systemd-analyze", *words],
        env={"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{folder}:"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def installed(folder: Path) -> Path:
    """The units as installed, with this checkout in the place of /opt/crosstie."""
    for path in UNITS.rglob("*"):
        if path.is_file() and path.name != "s3.conf":
            copy = folder / path.relative_to(UNITS)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(path.read_text().replace("/opt/crosstie", str(ROOT)))
    shutil.copy(UNITS / "s3.conf", folder / "crosstie-.service.d" / "20-s3.conf")
    return folder


def faults(folder: Path) -> str:
    """What systemd says of the units; a key that it does not know is a line of its log, and no error."""
    done = analyze("verify", "--man=no", *(str(folder / name) for name in SERVICES), folder=folder)
    lines = [line for line in done.stderr.splitlines() if str(folder) in line or "crosstie" in line]
    for name in SERVICES:  # systemd looks at the first word of a command alone
        words = re.findall(rf"{ROOT}/[^\s;]+", (folder / name).read_text())
        lines += [f"{name}: there is no {word}" for word in words if not Path(word).exists()]
    return "\n".join(lines)


def test_the_units_are_well(tmp_path: Path) -> None:
    assert faults(installed(tmp_path)) == ""


@pytest.mark.parametrize(
    ("unit", "right", "wrong", "named"),
    [
        ("crosstie-prefect-server.service", "ExecStart=", "ExecStrat=", "ExecStrat"),
        ("crosstie-deploy.service", "bin/prefect", "bin/prefct", "prefct"),
        ("crosstie-deploy.service", "Type=oneshot", "Type=onshot", "onshot"),
        ("crosstie-prefect-worker.service", "Restart=always", "Restart=allways", "allways"),
        ("crosstie-prefect-worker.service", "After=crosstie-deploy", "Afer=crosstie-deploy", "Afer"),
        ("crosstie-listener.service", "Environment=", "Enviroment=", "Enviroment"),
        ("crosstie-site.service", "MemoryMax", "MemoryMaxx", "MemoryMaxx"),
        ("crosstie-.service.d/10-common.conf", "NoNewPrivileges", "NoNewPriviliges", "NoNewPriviliges"),
        ("crosstie-.service.d/10-common.conf", "@system-service", "@sytem-service", "@sytem-service"),
        ("crosstie-.service.d/20-s3.conf", "LoadCredential", "LoadCredentials", "LoadCredentials"),
        ("crosstie.target", "Description", "Desciption", "Desciption"),
    ],
)
def test_a_misspelling_in_a_unit_is_named(
    tmp_path: Path, unit: str, right: str, wrong: str, named: str
) -> None:
    folder = installed(tmp_path)
    text = (folder / unit).read_text()
    assert right in text
    (folder / unit).write_text(text.replace(right, wrong, 1))
    assert named in faults(folder)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_may_do_little(tmp_path: Path, service: str) -> None:
    folder = installed(tmp_path)
    limit = f"--threshold={MOST_EXPOSED}"
    done = analyze("security", "--offline=true", limit, str(folder / service), folder=folder)
    assert done.returncode == 0, done.stdout


def test_units_know_one_another() -> None:
    """What is wanted or waited for is there: systemd starts without what it does not find."""
    there = {path.name for path in UNITS.glob("crosstie*")}
    for path in UNITS.glob("crosstie*.*"):
        if path.is_file():
            named = set(re.findall(r"crosstie[a-z-]*\.(?:service|target)\b", path.read_text()))
            assert named <= there, path.name
    wanted = re.findall(r"crosstie\S+\.service", (UNITS / "crosstie.target").read_text())
    assert sorted(wanted) == SERVICES


def test_no_secret_is_declared() -> None:
    for path in (*UNITS.rglob("*.*"), ENVIRONMENT, CRON):
        if path.is_file():
            for name in re.findall(
                r"([A-Z_]*(?:AUTH_STRING|SECRET|TOKEN|PASSWORD|ACCESS_KEY_ID))=", path.read_text()
            ):
                pytest.fail(f"{path.name}: {name} is given here; give {name}_FILE")


def test_the_user_is_that_of_the_image() -> None:
    (line,) = [line for line in USERS.read_text().splitlines() if not line.startswith("#")]
    assert line.split()[:3] == ["u", "crosstie", "10001"]


def test_settings_of_the_environment_file_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from crosstie.config import load_settings

    lines = [
        line.lstrip("#") for line in ENVIRONMENT.read_text().splitlines() if re.match(r"#?[A-Z_]+=", line)
    ]
    values = dict(line.split("=", 1) for line in lines)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.nightly.look_back_days == 10
    assert settings.observe.metrics_port == 9101
    assert settings.storage.endpoint == values["CROSSTIE_STORAGE__ENDPOINT"]
    monkeypatch.setenv("CROSSTIE_NIGHTLY__LOOK_BAK_DAYS", "10")
    from crosstie.errors import SettingsError

    with pytest.raises(SettingsError, match=r"(?i)look_bak_days"):
        load_settings()


@pytest.fixture
def night(tmp_path: Path) -> tuple[str, dict[str, str]]:
    """The command of the cron line with folders of this test, and the environment that cron would give it."""
    *settings, line = [line for line in CRON.read_text().splitlines() if line and not line.startswith("#")]
    schedule, user, command = re.fullmatch(r"((?:\S+ ){5})(\S+) (.*)", line).groups()  # type: ignore[union-attr]
    assert CronSchedule(cron=schedule.strip()).cron == "30 2 * * *"
    assert user == "crosstie"
    assert "%" not in command  # a new line to cron
    for folder in ("bin", "etc", "state"):
        (tmp_path / folder).mkdir()
    shutil.copy(ENVIRONMENT, tmp_path / "etc" / "crosstie.env")
    command = command.replace("/etc/crosstie", str(tmp_path / "etc"))
    command = command.replace("/var/lib/crosstie", str(tmp_path / "state"))
    program = tmp_path / "bin" / "crosstie"
    program.write_text('#!/bin/sh\necho "$@" "[$PREFECT_API_URL]"\nexec $STANDS_FOR\n')
    program.chmod(0o755)
    environment = dict(setting.split("=", 1) for setting in settings)
    environment["PATH"] = environment["PATH"].replace("/opt/crosstie/.venv/bin", str(program.parent))
    return command, environment


def run_night(night: tuple[str, dict[str, str]], stands_for: str) -> subprocess.CompletedProcess[str]:
    command, environment = night
    return subprocess.run(
        [environment["SHELL"], "-c", command],
        env=environment | {"STANDS_FOR": stands_for},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_cron_mails_nothing_of_a_night_that_was_well(
    night: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    done = run_night(night, "true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    said = (tmp_path / "state" / "nightly.log").read_text()
    # a server of its own: the address of one is not handed on
    assert said == "nightly --catalog https://stac.example.org/v1 --out /var/lib/crosstie/products []\n"


def test_cron_mails_the_log_of_a_night_that_was_not_well(night: tuple[str, dict[str, str]]) -> None:
    done = run_night(night, "sh -c false")
    assert done.stdout.startswith("crosstie nightly: exit code 1\nnightly --catalog")


def test_cron_starts_no_second_night_beside_the_first(
    night: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    with (tmp_path / "state" / "nightly.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        done = run_night(night, "false")
        assert (done.returncode, done.stdout) == (0, "")
    assert "exit code 1" in run_night(night, "false").stdout


def test_the_job_of_slurm_is_sound_shell() -> None:
    assert shell_faults(JOB.read_text()) == ""
    assert "SC2154" in shell_faults(JOB.read_text().replace("$readers", "$reders"))


def shell_faults(text: str) -> str:
    done = subprocess.run(
        [ROOT / ".venv/bin/shellcheck", "--shell=bash", "--severity=style", "-"],
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout
