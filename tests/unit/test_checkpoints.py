"""``--checkpoints``: which folders are evaluated, under which labels, into which folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dft_eval.benchmark import Request
from dft_eval.checkpoints import Checkpoint, find_checkpoints, requests_of_run
from dft_eval.errors import EvaluationError, UnscoredError, UsageError
from dft_eval.flow import training_of
from dft_eval.generation.run import Decoding
from dft_eval.generation.shard import Shard
from dft_eval.model_files import find_model, settings_sha256
from dft_eval.results import Training, read_results
from dft_eval.several_models import evaluate_all
from dft_eval.training_file import trained_steps
from dft_factory.cli.app import app
from tests.conftest import Bench
from tests.support.jsonl import write_lines

FILES = ("config.json", "model.safetensors", "tokenizer_config.json")


def write_state(folder: Path, step: int, best: str | None = None) -> None:
    state = {"global_step": step, "best_model_checkpoint": best, "log_history": []}
    (folder / "trainer_state.json").write_text(json.dumps(state))


def write_run(run: Path, *steps: int, final: bool = True) -> Path:
    """Folders as a training leaves them, with empty files."""
    for folder in [*(run / f"checkpoint-{step}" for step in steps), *([run] if final else [])]:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).write_text("{}")
        write_state(folder, int(folder.name.rpartition("-")[2]) if folder != run else max(steps))
    return run


def test_checkpoints_are_ordered_by_step_with_the_final_weights_last(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 100, 20, 9)
    (run / "checkpoint-best").mkdir()
    assert [row.step for row in find_checkpoints(run)] == [9, 20, 100, None]
    first, *_, last = find_checkpoints(run)
    assert (first.label("dft"), first.out(tmp_path)) == ("dft at step 9", tmp_path / "checkpoint-9")
    assert (last.label("dft"), last.out(tmp_path), last.folder) == ("dft", tmp_path, run)
    killed = write_run(tmp_path / "killed", 2, final=False)
    assert find_checkpoints(killed) == [Checkpoint(2, killed / "checkpoint-2")]


@pytest.mark.parametrize(
    ("every", "steps"),
    [(1, [10, 20, 30, 47]), (20, [20, 47]), (47, [47]), (1000, [47])],
)
def test_every_selects_multiples_and_the_last(tmp_path: Path, every: int, steps: list[int]) -> None:
    run = write_run(tmp_path / "run", 10, 20, 30, 47)
    assert [row.step for row in find_checkpoints(run, every)] == [*steps, None]


def test_incomplete_checkpoints_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 1, 2, 3, 4, final=False)
    (run / "checkpoint-1/trainer_state.json").unlink()
    (run / "checkpoint-2/model.safetensors").unlink()
    (run / "checkpoint-3/model.safetensors").rename(run / "checkpoint-3/zero_to_fp32.py")
    (run / "checkpoint-4/tokenizer_config.json").unlink()
    with pytest.raises(UsageError) as error:
        find_checkpoints(run)
    for part in (
        "checkpoint-1 has no trainer_state.json",
        "checkpoint-2 holds no weights. Remove it",
        "checkpoint-3 holds no weights but shards of ZeRO-3 or FSDP: merge them",
        "checkpoint-4 cannot be loaded: ",
        "no tokenizer in",
    ):
        assert part in str(error.value)
    with pytest.raises(UsageError, match="checkpoint-4 cannot") as error:
        find_checkpoints(run, 4)
    assert "checkpoint-1" not in str(error.value)


@pytest.mark.parametrize(
    ("folder", "every", "message"),
    [
        ("none", None, "there is no such folder. Give a training's output_dir"),
        ("run/checkpoint-2", None, r"It is a checkpoint itself: give .*run\."),
        ("run", 0, "--every 0: give a number"),
    ],
)
def test_a_wrong_folder_or_number_is_named(
    tmp_path: Path, folder: str, every: int | None, message: str
) -> None:
    write_run(tmp_path / "run", 2)
    with pytest.raises(UsageError, match=message):
        find_checkpoints(tmp_path / folder, every)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Give either --model or --checkpoints."),
        (("--model", "m", "--checkpoints", "run"), "not both 'm' and 'run'"),
        (("--model", "m", "--every", "2"), "--every 2 is for --checkpoints RUN_DIR. Leave it out"),
        (
            ("--checkpoints", "run", "--backend", "openai"),
            "--checkpoints run needs --backend hf: a server has one model",
        ),
    ],
)
@pytest.mark.parametrize("command", ["eval", "generate"])
def test_conflicting_options(
    tmp_path: Path, command: str, options: tuple[str, ...], message: str
) -> None:
    result = CliRunner().invoke(app, [command, "nq", "--out", str(tmp_path / "out"), *options])
    assert isinstance(result.exception, UsageError), result.output
    assert message in str(result.exception)


def test_steps_of_weights(tmp_path: Path) -> None:
    """The final weights may be those of an earlier, better checkpoint."""
    run = write_run(tmp_path / "run", 2, 4)
    assert trained_steps(str(run / "checkpoint-2")) == 2
    assert trained_steps(str(run)) == 4
    assert training_of(str(run / "checkpoint-2")) == Training(step=2)
    for folder in (run, run / "checkpoint-4"):
        write_state(folder, 4, best="elsewhere/run/checkpoint-2")
    (run / "checkpoint-2/model.safetensors").write_text("other")
    assert trained_steps(str(run / "checkpoint-4")) == 4
    assert trained_steps(str(run)) == 4
    (run / "model.safetensors").write_text("other")
    assert trained_steps(str(run)) == 2
    shutil.rmtree(run / "checkpoint-2")
    assert trained_steps(str(run)) is None
    write_state(run, 4, best="elsewhere/run/checkpoint-4")
    assert trained_steps(str(run)) == 4
    (run / "trainer_state.json").write_text("[]")
    with pytest.raises(UsageError, match=r"trainer_state\.json is no trainer state"):
        trained_steps(str(run))
    (run / "trainer_state.json").unlink()
    assert trained_steps(str(run)) is None
    assert training_of(str(run)) is None


def test_a_checkpoint_uses_the_tokenizer_of_its_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 2)
    files = find_model(str(run / "checkpoint-2"))
    before = settings_sha256(files)
    (run / "tokenizer_config.json").write_text('{"changed": 1}')
    assert files.tokenizer_folder() == run / "checkpoint-2"
    assert settings_sha256(files) == before
    (run / "checkpoint-2/tokenizer_config.json").unlink()
    assert files.tokenizer_folder() == run
    of_run = settings_sha256(files)
    (run / "tokenizer_config.json").write_text('{"changed": 2}')
    assert settings_sha256(files) != of_run  # completions depend on it
    for name in FILES[2:]:
        (run / "checkpoint-2" / name).write_text("{}")
    assert files.settings_folders == [files.folder]
    (run / "preprocessor_config.json").write_text("{}")
    assert files.settings_folders == [files.folder, run]
    (run / "checkpoint-2/processor_config.json").write_text("{}")  # transformers 5's name
    assert files.settings_folders == [files.folder]
    (run / "checkpoint-2/tokenizer_config.json").unlink()
    other = tmp_path / "run/other"
    shutil.move(run / "checkpoint-2", other)
    with pytest.raises(UsageError, match="no tokenizer"):
        find_model(str(other)).tokenizer_folder()


@pytest.fixture
def request_of(text_bench: Bench, tmp_path: Path) -> Request:
    """A run of two checkpoints: the first without a tokenizer, the second the final weights."""
    from safetensors.torch import load_file, save_file

    run = tmp_path / "run"
    for step, folder in ((2, run / "checkpoint-2"), (4, run / "checkpoint-4"), (4, run)):
        shutil.copytree(text_bench.model, folder, dirs_exist_ok=True)
        write_state(folder, step)
    weights = load_file(run / "checkpoint-2/model.safetensors")
    moved = {name: 1.5 * value for name, value in weights.items()}
    save_file(moved, run / "checkpoint-2/model.safetensors", metadata={"format": "pt"})
    for path in (run / "checkpoint-2").glob("*token*"):
        path.unlink()
    rows = [{"question": word, "answer": [word]} for word in ("circle", "square")]
    data = write_lines(tmp_path / "nq.jsonl", rows)
    decoding = Decoding(max_new_tokens=3)
    return Request(str(run), tmp_path / "out", "dft", data=data, decoding=decoding)


def test_results_per_checkpoint(request_of: Request, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal weights are run once."""
    out = request_of.out
    requests = requests_of_run(Path(request_of.model), request_of)
    evaluated = {row.out: results for row, results in evaluate_all(["nq"], requests)}
    assert list(evaluated) == [out / "checkpoint-2", out / "checkpoint-4", out]
    for folder, label, step in (
        (out / "checkpoint-2", "dft at step 2", 2),
        (out / "checkpoint-4", "dft at step 4", 4),
        (out, "dft", 4),
    ):
        results = read_results(folder)
        assert results == evaluated[folder]
        assert (results.label, results.training) == (label, Training(step=step))
        assert results.results[0].n_scored == 2
    shas = [row.model_sha256 for row in evaluated.values()]
    assert shas[0] != shas[1] == shas[2]
    stderr = capsys.readouterr().err
    assert "run: the same weights as checkpoint-4\nreusing 2 completions" in stderr
    assert stderr.count("reusing") == 1


