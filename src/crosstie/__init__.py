"""Batch co-registration of Sentinel-1 to Sentinel-2.

import crosstie

result = crosstie.register("s2_tci.tif", "s1_vh.tif", out="products")
print(result.verdict, result.correction.affine)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crosstie import errors, types
    from crosstie.config import Settings, load_settings
    from crosstie.flows.apply import apply, open
    from crosstie.flows.register import RegisterResult, register
    from crosstie.io.adjusted.publish import read_adjusted
    from crosstie.io.archive.index import read_index
    from crosstie.io.products.product import Product
    from crosstie.io.storage.store import open_store

__all__ = [
    "Product",
    "RegisterResult",
    "Settings",
    "apply",
    "errors",
    "load_settings",
    "open",
    "open_store",
    "read_adjusted",
    "read_index",
    "register",
    "types",
]

_HOMES = {
    "Product": "crosstie.io.products.product",
    "RegisterResult": "crosstie.flows.register",
    "Settings": "crosstie.config",
    "apply": "crosstie.flows.apply",
    "load_settings": "crosstie.config",
    "open": "crosstie.flows.apply",
    "open_store": "crosstie.io.storage.store",
    "read_adjusted": "crosstie.io.adjusted.publish",
    "read_index": "crosstie.io.archive.index",
    "register": "crosstie.flows.register",
}
"""Name -> the module that defines it; names in `__all__` that are not here are modules themselves."""


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import crosstie` alone loads neither torch nor GDAL."""
    if name not in __all__:
        raise AttributeError(f"module 'crosstie' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    if name not in _HOMES:
        return import_module(f"crosstie.{name}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
