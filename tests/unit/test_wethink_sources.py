"""JSON lists are read as a stream: the same values, and never the whole file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dft_factory.data import sources
from dft_factory.data.sources import JsonText, read_files
from dft_factory.errors import ConfigError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def read(path: Path) -> list[object]:
    return list(read_files([path]))


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(values, max_size=5), st.sampled_from([None, 1]), st.integers(1, 9))
def test_json_loads(tmp_path: Path, records: list[object], indent: int | None, chunk: int) -> None:
    """Cut anywhere: inside of numbers, escapes and characters of several bytes."""
    path = tmp_path / "x.json"
    path.write_text(json.dumps(records, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JsonText, "CHUNK", chunk)
        assert read(path) == records


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}, oops]', r"Expecting value \(record 2\)"),
        ('[{"a": 1} {"a": 2}]', r"',' or ']' expected after a record \(record 1\)"),
        ('[{"a": 1}', "',' or ']' expected"),
        ('[{"a": 1},', "Expecting value"),
        ('[{"a": 1}] []', "data after the list"),
        ('[{"a": ', "Expecting value"),
        ("", "Expecting value"),
        ("[1, 2", "',' or ']' expected after a record"),
    ],
)
def test_malformed(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"is not valid JSON: {message}"):
        read(path)


def test_nothing_is_held_but_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2 MB never more than a few chunks; a record without an end stops at the limit."""
    monkeypatch.setattr(JsonText, "CHUNK", 1000)
    monkeypatch.setattr(JsonText, "LIMIT", 10_000)
    lengths: list[int] = []
    more = JsonText._more

    def spy(self: JsonText) -> bool:
        has_more = more(self)
        lengths.append(len(self._text))
        return has_more

    monkeypatch.setattr(JsonText, "_more", spy)
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"text": "x" * 200}] * 9000))
    assert len(read(path)) == 9000
    assert max(lengths) < 3000
    path.write_text('[{"text": "' + "x" * 1_000_000)
    with pytest.raises(ConfigError, match="no end within 10000 characters"):
        read(path)
    assert max(lengths) < 30_000


def test_reading_stops_with_the_reader(tmp_path: Path) -> None:
    class Endless(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            return '{"a": 1},' * 10

    stream: IO[str] = Endless()
    text = JsonText(stream)
    assert text.value() == {"a": 1}
    assert sources.JsonText.CHUNK <= 1 << 20
