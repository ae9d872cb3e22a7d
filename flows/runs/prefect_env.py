"""Environment variables for Prefect, which reads them once, when it is imported."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from crosstie.errors import SettingsError
from crosstie.flows.web.address import LOOPBACK_HOSTS

QUIET = {
    # Nothing is sent to anyone.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The default of 20 s is too short for a busy machine's first start.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Without PREFECT_API_URL a run starts a server of its own and stops it at its end.
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_CLI_PROMPT": "false",
}


def prepare(*, verbose: bool) -> None:
    """Set the variables that the environment does not; call it before anything imports Prefect."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # The command reports an error once; Prefect would add a traceback for each.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")
    # Dask tells each worker that comes and goes, and as an error a heartbeat that was on its way when the
    # cluster closed. What stops a run is told by the run.
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "info" if verbose else "critical")


def loopback_without_proxy() -> None:
    """Let no client ask a proxy for this machine: the run's own server is here."""
    for name in ("NO_PROXY", "no_proxy"):
        known = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        if "*" not in known:
            os.environ[name] = ",".join([*known, *(host for host in LOOPBACK_HOSTS if host not in known)])


def writable_home() -> None:
    """Give Prefect a folder for this run where the home folder cannot be written.

    Raises
    ------
    SettingsError
        `PREFECT_HOME` is set, and cannot be written.
    """
    given = os.environ.get("PREFECT_HOME")
    if given:
        if not _may_write(Path(given).expanduser()):
            raise SettingsError(f"PREFECT_HOME is {given}, which cannot be written; give another folder")
        return
    if _may_write(Path("~/.prefect").expanduser()):
        return
    folder = tempfile.mkdtemp(prefix="crosstie-prefect-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["PREFECT_HOME"] = folder
    os.environ.setdefault("MPLCONFIGDIR", folder)


def _may_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return False
