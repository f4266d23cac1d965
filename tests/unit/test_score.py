"""``generate`` and ``score``: two steps that share only a folder."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from dft_eval.benchmark import JudgeChoice, Request
from dft_eval.benchmarks import evaluate, score
from dft_eval.errors import EvaluationError, UsageError
from dft_eval.generation.run import Decoding
from dft_eval.results import only_writer, read_items, read_results
from tests.conftest import Bench
from tests.support.openai_server import FakeServer, serve
from tests.support.vlm_tables import mathvision_row, write_table

NQ = [{"question": "who wrote it", "answer": ["Lee"]}, {"question": "where", "answer": ["Rome"]}]
PYTHON = {
    "task_id": "Python/0",
    "prompt": "def one():\n",
    "test": "def check(candidate):\n    assert candidate() == 1\ncheck(one)",
}
EVALPLUS = {
    "task_id": "HumanEval/0",
    "prompt": "def one(x):\n",
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "base_input": [[1]],
    "plus_input": [[float("inf")], [[1, {"a": None}]]],
    "atol": 0,
}


def write_data(folder: Path) -> dict[str, Path]:
    """A small set of each benchmark that needs no toolchain."""
    folder.mkdir()
    for name, rows in (("nq", NQ), ("humaneval-python", [PYTHON]), ("plus", [EVALPLUS])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    write_table(folder / "MathVision.tsv", [mathvision_row(0, "8"), mathvision_row(1, "9")])
    return {
        "nq": folder / "nq.jsonl",
        "multipl-e": folder,
        "mathvision": folder,
        "humaneval": folder / "plus.jsonl",
        "humaneval+": folder / "plus.jsonl",
    }


def answer(prompt: str) -> str:
    return "    return 1\n" if "def " in prompt else "Lee" if "wrote" in prompt else "It is 8"


def request_of(data: dict[str, Path], server: FakeServer, out: Path, name: str) -> Request:
    judge = JudgeChoice("rules") if name == "mathvision" else None
    options = {
        "backend": "openai",
        "base_url": server.url,
        "own_max_new_tokens": True,
        "judge": judge,
    }
    return Request("tiny", out, "base", data=data.get(name), limit=2, **options)


def result_files(folder: Path) -> dict[str, str]:
    files = [folder / "results.json", *folder.glob("*.items.jsonl")]
    return {path.name: path.read_text() for path in files}


@pytest.mark.parametrize(
    "name", ["nq", "multipl-e", "mathvision", "humaneval", "humaneval+", "python-basics"]
)
def test_completions_are_scored_without_model_and_data(name: str, tmp_path: Path) -> None:
    """The same results.json and items as eval's; also in a folder that was moved."""
    data = write_data(tmp_path / "data")
    with serve(FakeServer(answer, talks=False)) as server:
        evaluate([name], request_of(data, server, tmp_path / "whole", name))
        evaluate([name], request_of(data, server, tmp_path / "generated", name), scored=False)
    assert not (tmp_path / "generated/results.json").exists()
    assert not list((tmp_path / "generated").glob("*.items.jsonl"))
    shutil.rmtree(tmp_path / "data")
    shutil.move(tmp_path / "generated", tmp_path / "elsewhere")
    score(tmp_path / "elsewhere")
    assert result_files(tmp_path / "elsewhere") == result_files(tmp_path / "whole")
    before = result_files(tmp_path / "whole")
    score(tmp_path / "whole")
    assert result_files(tmp_path / "whole") == before
    (row,) = read_results(tmp_path / "whole").results
    assert row.score is not None
    assert row.score > 0 or name == "python-basics"


