"""The ``arguments`` patch: our values parse wherever LLaMA-Factory reads ``finetuning_type``."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch  # activates dft-factory, before anything here imports llamafactory
import yaml

from tests.conftest import Bench
from tests.support import warm
from tests.support.cli import (
    TIMEOUT_SECONDS,
    Futures,
    clean_environment,
    executable,
    free_port,
    parseable,
    run_python,
    train,
    two_at_a_time,
)

OURS = {
    "dft": ("dft", "full"),
    "dft_full": ("dft", "full"),
    "dft_lora": ("dft", "lora"),
    "dft_freeze": ("dft", "freeze"),
    "dft_oft": ("dft", "oft"),
    "sft": ("sft", "full"),
    "sft_full": ("sft", "full"),
    "sft_lora": ("sft", "lora"),
    "sft_freeze": ("sft", "freeze"),
    "sft_oft": ("sft", "oft"),
}
STOCK = ("full", "lora", "freeze", "oft")


def command_line(config: dict[str, Any]) -> list[str]:
    """The same recipe as command line options."""
    return [arg for key, value in config.items() for arg in (f"--{key}", str(value))]


def parsed(config: dict[str, Any] | list[str]) -> Any:
    from llamafactory.hparams import get_train_args

    return get_train_args(config)[3]


@pytest.mark.parametrize("form", ["yaml", "words"])
@pytest.mark.parametrize("value", [*OURS, *STOCK])
def test_values_select_objective_and_method(value: str, form: str) -> None:
    config = parseable(finetuning_type=value)
    arguments = parsed(config if form == "yaml" else command_line(config))
    selected = (arguments.dft_objective, arguments.finetuning_type)
    assert selected == OURS.get(value, (None, value))
    assert arguments.dft_weight == ("token" if value.startswith("dft") else None)


@pytest.mark.parametrize(
    ("weight", "canonical"),
    [
        ("token", "token"),
        ("sequence", "sequence"),
        ("geometric_mean", "geometric_mean"),
        ("power:0.50", "power:0.5"),
        (" floor: 0.1 ", "floor:0.1"),
        ("threshold:1e-1", "threshold:0.1"),
    ],
)
def test_weight_is_canonical(weight: str, canonical: str) -> None:
    assert parsed(parseable(finetuning_type="dft", dft_weight=weight)).dft_weight == canonical


def test_selection_by_options_with_equals_signs() -> None:
    options = ["--finetuning_type=dft_lora", "--dft_weight=power:0.5"]
    arguments = parsed([*command_line(parseable()), *options])
    selected = (arguments.dft_objective, arguments.finetuning_type, arguments.dft_weight)
    assert selected == ("dft", "lora", "power:0.5")
    from dft_factory.objectives import selection_of

    selection = selection_of(parsed(parseable(finetuning_type="dft_oft", dft_weight="floor:0.1")))
    assert selection is not None
    assert (selection.name, selection.weight.spec) == ("dft_oft", "floor:0.1")
    assert selection_of(parsed(parseable(finetuning_type="oft"))) is None


@pytest.mark.parametrize("form", ["yaml", "words"])
def test_objective_cannot_be_set_from_outside(form: str) -> None:
    """``dft_objective`` follows from finetuning_type; it is not a setting."""
    config = parseable(finetuning_type="lora", dft_objective="dft")
    with pytest.raises(ValueError, match="dft_objective"):
        parsed(config if form == "yaml" else command_line(config))


@pytest.mark.parametrize("value", [*OURS, *STOCK])
def test_export_chat_and_api_parse_the_same_values(value: str) -> None:
    """All three commands parse with get_infer_args."""
    from llamafactory.hparams import get_infer_args

    config = {"model_name_or_path": "some/model", "template": "qwen", "finetuning_type": value}
    objective, method = OURS.get(value, (None, value))
    for form in (config, command_line(config)):
        arguments = get_infer_args(form)[2]
        assert (arguments.dft_objective, arguments.finetuning_type) == (objective, method)


@pytest.mark.parametrize("value", ["dft_lora", "sft", "lora"])
def test_arguments_survive_copies(value: str) -> None:
    original = parsed(parseable(finetuning_type=value))
    for copied in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert type(copied) is type(original)
        assert asdict(copied) == asdict(original)
    as_dict = original.to_dict()
    objective, method = OURS.get(value, (None, value))
    assert (as_dict["dft_objective"], as_dict["finetuning_type"]) == (objective, method)
    assert json.loads(json.dumps(as_dict)) == as_dict


def test_help_lists_our_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``llamafactory-cli train -h`` calls ``run_exp`` directly."""
    from llamafactory.train.tuner import run_exp

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["llamafactory-cli", "-h"])
    with pytest.raises(SystemExit) as end:
        run_exp()
    assert end.value.code == 0
    output = capsys.readouterr().out
    choices = output.partition("--finetuning_type {")[2].partition("}")[0].split(",")
    assert set(choices) == {*STOCK, *OURS}
    assert "power:A" in output.partition("--dft_weight")[2]
    assert "dft_objective" not in output


