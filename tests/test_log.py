"""How events become lines, and how lines that repeat are folded."""

import json
import logging
from collections.abc import Iterator

import pytest

from dualpool import log
from dualpool.config import Log
from dualpool.log import LOGGER, REPEAT_SECONDS, REPEATS, Folds, JsonFormatter, PgBouncerFormatter, TextFormatter, template_of


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def lines() -> Iterator[Lines]:
    before = LOGGER.handlers[:], LOGGER.level
    handler = Lines()
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.DEBUG)
    yield handler
    LOGGER.handlers[:], level = before
    LOGGER.setLevel(level)


class Now:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("message", "template"),
    [
        ('pool "app/app": waited 2.5 s (timeouts.query_wait is 2 s)', 'pool "app/app": waited ? s (timeouts.query_wait is ? s)'),
        ('listener "pg": login of 10.0.0.1:555 failed: no user "x"', 'listener "pg": login of ? failed: no user ?'),
        ("client 5: gone", "client ?: gone"),
    ],
)
def test_what_is_the_same_line(message: str, template: str) -> None:
    assert template_of(message) == template


def test_lines_of_one_template_are_folded_and_counted(lines: Lines) -> None:
    now = Now()
    folds = Folds(now)
    said = [folds.admits(logging.WARNING, f'pool "a": waited {number} s') for number in range(REPEATS + 23)]
    assert said == [True] * REPEATS + [False] * 23
    assert folds.admits(logging.WARNING, 'pool "b": waited 1 s')
    folds.tell()
    assert lines.messages == []
    now.now += REPEAT_SECONDS + 1
    folds.tell()
    assert lines.messages == [f'pool "a": waited {REPEATS + 22} s ... repeated 23 times']
    assert lines.records[0].fields == {"repeated": 23}  # type: ignore[attr-defined]
    assert folds.admits(logging.WARNING, 'pool "a": waited 1 s')


def test_the_next_of_its_kind_tells_the_count_first(lines: Lines) -> None:
    now = Now()
    folds = Folds(now)
    for _ in range(REPEATS + 1):
        folds.admits(logging.ERROR, "oops 1")
    now.now += REPEAT_SECONDS + 1
    assert folds.admits(logging.ERROR, "oops 2")
    assert lines.messages == ["oops 1 ... repeated 1 times"]
    assert lines.records[0].levelno == logging.ERROR


def test_what_is_only_told_is_not_folded(lines: Lines) -> None:
    for _ in range(3 * REPEATS):
        log.event(logging.INFO, "client 1: connected")
    assert len(lines.messages) == 3 * REPEATS


def test_what_is_not_logged_costs_no_memory(lines: Lines) -> None:
    folds = Folds()
    for number in range(5000):
        assert folds.admits(logging.WARNING, "x" * (number % 2500))
    assert len(folds._lately) <= log.MAX_TEMPLATES


@pytest.fixture
def record() -> logging.LogRecord:
    found = LOGGER.makeRecord("dualpool", logging.INFO, "", 0, 'client "x\ny"', (), None)
    found.fields = {"client": 5}
    return found


def test_a_line_is_a_line(record: logging.LogRecord) -> None:
    assert TextFormatter().format(record).endswith('INFO client "x\\ny"')
    text = PgBouncerFormatter().format(record)
    assert text.endswith('] LOG client "x\\ny"')
    assert "\n" not in JsonFormatter().format(record)
    assert json.loads(JsonFormatter().format(record))["client"] == 5


@pytest.mark.parametrize(("form", "formatter"), [("text", TextFormatter), ("json", JsonFormatter), ("pgbouncer", PgBouncerFormatter)])
def test_formats(lines: Lines, form: str, formatter: type[logging.Formatter]) -> None:
    assert lines is LOGGER.handlers[0]
    log.configure(Log(format=form))  # type: ignore[arg-type]
    assert type(LOGGER.handlers[0].formatter) is formatter
