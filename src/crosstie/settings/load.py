"""Read settings and check them: defaults, then a YAML file, then the environment, then options."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from crosstie.errors import SettingsError
from crosstie.settings.describe import each_setting
from crosstie.settings.groups import FOLLOWERS, Settings

ENV_PREFIX = "CROSSTIE_"

RENAMED_GROUPS = {"catalogue": "catalog"}
"""Old names of groups, which settings files, the environment and deployments may still hold."""

AnySettings = TypeVar("AnySettings", bound=BaseModel)


def load_settings(path: Path | None = None, *, options: Mapping[str, object] | None = None) -> Settings:
    """Read the settings: defaults, then the YAML file, then `CROSSTIE_…` variables, then options.

    `CROSSTIE_TILES__SIZE_PX=128` sets `tiles.size_px`. The value is read as YAML, like one in the file.

    Parameters
    ----------
    path : Path or None
        YAML file; None for the defaults.
    options : mapping of str to object, optional
        Values that win over all other sources, by dotted name: `{"pairing.max_days": 3}`. None is skipped.

    Returns
    -------
    Settings
        Checked and frozen.

    Raises
    ------
    SettingsError
        A name or a value is wrong. The message is one line: the name, the value and what is allowed.
    """
    return validated(
        Settings,
        (f"settings {path}", read_yaml(path, hint="`crosstie config` prints a complete one") if path else {}),
        ("environment", _from_environment()),
        ("option", given_options(options)),
    )


def validated(model: type[AnySettings], *sources: tuple[str, Mapping[str, object]]) -> AnySettings:
    """Merge sources, of which later ones win, and check the result.

    Parameters
    ----------
    model : type of BaseModel
        Class of the settings.
    sources : tuple of str and mapping
        Name of each source, for messages, and its values by dotted name.

    Raises
    ------
    SettingsError
        A name or a value is wrong. The message names the source as well.
    """
    tree: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, given in sources:
        for name, value in given.items():
            group, dot, rest = name.partition(".")
            dotted = RENAMED_GROUPS.get(group, group) + dot + rest
            if dotted in FOLLOWERS:
                raise SettingsError(f"{source}: {dotted} follows {FOLLOWERS[dotted]}; set that instead")
            if _is_half(value):
                raise SettingsError(f"{source}: {dotted} holds half a character; write it in UTF-8")
            _set_nested(tree, dotted, value)
            origin[dotted] = source
    try:
        return model.model_validate(tree)
    except ValidationError as problem:
        raise SettingsError(_one_line(problem, origin, model)) from None


def _is_half(value: object) -> bool:
    """Whether a text in it has a surrogate, half of a character of UTF-16, which no file can hold."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):  # it holds itself, which the settings refuse
        return False
    return False


def given_options(options: Mapping[str, object] | None) -> dict[str, object]:
    """Keep the options that were given; None was not."""
    return {name: value for name, value in (options or {}).items() if value is not None}


NO_YAML = (
    yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip
"""What reading YAML raises: beyond its own errors those of a day that no month has (`2025-01-41`), of a
number of thousands of digits, of a tag that its value does not fit (`!!bool x`), of brackets without end."""


def read_yaml(path: Path, *, hint: str) -> dict[str, Any]:
    """Read the values of a YAML file, by dotted name; `hint` ends every message.

    Raises
    ------
    SettingsError
        The file cannot be read, or holds no settings.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise SettingsError(f"settings {path}: cannot be read ({problem}); {hint}") from None
    try:
        given = yaml.safe_load(text)
    except NO_YAML as problem:
        raise SettingsError(
            f"settings {path}: is not YAML ({' '.join(str(problem).split())}); {hint}"
        ) from None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise SettingsError(f"settings {path}: must hold `name: value` lines, got {given!r}; {hint}")
    return _leaves(given)


def _from_environment() -> dict[str, Any]:
    """Read the settings in environment variables: those of a known name, and all with a `__` in it."""
    found = {}
    for variable, text in sorted(os.environ.items()):
        name = variable.removeprefix(ENV_PREFIX).lower()
        if variable.startswith(ENV_PREFIX) and ("__" in name or name in Settings.model_fields):
            try:
                found[name.replace("__", ".")] = yaml.safe_load(text)
            except NO_YAML:
                raise SettingsError(f"environment {variable}: cannot be read: {text!r}") from None
    return found


def _leaves(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _leaves(value, f"{prefix}{name}.")
        elif not (isinstance(value, dict) or (value is None and not prefix)):
            flat[f"{prefix}{name}"] = value  # `tiles:` with nothing below it sets nothing
    return flat


def _set_nested(tree: dict[str, Any], dotted: str, value: object) -> None:
    *groups, leaf = dotted.split(".")
    branch = tree
    for group in groups:
        branch = branch.setdefault(group, {})
        if not isinstance(branch, dict):
            raise SettingsError(f"setting {dotted}: {group} is given a value and settings below it; keep one")
    branch[leaf] = value


def _one_line(problem: ValidationError, origin: Mapping[str, str], model: type[BaseModel]) -> str:
    known = {setting.name: setting.description for setting in each_setting(model())}
    error = problem.errors(include_url=False)[0]
    place = [str(part) for part in error["loc"]]
    if error["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        dotted = ".".join(place)
        names = [name for name in known if name.rpartition(".")[0] == dotted.rpartition(".")[0]]
        return f"{_origin_of(dotted, origin)}: there is no {dotted!r}; known there: {', '.join(names)}"
    # The members of a union add their own names to the place: keep what a user would write.
    dotted = next(d for n in range(len(place), 0, -1) if (d := ".".join(place[:n])) in known)
    if error["type"] == "value_error":
        return f"{_origin_of(dotted, origin)}: {dotted}: {error['msg'].removeprefix('Value error, ')}"
    return f"{_origin_of(dotted, origin)}: {dotted} = {error['input']!r} is not allowed. {known[dotted]}"


def _origin_of(dotted: str, origin: Mapping[str, str]) -> str:
    return next((o for d, o in origin.items() if d == dotted or d.startswith(f"{dotted}.")), "settings")
