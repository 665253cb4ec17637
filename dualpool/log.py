"""One line per event, on standard error: text for people, JSON for machines. No secrets, no query texts with values.

Lines that say the same again and again are folded: of one template (a line without its numbers and quoted words, but for the place that it
begins with), REPEATS go out in REPEAT_SECONDS; the others are counted, and the count is told. Only warnings and errors are folded: they are
what a fault repeats, and connections have ids that would be missing.
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from typing import ClassVar, Final

from dualpool.config import Log

LOGGER: Final = logging.getLogger("dualpool")
LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
REPEATS: Final = 10
REPEAT_SECONDS: Final = 10.0
MAX_TEMPLATES: Final = 1000
CHANGING: Final = re.compile(r'"[^"]*"|\d[\w.]*(?::\d+)?')
PLACE: Final = re.compile(r'(?:[a-z]+ "[^"]*": )?')
"""`pool "app/app": ` and its like."""
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def one_line(text: str) -> str:
    """Without control characters: what clients call themselves must not begin a line of the log."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


class TextFormatter(logging.Formatter):
    """`2026-11-20 12:00:00.123 INFO message`, in local time."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        text = f"{stamp}.{int(record.msecs):03d} {record.levelname} {one_line(record.getMessage())}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class PgBouncerFormatter(logging.Formatter):
    """`2026-11-20 12:00:00.123 UTC [42] LOG message`: PgBouncer's lib/usual/logging.c. The words are those of journal.py."""

    LEVELS: ClassVar = {logging.DEBUG: "DEBUG", logging.INFO: "LOG", logging.WARNING: "WARNING", logging.ERROR: "ERROR"}

    def format(self, record: logging.LogRecord) -> str:
        moment = time.localtime(record.created)
        stamp, zone = time.strftime("%Y-%m-%d %H:%M:%S", moment), time.strftime("%Z", moment)
        level = self.LEVELS.get(record.levelno, record.levelname)
        text = f"{stamp}.{int(record.msecs):03d} {zone} [{os.getpid()}] {level} {one_line(record.getMessage())}"
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


class Folds:
    """What has been said lately, and how often. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lately: dict[str, tuple[float, int, int, str]] = {}
        """Template: since when, how often, at which level, and the last line that was left out."""

    def admits(self, level: int, message: str) -> bool:
        """May this line go out? If not, it is counted."""
        template = template_of(message)
        now = self._clock()
        since, count, _, _ = self._lately.get(template, (now, 0, 0, ""))
        if now - since > REPEAT_SECONDS:
            self.tell(now)
            since, count = now, 0
        if count == 0 and len(self._lately) >= MAX_TEMPLATES:
            return True
        self._lately[template] = (since, count + 1, level, message if count >= REPEATS else "")
        return count < REPEATS

    def tell(self, now: float | None = None) -> None:
        """Tell the counts of what is over; with `now` infinite, of everything."""
        now = self._clock() if now is None else now
        for template, (since, count, level, last) in list(self._lately.items()):
            if now - since > REPEAT_SECONDS:
                del self._lately[template]
                if count > REPEATS:
                    LOGGER.log(level, f"{last} ... repeated {count - REPEATS} times", extra={"fields": {"repeated": count - REPEATS}})


def template_of(message: str) -> str:
    """What lines that say the same have in common."""
    place = PLACE.match(message)
    assert place is not None
    return place[0] + CHANGING.sub("?", message[place.end() :])


FOLDS: Final = Folds()


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
    handler.setFormatter(PgBouncerFormatter() if log.format == "pgbouncer" else TextFormatter() if as_text else JsonFormatter())
    for other in Outputs.others:
        elsewhere = {"json": JsonFormatter, "pgbouncer": PgBouncerFormatter}.get(log.format, TextFormatter)
        other.setFormatter(elsewhere())
    LOGGER.handlers[:] = [*([] if Outputs.quiet else [handler]), *Outputs.others]
    LOGGER.setLevel(LEVELS[log.level])
    LOGGER.propagate = False


def event(level: int, message: str, **fields: object) -> None:
    """Log one event. `fields` appear in the JSON form only, so the message must make sense without them."""
    if LOGGER.isEnabledFor(level) and (level < logging.WARNING or FOLDS.admits(level, message)):
        LOGGER.log(level, message, extra={"fields": fields})
