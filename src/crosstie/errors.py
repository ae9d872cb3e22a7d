"""All errors that crosstie raises on purpose.

    CrosstieError
    ├── NoWorkerError              no worker is left on the cluster
    ├── WorkerLostError            a piece of work killed its workers, again and again
    └── BadInputError              the caller can fix it: one line, exit code 2
        ├── UnreadableRasterError      missing, not a raster, or truncated
        ├── NoGeoreferenceError        neither CRS and transform nor ground control points
        ├── CatalogError               a catalog cannot be read or searched
        │   └── SceneMissingError          a scene is not in the catalog, or not yet
        ├── SettingsError              a setting is misspelt, out of range or contradictory
        ├── WeightsError               weights are missing, or have another sha256
        └── StoreError                 a product root cannot be read or written
            └── DamagedProductError        a committed file is not what was committed

A bad *result* is not an exception: it is a verdict with reason codes (`crosstie.types.Reason`).
"""

from __future__ import annotations


class CrosstieError(Exception):
    """Base of all errors that crosstie raises on purpose."""


class BadInputError(CrosstieError):
    """The input is wrong. The message names the thing, the value and the next step."""


class NoWorkerError(CrosstieError):
    """No worker that can do the work is left, and none came in time. The message says how to start one."""


class WorkerLostError(CrosstieError):
    """Every worker that tried one piece of work died of it."""


class UnreadableRasterError(BadInputError):
    """A raster is missing, is not a raster, or is shorter than its header says."""


class NoGeoreferenceError(BadInputError):
    """A raster has neither a CRS with a transform nor ground control points."""


class CatalogError(BadInputError):
    """A catalog cannot be read, or one of its items lacks what pairing needs."""


class SceneMissingError(CatalogError):
    """A catalog has no scene with this id, or not yet."""


class SettingsError(BadInputError):
    """A setting is misspelt, out of range, or contradicts another."""


class WeightsError(BadInputError):
    """Weights are missing, or their sha256 is not the expected one."""


class StoreError(BadInputError):
    """A product root cannot be reached, read or written."""


class DamagedProductError(StoreError):
    """A file of a committed run is missing, or is not what was committed; other runs are not affected."""
