"""Spans of OpenTelemetry: they cost nothing until somebody installs its SDK and says where they go.

`opentelemetry-instrument` in front of a command does both; Prefect adds a span a flow and a task.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.propagate import extract, inject

from crosstie.flows.observe.context import About, bind_context, log_context

TRACER = trace.get_tracer("crosstie")


@contextmanager
def step(name: str) -> Iterator[None]:
    """Trace a step of the work; an error that ends it is noted in the span."""
    with TRACER.start_as_current_span(name, attributes=_marks()):
        yield


def trace_context() -> dict[str, str]:
    """What work elsewhere is to know of this one: what it is about, and the span that it is part of."""
    found = dict(log_context())
    inject(found)  # adds `traceparent` inside a span that somebody records, else nothing
    return found


@contextmanager
def continued(name: str, trace_context: About) -> Iterator[None]:
    """Do in this process a part of what was begun in another."""
    with bind_context(**trace_context):
        if "traceparent" not in trace_context:
            yield
            return
        with TRACER.start_as_current_span(name, context=extract(trace_context), attributes=_marks()):
            yield


def _marks() -> dict[str, str]:
    known = log_context()
    return {f"crosstie.{key}": known[key] for key in ("pair_key", "flow") if key in known}
