"""Batch co-registration of Sentinel-1 to Sentinel-2.

import crosstie

result = crosstie.register("s2_tci.tif", "s1_vh.tif", out="products")
print(result.verdict, result.correction.affine)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crosstie.config import Settings, load_settings
    from crosstie.flows.register import RegisterResult, register

__all__ = ["RegisterResult", "Settings", "load_settings", "register"]

_HOMES = {
    "RegisterResult": "crosstie.flows.register",
    "Settings": "crosstie.config",
    "load_settings": "crosstie.config",
    "register": "crosstie.flows.register",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `import crosstie` alone costs no torch and no GDAL."""
    if name not in _HOMES:
        raise AttributeError(f"module 'crosstie' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
