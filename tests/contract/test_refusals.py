"""Refusals: settings that our objectives do not support. Stock runs are never refused."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch  # activates dft-factory, before anything here imports llamafactory
import yaml

from dft_factory.errors import ConfigError, DftFactoryError, UpstreamContractError
from dft_factory.objectives import select
from dft_factory.patch.apply import llamafactory_version
from tests.conftest import Bench
from tests.support.cli import Futures, Run, parseable, run_python, train, two_at_a_time
from tests.support.llamafactory import has_argument

UNKNOWN_TYPE = (
    "finetuning_type: {0} is unknown. Choose from: full, lora, freeze, oft, dft, "
    "dft_full, dft_lora, dft_freeze, dft_oft, sft, sft_full, sft_lora, sft_freeze, sft_oft."
)
WEIGHTS = "token, sequence, geometric_mean, power:A, floor:U, threshold:T"
OTHER_STAGE = (
    "finetuning_type: 'dft' needs stage: sft, not stage: '{0}': every other stage has a loss of "
    "its own. Write stage: sft, or one of full, lora, freeze, oft as finetuning_type."
)
WEIGHT_ELSEWHERE = (
    "dft_weight: 'token' has no effect with finetuning_type: '{0}'. Remove dft_weight, or choose "
    "a finetuning_type that begins with 'dft'."
)
OTHER_LOSS = "finetuning_type: 'dft' and {0}: true both choose a loss. Remove {1}."
PACKED = (
    "finetuning_type: 'dft' with dft_weight: '{0}' weighs whole examples, and packing joins "
    "several into one row. Remove packing and neat_packing, or choose a weight of single tokens."
)

OWN_LOSS = "which has a loss of its own. Remove"
SWITCHES = {
    "use_hyper_parallel": f"does not work with use_hyper_parallel: true, {OWN_LOSS} "
    "use_hyper_parallel.",
    "use_mca": f"does not work with Megatron (MCA), {OWN_LOSS} use_mca and unset the environment "
    "variable USE_MCA.",
    "use_megatron_bridge": f"does not work with Megatron Bridge, {OWN_LOSS} use_megatron_bridge "
    "and unset the environment variable USE_MEGATRON_BRIDGE.",
    "use_kt": "does not work with KTransformers, whose trainer has a loss of its own. Remove "
    "use_kt and unset USE_KT.",
    "use_unsloth": "does not work with use_unsloth: true: Unsloth replaces the model's forward and "
    "may return no logits. Remove use_unsloth.",
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    # values that do not exist
    **{
        f"type {name}": (
            {"finetuning_type": name},
            UNKNOWN_TYPE.format(repr(name)) + " Did you mean 'dft_lora'?",
        )
        for name in ("dtf_lora", "dft_qlora")
    },
    "type, far off": ({"finetuning_type": "ppo"}, UNKNOWN_TYPE.format("'ppo'")),
    "type, no text": ({"finetuning_type": 3}, UNKNOWN_TYPE.format("3")),
    "weight": (
        {"dft_weight": "tokens"},
        f"dft_weight: 'tokens' is unknown. Choose from: {WEIGHTS}. Did you mean 'token'?",
    ),
    "weight, no text": (
        {"dft_weight": 0.5},
        f"dft_weight: 0.5 is a float, not a name. Choose from: {WEIGHTS}.",
    ),
    "weight without value": (
        {"dft_weight": "power"},
        "dft_weight: 'power' needs a value: power:A, where A is a number 0 or more, for example "
        "power:0.5.",
    ),
    "weight out of range": (
        {"dft_weight": "floor:1.5"},
        "dft_weight: 'floor:1.5': U must be a number from 0 to 1, not '1.5'.",
    ),
    "weight with a value too many": (
        {"dft_weight": "token:1"},
        "dft_weight: 'token:1': 'token' takes no value. Write 'token'.",
    ),
    # a weight with an objective that has none
    **{
        f"weight of {name}": (
            {"finetuning_type": name, "dft_weight": "token"},
            WEIGHT_ELSEWHERE.format(name),
        )
        for name in ("sft_lora", "full")
    },
    # another loss
    **{
        stage: ({"stage": stage}, OTHER_STAGE.format(stage))
        for stage in ("pt", "rm", "ppo", "dpo", "kto")
    },
    **{
        switch: ({switch: True}, OTHER_LOSS.format(switch, switch))
        for switch in ("use_dft_loss", "use_eaft_loss", "use_asft_loss")
    },
    "two switches": (
        {"use_dft_loss": True, "use_asft_loss": True},
        OTHER_LOSS.format("use_dft_loss, use_asft_loss", "use_dft_loss and use_asft_loss"),
    ),
    **{name: ({name: True}, f"finetuning_type: 'dft' {text}") for name, text in SWITCHES.items()},
    "hyper_parallel_cp_size": (
        {"use_hyper_parallel": True, "hyper_parallel_cp_size": 2},
        f"finetuning_type: 'dft' {SWITCHES['use_hyper_parallel']}",
    ),
    # loss terms that would be dropped
    "moe_aux_loss_coef": (
        {"moe_aux_loss_coef": 0.01},
        "finetuning_type: 'dft' would drop the router loss that moe_aux_loss_coef: 0.01 asks for. "
        "Remove moe_aux_loss_coef.",
    ),
    "label_smoothing_factor": (
        {"label_smoothing_factor": 0.1},
        "finetuning_type: 'dft' does not combine with label_smoothing_factor: 0.1. Remove "
        "label_smoothing_factor.",
    ),
    "ignore_pad_token_for_loss": (
        {"ignore_pad_token_for_loss": False},
        "finetuning_type: 'dft' does not train on padding, which ignore_pad_token_for_loss: false "
        "asks for and whose amount depends on how the batch is split. Remove "
        "ignore_pad_token_for_loss.",
    ),
    # weights of examples in packed rows
    **{
        f"{weight}, {packing}": ({"dft_weight": weight, packing: True}, PACKED.format(weight))
        for weight in ("sequence", "geometric_mean")
        for packing in ("packing", "neat_packing")
    },
}

# Fields that are new in 0.9.5 and 0.9.6; older releases refuse them as unknown.
NEW = (
    "use_hyper_parallel",
    "use_eaft_loss",
    "use_asft_loss",
    "use_megatron_bridge",
    "hyper_parallel_cp_size",
)
MISSING = {name for name in NEW if not has_argument(name)}
REFUSED = {case: row for case, row in REFUSED.items() if not MISSING & row[0].keys()}
MEGATRONS = {"use_mca": "Megatron (MCA)", "use_megatron_bridge": "Megatron Bridge"}
MEGATRONS = {switch: name for switch, name in MEGATRONS.items() if switch not in MISSING}


def training(**changes: Any) -> dict[str, Any]:
    """A DFT recipe that parses without a model or a data set at hand."""
    return parseable(**{"finetuning_type": "dft", **changes})


def raises(kind: type[Exception], message: str) -> AbstractContextManager[Any]:
    return pytest.raises(kind, match=rf"\A{re.escape(message)}\Z")


def parse(config: dict[str, Any]) -> Any:
    from llamafactory.hparams import get_train_args

    return get_train_args(config)


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str) -> None:
    changes, message = REFUSED[case]
    with raises(ConfigError, message):
        parse(training(**changes))


@pytest.mark.parametrize("objective", ["sft", "sft_lora", "dft_freeze"])
@pytest.mark.parametrize("case", ["dpo", "use_dft_loss", "label_smoothing_factor"])
def test_the_message_names_the_objective(case: str, objective: str) -> None:
    """As it was written."""
    changes, message = REFUSED[case]
    with raises(ConfigError, message.replace("'dft'", f"'{objective}'")):
        parse(training(**{**changes, "finetuning_type": objective}))


STOCK = [
    case
    for case, (changes, _) in REFUSED.items()
    if changes.keys() - {"finetuning_type", "dft_weight"}
]
LLAMAFACTORY_REFUSES = ["ppo", "use_kt", "use_unsloth"]
"""With its own errors, about a missing reward model or package."""
PACKINGS = ["packing", "neat_packing"]
if "use_asft_loss" in MISSING:  # 0.9.4 refuses neat_packing with transformers 4.53 or newer
    LLAMAFACTORY_REFUSES += [case for case in STOCK if case.endswith("neat_packing")]
    PACKINGS.remove("neat_packing")


@pytest.mark.parametrize("case", STOCK)
def test_stock_runs_are_never_refused_by_us(case: str) -> None:
    changes = {key: value for key, value in REFUSED[case][0].items() if key != "dft_weight"}
    config = training(**{**changes, "finetuning_type": "full"})
    if case in LLAMAFACTORY_REFUSES:
        with pytest.raises((ValueError, ImportError)) as refusal:
            parse(config)
        assert not isinstance(refusal.value, DftFactoryError)
    else:
        assert parse(config)[3].dft_objective is None


@pytest.mark.parametrize("weight", ["token", "power:0.5", "floor:0.1", "threshold:0.1"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_weights_of_single_tokens_go_with_packing(weight: str, packing: str) -> None:
    assert parse(training(dft_weight=weight, **{packing: True}))[3].dft_weight == weight


# --- by the environment and the number of ranks ----------------------------


@pytest.mark.parametrize(
    ("variable", "trainer"),
    [
        ("USE_V1", "the v1 trainer"),
        ("USE_MCA", "Megatron (MCA)"),
        ("USE_MEGATRON_BRIDGE", "Megatron Bridge"),
    ],
)
@pytest.mark.parametrize("on", ["1", "true", "Y"])
def test_other_trainers_by_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str, trainer: str, on: str
) -> None:
    from llamafactory.hparams import FinetuningArguments

    monkeypatch.setenv(variable, on)
    message = (
        f"finetuning_type: 'dft_lora' does not work with {trainer}, which has a loss of its own. "
        f"Unset the environment variable {variable}."
    )
    with raises(ConfigError, message):
        FinetuningArguments(finetuning_type="dft_lora")
    assert FinetuningArguments(finetuning_type="full").dft_objective is None
    monkeypatch.setenv(variable, "0")
    assert FinetuningArguments(finetuning_type="dft_lora").dft_objective == "dft"


def test_ktransformers_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_KT", "1")
    with raises(ConfigError, REFUSED["use_kt"][1]):
        parse(training())
    assert parse(training(finetuning_type="full"))[3].dft_objective is None


def test_averages_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would divide by each rank's own tokens; with one rank that is the same."""
    from transformers import TrainingArguments

    config = {"average_tokens_across_devices": False}
    assert parse(training(**config))[3].dft_objective == "dft"
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    with raises(ConfigError, AVERAGED):
        parse(training(**config))
    assert parse(training(**config, finetuning_type="full"))[3].dft_objective is None
    assert parse(training())[3].dft_objective == "dft"


