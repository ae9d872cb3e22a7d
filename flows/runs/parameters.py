"""Parameters of a flow: plain values without secrets, because Prefect stores them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import yaml
from pydantic import BaseModel

from crosstie.config import Settings, commented_yaml, each_setting, load_settings, validated
from crosstie.errors import SettingsError
from crosstie.io.storage.href import public_href


def as_parameter(settings: BaseModel) -> dict[str, Any]:
    """All settings, as a settings file would hold them."""
    values: dict[str, Any] = yaml.safe_load(commented_yaml(settings))
    return values


def settings_of(given: Mapping[str, Any] | None) -> Settings:
    """Settings of a flow: defaults, then the `CROSSTIE_…` variables here, then the parameter of the flow.

    Parameters
    ----------
    given : Mapping[str, Any] or None
        What a settings file would hold, all or part of it; None for nothing.

    Raises
    ------
    SettingsError
        One line that names the key, the value and what is allowed.
    """
    here = {setting.name: setting.value for setting in each_setting(load_settings()) if not setting.is_group}
    return validated(Settings, ("environment", here), ("parameter settings", dotted(given or {})))


def dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested groups by dotted name: `{"tiles": {"size_px": 96}}` -> `{"tiles.size_px": 96}`."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value and len(prefix.split(".")) < 2:
            flat |= dotted(value, f"{prefix}{name}.")
        elif not (value is None and not prefix and name != "weights"):
            flat[f"{prefix}{name}"] = value
    return flat


_PRIVATE: ContextVar[Mapping[str, str] | None] = ContextVar("crosstie_private_addresses", default=None)
"""Address to open by its public form. Kept in this process only: Prefect shows parameters."""


@contextmanager
def shown(address: str) -> Iterator[str]:
    """Inside, a flow may be given the public form of an address; `private` returns the full one."""
    public = public_href(address)
    token = _PRIVATE.set({**(_PRIVATE.get() or {}), public: address})
    try:
        yield public
    finally:
        _PRIVATE.reset(token)


def private(address: str) -> str:
    """Full address for one that a flow was given.

    Raises
    ------
    SettingsError
        The parameter carries a user, a password or a signature, which Prefect has stored by now.
    """
    if public_href(address) != address:
        raise SettingsError(
            f"{public_href(address)}: was given with a secret in it, and Prefect stores and shows what a "
            "flow is given: withdraw that secret; the worker's ~/.netrc or AWS_... variables are the place"
        )
    return (_PRIVATE.get() or {}).get(address, address)
