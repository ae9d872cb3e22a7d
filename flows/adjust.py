"""An archive adjusted as one network and monitored, as a flow; `crosstie adjust` does it without Prefect."""

from __future__ import annotations

from typing import Any

from prefect import flow

from crosstie.flows.archive.stage import adjust_and_monitor
from crosstie.flows.observe.context import bind_context
from crosstie.flows.observe.json_lines import write_log_as
from crosstie.flows.observe.run_server import serve_run
from crosstie.flows.runs.parameters import private, settings_of


@flow(name="crosstie-adjust", persist_result=False)
def adjust(out: str, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """Adjust the places of an archive whose pairs have changed, and say what moved.

    Returns places by what became of them, and what moved, of which the new.

    Args:
        out: Folder or URL of the products, such as s3://products. It must not contain a secret, because
            Prefect stores and shows parameters.
        settings: Settings, as in a settings file: {"adjust": {"datum": "mean-s2"}}. `crosstie config` prints
            all. Settings that are left out come from the worker's CROSSTIE_… variables.
    """
    known = settings_of(settings)
    write_log_as(known.observe.log_format)
    serve_run(known.observe)
    with bind_context(flow="adjust"):
        return adjust_and_monitor(private(out), known)
