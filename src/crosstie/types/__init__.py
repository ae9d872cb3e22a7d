"""The values that the parts exchange: frozen, and checked when they are made.

Axis order: arrays are (band, row, col); points are (x, y), easting first. Pixel (0, 0) begins at its
outer corner. **Offset = position in the secondary minus position in the reference, of the same ground
feature.** A correction maps secondary map coordinates to reference map coordinates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crosstie.codes import LUMINANCE, Kind, Model, Reason, VerdictCode
from crosstie.types.control_points import ControlPoints, listed
from crosstie.types.correction import (
    IDENTITY_AFFINE,
    UNKNOWN_ERROR,
    AffineCorrection,
    Error,
    Estimate,
    Verdict,
)
from crosstie.types.displacement import DisplacementField, FieldFit, FieldReason, FieldReport
from crosstie.types.registration import CloudsTold, Provenance, Registration
from crosstie.types.scenes import ScenePair, SceneRef, pair_key
from crosstie.types.tie_points import TiePoints, Tile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]
    IntArray = NDArray[np.int64]
    Plane = NDArray[np.float32]
    ByteArray = NDArray[np.uint8]
    Objects = NDArray[np.object_]
    StrArray = NDArray[np.str_]

__all__ = [
    "IDENTITY_AFFINE",
    "LUMINANCE",
    "UNKNOWN_ERROR",
    "AffineCorrection",
    "CloudsTold",
    "ControlPoints",
    "DisplacementField",
    "Error",
    "Estimate",
    "FieldFit",
    "FieldReason",
    "FieldReport",
    "Kind",
    "Model",
    "Provenance",
    "Reason",
    "Registration",
    "ScenePair",
    "SceneRef",
    "TiePoints",
    "Tile",
    "Verdict",
    "VerdictCode",
    "listed",
    "pair_key",
]
