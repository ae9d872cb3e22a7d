"""Describe settings for people: name, value and meaning of each, and all of them as commented YAML."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

import yaml
from pydantic import BaseModel

from crosstie.settings.groups import FOLLOWERS


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, or a group of them."""

    name: str
    """Dotted: `tiles.size_px`."""
    description: str
    value: object
    """JSON-like; None for a group."""
    is_group: bool = False


def each_setting(settings: BaseModel) -> Iterator[Setting]:
    """List every setting, each group before its members; without those that follow another one."""
    schema = settings.model_json_schema()
    values = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        group = schema.get("$defs", {}).get(type(getattr(settings, name)).__name__)
        if group is None:
            yield Setting(name, field.description or "", values[name])
            continue
        yield Setting(name, field.description or "", None, is_group=True)
        for key, about in group["properties"].items():
            if f"{name}.{key}" not in FOLLOWERS:
                text = " ".join(about.get("description", "").split())
                yield Setting(f"{name}.{key}", text, values[name][key])


def commented_yaml(settings: BaseModel) -> str:
    """Write all settings as YAML that reads back as the same, each below its description."""
    lines: list[str] = []
    for setting in each_setting(settings):
        *groups, name = setting.name.split(".")
        if not groups and lines:
            lines.append("")
        indent = "  " * len(groups)
        lines += textwrap.wrap(
            setting.description, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        lines.append(
            f"{indent}{name}:" if setting.is_group else f"{indent}{name}: {_yaml_value(setting.value)}"
        )
    return "\n".join(lines) + "\n"


def _yaml_value(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