def test_a_shard_reuses_completions_of_the_same_shard(
    request_of: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    part = replace(request_of, shard=Shard(2, 2))
    requests = requests_of_run(Path(request_of.model), part)
    assert len(list(evaluate_all(["nq"], requests, scored=False))) == 3
    stderr = capsys.readouterr().err
    assert "run: the same weights as checkpoint-4\nreusing 1 completions" in stderr
    name = "shards/2-of-2/nq.chat.completions.jsonl"
    final = (request_of.out / name).read_text()
    assert (request_of.out / "checkpoint-4" / name).read_text() == final


def test_unscored_items_stop_nothing(request_of: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    import dft_eval.several_models as module

    real = module.evaluate

    def evaluate(names: list[str], request: Request, **options: Any) -> Any:
        results = real(names, request, **options)
        if request.out.name == "checkpoint-2":
            raise UnscoredError("Items without a score (nq: 1 of 2)")
        return results

    monkeypatch.setattr(module, "evaluate", evaluate)
    requests = requests_of_run(Path(request_of.model), replace(request_of, limit=1))
    evaluations = evaluate_all(["nq"], requests)
    assert [next(evaluations)[0].out.name for _ in range(2)] == ["checkpoint-4", "out"]
    with pytest.raises(EvaluationError, match="dft at step 2: Items without a score"):
        next(evaluations)
