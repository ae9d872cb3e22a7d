"""Count a pair that has ended, and log it."""

from __future__ import annotations

import logging

from crosstie.flows.observe.context import bind_context
from crosstie.flows.observe.run_metrics import PAIRS
from crosstie.flows.runs.outcome import IN_PROGRESS, Outcome

LOG = logging.getLogger(__name__)


def note(flow: str, outcome: Outcome) -> None:
    """Count and log the outcome of a pair, unless another run has registered it."""
    if outcome.already_done or outcome.verdict == IN_PROGRESS:
        return
    reason = outcome.reasons[0] if outcome.reasons else ""
    PAIRS.labels(flow, outcome.verdict, reason).inc()
    what = ", ".join([outcome.verdict, *outcome.reasons])
    facts = {"verdict": outcome.verdict, "reasons": list(outcome.reasons), "seconds": outcome.seconds}
    with bind_context(pair_key=outcome.pair_key):
        LOG.info("%s: %s", outcome.pair_key, what, extra=facts)