V1 = (
    "finetuning_type: '{0}' does not work with LLaMA-Factory's v1 trainer, which has a loss of its "
    "own. Unset the environment variable USE_V1."
)


@pytest.mark.parametrize("extra_keys", ["0", "1"])
@pytest.mark.parametrize("form", ["mapping", "words", "equals", "yaml", "json", "override"])
def test_v1_parser(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str, extra_keys: str
) -> None:
    """Every way in which v1 reads its arguments, also with ALLOW_EXTRA_KEYS."""
    from llamafactory.v1.config.arg_parser import get_args

    monkeypatch.setenv("ALLOW_EXTRA_KEYS", extra_keys)
    file = tmp_path / ("recipe.json" if form == "json" else "recipe.yaml")
    recipe = {"finetuning_type": "full" if form == "override" else "dft_lora"}
    file.write_text(json.dumps(recipe) if form == "json" else yaml.safe_dump(recipe))
    args = {
        "words": ["--finetuning_type", "dft_lora"],
        "equals": ["--finetuning_type=dft_lora"],
        "yaml": [str(file)],
        "json": [str(file)],
        "override": [str(file), "finetuning_type=dft_lora"],
    }
    monkeypatch.setattr(sys, "argv", ["launcher", *args.get(form, [])])
    with raises(ConfigError, V1.format("dft_lora")):
        get_args({"finetuning_type": "dft_lora"} if form == "mapping" else None)


