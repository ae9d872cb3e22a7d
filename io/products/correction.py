"""`correction.json`: all that is known about a pair, for programs."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from crosstie.errors import DamagedProductError
from crosstie.ground import ground_frame
from crosstie.io.storage.commit import REPAIR, read_commit, read_committed
from crosstie.io.storage.href import product_href
from crosstie.io.storage.root_layout import ProductKey
from crosstie.types import UNKNOWN_ERROR, Error

if TYPE_CHECKING:
    from crosstie.io.storage.store import Store
    from crosstie.types import AffineCorrection, CloudsTold, Registration, ScenePair

SCHEMA = "crosstie/correction/1"

CORRECTION_FILE = "correction.json"
"""Name of the file."""


def correction_dict(registration: Registration) -> dict[str, Any]:
    """Say everything about a correction in the words of the schema `crosstie/correction/1`.

    Beyond the contract: `explanation` (the reasons as sentences), `fitted` (the largest model that the points
    determine, applied or not), `hrefs` (where a scene has several files), `mask` (where the user gave one),
    `clouds` (what a catalog told of them), `field`, and `control_points` where these say where an image
    lies. Numbers that are not finite become null.
    """
    estimate, provenance = registration.estimate, registration.provenance
    return {
        "schema": SCHEMA,
        "pair": _pair_of(registration),
        "crs": crs_of(registration),
        "ground": ground_frame(registration.grid).said(),
        "verdict": str(estimate.verdict.code),
        "reasons": [str(reason) for reason in estimate.verdict.reasons],
        "explanation": [reason.sentence for reason in estimate.verdict.reasons],
        **_model(estimate.correction),
        "covariance": [[_finite(v) for v in row] for row in estimate.correction.covariance],
        "fitted": _model(estimate.fitted),
        "tie_points": {
            "planned": registration.planned,
            "matched": len(registration.points),
            "used": int(estimate.used.sum()),
        },
        "offset_m": {
            "median_x": _finite(estimate.median_offset_m[0]),
            "median_y": _finite(estimate.median_offset_m[1]),
        },
        "error_before_m": _error(estimate.error_before),
        "error_after_m": _error(estimate.error_after),
        "field": _field(registration),
        **_control_points(registration),
        "provenance": {
            "versions": dict(provenance.versions),
            "weights_sha256": provenance.weights_sha256,
            "settings_hash": provenance.settings_hash,
            "created_utc": provenance.created_utc.isoformat(),
            "seconds": _finite(provenance.seconds),
        },
    }


def read_correction_of(store: Store, product: ProductKey, pair: ScenePair) -> dict[str, Any] | None:
    """Read `correction.json` as `read_correction` does, and make sure that it is of this pair.

    Raises
    ------
    DamagedProductError : as there; or a folder was copied, or another pair was given the same key on purpose
    StoreError : the store cannot be read
    """
    correction = read_correction(store, *product)
    if correction is None:
        return None
    ids = [pair.reference.id, pair.secondary.id]
    try:
        said = [correction["pair"][role]["id"] for role in ("reference", "secondary")]
    except (KeyError, TypeError):
        said = []
    if said != ids:
        raise DamagedProductError(
            f"{store.url_of(product.file(CORRECTION_FILE))} is committed but of another pair, "
            f"{' and '.join(map(str, said))}, not {' and '.join(ids)}; {REPAIR}"
        )
    return correction


def read_correction(store: Store, pair_key: str, run_key: str) -> dict[str, Any] | None:
    """Read `correction.json` of a committed run; None where there is no such run, or not yet.

    Raises
    ------
    DamagedProductError : it is not the file that was committed, or of another schema
    StoreError : the store cannot be read
    """
    product = ProductKey(pair_key, run_key)
    files = read_commit(store, product)
    if files is None:
        return None
    body = read_committed(store, product, CORRECTION_FILE, files)
    try:
        correction = json.loads(body)
    except (ValueError, RecursionError):
        correction = None
    if not isinstance(correction, dict) or correction.get("schema") != SCHEMA:
        raise DamagedProductError(
            f"{store.url_of(product.file(CORRECTION_FILE))} is committed but not of schema {SCHEMA}; {REPAIR}"
        )
    return correction


def crs_of(registration: Registration) -> str | None:
    """EPSG code or WKT of the common grid; None where there is none."""
    if registration.grid is None or registration.grid.crs is None:
        return None
    crs = registration.grid.crs
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs.to_wkt())


def _control_points(registration: Registration) -> dict[str, Any]:
    """Say how the control points of the images were followed; nothing where none has any."""
    of = {"reference": registration.reference_control, "secondary": registration.secondary_control}
    said = {
        role: {
            "followed": facts.count,
            "left_out": list(facts.left_out),
            "residual_m": _finite(facts.residual_m),
            "height_m": list(facts.height_m),
        }
        for role, facts in of.items()
        if facts is not None
    }
    return {"control_points": said} if said else {}


def _pair_of(registration: Registration) -> dict[str, Any]:
    reference = _scene(registration.reference_id, registration.reference_hrefs, registration.reference_mask)
    secondary = _scene(registration.secondary_id, registration.secondary_hrefs, registration.secondary_mask)
    return {
        "reference": reference | _clouds_told(registration.reference_clouds),
        "secondary": secondary | _clouds_told(registration.secondary_clouds),
    }


def _scene(scene_id: str, hrefs: tuple[str, ...], mask: str | None) -> dict[str, Any]:
    shown = [product_href(href) for href in hrefs]
    scene: dict[str, Any] = {"id": scene_id, "href": shown[0]}
    if len(shown) > 1:
        scene["hrefs"] = shown
    if mask is not None:
        scene["mask"] = product_href(mask)
    return scene


def _clouds_told(told: CloudsTold | None) -> dict[str, Any]:
    """Say what a catalog told of the clouds of a scene; nothing where it told nothing."""
    if told is None:
        return {}
    share = None if told.hidden_share is None else _finite(told.hidden_share)
    used = {"href": product_href(told.href), "hidden_share": share, "used": told.ignored is None}
    return {"clouds": used if told.ignored is None else used | {"why_not": told.ignored}}


def _model(correction: AffineCorrection) -> dict[str, Any]:
    return {"model": str(correction.model), "affine": [_finite(v) for v in correction.affine]}


def _field(registration: Registration) -> dict[str, Any] | None:
    """Say what became of the displacement field; None where none was asked for."""
    if registration.field is None:
        return None
    report = registration.field.report
    return {
        "offered": report.offered,
        "reason": str(report.reason),
        "explanation": report.reason.sentence,
        "coverage": _finite(report.coverage),
        "tie_points_used": report.used,
        "error_affine_m": _error(report.error_affine),
        "error_held_out_m": _error(report.error_held_out),
        "error_after_m": _error(report.error_after),
        "error_after_px": _error(_in_px(report.error_after, registration)),
    }


def _in_px(error: Error, registration: Registration) -> Error:
    if registration.grid is None:
        return UNKNOWN_ERROR
    pixel_m = math.sqrt(abs(registration.grid.affine.determinant))
    return Error(error.rmse_m / pixel_m, error.ce90_m / pixel_m)


def _error(error: Error) -> dict[str, float | None]:
    return {"rmse": _finite(error.rmse_m), "ce90": _finite(error.ce90_m)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
