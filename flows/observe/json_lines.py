"""Log lines as JSON, one object on each line, for a log collector."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from opentelemetry import trace

from crosstie.flows.observe.context import log_context
from crosstie.flows.observe.printable_log import keep_log_printable
from crosstie.io.storage.redaction import redacted

LogFormat = Literal["text", "json"]

SAID = ("pair_key", "flow", "flow_run_id", "flow_run_name", "task_run_id", "task_run_name")
"""Fields that say what a line is about: from the record, where Prefect puts them, else from the context."""

EXTRAS = ("verdict", "reasons", "seconds")
"""Fields that a message may bring along with `extra=`; all others are left out."""


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: time (UTC), level, logger, message, subject, exception.

    Secrets of the environment and of addresses are left out, whoever wrote the message.
    """

    def __init__(self, *given: object, **named: object) -> None:
        """Ignore the format that `logging.config` passes to every formatter."""
        del given, named
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        known = log_context()
        for name in SAID:
            value = getattr(record, name, None) or known.get(name)
            if value:
                line[name] = str(value)
        line |= {name: record.__dict__[name] for name in EXTRAS if name in record.__dict__}
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def log_to_stderr(name: str, log_format: LogFormat) -> None:
    """Let a service log its own lines (logger `name`, INFO and above) and the warnings of its web server."""
    keep_log_printable()
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonLines() if log_format == "json" else text)
    for each, level in ((name, logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(each)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


def write_log_as(log_format: LogFormat) -> None:
    """Write every line that this process prints to its terminal or log as JSON, if `log_format` says so.

    Handlers that send lines elsewhere stay as they are, such as Prefect's to its server. It may be called
    again.
    """
    keep_log_printable()
    if log_format == "text":
        return
    root = logging.getLogger()
    for logger in [root, *(logging.getLogger(name) for name in list(root.manager.loggerDict))]:
        logger.handlers = [
            _in_lines(handler.level) if _writes_to_terminal(handler) else handler
            for handler in logger.handlers
        ]
    if not any(isinstance(handler.formatter, JsonLines) for handler in root.handlers):
        root.addHandler(_in_lines(logging.NOTSET))
    logging.getLogger("crosstie").setLevel(logging.INFO)


def _in_lines(level: int) -> logging.Handler:
    """Make a handler for one logger: Dask changes the level of its own, which must not affect others."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.setFormatter(JsonLines())
    return handler


def _writes_to_terminal(handler: logging.Handler) -> bool:
    """Whether a handler writes text to the terminal, and is neither a file's, a server's nor ours."""
    if isinstance(handler, logging.FileHandler) or not isinstance(handler, logging.StreamHandler):
        return False
    if isinstance(handler.formatter, JsonLines):
        return False
    return getattr(handler.stream, "name", None) in {"<stderr>", "<stdout>"}
