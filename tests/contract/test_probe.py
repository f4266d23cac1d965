"""The probe through LLaMA-Factory's own data and model code, on tiny checkpoints."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dft_factory.probe.measure import measure
from tests.conftest import Bench
from tests.support.cli import run_command


def recipe(bench: Bench, folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**bench.config(**changes), "output_dir": "never"}))
    return path


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs ``dft-factory probe args`` in this process; returns its exit status."""
    from dft_factory.cli import main

    def run(*args: object) -> int:
        monkeypatch.setattr(sys, "argv", ["dft-factory", "probe", *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return int(exit_.value.code or 0)

    return run


def quiet(label: str, done: int, total: int) -> None:
    """No progress."""


@pytest.fixture(params=["text", "vl"])
def bench(request: pytest.FixtureRequest) -> Bench:
    bench: Bench = request.getfixturevalue(f"{request.param}_bench")
    return bench


def test_the_command_on_text_and_pictures(
    bench: Bench, tmp_path: Path, probe: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two names for one model give the same numbers; four files; LLaMA-Factory prints nothing."""
    out = tmp_path / "out"
    config = recipe(bench, tmp_path, finetuning_type="dft_lora", per_device_train_batch_size=3)
    models = ("--model", bench.model, "--model", f"again={bench.model}")
    assert probe(config, "--out", out, *models, "--limit", 6, "cutoff_len=256") == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["model", "again"]
    assert lines[2] == "advice: finetuning_type: sft"
    assert lines[-1] == str(out / "probe.html")
    assert lines[5].startswith("collapse: unknown. learning_rate 0.001 with 3 examples a step")
    assert len(lines) == 7
    assert "full logits" not in printed.err
    names = {f"probe.{ending}" for ending in ("json", "md", "html", "png")}
    assert {path.name for path in out.iterdir()} == names
    result = json.loads((out / "probe.json").read_text())
    first, again = result["models"]
    assert first["counts"] == again["counts"]
    assert sum(first["counts"]) == first["n_tokens"] > 50
    assert first["n_examples"] == 6
    assert first["nll"] == pytest.approx(6.3, abs=0.5)  # random weights: the log of about 512
    ends = first["segments"]["end_of_turn"]
    assert ends["n_tokens"] == 6  # <|im_end|>, without the template's newline after it
    assert sum(row["n_tokens"] for row in first["segments"].values() if row) == first["n_tokens"]
    assert result["advice"]["choice"] == "sft"
    plan = {key: result["collapse"][key] for key in ("n_examples", "batch", "steps", "at_risk")}
    rows = len(json.loads(next(bench.data.glob("tiny_*.json")).read_text()))
    assert plan == {"n_examples": rows, "batch": 3, "steps": 1, "at_risk": None}
    assert any("<|im_start|>assistant" in row["before"] for row in first["ignored"])
    assert (out / "probe.png").read_bytes().startswith(b"\x89PNG")
    assert not Path("never").exists()


def test_log_probabilities_equal_full_logits(bench: Bench, tmp_path: Path) -> None:
    """The chunked head against a softmax over full logits, token by token, padding and all."""
    from llamafactory import data
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_model, load_tokenizer

    stock = bench.config(output_dir=str(tmp_path / "o"), finetuning_type="full")
    (measured,) = measure(bench.config(), {"base": None}, limit=8, progress=quiet)
    model_args, data_args, training_args, finetuning_args, _ = get_train_args(stock)
    module = load_tokenizer(model_args)
    template = data.get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    arguments = (template, model_args, data_args, training_args)
    dataset = data.get_dataset(*arguments, stage="sft", **module)
    model = load_model(module["tokenizer"], model_args, finetuning_args, False)
    collator = data.SFTDataCollatorWith4DAttentionMask(
        template=template, model=model, label_pad_token_id=-100, **module
    )
    expected: dict[tuple[int, ...], list[float]] = {}
    for example in dataset["train_dataset"]:
        batch = collator([example])
        labels = batch.pop("labels")[0].tolist()
        logps = model(**batch).logits[0].double().log_softmax(-1)
        positions = [i for i, label in enumerate(labels) if label != -100]
        key = tuple(labels[i] for i in positions)
        expected[key] = [logps[i - 1, labels[i]].item() for i in positions]
    n_tokens = 0
    for number in range(8):
        mine = measured.example == number
        key = tuple(measured.tokens[mine].tolist())
        logps = torch.tensor(expected[key], dtype=torch.float64)
        torch.testing.assert_close(measured.logps[mine].double(), logps, atol=2e-5, rtol=0)
        n_tokens += len(key)
        row = measured.rows[number]
        assert [row[i] for i in measured.position[mine].tolist()] == list(key)
    assert n_tokens == measured.logps.numel()


def test_weights_saved_in_bf16_are_probed_as_they_are_trained(
    text_bench: Bench, tmp_path: Path
) -> None:
    """Full fine-tuning without ``bf16: true`` computes in float32, whatever the weights' dtype."""
    from transformers import AutoModelForCausalLM

    models = {}
    for name, dtype in (("saved", torch.bfloat16), ("rounded", torch.float32)):
        folder = shutil.copytree(text_bench.model, tmp_path / name)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        model.to(dtype).save_pretrained(folder)
        models[name] = str(folder)
    saved, rounded = measure(text_bench.config(), models, limit=4, progress=quiet)
    assert torch.equal(saved.logps, rounded.logps)
    assert saved.logps.dtype == torch.float32


def test_seeded_samples_and_segments(text_bench: Bench) -> None:
    once, again, other = (
        measure(text_bench.config(), {"base": None}, limit=4, seed=seed, progress=quiet)[0]
        for seed in (0, 0, 1)
    )
    assert torch.equal(once.logps, again.logps)
    assert once.tokens.tolist() != other.tokens.tolist()
    (whole,) = measure(text_bench.config(), {"base": None}, limit=99, progress=quiet)
    texts: dict[str, str] = {}
    for token, segment in zip(whole.tokens.tolist(), whole.segments, strict=True):
        texts[segment] = texts.get(segment, "") + whole.decode([token])
    assert "half of eight" in texts["reasoning"]
    assert "<think>" in texts["format"]
    assert "</answer>" in texts["format"]
    assert texts["end_of_turn"] == "<|im_end|>" * 8
    assert "def add(a, b)" in texts["answer"]


def never_ends(bench: Bench, folder: Path) -> Path:
    """The tiny checkpoint trained on its data set except the end of each turn."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bench.model)
    model = AutoModelForCausalLM.from_pretrained(bench.model)
    data = measure(bench.config(), {"base": None}, limit=8, progress=quiet)[0]
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in data.rows], batch_first=True, padding_value=0
    )
    labels = torch.full_like(ids, -100)
    labels[data.example, data.position] = data.tokens
    labels[labels == tokenizer.eos_token_id] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with torch.random.fork_rng(devices=[]):
        for _ in range(160):
            optimizer.zero_grad()
            model(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_improbable_end_of_turn_needs_the_floor(
    text_bench: Bench, tmp_path: Path, probe: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Content and the newline after each turn are certain, each ``<|im_end|>`` is below 0.1."""
    model = never_ends(text_bench, tmp_path / "model")
    config = recipe(text_bench, tmp_path, model_name_or_path=str(model))
    assert probe(config, "--out", tmp_path / "out") == 0
    assert "advice: finetuning_type: dft, dft_weight: floor:0.1" in capsys.readouterr().out
    (model,) = json.loads((tmp_path / "out" / "probe.json").read_text())["models"]
    segments = model["segments"]
    assert segments["answer"]["mean"] > 0.8
    assert segments["end_of_turn"]["n_tokens"] == 8
    assert segments["end_of_turn"]["share_below_0.1"] == 1
    assert model["ignored"]
    assert all(row["p"] < 0.1 for row in model["ignored"])


def test_the_end_of_turn_is_that_of_the_training_record(text_bench: Bench) -> None:
    """Number and summed probability, by the record's own sums over the same tokens."""
    from transformers import AutoTokenizer

    from dft_factory.losses.token import STATISTICS, TokenLoss
    from dft_factory.patch.record import COLUMNS, sums_of

    (measured,) = measure(text_bench.config(), {"base": None}, limit=8, progress=quiet)
    stop = AutoTokenizer.from_pretrained(text_bench.model).convert_tokens_to_ids("<|im_end|>")
    rows = torch.zeros(1, len(STATISTICS))
    loss = TokenLoss(rows.sum(), rows, measured.logps, measured.tokens)
    sums = dict(zip(COLUMNS, sums_of(loss, torch.tensor([stop])).tolist(), strict=True))
    ends = torch.tensor([segment == "end_of_turn" for segment in measured.segments])
    assert sums["end_of_turn"] == ends.sum() == 8
    assert sums["end_of_turn_prob"] == pytest.approx(measured.logps[ends].exp().sum().item())


def test_a_lora_folder_is_probed_over_its_base(text_bench: Bench, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(text_bench.model)
    base.config._name_or_path = base.name_or_path = str(text_bench.model)
    adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    models = {"base": None, "lora": str(tmp_path / "adapter")}
    config = text_bench.config(finetuning_type="dft")
    base_measured, changed = measure(config, models, limit=4, progress=quiet)
    assert base_measured.tokens.tolist() == changed.tokens.tolist()
    assert not torch.equal(base_measured.logps, changed.logps)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("stage=dpo", "stage: 'dpo'"),
        ("dataset=none_such", "none_such"),
        ("template=none_such", "none_such"),
        ("no_such_setting=1", "no_such_setting"),
        ("--limit 0", "--limit 0"),
        ("--model nobody/nothing-here", "nobody/nothing-here"),
    ],
)
def test_mistakes_are_one_message(
    text_bench: Bench, tmp_path: Path, probe: Any, capsys: Any, args: str, message: str
) -> None:
    config = recipe(text_bench, tmp_path)
    status = 3 if "--model" in args else 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        assert probe(config, *args.split(), "--out", tmp_path / "out") == status
    # After LLaMA-Factory's own lines.
    error = capsys.readouterr().err.split("dft-factory: ")[-1]
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_scripts_in_the_data_stay_text(text_bench: Bench, tmp_path: Path, probe: Any) -> None:
    attack = "<script>alert(1)</script>"
    rows = [{"instruction": f"{attack} {i}", "input": "", "output": attack} for i in range(3)]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    (tmp_path / "dataset_info.json").write_text(json.dumps({"set": {"file_name": "set.json"}}))
    config = recipe(text_bench, tmp_path, dataset="set", dataset_dir=str(tmp_path))
    assert probe(config, "--out", tmp_path / "out") == 0
    page = (tmp_path / "out" / "probe.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page.replace("<mark>", "").replace("</mark>", "")
    assert "fewer than --limit 128" in page


@pytest.mark.cli
def test_the_module_command_writes_what_the_report_reads(text_bench: Bench, tmp_path: Path) -> None:
    from dft_eval.report.files import TokenProbabilities

    config = recipe(text_bench, tmp_path)
    model = f"base={text_bench.model}:{tmp_path / 'run'}"
    command = ["-m", "dft_factory.probe", config, "--limit", "3", "--model", model]
    run_command([sys.executable, *command])
    text = (tmp_path / "run" / "token_probabilities.json").read_text()
    assert TokenProbabilities.model_validate_json(text).label == "base"
