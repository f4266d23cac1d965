"""``--system-prompt``: from the option to the model's input and the results."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from dft_eval.benchmark import JudgeChoice, Request
from dft_eval.benchmarks import evaluate
from dft_eval.errors import UsageError
from dft_eval.flow import training_of
from dft_eval.generation.chat import render_chat
from dft_eval.generation.run import Decoding
from dft_eval.results import Training, read_results
from dft_eval.system_prompts import NONE, WETHINK, parse_system_prompt, trained_with
from dft_eval.training_file import TRAINING_FILE
from tests.conftest import Bench
from tests.support.openai_server import FakeServer, serve
from tests.support.vlm_tables import mathvision_row, write_table
from tests.unit.test_evalplus import PROBLEM
from tests.unit.test_multipl_e import PYTHON, write_data


def test_names_and_texts() -> None:
    """The string of inference.py in github.com/yangjie-cv/WeThink."""
    digest = hashlib.sha256(WETHINK.encode()).hexdigest()
    assert digest == "32879f26141db8b6040d533178973ed5c7ef008175042372d08f80ba2b1931cb"
    assert parse_system_prompt(None) is None
    assert parse_system_prompt("none") == NONE
    assert parse_system_prompt("wethink") == WETHINK
    assert parse_system_prompt("Be brief.") == "Be brief."
    for wrong in ("", "  ", "WeThink", "wethinks", "None"):
        with pytest.raises(UsageError, match="one of: none, wethink"):
            parse_system_prompt(wrong)


LLAMA_3 = (
    "{{- bos_token }}"
    "{%- if messages[0]['role'] == 'system' %}{%- set text = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set text = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023"
    "\\n\\n' + text + '<|eot_id|>' }}"
    "{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\\n\\n' + message['content']|trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{%- endif %}"
)
"""As Llama 3.1's: a start token, and always a system message."""
MISTRAL = (
    "{{- bos_token }}{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{{- '[INST] ' + message['content'] + ' [/INST]' }}"
    "{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] + eos_token }}"
    "{%- else %}{{- raise_exception('Only user and assistant roles are supported!') }}{%- endif %}"
    "{%- endfor %}"
)
DROPS = re.sub("{{- raise_exception.*? }}", "", MISTRAL)
"""Ignores a system message."""


@pytest.fixture
def tokenizer(text_bench: Bench) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(text_bench.model)


def test_chatml(tokenizer: Any) -> None:
    """Qwen's template inserts a system message; ``none`` has none."""
    turn = "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n"
    system = "<|im_start|>system\n{}<|im_end|>\n"
    default = system.format("You are a helpful assistant.")
    assert render_chat(tokenizer, "How many?", None) == default + turn
    assert render_chat(tokenizer, "How many?", WETHINK) == system.format(WETHINK) + turn
    assert render_chat(tokenizer, "How many?", NONE) == turn
    tokenizer.bos_token = "<|im_start|>"  # as in SmolLM2, whose template does not use it
    assert render_chat(tokenizer, "How many?", NONE) == turn


