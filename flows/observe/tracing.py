"""Spans of OpenTelemetry. They cost nothing unless its SDK is installed and configured.

`opentelemetry-instrument` before a command configures it; Prefect adds a span for each flow and task.
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
    """Trace a step of the work; the span records an error that ends it."""
    with TRACER.start_as_current_span(name, attributes=_marks()):
        yield


def trace_context() -> dict[str, str]:
    """Context to send along with work: what it is about, and the span that it belongs to."""
    found = dict(log_context())
    inject(found)  # adds `traceparent` inside a recorded span, else nothing
    return found


@contextmanager
def continued(name: str, trace_context: About) -> Iterator[None]:
    """Inside, this process continues work that another has begun."""
    with bind_context(**trace_context):
        if "traceparent" not in trace_context:
            yield
            return
        with TRACER.start_as_current_span(name, context=extract(trace_context), attributes=_marks()):
            yield


def _marks() -> dict[str, str]:
    known = log_context()
    return {f"crosstie.{key}": known[key] for key in ("pair_key", "flow") if key in known}
