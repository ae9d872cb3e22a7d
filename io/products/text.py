"""What a registration says in words and figures; the picture and the report say it alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from crosstie.types import Model, VerdictCode

if TYPE_CHECKING:
    from crosstie.types import AffineCorrection, Registration, Verdict

VERDICT_COLOURS = {
    VerdictCode.CORRECTED: "#0f766e",
    VerdictCode.ALREADY_ALIGNED: "#1d4ed8",
    VerdictCode.UNRELIABLE: "#b45309",
}

_HEADLINES = {
    VerdictCode.CORRECTED: "Corrected",
    VerdictCode.ALREADY_ALIGNED: "Already aligned",
    VerdictCode.UNRELIABLE: "Unreliable: not corrected",
}


def headline(verdict: Verdict) -> str:
    """Two or three words for the verdict."""
    return _HEADLINES[verdict.code]


def sentences(registration: Registration) -> list[str]:
    """Say the verdict, its reasons and the images' places to a reader who knows neither codes nor pair."""
    return [*verdict_sentences(registration), *_control_points(registration)]


def _control_points(registration: Registration) -> list[str]:
    of = {"reference": registration.reference_control, "secondary": registration.secondary_control}
    return [f"Place of the {role}: {facts.sentence}." for role, facts in of.items() if facts is not None]


def verdict_sentences(registration: Registration) -> list[str]:
    """Say the verdict and its reasons alone."""
    estimate = registration.estimate
    if estimate.verdict.code is VerdictCode.CORRECTED:
        before, after = estimate.error_before.rmse_m, estimate.error_after.rmse_m
        return [
            "The secondary did not lie on the reference; the correction moves it there.",
            f"The error falls from {metres(before)} to {metres(after)} (RMSE; after: cross-validated).",
        ]
    if estimate.verdict.code is VerdictCode.ALREADY_ALIGNED:
        return ["The secondary already lies on the reference; nothing was changed."]
    return [
        *(reason.sentence for reason in estimate.verdict.reasons),
        "No correction is applied: the secondary keeps its coordinates.",
    ]


def figures(registration: Registration) -> list[tuple[str, str]]:
    """(name, value with unit) of everything a reader may want to weigh."""
    estimate = registration.estimate
    used = int(estimate.used.sum())
    applied = estimate.correction
    rows = [
        ("Model applied", str(applied.model) + _would_have_been(registration)),
        ("Correction at the centre", _correction_at_centre(registration, applied)),
    ]
    if applied.model is Model.AFFINE:
        rows.append(("Rotation, scale", _rotation_scale(applied)))
    rows += [
        ("Median offset measured", _east_north(*estimate.median_offset_m)),
        ("Tiles worth matching", f"{registration.planned:,}"),
        ("Tie points matched, used", f"{len(registration.points):,}, {used:,}"),
        (
            "Error before: RMSE, CE90",
            f"{metres(estimate.error_before.rmse_m)}, {metres(estimate.error_before.ce90_m)}",
        ),
        (
            "Error after: RMSE, CE90",
            f"{metres(estimate.error_after.rmse_m)}, {metres(estimate.error_after.ce90_m)} (cross-validated)",
        ),
        ("Coordinate system", "none in common" if registration.grid is None else crs_name(registration)),
        ("Made by", _made_by(registration)),
    ]
    return rows


def crs_name(registration: Registration) -> str:
    """`EPSG:...` of the common grid, or the name in its WKT."""
    crs = registration.grid.crs if registration.grid is not None else None
    if crs is None:
        return "none"
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs.proj.name)


def metres(value: float) -> str:
    """`12.3 m`, or a dash where there is no number."""
    return "–" if not math.isfinite(value) else f"{value:.1f} m" if abs(value) >= 10 else f"{value:.2f} m"


def _would_have_been(registration: Registration) -> str:
    estimate = registration.estimate
    if estimate.fitted.model is estimate.correction.model:
        return ""
    if estimate.verdict.code is VerdictCode.CORRECTED:
        return f" (an {estimate.fitted.model} predicts the points no better)"
    return f" (the fitted {estimate.fitted.model} is not applied)"


def _correction_at_centre(registration: Registration, correction: AffineCorrection) -> str:
    if registration.grid is None or correction.model is Model.IDENTITY:
        return "none"
    box = registration.grid.boundingbox
    centre = np.array([[(box.left + box.right) / 2, (box.bottom + box.top) / 2]])
    east, north = (correction.apply(centre) - centre)[0]
    return _east_north(float(east), float(north))


def _east_north(east: float, north: float) -> str:
    if not (math.isfinite(east) and math.isfinite(north)):
        return "–"
    return (
        f"{metres(abs(east))} {'east' if east >= 0 else 'west'}, "
        f"{metres(abs(north))} {'north' if north >= 0 else 'south'}"
    )


def _rotation_scale(correction: AffineCorrection) -> str:
    a, b, _, d, e, _ = correction.affine
    rotation = math.degrees(math.atan2(d - b, a + e))
    return (
        f"{rotation:+.4f}° (counter-clockwise), east {1e6 * (math.hypot(a, d) - 1):+.0f} ppm, "
        f"north {1e6 * (math.hypot(b, e) - 1):+.0f} ppm"
    )


def _made_by(registration: Registration) -> str:
    provenance = registration.provenance
    name, version = provenance.versions[0] if provenance.versions else ("crosstie", "?")
    weights = provenance.weights_sha256[:8] or "none"
    return f"{name} {version}, weights {weights}, {provenance.created_utc:%Y-%m-%d %H:%M} UTC"