def test_v1_stock_arguments_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from llamafactory.v1.config.arg_parser import get_args

    monkeypatch.setenv("ALLOW_EXTRA_KEYS", "1")
    for changes in ({}, {"finetuning_type": "full"}):
        parts = get_args({"model": "some/model", **changes})
        assert "some/model" in [getattr(part, "model", None) for part in parts]


# --- by the loaded model, the data and the accelerator ----------------------------


def refuse(weight: str = "token", **trainer: Any) -> None:
    """``refuse_unsupported`` on the attributes of a trainer that it reads."""
    from dft_factory.trainer_base import refuse_unsupported

    parts = {
        "accelerator": SimpleNamespace(parallelism_config=None),
        "model": SimpleNamespace(config=SimpleNamespace()),
        "train_dataset": None,
        "eval_dataset": None,
        "get_tp_size": lambda: 1,
    }
    selection = select("dft", weight)
    assert selection is not None
    name = "finetuning_type: 'dft'"
    refuse_unsupported(name, selection.weight, SimpleNamespace(**{**parts, **trainer}))


@pytest.mark.parametrize(
    ("field", "kind", "why"),
    [
        ("sp_size", "sequence", "transformers computes the loss itself (plain NLL)"),
        ("cp_size", "context", "each rank sees only a part of every example"),
        ("tp_size", "tensor", "several ranks count the same tokens"),
    ],
)
def test_parallelism_within_an_example(field: str, kind: str, why: str) -> None:
    """accelerate's own configuration object; sp_size is missing in its older releases."""
    from accelerate.parallelism_config import ParallelismConfig

    settings = ParallelismConfig()
    setattr(settings, field, 2)
    message = (
        f"finetuning_type: 'dft' does not work with {kind} parallelism ({field} 2), under which "
        f"{why}. Switch it off in the accelerate or DeepSpeed configuration."
    )
    with raises(ConfigError, message):
        refuse(accelerator=SimpleNamespace(parallelism_config=settings))