def test_two_commands_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second waits: the first writes generation.json from what it read at its start."""
    data, out = write_data(tmp_path / "data"), tmp_path / "out"
    second: list[Thread] = []

    def answer_beside_another(prompt: str) -> str:
        if "wrote" in prompt and not second:
            words = (["humaneval"], request_of(data, server, out, "humaneval"))
            second.append(Thread(target=evaluate, args=words))
            second[0].start()
            second[0].join(5)  # without the lock it ends here
        return answer(prompt)

    with serve(FakeServer(answer_beside_another, talks=False)) as server:
        evaluate(["nq"], request_of(data, server, out, "nq"))
        second[0].join()
    assert f"{out}: waiting for another command that writes into it" in capsys.readouterr().err
    score(out)
    assert [row.benchmark for row in read_results(out).results] == ["nq", "humaneval"]


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(stream: Any, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with only_writer(tmp_path / "out"):
        assert "this file system has no locks" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["generation.json", "nq.chat.data.json", "nq.chat.completions.jsonl", "results.json"]
)
@pytest.mark.parametrize("content", [b"\xff\xfe", b"{"])
def test_files_that_are_damaged(name: str, content: bytes, tmp_path: Path) -> None:
    data, out = write_data(tmp_path / "data"), tmp_path / "out"
    with serve(FakeServer(answer, talks=False)) as server:
        evaluate(["nq"], request_of(data, server, out, "nq"))
    (out / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
        score(out)


def test_a_model_that_is_gone(text_bench: Bench, tmp_path: Path) -> None:
    """Two benchmarks of a model on this machine; the order of the results is kept."""
    data = write_data(tmp_path / "data")
    model = shutil.copytree(text_bench.model, tmp_path / "model")

    options = {"decoding": Decoding(max_new_tokens=4), "limit": 2, "dtype": "float32"}
    for name in ("python-basics", "nq"):
        for out, scored in (("evaluated", True), ("generated", False)):
            request = Request(str(model), tmp_path / out, "base", data=data.get(name), **options)
            evaluate([name], request, scored=scored)
    shutil.rmtree(model)
    score(tmp_path / "generated")
    assert result_files(tmp_path / "generated") == result_files(tmp_path / "evaluated")
    rows = read_results(tmp_path / "generated").results
    assert [row.benchmark for row in rows] == ["python-basics", "nq"]
    assert rows[0].decoding["dtype"] == "float32"


def test_generate_without_sandbox_or_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``eval`` refuses before its first request."""
    data = write_data(tmp_path / "data")

    def broken() -> None:
        raise EvaluationError("there is no sandbox here")

    monkeypatch.setattr("dft_eval.sandbox.check", broken)
    with serve(FakeServer(answer, talks=False)) as server:
        for name, message in (("humaneval", "no sandbox"), ("mathvision", "--judge openai")):
            request = replace(request_of(data, server, tmp_path / name, name), judge=None)
            with pytest.raises(EvaluationError, match=message):
                evaluate([name], request)
            assert server.seen == []
            evaluate([name], request, scored=False)
            with pytest.raises(EvaluationError, match=message):
                score(tmp_path / name)
            server.seen.clear()
    (row,) = score(tmp_path / "mathvision", judge=JudgeChoice("rules")).results
    assert (row.n_scored, row.score) == (2, 0.5)


def test_a_failed_prompt_is_unscored_with_its_reason(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")

    def refusal(body: dict[str, Any]) -> str:
        refused = "wrote" in str(body["messages"]) and body["max_tokens"] > 1
        return "too long for me" if refused else ""

    with serve(FakeServer(answer, talks=False, refusal=refusal)) as server:
        evaluate(["nq"], request_of(data, server, tmp_path / "out", "nq"), scored=False)
    with pytest.raises(EvaluationError, match="nq: 1 of 2"):
        score(tmp_path / "out")
    (row,) = read_results(tmp_path / "out").results
    items = read_items(tmp_path / "out" / row.items)
    assert [item.score for item in items] == [None, 0.0]
    assert "too long for me" in items[0].reason


def test_truncated_empty_and_length(tmp_path: Path) -> None:
    """nq allows 32 tokens: one answer of 40 words is cut, one is empty."""
    data = write_data(tmp_path / "data")
    long_answer = " ".join(["word"] * 40)
    with serve(
        FakeServer(lambda text: long_answer if "wrote" in text else "", talks=False)
    ) as server:
        (row,) = evaluate(["nq"], request_of(data, server, tmp_path / "out", "nq")).results
    assert (row.n_completions, row.n_truncated, row.n_empty) == (2, 1, 1)
    assert row.mean_tokens == (32 + 1) / 2  # this server counts an empty text as one token
    assert row.mean_entropy is None


def test_results_of_another_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other benchmark's earlier row is of another model."""
    data = write_data(tmp_path / "data")
    out = tmp_path / "out"
    with serve(FakeServer(answer, talks=False)) as server:
        evaluate(["nq"], request_of(data, server, out, "nq"))
        evaluate(["python-basics"], request_of(data, server, out, "python-basics"))
        assert len(read_results(out).results) == 2
        server.weights = "second"
        evaluate(["nq"], request_of(data, server, out, "nq"))
    assert "results of another model are replaced" in capsys.readouterr().err
    assert [row.benchmark for row in read_results(out).results] == ["nq"]


def test_a_retrained_model_is_refused_early(text_bench: Bench, tmp_path: Path) -> None:
    """In the folder of the earlier model, unless --fresh replaces it."""
    data = write_data(tmp_path / "data")
    model = shutil.copytree(text_bench.model, tmp_path / "model")
    options = {"data": data["nq"], "decoding": Decoding(max_new_tokens=4)}
    request = Request(str(model), tmp_path / "out", "x", **options)
    evaluate(["nq"], request, scored=False)
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UsageError, match=r"Use another --out, or --fresh"):
        evaluate(["nq"], request, scored=False)
    evaluate(["nq"], replace(request, fresh=True))
    (row,) = read_results(tmp_path / "out").results
    assert row.n_total == 2


def test_a_folder_without_completions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"dft-factory generate BENCHMARK"):
        score(tmp_path)
