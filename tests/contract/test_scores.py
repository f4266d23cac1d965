"""``score_task``: items that are scored during training, through the stock command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch  # activates dft-factory, before anything here imports llamafactory
from safetensors.torch import load_file

from dft_factory.errors import ConfigError, MissingDependencyError
from dft_factory.patch.scores import FILE_NAME
from tests.conftest import Bench
from tests.support import tasks
from tests.support.cli import Run, parseable, train

PROGRAM = "add=max"


def write_task(folder: Path, **fields: Any) -> Path:
    """``answers.yaml`` with its data: the questions of ``tiny_text``, each answered ``yes``."""
    rows = [
        {"question": f"Question number {i}: what is it?", "answer": "yes", "tests": "assert add"}
        for i in range(6)
    ]
    fields = {"metric": "exact_match", "max_new_tokens": 24, **fields}
    return tasks.write_task(folder, rows, stem="answers", **fields)


def teaching_config(bench: Bench, folder: Path, answer: str, **changes: Any) -> dict[str, Any]:
    """A training that teaches one answer to all questions within its steps."""
    rows = [
        {"instruction": f"Question number {i}: what is it?", "input": "", "output": answer}
        for i in range(8)
    ]
    (folder / "tiny_text.json").write_text(json.dumps(rows))
    info = {"tiny_text": {"file_name": "tiny_text.json"}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return bench.config(
        dataset_dir=str(folder),
        finetuning_type="sft",
        max_steps=50,
        learning_rate=1e-2,
        per_device_train_batch_size=8,
        **changes,
    )


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (run.folder / FILE_NAME).read_text().splitlines()]


def logged(run: Run, key: str = "score_answers") -> dict[int, float]:
    return {row["step"]: row[key] for row in run.log if key in row}


@pytest.mark.cli
def test_scores_are_those_of_the_checkpoints(text_bench: Bench, tmp_path: Path) -> None:
    """At steps 0, 20, 40 and the last; equal to `dft-factory eval` on the same weights."""
    from dft_eval.benchmark import Request
    from dft_eval.benchmarks import evaluate
    from dft_eval.generation.run import Decoding
    from dft_eval.results import read_items

    task = write_task(tmp_path)
    config = teaching_config(text_bench, tmp_path, "yes", save_strategy="steps", save_steps=20)
    run = train({**config, "score_task": str(task), "score_steps": 20}, tmp_path / "run").ok()
    assert list(logged(run)) == [0, 20, 40, 50]
    assert logged(run)[0] == 0.0
    assert logged(run)[50] == 1.0
    assert [line["step"] for line in lines(run)] == [0, 20, 40, 50]
    assert [line["score"] for line in lines(run)] == list(logged(run).values())
    assert [row["step"] for row in run.log if "nll" in row] == list(range(1, 51))
    assert "score_answers 0 -> 1 (first -> last of 4" in run.output
    for step in (20, 40):
        out = tmp_path / f"eval-{step}"
        own: dict[str, Any] = {"decoding": Decoding(batch_size=8), "own_max_new_tokens": True}
        request = Request(str(run.folder / f"checkpoint-{step}"), out, "sft", **own)
        (result,) = evaluate([str(task)], request).results
        (line,) = (line for line in lines(run) if line["step"] == step)
        assert (line["score"], line["metric"]) == (result.score, "exact_match")
        assert [(row["id"], row["reason"]) for row in line["items"]] == [
            (item.id, item.reason) for item in read_items(out / result.items)
        ]
        assert line["decoding"]["task_sha256"] == result.decoding["task_sha256"]


@pytest.mark.cli
@pytest.mark.parametrize("ranks", [1, 2])
def test_training_is_the_same_bit_for_bit(ranks: int, text_bench: Bench, tmp_path: Path) -> None:
    """Logs and weights, with dropout and shuffling, which draw random numbers."""
    config = text_bench.config(
        finetuning_type="dft_lora",
        lora_dropout=0.3,
        disable_shuffling=False,
        max_steps=6,
        per_device_train_batch_size=2,
        logging_steps=1,
    )
    task = write_task(tmp_path)
    unscored = train(config, tmp_path / "plain", ranks=ranks).ok()
    scores = {"score_task": str(task), "score_steps": 2, "score_limit": 3}
    scored = train({**config, **scores}, tmp_path / "scored", ranks=ranks).ok()
    assert list(logged(scored)) == [0, 2, 4, 6]
    assert [line["n_total"] for line in lines(scored)] == [3, 3, 3, 3]
    weights = [load_file(run.folder / "adapter_model.safetensors") for run in (unscored, scored)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    rows = [
        [(row["step"], row["loss"], row["nll"]) for row in run.log if "nll" in row]
        for run in (unscored, scored)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 6


@pytest.mark.cli
def test_programs_run_in_the_sandbox_at_every_evaluation(text_bench: Bench, tmp_path: Path) -> None:
    fields = {"metric": "pass@1", "answer": None, "tests": "tests", "name": "sums+"}
    task = write_task(tmp_path, **fields, max_new_tokens=48)
    rows = [{"question": f"Question number {i}: what is it?"} for i in range(2)]
    tests = {"tests": "assert add(1, 2) == 2"}
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps({**r, **tests})}\n" for r in rows))
    evaluation = {"eval_dataset": "tiny_text", "eval_strategy": "steps", "eval_steps": 40}
    config = {**teaching_config(text_bench, tmp_path, PROGRAM, **evaluation), "max_steps": 100}
    run = train({**config, "score_task": str(task)}, tmp_path / "run").ok()
    assert list(logged(run, "score_sums_plus")) == [0, 40, 80, 100]
    assert logged(run, "score_sums_plus")[0] == 0.0
    assert logged(run, "score_sums_plus")[100] == 1.0
    last = lines(run)[-1]
    assert last["sandbox"] in ("bubblewrap", "landlock", "docker")
    assert [row["completion"] for row in last["items"]] == [PROGRAM] * 2


@pytest.mark.cli
def test_a_resumed_run_continues_its_scores(text_bench: Bench, tmp_path: Path) -> None:
    task = write_task(tmp_path)
    config = text_bench.config(max_steps=4, save_strategy="steps", save_steps=2)
    config |= {"score_task": str(task), "score_steps": 2}
    run = train(config, tmp_path / "run").ok()
    before = lines(run)
    resumed = train(
        {**config, "resume_from_checkpoint": str(run.folder / "checkpoint-2")}, tmp_path / "run"
    ).ok()
    assert [line["step"] for line in lines(resumed)] == [0, 2, 4]
    assert lines(resumed)[:2] == before[:2]
    assert list(logged(resumed)) == [0, 2, 4]


@pytest.mark.cli
def test_a_missing_verdict_does_not_end_training(text_bench: Bench, tmp_path: Path) -> None:
    """``extract`` takes more than its two seconds on the learned answer."""
    task = write_task(tmp_path, extract="((?:a+)+)b", max_new_tokens=60)
    config = teaching_config(text_bench, tmp_path, "a" * 60, score_task=str(task), score_steps=20)
    run = train({**config, "score_limit": 1, "max_steps": 60}, tmp_path / "run").ok()
    scored = {line["step"]: line["score"] for line in lines(run)}
    failed = [step for step, score in scored.items() if score is None]
    assert failed, scored
    assert logged(run) == {step: score for step, score in scored.items() if score is not None}
    assert run.output.count("no score_answers: 1 of 1 items unscored") == 1
    steps = ", ".join(map(str, failed))
    assert run.output.count(f"score_answers could not be scored at steps {steps}") == 1
    assert [row["step"] for row in run.log if "nll" in row] == list(range(1, 61))


@pytest.mark.cli
def test_a_model_that_reads_pictures_is_refused(vl_bench: Bench, tmp_path: Path) -> None:
    task = write_task(tmp_path)
    config = vl_bench.config(score_task=str(task), score_steps=1)
    run = train(config, tmp_path / "run")
    assert run.status == 1
    assert f"score_task: {str(task)!r}: models that read pictures" in run.output
    assert "Traceback" not in run.output


EVALUATED = {"eval_strategy": "steps", "eval_steps": 2, "val_size": 0.1}
TASK = "TASK"  # stands for the path of a good task file

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown benchmark": (
        {"score_task": "gsm8", "score_steps": 2},
        "score_task: 'gsm8': 'gsm8' is no benchmark of text alone. Choose from: humaneval, ",
    ),
    "pictures": ({"score_task": "mathverse", "score_steps": 2}, "no benchmark of text alone"),
    "harness": ({"score_task": "lm-eval:arc_easy", "score_steps": 2}, "of text alone"),
    "no such file": ({"score_task": "no.yaml", "score_steps": 2}, "No such file"),
    "steps": ({"score_task": TASK, "score_steps": 0}, "score_steps: 0: give a number of 1 or"),
    "limit": (
        {"score_task": TASK, "score_steps": 2, "score_limit": 0},
        "score_limit: 0: give a number of 1 or more.",
    ),
    "steps alone": ({"score_steps": 2}, "score_steps: 2 has no effect without score_task"),
    "limit alone": ({"score_limit": 2}, "score_limit: 2 has no effect without score_task"),
    "never": ({"score_task": TASK}, "eval_strategy is no. Write score_steps: N"),
    "stock": (
        {"score_task": TASK, "score_steps": 2, "finetuning_type": "lora"},
        "has no effect with finetuning_type: 'lora'",
    ),
    "optimizer": (
        {"score_task": TASK, "score_steps": 2, "optim": "schedule_free_adamw"},
        "does not work with optim: 'schedule_free_adamw'",
    ),
    "sharded": (
        {"score_task": TASK, "score_steps": 2, "fsdp": "full_shard"},
        "does not work with ZeRO-3 and FSDP",
    ),
}


def _parse(**changes: Any) -> Any:
    from llamafactory.hparams import get_train_args

    return get_train_args(parseable(**{"finetuning_type": "dft", **changes}))


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_the_model_is_loaded(name: str, tmp_path: Path) -> None:
    changes, message = REFUSED[name]
    task = str(write_task(tmp_path))
    values = {key: task if value == TASK else value for key, value in changes.items()}
    with pytest.raises(ConfigError) as refusal:
        _parse(**values)
    assert message in str(refusal.value)


def test_zero3_is_refused(tmp_path: Path) -> None:
    """As transformers knows it: while a configuration of stage 3 is alive."""
    from transformers.integrations import HfDeepSpeedConfig

    active = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    with pytest.raises(ConfigError, match="does not work with ZeRO-3 and FSDP"):
        _parse(score_task=str(write_task(tmp_path)), score_steps=2)
    del active


def test_accepted(tmp_path: Path) -> None:
    task = str(write_task(tmp_path))
    _parse(score_task=task, score_steps=2, score_limit=3)
    _parse(score_task=task, **EVALUATED)
    _parse(score_task=task, score_steps=2, finetuning_type="sft_lora")
    _parse(score_task="python-basics", score_steps=1)


def test_a_task_that_cannot_be_scored_is_refused(tmp_path: Path) -> None:
    task = write_task(tmp_path, metric="judge")
    with pytest.raises(ConfigError, match="metric judge asks another model"):
        _parse(score_task=str(task), score_steps=2)
    write_task(tmp_path, metric="exactmatch")
    with pytest.raises(ConfigError, match="metric: 'exactmatch' is unknown"):
        _parse(score_task=str(task), score_steps=2)
    write_task(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n{"question": "c"}\n')
    with pytest.raises(ConfigError, match=r"rows.jsonl, line 2: .*answer"):
        _parse(score_task=str(task), score_steps=2)
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(MissingDependencyError, match=r"its data is not here: .*rows\.jsonl"):
        _parse(score_task=str(task), score_steps=2)


def test_programs_need_a_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has none: what looks for each sandbox finds nothing."""
    from dft_eval.sandbox import backends, host, landlock, selection

    monkeypatch.setattr(selection, "_selected", None)
    monkeypatch.setattr(host.shutil, "which", lambda _: None)
    monkeypatch.setattr(host, "_bundled", lambda: None)
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    host.bubblewrap.cache_clear()
    backends._engine.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"^score_task: 'python-basics': .*bubblewrap"):
        _parse(score_task="python-basics", score_steps=1)
    host.bubblewrap.cache_clear()
    backends._engine.cache_clear()
