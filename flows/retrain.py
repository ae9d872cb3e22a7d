"""A training run on a schedule: on an archive, from the weights in use, to replace them by better ones.

The stages are those of `crosstie train` (`crosstie.flows.training`).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow

from crosstie.config import validated
from crosstie.errors import SettingsError
from crosstie.flows.discovery.periods import now_utc
from crosstie.flows.runs.parameters import as_parameter, dotted, private
from crosstie.flows.training.flow import training
from crosstie.io.storage.href import local_path
from crosstie.train_settings import BEGUN, SHIPPED_NAME, TrainSettings


def retrain_settings(
    catalog: str, out: Path, weights: Path | None, given: dict[str, Any] | None
) -> TrainSettings:
    """Settings of the training run: those given, on this catalog, from these weights.

    Raises
    ------
    SettingsError
        One line that names the key, the value and what is allowed.
    """
    start = SHIPPED_NAME if weights is None or not weights.exists() else str(weights)
    options: dict[str, object] = {"mine.catalog": catalog, "start_from": start, "out": str(out)}
    if weights is not None:
        options["promote_to"] = str(weights)
    return validated(
        TrainSettings,
        ("start_from", BEGUN),
        ("parameter settings", dotted(given or {})),
        ("parameters", options),
    )


def folder_of(out: Path, now: datetime, given: dict[str, Any] | None) -> Path:
    """Folder of a run: the newest one that was not finished, else a new one named by the time."""
    unfinished = [
        folder
        for folder in sorted(out.glob("20*T*Z"), reverse=True)
        if not retrain_settings("", folder, None, given).weights_path.exists()
    ]
    return unfinished[0] if unfinished else out / f"{now:%Y%m%dT%H%M%SZ}"


@flow(name="crosstie-retrain", persist_result=False)
def retrain(
    catalog: str, out: str, weights: str | None = None, settings: dict[str, Any] | None = None
) -> dict[str, float]:
    """Train on the pairs of a catalog, and replace the weights in use if the new ones perform better.

    An unfinished run is resumed. The trained weights are kept below `out`, whether they are promoted or not.

    Returns figures on the held-out places.

    Args:
        catalog: Path or URL of a STAC catalog or a stac-geoparquet file. It must not contain a secret,
            because Prefect stores and shows parameters.
        out: Folder on the worker; each training run gets a folder in it.
        weights: File of the weights in use (the setting `weights` of registration). Training starts from it,
            or from the shipped weights if it does not exist yet. New weights replace it if they perform
            better on the held-out places of the settings. Empty: nothing is replaced.
        settings: Settings of training, as in a settings file: {"plan": {"steps": 400}}.
            `crosstie train --show-config` prints all.
    """
    home = local_path(out)
    if home is None:
        raise SettingsError(
            f"out = {out}: a training run is resumed from its files; give a folder of the worker"
        )
    folder = folder_of(home, now_utc(), settings)
    place = None if weights is None else Path(weights)
    # Not as a flow of its own: its tasks belong to this run.
    figures: dict[str, float] = training.fn(retrain_settings(private(catalog), folder, place, settings))
    return figures


def run_retrain(catalog: str, out: Path, weights: Path | None, settings: TrainSettings) -> dict[str, float]:
    """Run the flow in this process.

    Raises
    ------
    SettingsError
        The catalog's address carries a secret.
    """
    private(catalog)  # what is trained on is written down with the weights
    values = as_parameter(settings)
    for name in ("start_from", "promote_to", "out"):
        values.pop(name, None)
    values.get("mine", {}).pop("catalog", None)
    figures: dict[str, float] = retrain(catalog, str(out), None if weights is None else str(weights), values)
    return figures