def test_class_looks_like_llamafactorys() -> None:
    from llamafactory.hparams import FinetuningArguments, finetuning_args

    assert FinetuningArguments is finetuning_args.FinetuningArguments
    assert FinetuningArguments.__name__ == FinetuningArguments.__qualname__ == "FinetuningArguments"
    assert FinetuningArguments.__module__ == "llamafactory.hparams.finetuning_args"
    assert FinetuningArguments().finetuning_type == "lora"


# --- a process with the patch against one without ---------------------------------------------

DUMP_STOCK_PARSES = """
    import dataclasses, json, re, sys
    from unittest import mock
    import torch
    from llamafactory.hparams import get_infer_args, get_train_args

    def fields(parsed):
        rows = {}
        for arguments in parsed:
            values = {field.name: getattr(arguments, field.name, None)
                      for field in dataclasses.fields(arguments)}
            values.update(vars(arguments))
            name = type(arguments).__name__
            values.pop("logging_dir", None)  # the time of day, in transformers 4
            rows[name] = {k: re.sub(" at 0x[0-9a-f]+", "", repr(v)) for k, v in values.items()}
        return rows

    rows = {}
    for name, config in json.loads(sys.argv[1]).items():
        rows[name] = fields(get_train_args(config))
    for value in ("full", "lora", "freeze", "oft"):
        config = {"model_name_or_path": "m", "template": "qwen", "finetuning_type": value}
        rows["infer " + value] = fields(get_infer_args(config))
    print("RESULT " + json.dumps(rows))
"""

STOCK_CONFIGS = {
    **{value: parseable(finetuning_type=value) for value in STOCK},
    "default": parseable(),
    "many": parseable(
        finetuning_type="lora",
        lora_target="q_proj, v_proj",
        additional_target="embed_tokens",
        lora_rank=4,
        use_dft_loss=True,
        label_smoothing_factor=0.1,
        packing=True,
    ),
    "dpo": parseable(finetuning_type="lora", stage="dpo", pref_beta=0.2),
    "pt": parseable(finetuning_type="full", stage="pt"),
    "words": command_line(parseable(finetuning_type="freeze", freeze_trainable_layers=1)),
}


def stock_parses(autoload: str) -> Any:
    configs = json.dumps(STOCK_CONFIGS)
    return run_python(DUMP_STOCK_PARSES, configs, TORCH_DEVICE_BACKEND_AUTOLOAD=autoload)


def test_stock_values_leave_stock_arguments(started: Futures) -> None:
    """Every field of every argument class, against a process without this package."""
    patched, stock = started["patched"].result(), started["stock"].result()
    names = ("dft_objective", "dft_weight", "score_task", "score_steps", "score_limit")
    added = dict.fromkeys(names, "None")
    for name, expected in stock.items():
        assert "dft_objective" not in expected["FinetuningArguments"]
        expected["FinetuningArguments"].update(added)
        assert patched[name] == expected, name
    assert len(stock) == len(STOCK_CONFIGS) + len(STOCK)


REVERT = """
    import json, sys
    import torch
    former_hook = sys.excepthook
    import llamafactory.hparams.finetuning_args as arguments
    import llamafactory.hparams.parser as parser
    import llamafactory.train.sft.trainer as trainer
    import llamafactory.train.trainer_utils as utils
    import llamafactory.v1.config.arg_parser as v1
    from dft_factory import startup
    from dft_factory.patch import apply

    names = [(arguments, "FinetuningArguments"), (parser, "_parse_train_args"),
             (parser, "_parse_train_mca_args"), (trainer, "CustomSeq2SeqTrainer"),
             (v1, "get_args"), (utils, "create_modelcard_and_push")]
    def original(patched):
        return patched.__bases__[-1] if isinstance(patched, type) else patched.__wrapped__
    expected = [original(getattr(module, name)) for module, name in names]
    hook_during = sys.excepthook
    before = [row.state for row in apply.status()]
    apply.revert()
    refused = ""
    try:
        arguments.FinetuningArguments(finetuning_type="dft")
    except AssertionError as error:
        refused = str(error)
    print("RESULT " + json.dumps({
        "before": before,
        "same": [getattr(m, n) is e for (m, n), e in zip(names, expected)],
        "fields": "dft_weight" in arguments.FinetuningArguments.__dataclass_fields__,
        "finder": startup.installed() is None,
        "hook": [hook_during is former_hook, sys.excepthook is former_hook],
        "refused": refused,
    }))
"""


