"""Times with units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpool.config.fields import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds", "formatted"),
    [
        ("500ms", 0.5, "500ms"),
        ("30s", 30.0, "30s"),
        ("2m", 120.0, "2m"),
        ("1h", 3600.0, "1h"),
        ("1d", 86400.0, "1d"),
        ("90m", 5400.0, "90m"),
        ("1.5s", 1.5, "1500ms"),
        (" 5 s ", 5.0, "5s"),
        ("0s", 0.0, "0s"),
    ],
)
def test_durations(text: str, seconds: float, formatted: str) -> None:
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == formatted


@pytest.mark.parametrize("text", ["", "5", "s", "5 parsecs", "-1s", "1e3s", "infs", "nans", "1_0s", "1.s s", ".5s", "5S"])
def test_refusals(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time with a unit"):
        parse_duration(text)


@given(st.integers(0, 10**8))
def test_what_is_formatted_can_be_parsed(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)
