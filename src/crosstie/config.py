"""Settings of the runs, as the command line and the flows use them; `crosstie.settings` holds the parts."""

from __future__ import annotations

from crosstie.settings.describe import Setting, commented_yaml, each_setting
from crosstie.settings.groups import (
    BackfillSettings,
    ComputeSettings,
    GridSettings,
    Group,
    ListenSettings,
    NightlySettings,
    ObserveSettings,
    RunSettings,
    Settings,
    TileSettings,
)
from crosstie.settings.load import AnySettings, given_options, load_settings, read_yaml, validated

__all__ = [
    "AnySettings",
    "BackfillSettings",
    "ComputeSettings",
    "GridSettings",
    "Group",
    "ListenSettings",
    "NightlySettings",
    "ObserveSettings",
    "RunSettings",
    "Setting",
    "Settings",
    "TileSettings",
    "commented_yaml",
    "each_setting",
    "given_options",
    "load_settings",
    "read_yaml",
    "validated",
]
