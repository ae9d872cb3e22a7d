"""Log lines as JSON: one object a line, for a collector of logs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from opentelemetry import trace

from crosstie.flows.observe.context import log_context
from crosstie.io.storage.redaction import redacted

LogFormat = Literal["text", "json"]

SAID = ("pair_key", "flow", "flow_run_id", "flow_run_name", "task_run_id", "task_run_name")
"""What a line is about: of the record, as Prefect's loggers put it there, else of the context."""

FIGURES = ("verdict", "reasons", "seconds")
"""What a message may bring besides its text (`extra=`); everything else stays out of the line."""


class JsonLines(logging.Formatter):
    """One JSON object a record: time (UTC), level, logger, message, what it is about, the exception.

    Secrets of the environment and of addresses are left out, whoever has written the message.
    """

    def __init__(self, *given: object, **named: object) -> None:
        """Take, and leave aside, the format that `logging.config` hands to every formatter."""
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
        line |= {name: record.__dict__[name] for name in FIGURES if name in record.__dict__}
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def log_to_stderr(name: str, log_format: LogFormat) -> None:
    """Have a service write what its logger `name` says from INFO on, and the warnings of its web server."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonLines() if log_format == "json" else text)
    for each, level in ((name, logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(each)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


def write_log_as(log_format: LogFormat) -> None:
    """Have every line that this process writes to its terminal or log be JSON, where that is wanted.

    Handlers that send lines elsewhere, as Prefect's to its server, stay. Calling it again does no harm.
    """
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
    """One a logger: Dask changes the level of its own for a while, and that is to silence nobody else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.setFormatter(JsonLines())
    return handler


def _writes_to_terminal(handler: logging.Handler) -> bool:
    """Whether a handler writes text to the terminal: not those to files or servers, nor ours."""
    if isinstance(handler, logging.FileHandler) or not isinstance(handler, logging.StreamHandler):
        return False
    if isinstance(handler.formatter, JsonLines):
        return False
    return getattr(handler.stream, "name", None) in {"<stderr>", "<stdout>"}