def test_none_keeps_the_start_token_and_removes_the_default(tokenizer: Any) -> None:
    tokenizer.bos_token, tokenizer.chat_template = "<|endoftext|>", LLAMA_3
    turn = (
        "<|start_header_id|>user<|end_header_id|>\n\nHow many?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert "Cutting Knowledge" in render_chat(tokenizer, "How many?", None)
    assert render_chat(tokenizer, "How many?", NONE) == "<|endoftext|>" + turn
    tokenizer.chat_template = MISTRAL
    for system_prompt in (None, NONE):
        rendered = render_chat(tokenizer, "How many?", system_prompt)
        assert rendered == "<|endoftext|>[INST] How many? [/INST]"


def test_a_template_without_system_messages_is_named(tokenizer: Any) -> None:
    tokenizer.bos_token, tokenizer.chat_template = "<|endoftext|>", MISTRAL
    with pytest.raises(UsageError, match=r"refuses it \(Only user and assistant"):
        render_chat(tokenizer, "How many?", "Be brief.")
    tokenizer.chat_template = DROPS
    with pytest.raises(UsageError, match="drops the system message"):
        render_chat(tokenizer, "How many?", "Be brief.")
    one_turn = "{%- if messages|length > 1 %}{{- raise_exception('one turn') }}{%- endif %}x"
    tokenizer.chat_template = one_turn
    with pytest.raises(UsageError, match=r"--system-prompt.*one turn"):
        render_chat(tokenizer, "How many?", NONE)


CASES = ("humaneval", "humaneval+", "multipl-e", "python-basics", "nq", "mathvision")


def data_of(benchmark: str, folder: Path) -> Path | None:
    """One item for benchmarks without built-in data."""
    if benchmark == "nq":
        path = folder / "nq.jsonl"
        path.write_text(json.dumps({"question": "who", "answer": ["me"]}) + "\n")
        return path
    if benchmark == "humaneval+":
        path = folder / "HumanEvalPlus.jsonl"
        path.write_text(PROBLEM.model_dump_json() + "\n")
        return path
    if benchmark == "multipl-e":
        return write_data(folder / "multipl-e", {"python": [PYTHON]})
    if benchmark == "mathvision":
        return write_table(folder / "MathVision.tsv", [mathvision_row(0, "A", ("1", "2"))]).parent
    return None


def request(benchmark: str, folder: Path, **changes: Any) -> Request:
    settings: dict[str, Any] = {
        "model": "tiny",
        "out": folder / "out",
        "label": "x",
        "data": data_of(benchmark, folder),
        "limit": 1,
        "prompt_style": "chat",
        "judge": JudgeChoice("rules") if benchmark == "mathvision" else None,
    }
    return Request(**{**settings, **changes})


@pytest.mark.parametrize("benchmark", CASES)
@pytest.mark.parametrize("system_prompt", [None, NONE, WETHINK])
def test_a_server_gets_it_and_the_result_names_it(
    benchmark: str, system_prompt: str | None, tmp_path: Path
) -> None:
    decoding = Decoding(max_new_tokens=8, system_prompt=system_prompt)
    with serve(FakeServer(lambda text: "A")) as server:
        backend = {"backend": "openai", "base_url": server.url}
        request_ = request(benchmark, tmp_path, **backend, decoding=decoding)
        (row,) = evaluate([benchmark], request_).results
    assert server.seen
    for body in server.seen:
        texts = [m["content"] for m in body["messages"] if m["role"] == "system"]
        assert texts == ([WETHINK] if system_prompt == WETHINK else [])
        assert body["messages"][len(texts)]["role"] == "user"
    assert row.decoding.get("system_prompt") == system_prompt
    assert any("its own" in note for note in row.notes if "server" in note) == (
        system_prompt == NONE
    )


@pytest.mark.parametrize("benchmark", ["python-basics", "mathvision"])
@pytest.mark.parametrize("system_prompt", [None, NONE, WETHINK])
def test_a_local_model_reads_it(
    benchmark: str, system_prompt: str | None, tmp_path: Path, text_bench: Bench, vl_bench: Bench
) -> None:
    """The tokenized text starts with exactly these system messages."""
    decoding = Decoding(max_new_tokens=4, system_prompt=system_prompt)
    changes: dict[str, Any] = {"model": str(text_bench.model), "decoding": decoding}
    if benchmark == "mathvision":
        changes |= {"model": str(vl_bench.model), "min_pixels": 3136}
    (row,) = evaluate([benchmark], request(benchmark, tmp_path, **changes)).results
    path = tmp_path / "out" / f"{benchmark}.chat.completions.jsonl"
    prompt = json.loads(path.read_text())["prompt"]
    text = {None: "You are a helpful assistant.", NONE: None}.get(system_prompt, system_prompt)
    system = "" if text is None else f"<|im_start|>system\n{text}<|im_end|>\n"
    assert prompt.startswith(f"{system}<|im_start|>user\n")
    assert prompt.count("<|im_start|>system") == (text is not None)
    assert row.decoding.get("system_prompt") == system_prompt
    default = any(note.startswith("system prompt: the chat template's own") for note in row.notes)
    assert default == (benchmark == "mathvision" and system_prompt is None)


@pytest.mark.parametrize("where", [".", "checkpoint-2"])
def test_models_are_prompted_as_in_training(where: str, tmp_path: Path, text_bench: Bench) -> None:
    """By the file in its folder; --system-prompt overrides it."""
    model = tmp_path / "model" / where
    shutil.copytree(text_bench.model, model)
    (tmp_path / "model" / TRAINING_FILE).write_text(json.dumps({"system_prompt": WETHINK}))
    for option, prompt in ((None, WETHINK), (NONE, NONE)):
        decoding = Decoding(max_new_tokens=2, system_prompt=option)
        out = tmp_path / str(option)
        request_ = request("python-basics", out, model=str(model), decoding=decoding)
        (row,) = evaluate(["python-basics"], request_).results
        assert row.decoding["system_prompt"] == prompt
        assert any(TRAINING_FILE in note for note in row.notes) == (option is None)


def test_results_record_the_training(tmp_path: Path, text_bench: Bench) -> None:
    """The training's record, if there is one."""
    record = {"finetuning_type": "dft_lora", "token_weight": "floor:0.1", "system_prompt": None}
    record = {**record, "dataset": ["facts"]}
    seeds = {"seeded": 7, "older": None, "base": None}
    trained, outs = {}, {}
    for name, seed in seeds.items():
        model = tmp_path / name
        shutil.copytree(text_bench.model, model)
        if name != "base":
            default = record if seed is None else {**record, "seed": seed}
            (model / TRAINING_FILE).write_text(json.dumps(default))
        changes: dict[str, Any] = {"model": str(model), "decoding": Decoding(max_new_tokens=2)}
        request_ = request("python-basics", tmp_path / "out" / name, **changes)
        trained[name] = evaluate(["python-basics"], request_).training
        outs[name] = request_.out
    assert trained["base"] is None
    default: dict[str, Any] = {"objective": "dft", "method": "lora", "dataset": ("facts",)}
    for name in ("seeded", "older"):
        assert trained[name] == Training(**default, weight="floor:0.1", seed=seeds[name])
        assert read_results(outs[name]).training == trained[name]
    (tmp_path / "seeded" / TRAINING_FILE).write_text(json.dumps({**record, "seed": "first"}))
    with pytest.raises(UsageError, match="malformed"):
        training_of(str(tmp_path / "seeded"))


def test_a_training_file_that_cannot_be_read_is_no_default(tmp_path: Path) -> None:
    (tmp_path / TRAINING_FILE).write_text("{")
    with pytest.raises(UsageError, match=TRAINING_FILE):
        trained_with(str(tmp_path))


@pytest.mark.parametrize("benchmark", ["humaneval", "multipl-e", "nq"])
def test_raw_completion_has_no_system_message(benchmark: str, tmp_path: Path) -> None:
    """Refused before the model is opened."""
    style = "completion" if benchmark == "nq" else None  # the default of the two others
    changes = {"prompt_style": style, "model": "/no/such/model"}
    request_ = request(benchmark, tmp_path, **changes, decoding=Decoding(system_prompt=NONE))
    with pytest.raises(UsageError, match=f"--system-prompt: {benchmark}.*--prompt-style chat"):
        evaluate([benchmark], request_)


def test_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text_bench: Bench) -> None:
    from dft_factory.cli import main

    args = ["eval", "python-basics", "--model", str(text_bench.model), "--out", str(tmp_path)]
    args += ["--limit", "1", "--max-new-tokens", "2", "--system-prompt", "wethink"]
    monkeypatch.setattr("sys.argv", ["dft-factory", *args])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    (row,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert row["decoding"]["system_prompt"] == WETHINK
