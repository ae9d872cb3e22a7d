"""What Prefect is told before it is imported: it reads its environment once, at import."""

from __future__ import annotations

import os

QUIET = {
    # Nothing is sent to anyone.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The default of 20 s is too short for a busy machine's first start.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Without PREFECT_API_URL a run brings its own server and takes it along when it ends.
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_CLI_PROMPT": "false",
}


def prepare(*, verbose: bool) -> None:
    """Set what the environment leaves open; call before anything imports Prefect."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # What goes wrong is said once, by the command: Prefect would add a traceback to every line of it.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")