def test_data_parallelism_and_deepspeeds_tensor_parallelism() -> None:
    from accelerate.parallelism_config import ParallelismConfig

    settings = ParallelismConfig(dp_replicate_size=2, dp_shard_size=2)
    refuse(accelerator=SimpleNamespace(parallelism_config=settings))
    # Only in DeepSpeed's configuration, where transformers' Trainer reads it.
    from transformers import Trainer

    deepspeed = SimpleNamespace(config={"tensor_parallel": {"autotp_size": 2}})
    trainer = SimpleNamespace(
        model=SimpleNamespace(),
        is_deepspeed_enabled=True,
        args=SimpleNamespace(hf_deepspeed_config=deepspeed),
    )
    with pytest.raises(ConfigError, match=r"tensor parallelism \(tp_size 2\)"):
        refuse(get_tp_size=lambda: Trainer.get_tp_size(trainer))


ROUTER = (
    "finetuning_type: 'dft' would drop the router loss of this mixture-of-experts model, whose "
    "config.json sets output_router_logits: true. Set it to false."
)


def test_router_loss_of_a_nested_configuration() -> None:
    """In text_config of multimodal models, and in thinker_config.text_config of omni models."""
    from transformers import Qwen2VLConfig, Qwen3OmniMoeConfig

    for config in (Qwen2VLConfig(), Qwen3OmniMoeConfig()):
        refuse(model=SimpleNamespace(config=config))
    text, omni = Qwen2VLConfig(), Qwen3OmniMoeConfig()
    text.text_config.output_router_logits = True
    omni.thinker_config.text_config.output_router_logits = True
    for config in (text, omni):
        with raises(ConfigError, ROUTER):
            refuse(model=SimpleNamespace(config=config))


@pytest.mark.parametrize("missing", ["logits", "labels"])
def test_model_without_logits(missing: str) -> None:
    """LLaMA-Factory's own DFT then trains plain SFT without a message."""
    from dft_factory.patch.trainer import LlamaFactoryTrainerMixin

    logits, labels = torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.int64)
    trainer = SimpleNamespace(model=torch.nn.Linear(1, 1))
    message = (
        f"Linear came back without {missing}; without them there is no token-weighted loss, and "
        "plain SFT was not asked for."
    )
    with raises(UpstreamContractError, message):
        LlamaFactoryTrainerMixin._token_weighted_loss(
            trainer,
            {"loss": logits.sum(), "logits": None if missing == "logits" else logits},
            None if missing == "labels" else labels,
        )


def run_here(config: dict[str, Any]) -> None:
    """A training run in this process, which has imported everything already."""
    from llamafactory.train.tuner import run_exp

    run_exp(config)


def test_router_loss_of_a_real_run(text_bench: Bench, tmp_path: Path) -> None:
    model = shutil.copytree(text_bench.model, tmp_path / "model")
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**settings, "output_router_logits": True}))
    config = text_bench.config(model_name_or_path=str(model), output_dir=str(tmp_path / "run"))
    with raises(ConfigError, ROUTER):
        run_here(config)
    run_here({**config, "finetuning_type": "full"})
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_data_that_was_packed_and_tokenized_before(text_bench: Bench, tmp_path: Path) -> None:
    """With ``tokenized_path`` the ``packing`` argument is ignored: the columns show it."""
    tokenized = {
        "tokenized_path": str(tmp_path / "tokenized"),
        "output_dir": str(tmp_path / "run"),
        "cutoff_len": 128,
    }
    run_here(text_bench.config(**tokenized, packing=True))
    config = text_bench.config(**{**tokenized, "output_dir": str(tmp_path / "again")})
    message = (
        "finetuning_type: 'dft' with dft_weight: 'geometric_mean' weighs whole examples, and this "
        "tokenized data set was packed: several are joined in one row. Tokenize it again without "
        "packing, or choose a weight of single tokens."
    )
    with raises(ConfigError, message):
        run_here({**config, "dft_weight": "geometric_mean"})
    run_here({**config, "dft_weight": "floor:0.1"})


# --- the real command line ----------------------------