def test_revert_restores_the_original_objects(started: Futures) -> None:
    assert started["revert"].result() == {
        "before": ["applied"] * 6,
        "same": [True] * 6,
        "fields": False,
        "finder": True,
        "hook": [False, True],
        "refused": "Invalid fine-tuning method.",
    }


# --- the other commands of the real command line ----------------------------------------------


def cli(command: str, *arguments: str, stdin: str = "") -> str:
    """Everything that a successful ``llamafactory-cli`` printed."""
    status, output = warm.run(
        [command, *arguments], clean_environment(), stdin=stdin, timeout=TIMEOUT_SECONDS
    )
    assert status == 0, output[-6000:]
    return output


def recipe(folder: Path, name: str, config: dict[str, Any]) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def api(path: str, log: Path) -> Any:
    """One chat completion from ``llamafactory-cli api``, listening on the loopback address."""
    port = free_port()
    with log.open("w") as output:
        server = subprocess.Popen(
            [executable("llamafactory-cli"), "api", path],
            env=clean_environment(API_HOST="127.0.0.1", API_PORT=str(port)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    question = {"model": "x", "messages": [{"role": "user", "content": "What is it?"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(question).encode(),
        {"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        for _ in range(240):
            assert server.poll() is None, log.read_text()[-4000:]
            try:
                with opener.open(request, timeout=60) as response:
                    return json.load(response)
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionError):
                    raise
                time.sleep(0.5)
        raise AssertionError(f"the server never listened: {log.read_text()[-4000:]}")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def started(text_bench: Bench, folder: Path) -> Iterator[Futures]:
    """Every process of this module, while the other tests run."""
    # One step changes only LoRA's B, from zero; at this rate it shows in the merged weights.
    training_run = text_bench.config(finetuning_type="dft_lora", learning_rate=0.1)
    inference = {
        "model_name_or_path": str(text_bench.model),
        "adapter_name_or_path": str(folder / "adapter"),
        "template": "qwen",
        "finetuning_type": "dft_lora",
        "infer_dtype": "float32",
        "max_new_tokens": 3,
    }

    def after_training(go: Callable[[str], Any], name: str, **changes: Any) -> Any:
        futures["adapter"].result().ok()
        return go(recipe(folder, name, {**inference, **changes}))

    export, chat = partial(cli, "export"), partial(cli, "chat", stdin="What is it?\nexit\n")
    merged = str(folder / "merged")
    with two_at_a_time() as pool:
        futures: Futures = {"adapter": pool.submit(train, training_run, folder / "adapter")}
        futures["patched"] = pool.submit(stock_parses, "1")
        futures["stock"] = pool.submit(stock_parses, "0")
        futures["revert"] = pool.submit(run_python, REVERT)
        futures["export"] = pool.submit(after_training, export, "export", export_dir=merged)
        futures["chat"] = pool.submit(after_training, chat, "chat")
        futures["api"] = pool.submit(after_training, partial(api, log=folder / "api.log"), "api")
        yield futures


@pytest.mark.cli
def test_export_merges_a_lora_adapter(text_bench: Bench, folder: Path, started: Futures) -> None:
    """``llamafactory-cli export`` with dft_lora: the weights that peft itself merges."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert "nll" in started["adapter"].result().ok().log[0]
    started["export"].result()
    load = partial(AutoModelForCausalLM.from_pretrained, dtype=torch.float32)
    exported = load(folder / "merged").state_dict()
    base = load(text_bench.model)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    merged = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload().state_dict()
    assert exported.keys() == merged.keys()
    for name, value in merged.items():
        torch.testing.assert_close(exported[name], value)
    assert any(not torch.equal(exported[name], value) for name, value in before.items())


@pytest.mark.cli
def test_chat_answers_with_a_dft_lora_adapter(started: Futures) -> None:
    output = started["chat"].result()
    assert "Assistant: " in output
    assert "Loaded adapter(s)" in output


@pytest.mark.cli
def test_api_serves_a_dft_lora_adapter(started: Futures) -> None:
    answer = started["api"].result()
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert 1 <= answer["usage"]["completion_tokens"] <= 3
