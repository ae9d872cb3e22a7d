"""Environment variables for Prefect, which reads them once, when it is imported."""

from __future__ import annotations

import os

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
