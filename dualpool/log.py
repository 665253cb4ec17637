"""One line per event, on standard error: text for people, JSON for machines. No secrets, no query texts with values."""

import json
import logging
import sys
import time
from typing import ClassVar, Final

from dualpool.config import Log

LOGGER: Final = logging.getLogger("dualpool")
LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class TextFormatter(logging.Formatter):
    """`2026-11-20 12:00:00.123 INFO message`, in local time."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        text = f"{stamp}.{int(record.msecs):03d} {record.levelname} {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """An object a line: time (UTC, ISO 8601), level, message, and what the event adds as `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event = {"time": f"{stamp}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), "message": record.getMessage()}
        event |= getattr(record, "fields", {})
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, ensure_ascii=False)


class Outputs:
    """Where events go beside standard error, or instead of it."""

    others: ClassVar[list[logging.Handler]] = []
    quiet: ClassVar[bool] = False


def also(handler: logging.Handler) -> None:
    """Send events there too, as text unless `[log]` says otherwise. Before `configure`."""
    Outputs.others.append(handler)


def be_quiet() -> None:
    """Send nothing to standard error. Before `configure`."""
    Outputs.quiet = True


def configure(log: Log) -> None:
    """Send dualpool's events to standard error as `[log]` says."""
    as_text = log.format == "text" or (log.format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    for other in Outputs.others:
        other.setFormatter(JsonFormatter() if log.format == "json" else TextFormatter())
    LOGGER.handlers[:] = [*([] if Outputs.quiet else [handler]), *Outputs.others]
    LOGGER.setLevel(LEVELS[log.level])
    LOGGER.propagate = False


def event(level: int, message: str, **fields: object) -> None:
    """Log one event. `fields` appear in the JSON form only, so the message must make sense without them."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, message, extra={"fields": fields})
