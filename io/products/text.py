"""What a registration says in words and figures; the picture and the report say it alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from crosstie.ground import GroundFrame, ground_frame
from crosstie.io.storage.href import product_href
from crosstie.types import Model, VerdictCode

if TYPE_CHECKING:
    from crosstie.types import AffineCorrection, CloudsTold, FieldReport, Registration

_COLOURS = {
    VerdictCode.CORRECTED: "#0f766e",
    VerdictCode.ALREADY_ALIGNED: "#1d4ed8",
    VerdictCode.UNRELIABLE: "#b45309",
}

_IN_PART = "#8a6100"
"""Amber: the verdict is good, and most of the error stays."""

_HEADLINES = {
    VerdictCode.CORRECTED: "Corrected",
    VerdictCode.ALREADY_ALIGNED: "Already aligned",
    VerdictCode.UNRELIABLE: "Unreliable: not corrected",
}

_MOST_REMAINS = {
    VerdictCode.CORRECTED: "Corrected by the affine, but most of the error remains",
    VerdictCode.ALREADY_ALIGNED: "Already aligned on average, but relief remains",
}

MOST = 0.5
"""Most of the error stays where more than this share of it does, RMSE after to RMSE before."""

WORTH_SAYING_PX = 1.0
"""RMSE from which a reader is warned of what stays: 1 px, the limit that confidence has, too."""

SURE = 0.9
"""Confidence from which a tie point counts as sure."""

CONFIDENCE = "Confidence is the calibrated probability that a tie point's offset is within 1 px of the truth."


def headline(registration: Registration) -> str:
    """The verdict in words, and whether most of the error remains."""
    code = registration.estimate.verdict.code
    if not most_stays(registration):
        return _HEADLINES[code]
    return _MOST_REMAINS[code]


def colour(registration: Registration) -> str:
    """Colour of the banner: green or blue where all is well, amber where most of the error stays."""
    return _IN_PART if most_stays(registration) else _COLOURS[registration.estimate.verdict.code]


def most_stays(registration: Registration) -> bool:
    """Whether most of the error stays although the verdict is good: more than `MOST` of it, and over 1 px.

    An aligned secondary counts only where a displacement field tells the rest from noise.
    """
    estimate = registration.estimate
    if estimate.verdict.code is VerdictCode.UNRELIABLE:
        return False
    if estimate.verdict.code is VerdictCode.ALREADY_ALIGNED and not has_field(registration):
        return False
    before_m, left_m = estimate.error_before.rmse_m, _left_m(registration)
    return left_m > MOST * before_m and left_m > WORTH_SAYING_PX * _pixel_m(registration)


def _left_m(registration: Registration) -> float:
    """RMSE that the affine leaves, metres; that of the secondary as delivered where none is applied."""
    estimate = registration.estimate
    corrected = estimate.verdict.code is VerdictCode.CORRECTED
    return (estimate.error_after if corrected else estimate.error_before).rmse_m


def has_field(registration: Registration) -> bool:
    """Whether a displacement field is offered."""
    return registration.field is not None and registration.field.field is not None


def sentences(registration: Registration) -> list[str]:
    """Say the verdict, its reasons and the images' places to a reader who knows neither codes nor pair."""
    return [*verdict_sentences(registration), *_control_points(registration), *_masks(registration)]


def _control_points(registration: Registration) -> list[str]:
    of = {"reference": registration.reference_control, "secondary": registration.secondary_control}
    return [f"Place of the {role}: {facts.sentence}." for role, facts in of.items() if facts is not None]


def _masks(registration: Registration) -> list[str]:
    of = {"reference": registration.reference_mask, "secondary": registration.secondary_mask}
    given = [
        f"Not used of the {role}: what {product_href(mask)} covers."
        for role, mask in of.items()
        if mask is not None
    ]
    told = {"reference": registration.reference_clouds, "secondary": registration.secondary_clouds}
    return given + [_said_of_clouds(role, clouds) for role, clouds in told.items() if clouds is not None]


def _said_of_clouds(role: str, clouds: CloudsTold) -> str:
    if clouds.ignored is not None:
        return f"The cloud mask of the {role} is not used: {clouds.ignored}."
    return f"Clouds and their shadows hide {clouds.hidden_share:.0%} of the {role}, as its catalog tells."


