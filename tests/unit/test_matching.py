"""The temperature at which a model has a given entropy, with a tiny checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dft_eval.benchmark import Request
from dft_eval.benchmarks import evaluate, score
from dft_eval.errors import UsageError
from dft_eval.flow import read_generation
from dft_eval.generation.run import Decoding, Prompt
from dft_eval.generation.shard import Shard
from dft_eval.matching import mean_entropy, solve
from dft_eval.models import LocalModel
from dft_factory.cli.evaluate import check_evaluation
from tests.conftest import Bench
from tests.support import tasks

PROMPTS = [Prompt(f"q{i}", f"print {i}", chat=True) for i in range(4)]
DECODING = Decoding(max_new_tokens=6, batch_size=4)


def write_task(folder: Path) -> Path:
    rows = [{"question": f"print {i}", "answer": str(i)} for i in range(6)]
    return tasks.write_task(folder, rows, metric="contains")


def test_the_temperature_gives_the_target(text_bench: Bench) -> None:
    backend = LocalModel(str(text_bench.model)).text
    at_one = mean_entropy(backend, PROMPTS, Decoding(max_new_tokens=6, temperature=1.0))
    for share in (0.6, 1.0):
        temperature, entropy = solve(backend, PROMPTS, DECODING, share * at_one)
        assert entropy == pytest.approx(share * at_one, rel=0.03)
        matched = Decoding(max_new_tokens=6, batch_size=4, temperature=temperature)
        assert mean_entropy(backend, PROMPTS, matched) == pytest.approx(entropy)
        assert (temperature < 1) == (share < 1)


def test_an_entropy_out_of_reach_is_refused(text_bench: Bench) -> None:
    backend = LocalModel(str(text_bench.model)).text
    with pytest.raises(UsageError, match=r"99\.000 nats a token are not reached"):
        solve(backend, PROMPTS, DECODING, 99.0)
    with pytest.raises(UsageError, match="greedy decoding"):
        solve(backend, PROMPTS, DECODING, 0.0)


def test_matching_a_model_to_itself(
    text_bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same prompts and seeds: the entropy of temperature 0.05 is found there, and recorded."""
    task = write_task(tmp_path)
    decoding = Decoding(max_new_tokens=6, batch_size=6, temperature=0.05)
    request = Request(str(text_bench.model), tmp_path / "cool", "base", decoding=decoding)
    (cool,) = evaluate([str(task)], request).results
    matched = replace(
        request,
        out=tmp_path / "matched",
        decoding=replace(decoding, temperature=1.0, samples=2),
        match_entropy=(tmp_path / "cool",),
    )
    (result,) = evaluate([str(task)], matched).results
    match = result.decoding["match_entropy"]
    assert match["target"] == cool.mean_entropy
    assert match["temperature"] == result.decoding["temperature"] == pytest.approx(0.05, abs=0.01)
    assert result.mean_entropy == pytest.approx(cool.mean_entropy, rel=0.05)
    assert result.metric == "avg@2"
    assert result.decoding_name == cool.decoding_name == "temperature 0.05"
    (tmp_path / "matched/results.json").unlink()
    assert score(tmp_path / "matched").results == [result]
    with pytest.raises(UsageError, match=r"no result of task \(completion\)"):
        evaluate([str(task)], replace(matched, prompt_style="completion", fresh=True))
    assert "is replaced" not in capsys.readouterr().err
    evaluate([str(task)], replace(request, decoding=replace(decoding, temperature=0.0)))
    assert "task at temperature 0.05, 1 sample(s) an item, is replaced" in capsys.readouterr().err


def test_shards_are_matched_once(text_bench: Bench, tmp_path: Path) -> None:
    """The second shard takes what the first one left, also where it would find another value."""
    task = write_task(tmp_path)
    decoding = Decoding(max_new_tokens=4, batch_size=6, temperature=0.05)
    request = Request(str(text_bench.model), tmp_path / "cool", "base", decoding=decoding)
    evaluate([str(task)], request)
    matched = replace(
        request,
        decoding=replace(decoding, temperature=1.0),
        match_entropy=(tmp_path / "cool",),
    )

    def temperature(number: int, limit: int | None = None) -> float:
        part = replace(matched, out=tmp_path / "parts", shard=Shard(number, 2), limit=limit)
        evaluate([str(task)], part, scored=False)
        run = read_generation(tmp_path / f"parts/shards/{number}-of-2").runs[0]
        assert run.match is not None
        assert run.match.temperature == run.request.decoding.temperature
        return run.match.temperature

    alone = evaluate([str(task)], replace(matched, out=tmp_path / "alone")).results[0]
    first = temperature(1)
    assert first == alone.decoding["temperature"]
    file = tmp_path / "parts/shards/task.chat.match.json"
    file.write_text(file.read_text().replace(str(first), "0.0625"))
    assert temperature(2) == 0.0625
    assert temperature(1) == 0.0625
    assert score(tmp_path / "parts").results[0].decoding["match_entropy"]["temperature"] == 0.0625
    assert temperature(2, limit=5) == pytest.approx(first, abs=0.01)  # other prompts
    assert temperature(2, limit=5) != 0.0625


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--temperature", "0.7"], "leave --temperature out"),
        (["--backend", "openai", "--base-url", "http://127.0.0.1:1/v1"], "needs --backend hf"),
    ],
)
def test_options_that_do_not_go_with_it(words: list[str], says: str) -> None:
    command = ["nq", "--model", "m", "--out", "o", "--match-entropy", "a", "--match-entropy", "b"]
    check_evaluation(command)
    with pytest.raises(UsageError, match=says):
        check_evaluation([*command, *words])
