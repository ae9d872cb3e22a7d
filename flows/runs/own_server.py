"""Make Prefect ready before a run: a server that answers, its own or the one that is named.

Whatever is wrong with Prefect's profile, settings, database or server is told in one line, before the run has
asked for anything.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import SecretStr

from crosstie.errors import SettingsError
from crosstie.flows.runs.prefect_database import why_not_opened
from crosstie.flows.runs.prefect_env import loopback_without_proxy, prepare, writable_home
from crosstie.flows.runs.signals import signals_wait
from crosstie.io.storage.href import public_href
from crosstie.io.storage.redaction import first_line
from crosstie.io.storage.trust import UNTRUSTED, is_untrusted

LOOPBACK = "127.0.0.1"

HEALTH_WAIT_S = 5.0
"""Longest wait for an answer of a server that is named, seconds."""

POLL_S = 0.1

PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when the one that started it has ended, however it ended."""

KNOWS_US = (200, 401, 403)
"""Answers of a Prefect API; a key is checked later, by Prefect."""

STOP_S = 5.0
"""Time that a server gets to end by itself, seconds."""


def make_ready(*, verbose: bool, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Check the Prefect server that is named, or start one that ends with this process.

    Parameters
    ----------
    verbose : bool
        Whether Prefect logs what it does.
    meanwhile : callable
        Done once the server has been started and before it is waited for: imports take as long.

    Raises
    ------
    SettingsError
        Prefect cannot be used as it is set up; the message names the address, file or variable.
    """
    loopback_without_proxy()
    writable_home()
    prepare(verbose=verbose)
    _refuse_socks()
    named = os.environ.get("PREFECT_API_URL", "").strip()
    if named:
        _check_server(named, "PREFECT_API_URL")
    settings = _settings_of_prefect()
    url = settings.api.url
    if url and url != named:
        _check_server(url, f"api.url of the Prefect profile in {settings.profiles_path}")
    if url:
        meanwhile()
    else:
        if not settings.server.ephemeral.enabled:
            raise SettingsError(
                "Prefect has no server: PREFECT_SERVER_ALLOW_EPHEMERAL_MODE forbids a run to start its own,"
                " and PREFECT_API_URL names none; set one of them"
            )
        _check_database(settings)
        _lock(settings)
        _start_own(settings, meanwhile)


def _refuse_socks() -> None:
    """Prefect's client prepares for every proxy that is set, used or not, and needs a package for SOCKS."""
    from importlib.util import find_spec

    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"):
        value = os.environ.get(name) or os.environ.get(name.lower()) or ""
        if value.lower().startswith("socks") and find_spec("socksio") is None:
            raise SettingsError(
                f"{name}={public_href(value)} is a SOCKS proxy, which Prefect's client needs a package for:"
                " pip install socksio, or unset the variable for this run"
            )


def _settings_of_prefect() -> Any:
    try:
        # Prefect prints the same trouble in its own words, in several lines.
        with signals_wait(), _quiet_stderr():
            from prefect.settings import get_current_settings

            return get_current_settings()
    except Exception as problem:  # noqa: BLE001  anything: of its profile, its variables or its .env file
        raise SettingsError(
            f"Prefect cannot read its settings ({type(problem).__name__}: {_inner_line(problem)}); look at"
            f" the PREFECT_... variables and at {_profiles()}"
        ) from None


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep what is written to the standard error of the process, and show it only if all went well."""
    sys.stderr.flush()
    kept, said = os.dup(2), tempfile.TemporaryFile()  # noqa: SIM115  closed below
    os.dup2(said.fileno(), 2)
    try:
        yield
        sys.stderr.flush()
        said.seek(0)
        os.write(kept, said.read())
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        said.close()


def _profiles() -> str:
    home = os.environ.get("PREFECT_HOME") or str(Path(os.path.expanduser("~")) / ".prefect")  # noqa: PTH111
    return os.environ.get("PREFECT_PROFILES_PATH") or f"{home}/profiles.toml"


def _inner_line(problem: Exception) -> str:
    """The text of an error in one line, short: pydantic writes several, the value in the last ones."""
    return " ".join(str(problem).split())[:200]


def _check_server(url: str, named_by: str) -> None:
    """Ask a server for its health.

    Raises
    ------
    SettingsError
        It is no address, nothing answers, or what answers is no Prefect.
    """
    import httpx

    shown = public_href(url)
    if not url.lower().startswith(("http://", "https://")):
        raise SettingsError(f"{named_by} is {shown}: write http://HOST:PORT/api")
    try:
        answer = httpx.get(f"{url.rstrip('/')}/health", timeout=HEALTH_WAIT_S, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ImportError) as problem:
        step = "start it, or unset that: then a run starts a server of its own"
        raise SettingsError(
            f"the Prefect server {shown} ({named_by}) does not answer: {first_line(problem)};"
            f" {UNTRUSTED if is_untrusted(problem) else step}"
        ) from None
    if answer.status_code not in KNOWS_US and not url.startswith("https://api.prefect.cloud"):
        raise SettingsError(
            f"{shown} ({named_by}) is no Prefect server: {answer.status_code} at {shown}/health; its address"
            " usually ends in /api"
        )


def _check_database(settings: Any) -> None:
    """Refuse a database that cannot be opened, before a server is started on it."""
    url = settings.server.database.connection_url.get_secret_value()
    why = why_not_opened(url)
    if why is not None:
        raise SettingsError(_no_start(why, str(settings.home)))


def _no_start(why: str, home: str) -> str:
    return (
        f"the Prefect server of this run cannot start: {why}; its database is {_database(home)}: move it away"
        " or repair it, or name a server with PREFECT_API_URL"
    )


def _lock(settings: Any) -> None:
    """Give the server that a run starts for itself a password: each user of this machine reaches it.

    Prefect has read its environment by now, so its client is told here. The server and other processes that
    are started read the environment.
    """
    if settings.api.auth_string is not None or settings.server.api.auth_string is not None:
        return
    password = f"crosstie:{secrets.token_urlsafe(32)}"
    settings.api.auth_string = settings.server.api.auth_string = SecretStr(password)
    os.environ.update(dict.fromkeys(("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"), password))


def _start_own(settings: Any, meanwhile: Callable[[], object]) -> None:
    """Start the server that Prefect would start, and name it to Prefect: here its end is watched.

    Prefect itself waits for the whole time even if the server has ended, leaves it behind when it is killed,
    and loads all of the server's code into this process to start it.
    """
    log = tempfile.TemporaryFile(mode="w+", errors="replace")  # noqa: SIM115  as long as the server
    port = _free_port()
    server = _spawn(port, log)
    atexit.register(_stop, server)
    # As with the password: Prefect is told here, processes that are started read the environment.
    settings.api.url = os.environ["PREFECT_API_URL"] = f"http://{LOOPBACK}:{port}/api"
    try:
        meanwhile()
        _wait_until_healthy(
            port, server, log, settings.server.ephemeral.startup_timeout_seconds, str(settings.home)
        )
    except BaseException:
        _stop(server)
        raise


def _stop(server: subprocess.Popen[Any]) -> None:
    server.terminate()
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind((LOOPBACK, 0))
        return int(taken.getsockname()[1])


def _spawn(port: int, log: IO[str]) -> subprocess.Popen[Any]:
    import prefect
    from prefect.settings import get_current_settings

    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def end_with_parent() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    # as in Prefect's SubprocessASGIServer
    own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    return subprocess.Popen(  # noqa: S603  our own interpreter
        [
            *(sys.executable, "-m", "uvicorn", "--app-dir", str(prefect.__module_path__.parent)),
            *("--factory", "prefect.server.api.server:create_app", "--host", LOOPBACK),
            *("--port", str(port), "--log-level", "error", "--lifespan", "on"),
        ],
        env={**os.environ, **own, **settings},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        preexec_fn=end_with_parent,
    )


def _wait_until_healthy(
    port: int, process: subprocess.Popen[Any], log: IO[str], timeout_s: float, home: str
) -> None:
    import httpx

    until = time.monotonic() + timeout_s
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < until:
            if process.poll() is not None:
                raise SettingsError(_no_start(_last_error(log), home))
            try:
                if client.get(f"http://{LOOPBACK}:{port}/api/health").status_code == KNOWS_US[0]:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(POLL_S)
    raise SettingsError(
        f"the Prefect server of this run has not started in {timeout_s:g} s ({_last_error(log)});"
        " PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS gives it longer"
    )


def _database(home: str) -> str:
    named = os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL") or os.environ.get(
        "PREFECT_SERVER_DATABASE_CONNECTION_URL"
    )
    if not named:
        return f"{home}/prefect.db"
    return public_href(named) if "@" in named else named


def _last_error(log: IO[str]) -> str:
    """The line of a traceback that names the error; the last line where there is none."""
    log.seek(0)
    lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.partition(":")[0] and not line.startswith("File")]
    found = (errors or lines or ["it says nothing"])[-1]
    return " ".join(found.split())[:200]
