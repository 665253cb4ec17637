"""Equal settings are one object; differences are rendered once."""

import gc

from dualpool.state import DEFAULTS, MAX_CACHED_BYTES, MAX_CACHED_DIFFERENCES, Differences, settings


def test_equal_settings_are_the_same_object() -> None:
    one = settings({"a": "SET a = 1", "b": "SET b = 2"})
    assert settings({"b": "SET b = 2", "a": "SET a = 1"}) is one
    assert settings({"a": "SET a = 1"}) is not one
    assert settings({}) is DEFAULTS


def test_a_caller_cannot_change_them_behind_our_back() -> None:
    values = {"a": "SET a = 1"}
    one = settings(values)
    values["a"] = "SET a = 2"
    assert one.values == {"a": "SET a = 1"}
    del one
    gc.collect()
    assert settings({"a": "SET a = 1"}).values == {"a": "SET a = 1"}


def test_differences() -> None:
    rendered: list[tuple[list[str], dict[str, str]]] = []

    def render(gone: list[str], wanted: dict[str, str]) -> bytes:
        rendered.append((gone, wanted))
        return b"%d" % len(rendered)

    differences = Differences(render)
    have, want = settings({"a": "1", "b": "1", "c": "1"}), settings({"a": "1", "b": "2", "d": "1"})
    assert differences.between(have, want) == differences.between(have, want) == b"1"
    assert rendered == [(["c"], {"b": "2", "d": "1"})]
    assert differences.between(want, have) == b"2"


def test_the_cache_is_bounded() -> None:
    differences = Differences(lambda gone, wanted: b"")
    kept = [settings({"n": str(number)}) for number in range(MAX_CACHED_DIFFERENCES + 10)]
    for one in kept:
        differences.between(DEFAULTS, one)
        assert len(differences._cache) <= MAX_CACHED_DIFFERENCES


def test_long_differences_are_not_kept() -> None:
    """Nor are the settings between which they are: a client may set one that is as long as a statement, again and again."""
    differences = Differences(lambda gone, wanted: b"".join(value.encode() for value in wanted.values()))
    assert len(differences.between(DEFAULTS, settings({"n": "x" * MAX_CACHED_BYTES}))) == MAX_CACHED_BYTES
    assert len(differences._cache) == 1
    assert len(differences.between(DEFAULTS, settings({"n": "x" * (MAX_CACHED_BYTES + 1)}))) == MAX_CACHED_BYTES + 1
    assert len(differences._cache) == 1
