"""Everything crosstie raises on purpose.

    CrosstieError
    ├── NoWorkerError              nobody is left on the cluster to do the work
    ├── WorkerLostError            a piece of work whose workers die, again and again
    └── BadInputError              the caller can mend it: one line, exit code 2
        ├── UnreadableRasterError      missing, not a raster, truncated
        ├── NoGeoreferenceError        neither CRS and transform nor GCPs
        ├── CatalogError             a catalog that cannot be read or searched
        ├── SettingsError              a setting out of range, misspelt or contradictory
        ├── WeightsError               weights missing or with another sha256
        └── StoreError                 a product root that cannot be read or written

A bad *result* is not an exception: it is a verdict with reason codes (`crosstie.types.Reason`).
"""

from __future__ import annotations


class CrosstieError(Exception):
    """Base of all errors raised on purpose."""


class BadInputError(CrosstieError):
    """The input is wrong; the message names the thing, the value and the next step."""


class NoWorkerError(CrosstieError):
    """No worker that can do the work is left, and none came in time; the message says how to start one."""


class WorkerLostError(CrosstieError):
    """Every worker that was given one piece of work has died of it."""


class UnreadableRasterError(BadInputError):
    """A raster is missing, is no raster, or ends before its header says."""


class NoGeoreferenceError(BadInputError):
    """A raster has neither a CRS with a transform nor ground control points."""


class CatalogError(BadInputError):
    """A catalog cannot be read, or an item lacks what pairing needs."""


class SceneMissingError(CatalogError):
    """A catalog does not have a scene of this name, or not yet."""


class SettingsError(BadInputError):
    """A setting is misspelt, out of range, or contradicts another."""


class WeightsError(BadInputError):
    """Weights are missing, or their sha256 is not the expected one."""


class StoreError(BadInputError):
    """A product root cannot be reached, read or written."""