def verdict_sentences(registration: Registration) -> list[str]:
    """Say the verdict, what is left of the error, and whether that is relief."""
    estimate = registration.estimate
    if estimate.verdict.code is VerdictCode.UNRELIABLE:
        return [
            *(reason.sentence for reason in estimate.verdict.reasons),
            "No correction is applied: the secondary keeps its coordinates.",
        ]
    if registration.field is not None and registration.field.field is not None:
        return _with_field(registration, registration.field.report)
    before = _both(estimate.error_before.rmse_m, registration)
    after = _both(estimate.error_after.rmse_m, registration)
    if estimate.verdict.code is VerdictCode.ALREADY_ALIGNED:
        return [f"The secondary already lies on the reference, to {before} RMSE; nothing was changed."]
    if most_stays(registration):
        return [
            f"Offset removed, but {after} of {before} remain (RMSE; after: cross-validated).",
            _no_field(registration),
        ]
    return [f"Offset removed: the error falls from {before} to {after} (RMSE; after: cross-validated)."]


def _with_field(registration: Registration, report: FieldReport) -> list[str]:
    """Say what the affine leaves to the displacement field, and which file carries what."""
    estimate = registration.estimate
    before = _both(estimate.error_before.rmse_m, registration)
    left = _both(_left_m(registration), registration)
    if estimate.verdict.code is VerdictCode.CORRECTED:
        said = f"The affine reduces the RMSE from {before} to {left}; most of the rest is relief"
        carried = "corrected.vrt carries the affine only"
    else:
        said = f"The secondary lies on the reference on average, but differs by {left}, mostly relief"
        carried = "corrected.vrt is the secondary as it was delivered"
    leaves_m = report.error_after.rmse_m
    gain = within = ""
    if leaves_m < _left_m(registration):
        gain = f", which reduces it to an estimated {_both(leaves_m, registration)}"
        within = " The estimate above adds the relief within a tile, which no tie point shows."
    return [
        f"{said}. To remove that, too, crosstie apply aligns the image with the displacement field{gain}.",
        f"The field covers {100 * report.coverage:.0f} % of the scene. It was checked at tie points left out "
        f"of the fit: they differ by {_both(report.error_held_out.rmse_m, registration)} from the field, and "
        f"by {_both(report.error_affine.rmse_m, registration)} from the affine (RMSE).{within}",
        f"{carried}; displacement.tif holds the field.",
    ]


def _no_field(registration: Registration) -> str:
    if registration.field is None:
        return "No displacement field was asked for."
    return f"There is no displacement field for it. {registration.field.report.reason.sentence}"


def figures(registration: Registration) -> list[tuple[str, str]]:
    """(name, value with unit) of what a reader may want to weigh and `sentences` do not say."""
    estimate = registration.estimate
    applied = estimate.correction
    rows = [
        ("Model applied", str(applied.model) + _would_have_been(registration)),
        ("Correction at the centre", _correction_at_centre(registration, applied)),
    ]
    if applied.model is Model.AFFINE:
        rows.append(("Rotation, scale", _rotation_scale(applied)))
    rows += [
        (
            "Median offset",
            "the secondary lies "
            + _east_north(*_on_ground(registration).east_north(*estimate.median_offset_m)),
        ),
        ("Tiles to match", f"{registration.planned:,} (enough clear, textured ground)"),
        (
            "Tie points",
            f"{len(registration.points):,} matched, {int(estimate.used.sum()):,} used to fit the model",
        ),
        *_quality(registration),
        *_errors(registration),
        *_field(registration),
        ("Coordinate system", "none in common" if registration.grid is None else crs_name(registration)),
        *_map_scale(registration),
        ("Made by", _made_by(registration)),
    ]
    return rows


def _quality(registration: Registration) -> list[tuple[str, str]]:
    """How sure the tie points are of themselves."""
    points = registration.points
    if not len(points):
        return []
    sigma = _both(float(np.median(points.sigma_m)), registration)
    sure = int((points.confidence >= SURE).sum())
    return [
        (
            "Precision of a match",
            f"{sigma} per axis (median sigma of a tie point; wrong matches not included)",
        ),
        (
            f"Confidence {SURE} or more",
            f"{100 * sure / len(points):.0f} % of the tie points "
            "(probability that the offset is within 1 px)",
        ),
    ]


