"""An evaluation as JSON, as a table and as a picture."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from crosstie.io.plots.evaluation import WorstPair, evaluation_png

if TYPE_CHECKING:
    from crosstie.flows.evaluation.evaluate import Evaluation


def evaluation_report(evaluation: Evaluation, *, per_pair: bool = False) -> dict[str, Any]:
    """Everything measured, fit for JSON: figures, the same by place and by size, and the pairs if wanted."""
    tree: dict[str, Any] = {
        **evaluation.figures(),
        "per_place": evaluation.sections(evaluation.places),
        "per_size": evaluation.sections(evaluation.sizes_px),
    }
    if per_pair:
        tree["pairs"] = evaluation.rows()
    return {name: _without_nan(value) for name, value in tree.items()}


def _without_nan(value: Any) -> Any:
    """NaN -> None: JSON knows no NaN."""
    if isinstance(value, dict):
        return {name: _without_nan(below) for name, below in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def worst_pairs(evaluation: Evaluation, count: int) -> list[WorstPair]:
    """Read the images of the placements with the largest errors, largest first."""
    found = []
    for n in np.argsort(-evaluation.distance_px, kind="stable")[:count].tolist():
        placement = evaluation.placements[n]
        pair, tile = placement.pair, placement.tile
        true = (pair.dx_px, pair.dy_px)
        measured = (float(evaluation.offset_px[n, 0]), float(evaluation.offset_px[n, 1]))
        at_truth, at_answer = (
            pair.read(
                row=tile.row,
                col=tile.col,
                shape=(tile.size_px, tile.size_px),
                shift_px=(-round(offset[0]), -round(offset[1])),
            )
            for offset in (true, measured)
        )
        found.append(
            WorstPair(
                name=pair.name,
                reference=at_truth[0],
                at_truth=at_truth[1],
                at_answer=at_answer[1],
                true_px=true,
                measured_px=measured,
                confidence=float(evaluation.confidence[n]),
            )
        )
    return found


def picture(evaluation: Evaluation, title: str, *, count: int = 6) -> bytes:
    """Draw the evaluation with its worst pairs, as PNG."""
    return evaluation_png(
        title,
        evaluation.distance_px,
        evaluation.confidence,
        evaluation.sizes_px,
        worst_pairs(evaluation, count),
    )


def csv_text(evaluation: Evaluation) -> str:
    """One line a placement, for a spreadsheet."""
    rows = evaluation.rows()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
