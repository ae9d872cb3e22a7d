"""Log lines without control characters: ids of scenes come from catalogs, and a log is read in a terminal."""

from __future__ import annotations

import logging

from crosstie.io.storage.redaction import printable

_FORMATTER = logging.Formatter()


class PrintableRecord(logging.LogRecord):
    """A record whose message and traceback hold no control characters; further lines are indented.

    An id with a line end in it begins no line that looks like one of the log.
    """

    def __init__(self, *given: object, **named: object) -> None:
        super().__init__(*given, **named)  # type: ignore[arg-type]
        if self.exc_info:  # formatters take this text, where it is there
            self.exc_text = printable(_FORMATTER.formatException(self.exc_info), block=True)

    def getMessage(self) -> str:  # noqa: N802  (the name that logging gives)
        return printable(super().getMessage(), block=True).replace("\n", "\n    ")


def keep_log_printable() -> None:
    """Make every record of this process from now on a printable one; it may be called again."""
    logging.setLogRecordFactory(PrintableRecord)