def _errors(registration: Registration) -> list[tuple[str, str]]:
    """Errors of each stage; the RMSE only where the sentences do not say it."""
    estimate = registration.estimate
    code = estimate.verdict.code
    before, after = estimate.error_before, estimate.error_after
    if code is VerdictCode.UNRELIABLE:
        both = (
            ", ".join(_both(value, registration) for value in (error.rmse_m, error.ce90_m))
            for error in (before, after)
        )
        rows = list(zip(("Error before: RMSE, CE90", "Error after: RMSE, CE90"), both, strict=True))
        return rows[: 1 if rows[0][1] == rows[1][1] else 2]
    rows = [("Error before: CE90", _both(before.ce90_m, registration))]
    if code is VerdictCode.CORRECTED:
        rows.append(("Error after: CE90", f"{_both(after.ce90_m, registration)}, cross-validated"))
    if registration.field is not None and registration.field.field is not None:
        ce90_m = registration.field.report.error_after.ce90_m
        rows.append(("Error with field: CE90", _both(ce90_m, registration)))
    return rows


def _field(registration: Registration) -> list[tuple[str, str]]:
    fit = registration.field
    if fit is None:
        return []
    if fit.field is None:
        said = "none" if most_stays(registration) else f"none. {fit.report.reason.sentence}"
        return [("Displacement field", said)]
    matched = len(registration.points)
    others = "; the others have low confidence or disagree with their neighbours"
    why = others if fit.report.used < matched else ""
    return [("Displacement field", f"uses {fit.report.used:,} of the {matched:,} tie points{why}")]


def crs_name(registration: Registration) -> str:
    """`EPSG:...` of the common grid, or the name in its WKT."""
    crs = registration.grid.crs if registration.grid is not None else None
    if crs is None:
        return "none"
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs.proj.name)


def metres(value: float) -> str:
    """`12.3 m`, or a dash where there is no number."""
    return _amount(value, "m")


def _amount(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.1f} {unit}" if abs(value) >= 10 else f"{value:.2f} {unit}"


def _both(value_m: float, registration: Registration) -> str:
    """`1.23 px (12.3 m)`, metres on the ground, or a dash where there is no number."""
    if not math.isfinite(value_m) or registration.grid is None:
        return metres(value_m)
    on_ground_m = value_m * _on_ground(registration).scale
    return f"{_amount(value_m / _pixel_m(registration), 'px')} ({metres(on_ground_m)})"


def _pixel_m(registration: Registration) -> float:
    """Side of a pixel of the common grid, metres; NaN without a grid."""
    grid = registration.grid
    return math.nan if grid is None else math.sqrt(abs(grid.affine.determinant))


def _on_ground(registration: Registration) -> GroundFrame:
    return ground_frame(registration.grid)


def _map_scale(registration: Registration) -> list[tuple[str, str]]:
    """Tell a reader who compares with `correction.json` why its metres are others."""
    frame = _on_ground(registration)
    if not frame.differs:
        return []
    return [
        (
            "Metres in this text",
            f"metres on the ground; correction.json has metres of the projection, {frame.scale:.3f} m each",
        )
    ]


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
    dx_m, dy_m = (correction.apply(centre) - centre)[0]
    return _east_north(*_on_ground(registration).east_north(float(dx_m), float(dy_m)))


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
        f"{abs(rotation):.4f}° {'counter-' if rotation >= 0 else ''}clockwise, "
        f"x {1e6 * (math.hypot(a, d) - 1):+.0f} ppm, "
        f"y {1e6 * (math.hypot(b, e) - 1):+.0f} ppm"
    )


def _made_by(registration: Registration) -> str:
    provenance = registration.provenance
    name, version = provenance.versions[0] if provenance.versions else ("crosstie", "?")
    weights = provenance.weights_sha256[:8] or "none"
    return f"{name} {version}, weights {weights}, {provenance.created_utc:%Y-%m-%d %H:%M} UTC"
