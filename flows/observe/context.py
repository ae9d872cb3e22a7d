"""What the work of this moment is about: the pair, the flow, its run. Log lines and traces carry it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

About = Mapping[str, str]
"""`pair_key`, `flow`, `flow_run_id`, and `traceparent` where somebody traces: small, fit to be sent."""

_ABOUT: ContextVar[About] = ContextVar("crosstie_about", default={})  # noqa: B039 (never changed in place)
"""A context variable: threads of a pair inherit it, and no function in between has to hand it on."""


def log_context() -> About:
    """What the work in this context is about, as far as it is known."""
    return _ABOUT.get()


@contextmanager
def bind_context(**fields: str) -> Iterator[None]:
    """Inside, the work is about these things, too."""
    token = _ABOUT.set({**_ABOUT.get(), **fields})
    try:
        yield
    finally:
        _ABOUT.reset(token)