AVERAGED = (
    "finetuning_type: 'dft' normalises over the tokens of all ranks, which "
    "average_tokens_across_devices: false switches off. Remove average_tokens_across_devices."
)
MEGATRON = """
import json, sys
import torch
from dft_factory.errors import ConfigError
from llamafactory.hparams import get_train_args

config, results = json.loads(sys.argv[1]), []
for value in ("dft", "full"):
    try:
        arguments = get_train_args({**config, "finetuning_type": value})[3]
        results.append(getattr(arguments, sys.argv[2]))
    except ConfigError as error:
        results.append(str(error))
print("RESULT " + json.dumps(results))
"""


def run_megatron(folder: Path, switch: str) -> list[Any]:
    """Parses under USE_MCA or USE_MEGATRON_BRIDGE, with empty stand-ins for Megatron's packages."""
    folder = folder / switch
    (folder / "mcore_adapter").mkdir(parents=True)
    (folder / "mcore_adapter" / "__init__.py").write_text(
        "from transformers import Seq2SeqTrainingArguments, TrainingArguments\n"
        "class TrainingArguments(Seq2SeqTrainingArguments):\n"
        "    pass\n"
    )
    (folder / "megatron" / "bridge").mkdir(parents=True)
    (folder / "megatron" / "bridge" / "__init__.py").write_text("")
    information = folder / "megatron_bridge-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: megatron-bridge\n")
    environment = {switch.upper(): "1", "PYTHONPATH": str(folder)}
    return list(run_python(MEGATRON, json.dumps(training()), switch, **environment))


@pytest.fixture(scope="module")
def started(text_bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Futures]:
    """Every process of this module."""
    folder = tmp_path_factory.mktemp("refusals")
    averaged = {"average_tokens_across_devices": False}
    v1 = {"command": ("llamafactory-cli", "sft")}
    extra = {"USE_V1": "1", "ALLOW_EXTRA_KEYS": "1"}
    runs: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "two ranks": (averaged, {"ranks": 2}),
        "one rank": ({"label_smoothing_factor": 0.1}, {}),
        "v1, extra keys": ({}, {**v1, "environment": extra}),
        "ordinary error": ({"dataset": "no_such_set"}, {}),
    }
    with two_at_a_time() as pool:
        futures: Futures = {}
        for name, (changes, options) in runs.items():
            config, path = text_bench.config(**changes), folder / name.replace(" ", "-")
            futures[name] = pool.submit(train, config, path, fresh=True, **options)
        for switch in MEGATRONS:
            futures[switch] = pool.submit(run_megatron, folder, switch)
        yield futures


@pytest.mark.parametrize(("switch", "trainer"), MEGATRONS.items())
def test_megatron_as_a_user_starts_it(started: Futures, switch: str, trainer: str) -> None:
    ours, stock = started[switch].result()
    assert ours == (
        f"finetuning_type: 'dft' does not work with {trainer}, which has a loss of its own. "
        f"Unset the environment variable {switch.upper()}."
    )
    assert stock is True


def refused(run: Run) -> list[str]:
    """The messages of a refused run, one per line, without a traceback of ours."""
    assert run.status != 0
    assert not (run.folder / "trainer_state.json").exists()
    assert "ConfigError" not in run.output, run.output[-4000:]
    assert "dft_factory" not in run.output, run.output[-4000:]
    return [line for line in run.output.splitlines() if "dft-factory: " in line]


@pytest.mark.cli
@pytest.mark.parametrize(
    ("name", "message"),
    [("one rank", REFUSED["label_smoothing_factor"][1]), ("v1, extra keys", V1.format("dft"))],
)
def test_the_command_line_shows_only_the_message(started: Futures, name: str, message: str) -> None:
    run = started[name].result()
    if name.startswith("v1") and llamafactory_version() == "0.9.4":
        assert run.status != 0  # its v1 launcher fails before it reads any argument
        return
    assert refused(run) == [f"dft-factory: {message}"]
    assert "Traceback" not in run.output


@pytest.mark.cli
def test_every_rank_shows_its_message_and_no_traceback(started: Futures) -> None:
    """torchrun and llamafactory-cli add lines about their child processes."""
    messages = refused(started["two ranks"].result())
    assert 1 <= len(messages) <= 2
    assert {line.partition("dft-factory: ")[2] for line in messages} == {AVERAGED}


@pytest.mark.cli
def test_other_errors_keep_their_traceback(started: Futures) -> None:
    run = started["ordinary error"].result()
    assert run.status != 0
    assert "Traceback (most recent call last):" in run.output
    assert "ValueError: Undefined dataset no_such_set" in run.output
    assert "dft-factory: " not in run.output
