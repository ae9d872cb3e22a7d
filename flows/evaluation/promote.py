"""Replace weights by new ones if, and only if, the new ones measured better."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosstie.errors import SettingsError, WeightsError
from crosstie.flows.evaluation.report import evaluation_report
from crosstie.matcher.evaluation.comparison import Comparison, compare
from crosstie.matcher.weights_file import SHIPPED, verified_sha256

if TYPE_CHECKING:
    from crosstie.flows.evaluation.evaluate import Evaluation


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredWeights:
    """Weights and what a matcher with them found."""

    path: Path | None
    """File of the weights; None for the shipped ones."""
    sha256: str
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of new weights."""

    comparison: Comparison
    written: Path | None = None
    """File of the decision; None where nothing was to be replaced."""
    promoted: bool = False
    """Whether the new weights lie at the target now."""
    kept: Path | None = None
    """File of the weights that were replaced; None where there were none."""


def compare_and_promote(
    new: MeasuredWeights,
    measure: Callable[[Path | None], MeasuredWeights],
    *,
    against: Path | None = None,
    target: Path | None = None,
    facts: Mapping[str, object] | None = None,
) -> Promotion:
    """Measure the opponent of new weights, decide, write the decision, and promote the new ones if better.

    Parameters
    ----------
    new : MeasuredWeights
        The new weights, measured by `measure`.
    measure : Callable[[Path | None], MeasuredWeights]
        Evaluates weights; always on the same placements.
    against : Path | None
        The opponent. Without it: what lies at `target`, else the shipped weights.
    target : Path | None
        Where better weights go, and where the decision is written beside. Without it nothing is written.
    facts : Mapping[str, object] | None
        How the weights were evaluated; goes into the written decision.

    Raises
    ------
    WeightsError
        Weights are missing, or not what their sha256 says.
    """
    old = measure(opponent(against, target))
    decision = compared(old.evaluation, new.evaluation)
    if target is None:
        return Promotion(decision)
    tree = comparison_report(decision, old, new)
    if facts is not None:
        tree["evaluation"] = dict(facts)
    written = write_comparison(target, tree)
    if not decision.better or new.path is None:
        return Promotion(decision, written)
    return Promotion(decision, written, promoted=True, kept=promote(new.path, target))


def opponent(against: Path | None, target: Path | None) -> Path | None:
    """Weights to measure new ones against: those asked for, else those at `target`, else the shipped ones.

    None stands for the shipped weights.
    """
    if against is not None:
        return against
    return target if target is not None and target.exists() else None


def refuse_target(new: Path | None, target: Path) -> None:
    """Refuse what cannot be promoted, before anything is measured.

    Raises
    ------
    SettingsError
        There are no new weights, they lie at the target already, or the target is part of the package.
    """
    if new is None:
        raise SettingsError("--promote-to: needs --weights, the new weights to be promoted")
    if target.resolve() == SHIPPED.resolve():
        raise SettingsError(
            f"--promote-to {target}: these are the shipped weights, whose sha256 is fixed in the code; "
            "promote to another file and name it in the settings (weights: ...)"
        )
    if target.resolve() == new.resolve():
        raise SettingsError(f"--promote-to {target}: these are the new weights themselves; give another file")
    if target.is_dir():
        raise SettingsError(
            f"--promote-to {target}: is a folder; give a file, such as {target}/best.safetensors"
        )


def compared(old: Evaluation, new: Evaluation) -> Comparison:
    """Compare two evaluations of the same placements."""
    if old.placements != new.placements:
        raise ValueError("the two were measured on other placements and cannot be compared")
    return compare(old.error_px, new.error_px, new.places)


def comparison_report(comparison: Comparison, old: MeasuredWeights, new: MeasuredWeights) -> dict[str, Any]:
    """What was decided and why, fit for JSON."""
    return {
        "schema": "crosstie/comparison/1",
        "better": comparison.better,
        "reasons": list(comparison.reasons),
        "changes": [asdict(change) | {"gain": change.gain} for change in comparison.changes],
        "sign_test_p": comparison.sign_test_p,
        "n": comparison.n,
        "places": comparison.places,
        "new": {"weights_sha256": new.sha256, **evaluation_report(new.evaluation)},
        "old": {"weights_sha256": old.sha256, **evaluation_report(old.evaluation)},
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def promote(new: Path, target: Path) -> Path | None:
    """Copy new weights and their sha256 to `target`; what was there is kept beside it.

    The replaced file becomes `<stem>.<first 12 of its sha256><suffix>`, with a sha256 file of its own. Files
    are written beside and renamed. Between the two renames the new weights lie there with the old sha256,
    which no program opens.

    Returns
    -------
    Path | None
        Where the replaced weights are kept; None where there were none.

    Raises
    ------
    WeightsError
        The new file is not what its sha256 says.
    """
    digest = verified_sha256(new)
    body = new.read_bytes()
    if hashlib.sha256(body).hexdigest() != digest:
        raise WeightsError(f"{new}: changed while it was read; train or fetch it again")
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = None
    if target.exists():
        old = target.read_bytes()
        old_digest = hashlib.sha256(old).hexdigest()
        kept = target.with_name(f"{target.stem}.{old_digest[:12]}{target.suffix}")
        _write_weights(kept, old, old_digest)
    _write_weights(target, body, digest)
    return kept


def write_comparison(target: Path, tree: dict[str, Any]) -> Path:
    """Write `<target>.comparison.json`: made when promoted and when refused."""
    path = target.with_name(target.name + ".comparison.json")
    _replace(path, (json.dumps(tree, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def _write_weights(path: Path, body: bytes, digest: str) -> None:
    """Write weights and the file of their sha256."""
    _replace(path, body)
    _replace(path.with_name(path.name + ".sha256"), f"{digest}  {path.name}\n".encode())


def _replace(path: Path, body: bytes) -> None:
    """Write beside and rename, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
