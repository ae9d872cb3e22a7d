"""Classify what went wrong with a pair: a short code for counting, and whether another attempt can help."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError

from crosstie.errors import (
    BadInputError,
    DamagedProductError,
    NoGeoreferenceError,
    NoWorkerError,
    StoreError,
    UnreadableRasterError,
    WorkerLostError,
)
from crosstie.flows.registration.deadline import RunStoppedError, TimeLimitError
from crosstie.io.archive.failures import DAMAGED
from crosstie.io.storage.href import local_path
from crosstie.io.storage.redaction import redacted

BUG = "bug"

ANSWERED = re.compile(r"\b(HTTP|response|error)[^0-9]{0,20}(401|403|404|410)\b", re.IGNORECASE)
"""Answers that a server will repeat: the file does not exist, or we may not read it."""

PASSING = frozenset({"storage", "unreadable_remote_raster", "connection", "no_gpu_worker", "time_limit"})
"""Codes of failures that may be gone tomorrow without anybody changing the input."""


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Why an attempt at a pair failed."""

    code: str
    message: str
    """One line, without secrets."""
    again: bool
    """Whether another attempt may help at once, because the failure happened on a network."""


def failure_cause(problem: BaseException, hrefs: Sequence[str], out: str) -> FailureCause:
    """Classify the error that ended an attempt at a pair.

    Parameters
    ----------
    hrefs : Sequence[str]
        Files of the pair.
    out : str
        Root of the products.
    """
    message = redacted(" ".join(str(problem).split()))[:2000] or type(problem).__name__
    code, again = _kind_of(problem, hrefs, out)
    if code == BUG:
        message = f"{type(problem).__name__}: {message}"
    return FailureCause(code, message, again)


def _kind_of(problem: BaseException, hrefs: Sequence[str], out: str) -> tuple[str, bool]:
    match problem:
        case TimeLimitError():
            return "time_limit", False
        case RunStoppedError():
            return "stopped", False
        case UnreadableRasterError():
            if all(local_path(href) is not None for href in hrefs):
                return "unreadable_raster", False
            lasting = ANSWERED.search(str(problem)) is not None
            return ("unreadable_raster" if lasting else "unreadable_remote_raster"), not lasting
        case NoGeoreferenceError():
            return "no_georeference", False
        case DamagedProductError():
            return DAMAGED, False
        case StoreError():
            return "storage", local_path(out) is None
        case BadInputError():
            return "bad_input", False
        case NoWorkerError():
            return "no_gpu_worker", False  # the attempt has waited for one already
        case WorkerLostError():
            return "deadly_work", False
        case FutureCancelledError():
            return "connection", True
        case ConnectionError() | TimeoutError() | CommClosedError():
            return "connection", True
    return BUG, False
