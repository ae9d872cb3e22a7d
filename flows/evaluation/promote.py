"""Put new weights in the place of old ones, and only where they measured better."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crosstie.errors import SettingsError, WeightsError
from crosstie.flows.evaluation.evaluate import Evaluation, report
from crosstie.matcher.evaluation.comparison import Comparison, compare
from crosstie.matcher.weights import SHIPPED, verified_sha256


def opponent(against: Path | None, target: Path | None) -> Path | None:
    """Whom new weights are measured against: what was asked for, else what `target` holds, else the shipped.

    None stands for the shipped weights.
    """
    if against is not None:
        return against
    return target if target is not None and target.exists() else None


def refuse_target(new: Path | None, target: Path) -> None:
    """Refuse what cannot be promoted, before anything is measured.

    Raises
    ------
    SettingsError : no new weights, they lie at the target already, or the target is part of the package
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
        raise ValueError("the two were measured on other placements; nothing can be said")
    return compare(old.error_px, new.error_px, new.places)


def comparison_report(
    comparison: Comparison, old: Evaluation, new: Evaluation, *, old_sha256: str, new_sha256: str
) -> dict[str, Any]:
    """What was decided and why, fit for JSON."""
    return {
        "schema": "crosstie/comparison/1",
        "better": comparison.better,
        "reasons": list(comparison.reasons),
        "changes": [asdict(change) | {"gain": change.gain} for change in comparison.changes],
        "sign_test_p": comparison.sign_test_p,
        "n": comparison.n,
        "places": comparison.places,
        "new": {"weights_sha256": new_sha256, **report(new)},
        "old": {"weights_sha256": old_sha256, **report(old)},
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def promote(new: Path, target: Path) -> Path | None:
    """Copy new weights and their sha256 to `target`; what was there is kept beside it.

    The replaced file becomes `<stem>.<first 12 of its sha256><suffix>`, with a sha256 file of its own. Files
    are written beside and renamed. Between the two renames the new weights lie there with the old sha256,
    which no program opens.

    Returns
    -------
    Where the replaced weights are kept; None where there were none.

    Raises
    ------
    WeightsError : the new file is not what its sha256 says
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
        _write(kept, old, old_digest)
    _write(target, body, digest)
    return kept


def write_comparison(target: Path, tree: dict[str, Any]) -> Path:
    """Write `<target>.comparison.json`: made when promoted and when refused."""
    path = target.with_name(target.name + ".comparison.json")
    _replace(path, (json.dumps(tree, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def _write(path: Path, body: bytes, digest: str) -> None:
    _replace(path, body)
    _replace(path.with_name(path.name + ".sha256"), f"{digest}  {path.name}\n".encode())


def _replace(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
