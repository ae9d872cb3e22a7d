"""Which secrets callers of the listener must know, as the settings and the environment say."""

from __future__ import annotations

import os
from collections.abc import Mapping

from crosstie.config import ListenSettings
from crosstie.errors import SettingsError
from crosstie.flows.web.access import Access, SeenSignatures
from crosstie.io.storage.address import is_loopback


def read_listener_access(
    settings: ListenSettings, host: str, *, insecure: bool, environment: Mapping[str, str] = os.environ
) -> Access:
    """Read the secrets from the environment variables that the settings name.

    Raises
    ------
    SettingsError
        A variable is empty, or other machines could call without a secret.
    """
    if insecure:
        if not is_loopback(host):
            raise SettingsError(
                f"--insecure asks nobody for a secret, and other machines can reach --host {host}; "
                "leave out one of them"
            )
        return Access(open=True)
    token = _secret(environment, settings.token_env)
    key = _secret(environment, settings.signature_env)
    if settings.signature_env and key is None:
        raise SettingsError(_missing_secret("signature_env", settings.signature_env))
    if token is None and key is None:
        if settings.token_env:
            raise SettingsError(_missing_secret("token_env", settings.token_env))
        raise SettingsError(
            "listen.token_env and listen.signature_env are both null: name the variable of a secret in one "
            "of them, or try it out on this machine with --insecure"
        )
    return Access(token, key, seen=SeenSignatures(settings.signature_window_s))


def _missing_secret(setting: str, variable: str) -> str:
    return (
        f"listen.{setting}: the environment variable {variable} is not set; put a secret there, as "
        f"`export {variable}=$(openssl rand -hex 32)` does, or try it out with --insecure"
    )


def _secret(environment: Mapping[str, str], variable: str | None) -> bytes | None:
    """Read a variable, without the line feed at the end of a file of secrets."""
    return environment.get(variable, "").strip().encode() or None if variable else None
