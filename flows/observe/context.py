"""The pair, flow and flow run that the current work belongs to; log lines and traces carry them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

About = Mapping[str, str]
"""`pair_key`, `flow`, `flow_run_id`, and `traceparent` where traces are recorded; small enough to send."""

_ABOUT: ContextVar[About] = ContextVar("crosstie_about", default={})  # noqa: B039 (never changed in place)
"""A context variable: threads of a pair inherit it, and functions in between need not pass it on."""


def log_context() -> About:
    """What is known of the work in this context."""
    return _ABOUT.get()


@contextmanager
def bind_context(**fields: str) -> Iterator[None]:
    """Inside, log lines and traces carry these fields too."""
    token = _ABOUT.set({**_ABOUT.get(), **fields})
    try:
        yield
    finally:
        _ABOUT.reset(token)
