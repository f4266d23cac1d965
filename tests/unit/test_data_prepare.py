"""``dft_factory.data``: the UltraFeedback converter and the driver behind ``data prepare``."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import random
import sys
import types
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dft_factory.data.prepare import CONVERTERS, Report, prepare
from dft_factory.data.records import Dropped, Kept
from dft_factory.data.ultrafeedback import ASPECTS, average_rating, convert, rating_number
from dft_factory.errors import ConfigError, MissingDependencyError
from tests.support.jsonl import read_lines, write_lines

Json = dict[str, Any]


def completion(response: object, *ratings: object, **fields: object) -> Json:
    """A completion with one rating for each aspect; fewer ratings leave the last aspects out."""
    annotations = {
        aspect: {"Rating": rating, "Rationale": ""}
        for aspect, rating in zip(ASPECTS, ratings, strict=False)
    }
    return {"response": response, "annotations": annotations, **fields}


def record(*completions: Any, instruction: object = "Q") -> Json:
    return {"source": "test", "instruction": instruction, "completions": list(completions)}


def good(number: int) -> Json:
    return record(completion(f"A{number}", 5), instruction=f"Q{number}")


def run(source: Path, out: Path, **settings: Any) -> tuple[Report, list[str]]:
    """The report, and the answers that were written."""
    report = prepare("ultrafeedback", str(source), out, **settings)
    answers = [row["output"] for row in read_lines(out / "ultrafeedback.jsonl")]
    assert report.sampled == len(answers)
    return report, answers


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "in.jsonl", [good(0)])


# ---------------------------------------------------------------- ratings


@pytest.mark.parametrize(
    ("rating", "number"),
    [
        *((text, 4) for text in ("4", " 4 ", 4)),
        *((text, Fraction(9, 2)) for text in ("4.5", 4.5)),
        *((text, Fraction(41, 10)) for text in ("4.1", 4.1)),
        ("0", 0),
        *((text, None) for text in ("N/A", "", "4/5", "four", "1_0", "nan", "inf")),
        *((value, None) for value in (math.nan, math.inf, True, None, [4])),
    ],
)
def test_rating_number(rating: object, number: Fraction | None) -> None:
    assert rating_number(rating) == number


@pytest.mark.parametrize(
    ("scored", "average"),
    [
        # 5, N/A, 4.5 and "4": (5 + 4.5 + 4) / 3 = 13.5 / 3 = 4.5, not 13.5 / 4.
        (completion("x", 5, "N/A", 4.5, "4"), Fraction(9, 2)),
        (completion("x", "5", "2"), Fraction(7, 2)),  # two aspects of four
        ({"annotations": {"honesty": {"Rating": "5"}, "style": {"Rating": "1"}}}, 5),
        ({"response": "x"}, None),
        ({"response": "x", "annotations": None}, None),
        ({"response": "x", "annotations": {}}, None),
        ({"response": "x", "annotations": {"helpfulness": "5"}}, None),
        ({"response": "x", "annotations": {"helpfulness": {}}}, None),
        (completion("x", "N/A", "N/A", "N/A", "N/A"), None),
    ],
)
def test_average_rating(scored: Json, average: Fraction | None) -> None:
    assert average_rating(scored) == average


# ---------------------------------------------------------------- one record


@pytest.mark.parametrize(
    ("completions", "best"),
    [
        # Averages 13/4, 18/4 and 12/4.
        (
            [completion("a", 3, 3, 3, 4), completion("b", 5, 4, 5, 4), completion("c", 3, 3, 3, 3)],
            "b",
        ),
        # 5 alone averages 5 and beats (5+5+5+4)/4 = 4.75; as zeros it would be 5/4.
        ([completion("a", "5", "5", "5", "4"), completion("b", "N/A", "N/A", "5", "N/A")], "b"),
        # The published 10-for-1 bug: overall_score 10 on the answer with the lowest ratings.
        ([completion("a", "1", overall_score=10), completion("b", "2", overall_score=1)], "b"),
        # (5+4)/2 = 4.5 = (4+5+4.5)/3: equal, so the first.
        ([completion("a", 5, 4), completion("b", "4", "5", "4.5")], "a"),
        ([completion("b", "4", "5", "4.5"), completion("a", 5, 4)], "b"),
        # 0.6 both, but in floats 0.1 + 0.2 + 0.3 > 0.3 + 0.2 + 0.1.
        ([completion("a", 0.3, 0.2, 0.1), completion("b", 0.1, 0.2, 0.3)], "a"),
        ([completion("b", 0.1, 0.2, 0.3), completion("a", 0.3, 0.2, 0.1)], "b"),
        # Worse completions may be incomplete.
        ([{"response": "a"}, completion(None, 1), completion("b", 3)], "b"),
    ],
)
def test_the_best_completion(completions: list[Json], best: str) -> None:
    converted = convert(record(*completions))
    assert not isinstance(converted, Dropped), converted
    assert converted["output"] == best


def test_texts_are_kept_as_published() -> None:
    text = "  def f():\n\treturn 'ü\u2028'\n"
    converted = convert(record(completion(text, 5), instruction=f"\n{text}"))
    assert converted == {"instruction": f"\n{text}", "input": "", "output": text}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"completions": [completion("a", 5)]}, "missing instruction"),
        (record(completion("a", 5), instruction=None), "missing instruction"),
        (record(completion("a", 5), instruction=" \n"), "empty instruction"),
        ({"instruction": "Q"}, "missing completions"),
        ({"instruction": "Q", "completions": "a"}, "missing completions"),
        (record(), "missing completions"),
        (record(completion("a", 5), None), "malformed completion"),
        (record(completion("a", "N/A"), {"response": "b"}), "no numeric rating"),
        (record(completion(None, 5), completion("b", 1)), "missing best response"),
        (record({"annotations": {"honesty": {"Rating": 5}}}), "missing best response"),
        (record(completion(" ", 5), completion("b", 1)), "empty best response"),
        (record(completion("a\ud800", 5)), "invalid Unicode"),
        (record(completion("a", 5), instruction="\udfff"), "invalid Unicode"),
    ],
)
def test_dropped_with_a_reason(broken: Json, reason: str) -> None:
    assert convert(broken) == Dropped(reason)


ratings = st.lists(
    st.one_of(
        st.sampled_from(["1", "2", "3", "4", "5", "N/A"]),
        st.integers(1, 5),
        st.sampled_from([1.5, 4.5, None, math.nan]),
    ),
    max_size=4,
)


@given(st.lists(ratings, min_size=1, max_size=4))
def test_the_first_of_the_highest_is_kept(lists: list[list[object]]) -> None:
    """No rating is higher, and no earlier one is equal."""
    completions = [completion(str(i), *scored) for i, scored in enumerate(lists)]
    averages = [average_rating(c) for c in completions]
    converted = convert(record(*completions))
    if all(average is None for average in averages):
        assert converted == Dropped("no numeric rating")
        return
    assert not isinstance(converted, Dropped)
    best = int(converted["output"])
    highest = averages[best]
    assert highest is not None
    assert all(average is None or average <= highest for average in averages)
    assert highest not in averages[:best]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 3))
def test_not_applicable_equals_absent(numbers: list[int], index: int) -> None:
    """The mean of the numbers, wherever an N/A stands between them."""
    scored = [*map(str, numbers)]
    scored.insert(index, "N/A")
    expected = Fraction(sum(numbers), len(numbers))
    assert average_rating(completion("x", *scored)) == expected


FIELDS = (
    *("instruction", "question", "answer", "answers", "problem", "solution", "generations"),
    *("correctness_math_verify", "is_reasoning_complete", "refined_cot", "image_path", "more"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RATED = st.dictionaries(st.sampled_from(ASPECTS), st.fixed_dictionaries({"Rating": JSON}))
COMPLETION = st.fixed_dictionaries({}, optional={"response": JSON, "annotations": JSON | RATED})
# Building the alphabet of st.text() takes seconds on a busy machine.
ANY = {**dict.fromkeys(FIELDS, JSON), "completions": JSON | st.lists(COMPLETION, max_size=4)}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries({}, optional=ANY), JSON)
def test_no_json_value_raises(value: Json, other: object) -> None:
    """Converted records can be written as UTF-8."""
    for converter in CONVERTERS.values():
        converted = converter.convert(value)
        if not isinstance(converted, Dropped):
            row = converted.record if isinstance(converted, Kept) else converted
            json.dumps(row, ensure_ascii=False).encode()
        if converter.identity is not None:
            converter.identity.key(value)
            converter.identity.key(other)


# ---------------------------------------------------------------- the folder

FILES = {"ultrafeedback.jsonl", "dataset_info.json", "report.json"}


def test_folder_and_report(tmp_path: Path) -> None:
    """Seven lines and a blank one: Q0, Q1 and Q2 are kept, four reasons drop one record each."""
    source = tmp_path / "in.jsonl"
    lines = [json.dumps(r) for r in (good(0), {"instruction": "Q"}, good(1))]
    lines += ['{"instruction": ', "", json.dumps(record(completion("a", "N/A"))), "[]"]
    lines += [json.dumps(good(2))]
    source.write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "deep" / "out"
    report = prepare("ultrafeedback", str(source), out, limit=None, seed=0)

    data = out / "ultrafeedback.jsonl"
    rows = [{"instruction": f"Q{i}", "input": "", "output": f"A{i}"} for i in range(3)]
    assert read_lines(data) == rows
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    info = {"ultrafeedback": {"file_name": "ultrafeedback.jsonl", "columns": columns}}
    assert json.loads((out / "dataset_info.json").read_text()) == info
    reasons = "malformed JSON, missing completions, no numeric rating, record is not an object"
    assert json.loads((out / "report.json").read_text()) == {
        "name": "ultrafeedback",
        "source": str(source),
        "files": ["in.jsonl"],
        "read": 7,
        "kept": 3,
        "dropped": dict.fromkeys(reasons.split(", "), 1),
        "sampled": 3,
        "limit": None,
        "seed": 0,
        "sample": "random",
        "file_name": "ultrafeedback.jsonl",
        "sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
    }
    assert report == Report.model_validate_json((out / "report.json").read_bytes())
    assert {p.name for p in out.iterdir()} == FILES
    assert [p.name for p in out.parent.iterdir()] == ["out"], "scratch files are left"


def test_line_that_is_not_utf8_is_counted(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + json.dumps(good(0)).encode() + b'\n{"a": "\xff"}\n')
    report, _ = run(source, tmp_path / "out")
    assert (report.kept, report.dropped) == (1, {"malformed JSON": 1})


def test_unusual_characters_survive(tmp_path: Path) -> None:
    """U+2028 is not a line break in JSON Lines, and nothing is escaped."""
    text = "a\u2028b\n\U0001f600 ü"
    source = write_lines(tmp_path / "in.jsonl", [record(completion(text, 5)), good(1)])
    prepare("ultrafeedback", str(source), tmp_path / "out", limit=2, seed=1)
    lines = (tmp_path / "out" / "ultrafeedback.jsonl").read_bytes().split(b"\n")
    assert len(lines) == 3
    assert {json.loads(line)["output"] for line in lines[:2]} == {text, "A1"}
    assert "😀 ü".encode() in b"".join(lines)


# ---------------------------------------------------------------- sampling


def sample(tmp_path: Path, n: int, limit: int | None, seed: int) -> list[str]:
    """The answers from records 0 to n - 1, of which every third is dropped."""
    records = [good(i) if i % 3 else {"instruction": "Q"} for i in range(n)]
    source = write_lines(tmp_path / "in.jsonl", records)
    out = tmp_path / f"out-{n}-{limit}-{seed}"
    return run(source, out, limit=limit, seed=seed)[1]


def test_a_sample_is_the_start_of_a_seeded_shuffle(tmp_path: Path) -> None:
    """Of 30 records 0, 3, 6, ... are dropped; the other 20 are shuffled as documented."""
    answers = [f"A{i}" for i in range(30) if i % 3]
    expected = list(answers)
    random.Random(7).shuffle(expected)
    assert sample(tmp_path, 30, None, 7) == answers
    for limit in (3, 8, 99):
        assert sample(tmp_path, 30, limit, 7) == expected[:limit]
    assert sample(tmp_path, 30, 8, 8) != expected[:8]


def test_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [good(i) for i in range(50)])
    outs = [tmp_path / "a", tmp_path / "b"]
    hashes = {prepare("ultrafeedback", str(source), o, limit=20, seed=3).sha256 for o in outs}
    assert len(hashes) == 1
    for name in FILES:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()


# ---------------------------------------------------------------- sources


def as_gzip(folder: Path, records: list[Json]) -> Path:
    return write_lines(folder / "x.jsonl.gz", records)


def as_list(folder: Path, records: list[Json]) -> Path:
    path = folder / "x.json"
    path.write_text(json.dumps(records, indent=2), encoding="utf-8")
    return path


def as_parquet(folder: Path, records: list[Json]) -> Path:
    path = folder / "x.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return path


def as_folder(folder: Path, records: list[Json]) -> Path:
    path = folder / "many"
    write_lines(path / "b.jsonl", records[3:])
    write_lines(path / "a.jsonl", records[:3])
    (path / "README.md").write_text("not data")
    return path


@pytest.mark.parametrize("write", [as_gzip, as_list, as_parquet, as_folder])
def test_every_kind_of_source(write: Callable[[Path, list[Json]], Path], tmp_path: Path) -> None:
    """The same records in each form; the files of a folder in the order of their names."""
    source = write(tmp_path, [good(i) for i in range(7)])
    report, answers = run(source, tmp_path / "out")
    assert answers == [f"A{i}" for i in range(7)]
    assert report.files == (["a.jsonl", "b.jsonl"] if write is as_folder else [source.name])


def fake_datasets(monkeypatch: pytest.MonkeyPatch, load: Callable[..., object]) -> None:
    module = types.ModuleType("datasets")
    module.load_dataset = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


@pytest.mark.parametrize(
    ("name", "source", "configuration"),
    [
        ("ultrafeedback", "openbmb/UltraFeedback", ()),
        ("gsm8k", "openai/gsm8k", ("main",)),
        ("gsm8k", "me/gsm8k-cleaned", ()),
    ],
)
def test_hub_id(
    name: str, source: str, configuration: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """openai/gsm8k has two configurations; other sets have one."""

    def load(hub_id: str, *config: str, split: str) -> list[Json]:
        assert (hub_id, config, split) == (source, configuration, "train")
        return [{**good(0), "question": "q", "answer": "a\n#### 1"}]

    fake_datasets(monkeypatch, load)
    report = prepare(name, source, tmp_path / "out")
    assert (report.kept, report.files) == (1, [])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionError("no route"), MissingDependencyError),
        (FileNotFoundError("no route"), ConfigError),
        (ValueError("no route"), ConfigError),
    ],
)
def test_hub_errors(
    error: Exception, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the call and the option for a local file; nothing is written."""

    def load(name: str, split: str) -> None:
        raise error

    fake_datasets(monkeypatch, load)
    with pytest.raises(kind, match=r"load_dataset\('a/b', split='train'\).*no route") as caught:
        prepare("ultrafeedback", "a/b", tmp_path / "out")
    assert "--source PATH" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_hub_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"pip install datasets$"):
        prepare("ultrafeedback", "a/b", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"hello", "unknown ending"),
        ("x.json", b"{}", "must hold a list of records, not dict"),
        ("x.json", b'{"a": 1}\n{"a": 2}\n', "rename it to .jsonl"),
        ("x.jsonl.gz", b"not gzip", "cannot be read"),
        ("x.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-12], "cannot be read"),
        ("x.parquet", b"not parquet at all", "cannot be read"),
        ("x.jsonl", b"", "no record to keep .0 read."),
        ("x.jsonl", b"{}\nnot json\n", "2 read; malformed JSON: 1; missing instruction: 1"),
    ],
)
def test_unusable_file(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    source = tmp_path / name
    source.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        prepare("ultrafeedback", str(source), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == [name], "nothing is written"


@pytest.mark.parametrize("source", ["no/such/file.jsonl", "/no/such/folder", "a b", "./x", "", " "])
def test_source_that_does_not_exist(source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist.*hub id"):
        prepare("ultrafeedback", source, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"holds no \.jsonl"):
        prepare("ultrafeedback", str(tmp_path), tmp_path / "out")


# ---------------------------------------------------------------- settings


def test_unknown_name_names_the_choices_and_a_near_match(tmp_path: Path) -> None:
    choices = f"is unknown. Choose from: {', '.join(CONVERTERS)}. Did you mean 'ultrafeedback'?"
    with pytest.raises(ConfigError) as caught:
        prepare("UltraFeedbak", "x.jsonl", tmp_path / "out")
    assert str(caught.value) == f"data set 'UltraFeedbak' {choices}"


@pytest.mark.parametrize(("option", "value"), [("limit", 0), ("limit", -3), ("seed", -1)])
def test_impossible_number(option: str, value: int, source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--{option}: {value}"):
        run(source, tmp_path / "out", **{option: value})


def test_same_settings_overwrite_the_folder(source: Path, tmp_path: Path) -> None:
    """Without a limit the seed is not used."""
    run(source, tmp_path / "out", seed=1)
    write_lines(source, [good(5), good(6)])
    assert run(source, tmp_path / "out", seed=2)[1] == ["A5", "A6"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 2, "seed": 1}, "limit 3 there and 2 now"),
        ({"limit": None, "seed": 1}, "limit 3 there and None now"),
        ({"limit": 3, "seed": 2}, "seed 1 there and 2 now"),
        ({"limit": 3, "seed": 1, "source": "other.jsonl"}, "source .* there and .*other"),
    ],
)
def test_a_folder_of_other_settings(settings: Json, message: str, tmp_path: Path) -> None:
    for name in ("in.jsonl", "other.jsonl"):
        write_lines(tmp_path / name, [good(i) for i in range(5)])
    out = tmp_path / "out"
    prepare("ultrafeedback", str(tmp_path / "in.jsonl"), out, limit=3, seed=1)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    source = tmp_path / settings.pop("source", "in.jsonl")
    with pytest.raises(ConfigError, match=message):
        prepare("ultrafeedback", str(source), out, **settings)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset_info.json", "{}", "is not empty and has no report.json"),
        ("report.json", "{}", "is not the report of a prepared data set"),
        ("report.json", "oops", "is not the report of a prepared data set"),
    ],
)
def test_a_foreign_folder_is_refused(name: str, content: str, message: str, source: Path) -> None:
    out = source.with_name("out")
    out.mkdir()
    (out / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        run(source, out)
    assert {p.name: p.read_text() for p in out.iterdir()} == {name: content}


def test_out_must_not_be_a_file_or_hold_the_source(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a file"):
        prepare("ultrafeedback", str(source), source)
    with pytest.raises(ConfigError, match="holds the source"):
        prepare("ultrafeedback", str(source), tmp_path)
    with pytest.raises(ConfigError, match="holds the source"):
        prepare("ultrafeedback", str(tmp_path), tmp_path)


def test_nothing_is_left_after_a_crash(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(path: Path) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("dft_factory.data.prepare.sha256_of", crash)
    with pytest.raises(KeyboardInterrupt):
        run(source, source.with_name("out"))
    assert [p.name for p in source.parent.iterdir()] == ["in.jsonl"]


# ---------------------------------------------------------------- guards

GUARDS = pytest.mark.parametrize(
    ("name", "option", "noun"),
    [("nq", "exclude", "question"), ("gsm8k", "decontaminate", "problem")],
)


def guarded(name: str, option: str, guard: str, folder: Path) -> None:
    row = {"question": "q", "answer": ["x"], **good(0)}
    source = write_lines(folder / "in.jsonl", [row])
    value: Any = guard if option == "exclude" else [guard]
    prepare(name, str(source), folder / "out", **{option: value})


@GUARDS
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no record"),
        ('{"question": "q"}\n{"answer": ["x"]}\n', "record 2 has no {noun}"),
        ("{\n", "record 1 has no {noun}"),
    ],
)
def test_an_unusable_guard_is_refused(
    name: str, option: str, noun: str, content: str, message: str, tmp_path: Path
) -> None:
    guard = tmp_path / "guard.jsonl"
    guard.write_text(content)
    with pytest.raises(ConfigError, match=f"^--{option}: .*{message.format(noun=noun)}"):
        guarded(name, option, str(guard), tmp_path)
    assert not (tmp_path / "out").exists()


@GUARDS
@pytest.mark.parametrize("guard", ["no/such/file.jsonl", "org/name", "", "x.txt"])
def test_a_missing_guard(name: str, option: str, noun: str, guard: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^--{option}: .* does not exist"):
        guarded(name, option, guard, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "option"),
    [("ultrafeedback", "exclude"), ("wethink", "exclude"), ("nq", "decontaminate")],
)
def test_other_sets_take_no_guard(name: str, option: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--{option}: .*{name!r} does not take it"):
        guarded(name, option, str(tmp_path / "in.jsonl"), tmp_path)
