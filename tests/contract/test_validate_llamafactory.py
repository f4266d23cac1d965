"""``validate`` with the real LLaMA-Factory: one run over many files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from dft_factory.validate import Finding, exit_status, validate_files

GOOD = """
model_name_or_path: org/model
stage: sft
do_train: true
finetuning_type: dft
dataset: here
dataset_dir: data
template: qwen
output_dir: runs/one
learning_rate: 1e-5
use_cpu: true
bf16: true
report_to: none
"""
STOCK = GOOD.replace("type: dft", "type: full")
LORA = GOOD.replace("type: dft", "type: dft_lora")
DFT = "finetuning_type: 'dft'"

FILES = {
    "good.yaml": GOOD,
    "fields.yaml": GOOD
    + """
learning_rat: 1e-5
max_steps: 1e3
save_strategy: no
pref_loss: simop
per_device_train_batch_size: "two"
lora_target: [q_proj, v_proj]
""",
    "template.yaml": GOOD.replace("template: qwen", "template: qwne"),
    "selection.yaml": GOOD.replace("type: dft", "type: dtf").replace("dataset: here", "seed: 1"),
    "dataset.yaml": GOOD.replace("dataset: here", "dataset: 7"),
    "weight.yaml": GOOD + "dft_weight: tokne\n",
    "stock.yaml": STOCK + "dft_weight: token\n",
    "refused.yaml": GOOD
    + """
dft_weight: sequence
packing: true
neat_packing: true
use_dft_loss: true
use_eaft_loss: true
use_unsloth: true
use_kt: true
moe_aux_loss_coef: 0.1
label_smoothing_factor: 0.1
average_tokens_across_devices: false
""",
    "stage.yaml": GOOD.replace("stage: sft", "stage: dpo"),
    "theirs.yaml": GOOD + "do_predict: true\nquantization_bit: 4\nfp16: true\n",
    "scored.yaml": GOOD + "score_task: answers.yaml\nscore_steps: 5\n",
    "score_bad.yaml": GOOD + "score_task: gsm\nscore_steps: 0\nscore_limit: 5\n",
    "score_never.yaml": GOOD + "score_task: answers.yaml\n",
    "score_later.yaml": GOOD + "score_task: later.yaml\nscore_steps: 5\n",
    "streaming.yaml": GOOD + "streaming: true\nval_size: 0.1\n",
    "streaming_stock.yaml": STOCK + "streaming: true\nmax_steps: 3\n",
    "streaming_good.yaml": GOOD + "streaming: true\nmax_steps: 3\ndataloader_num_workers: 1\n",
    "quantized.yaml": LORA + "quantization_bit: 4\n",
    "quantized_6.yaml": LORA + "quantization_bit: 6\n",
    "awq.yaml": LORA.replace("org/model", "awq"),
    "packages.yaml": GOOD + "use_badam: true\nuse_swanlab: true\n",
    "trained.yaml": GOOD.replace("runs/one", "runs/full"),
    "best.yaml": GOOD + "load_best_model_at_end: true\nsave_strategy: steps\n",
    "stopped.yaml": GOOD + "add_tokens: a\ninfer_backend: vllm\n",
    "nothing.yaml": GOOD.replace("do_train: true\n", ""),
    "missing.yaml": "do_train: true\noutput_dir: runs/x\nuse_cpu: true\n",
    "machine.yaml": GOOD.replace("use_cpu: true", "deepspeed: configs/z3.json")
    .replace("runs/one", "runs/full")
    .replace("dataset: here", "dataset: gone"),
    "router.yaml": GOOD.replace("org/model", "moe"),
    "z3.json": json.dumps({"train_batch_size": "auto", "zero_optimization": {"stage": 3}}),
    "z4.json": json.dumps(
        {
            "optimizer": {"type": "AdamW", "params": {"lr": 0.5}},
            "zero_optimization": {"stage": 4, "overlap_com": True, "reduce_bucket_size": "auto"},
        }
    ),
    "against.yaml": GOOD.replace("use_cpu: true\n", "") + "deepspeed: configs/z4.json\n",
    "fsdp.yaml": """
distributed_type: FSDP
mixed_precison: bf16
num_processes: 2
fsdp_config: {fsdp_version: 2, fsdp_reshard_after_foward: true}
parallelism_config: {parallelism_config_cp_size: 2}
""",
    "fsdp_good.yaml": """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
mixed_precision: bf16
num_processes: 2
fsdp_config: {fsdp_version: 2, fsdp_reshard_after_forward: true}
""",
    "export_good.yaml": """
model_name_or_path: org/model
adapter_name_or_path: org/adapter
template: qwen
export_dir: runs/merged
""",
    "export.yaml": """
model_name_or_path: org/model
adapter_name_or_path: org/adapter
finetuning_type: full
export_dir: runs/merged
export_device: gpu
learning_rate: 1e-4
""",
    "inference.yaml": "model_name_or_path: org/model\ntemplate: qwen\ninfer_backend: huggingface\n",
    "inference_bad.yaml": "model_name_or_path: org/model\ninfer_backend: vlm\n",
}


REFUSED = "LLaMA-Factory refuses it: "
EMPTY_STREAM = (
    "streaming: true with dataloader_num_workers: 0 reads no example of here: LLaMA-Factory splits "
    "local files into dataloader_num_workers shards. Write dataloader_num_workers: 1, or remove "
    "streaming."
)
TRAINING_ONLY = "belongs in a training recipe; LLaMA-Factory rejects it here. Remove it."
TRAINED = "it already holds a trained model. Move it away, or name another folder."


def _not_installed(package: str, options: str = "") -> str:
    return (
        f"needs a package that is not installed here: The '{package}' distribution was not found "
        f"and is required by this application. To fix: run `pip install {package}{options}`."
    )


def error(key: str, message: str) -> tuple[str, str, str]:
    return "error", key, message


def warning(key: str, message: str) -> tuple[str, str, str]:
    return "warning", key, message


LOSSES = "Choose from: sigmoid, hinge, ipo, kto_pair, orpo, simpo."
NO_SETTING, MEAN = "is not a setting of", "Did you mean"
NO_GPU = "needs a GPU that supports it, and this machine has none. On a CPU it needs use_cpu: true."
CONTEXT_PARALLEL = (
    "2: transformers computes the loss itself under this parallelism, so finetuning_type: dft is "
    "refused. Set it to 1 for DFT."
)
VALID = ("good", "export_good", "fsdp_good", "inference", "streaming_good", "scored")
EXPECTED: dict[str, list[tuple[str, str, str]]] = {
    **{f"{name}.yaml": [] for name in VALID},
    "z3.json": [],
    "fields.yaml": [
        error("learning_rat", "is not an argument of LLaMA-Factory. Did you mean 'learning_rate'?"),
        error("max_steps", "1000.0 is a number, not a whole number. Write 1000."),
        error("save_strategy", "no without quotes is the boolean false in YAML. Write 'no'."),
        error("pref_loss", f"'simop' is unknown. {LOSSES} Did you mean 'simpo'?"),
        error("per_device_train_batch_size", "'two' is text, not a whole number."),
    ],
    # A wrong value is not reported as missing.
    "dataset.yaml": [error("dataset", "7 is a whole number, not text. Quote it: '7'.")],
    "streaming.yaml": [
        error("val_size", f"{REFUSED}Streaming mode should have an integer val size."),
        error("dataloader_num_workers", EMPTY_STREAM),
        error("max_steps", f"{REFUSED}Please specify `max_steps` in streaming mode."),
    ],
    "streaming_stock.yaml": [error("dataloader_num_workers", EMPTY_STREAM)],
    # Packages that only the training run imports: fine on another machine.
    "quantized.yaml": [warning("quantization_bit", _not_installed("bitsandbytes>=0.39.0"))],
    "awq.yaml": [warning("model_name_or_path", _not_installed("autoawq", " --no-build-isolation"))],
    "packages.yaml": [warning("-", _not_installed(name)) for name in ("badam>=1.2.1", "swanlab")],
    "quantized_6.yaml": [
        error(
            "quantization_bit", f"{REFUSED}Bitsandbytes only accepts 4-bit or 8-bit quantization."
        )
    ],
    "trained.yaml": [warning("output_dir", TRAINED)],
    "stopped.yaml": [
        error("-", f"{REFUSED}vLLM/SGLang backend is only available for API, CLI and Web."),
        warning("-", "LLaMA-Factory's parser stops at the error above. Fix it and validate again."),
    ],
    "missing.yaml": [
        error("model_name_or_path", f"{REFUSED}Please provide `model_name_or_path`."),
        error("dataset", f"{REFUSED}Please specify dataset for training."),
    ],
    # Findings that depend on this machine are warnings.
    "machine.yaml": [
        warning("bf16", NO_GPU),
        warning("output_dir", TRAINED),
        warning("deepspeed", "start it with `FORCE_TORCHRUN=1 llamafactory-cli train`."),
        warning("dataset", "'gone': data/gone.json is not here yet. Put it there before training."),
    ],
    "z4.json": [
        error("zero_optimization.stage", "4: Input should be 0, 1, 2, 3 or 3."),
        error("zero_optimization.overlap_com", f"{NO_SETTING} DeepSpeed. {MEAN} 'overlap_comm'?"),
    ],
    "fsdp.yaml": [
        error("mixed_precison", f"{NO_SETTING} accelerate. {MEAN} 'mixed_precision'?"),
        error(
            "fsdp_config.fsdp_reshard_after_foward",
            f"{NO_SETTING} accelerate, which ignores it. {MEAN} 'fsdp_reshard_after_forward'?",
        ),
        warning("parallelism_config.parallelism_config_cp_size", CONTEXT_PARALLEL),
    ],
    "export.yaml": [
        error("export_device", "'gpu' is unknown. Choose from: cpu, auto."),
        error("learning_rate", TRAINING_ONLY),
        error("adapter_name_or_path", f"{REFUSED}Adapter is only valid for the LoRA method."),
    ],
}
"""All findings of a file."""
GENERATE = "`predict_with_generate` to save model predictions."
AGAINST = "contradicts the recipe: ds optimizer.params.lr=0.5 vs hf learning_rate=1e-05."
ERRORS = {
    "theirs.yaml": [  # of LLaMA-Factory's own parser
        (key, f"{REFUSED}{text}")
        for key, text in (
            ("fp16, bf16", "At most one of fp16 and bf16 can be True, but not both"),
            ("predict_with_generate", f"Please enable {GENERATE}"),
            ("eval_dataset", "Please make sure eval_dataset be provided or val_size >1e-6"),
            ("quantization_bit", "Quantization is only compatible with the LoRA or OFT method."),
        )
    ],
    "against.yaml": [("deepspeed", f"{AGAINST} Write 'auto' there.")],
}
"""All errors of a file that has warnings too."""
ERROR_KEYS = {
    "nothing.yaml": ["do_train"],
    "router.yaml": ["model_name_or_path"],
    "inference_bad.yaml": ["infer_backend"],
    "score_bad.yaml": ["score_steps", "score_task"],
}
STARTS = {
    "template.yaml": ("template", "'qwne' is unknown to LLaMA-Factory. Did you mean 'qwen'?"),
    "stage.yaml": ("stage", f"{DFT} needs stage: sft, not stage: 'dpo'"),
    "weight.yaml": ("dft_weight", "'tokne' is unknown. Choose from: "),
    "score_never.yaml": ("score_task", "'"),
    "stock.yaml": ("dft_weight", "'token' has no effect with finetuning_type: 'full'."),
}
"""Key and beginning of the only finding of a file."""


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Finding]:
    root = tmp_path_factory.mktemp("project")
    (root / "configs").mkdir()
    (root / "data").mkdir()
    (root / "data/here.json").write_text("[]")
    info = {"here": {"file_name": "here.json"}, "gone": {"file_name": "gone.json"}}
    (root / "data/dataset_info.json").write_text(json.dumps(info))
    (root / "moe").mkdir()
    (root / "moe/config.json").write_text(json.dumps({"output_router_logits": True}))
    (root / "awq").mkdir()
    quantization = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    (root / "awq/config.json").write_text(json.dumps(quantization))
    # LLaMA-Factory's default output_dir, which no recipe here uses.
    (root / "trainer_output").mkdir()
    (root / "trainer_output/model.safetensors").write_text("")
    (root / "runs/full").mkdir(parents=True)
    (root / "runs/full/model.safetensors").write_text("")
    for name in ("answers", "later"):
        task = f"{{data: {name}.jsonl, prompt: '{{q}}', metric: exact_match, answer: a}}"
        (root / f"{name}.yaml").write_text(task)
    (root / "answers.jsonl").write_text('{"q": "?", "a": "!"}')
    for name, text in FILES.items():
        (root / "configs" / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        # None of these may change what a recipe means.
        patch.setenv("USE_V1", "1")
        patch.setenv("ALLOW_EXTRA_ARGS", "1")
        patch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        return validate_files([Path("configs") / name for name in FILES])


def _of(findings: Sequence[Finding], name: str) -> list[tuple[str, str, str]]:
    return [(x.severity, x.key, x.message) for x in findings if x.file.name == name]


@pytest.mark.parametrize("name", EXPECTED)
def test_findings(findings: Sequence[Finding], name: str) -> None:
    assert _of(findings, name) == EXPECTED[name]


@pytest.mark.parametrize("name", ERRORS)
def test_errors(findings: Sequence[Finding], name: str) -> None:
    assert [x[1:] for x in _of(findings, name) if x[0] == "error"] == ERRORS[name]


@pytest.mark.parametrize("name", ERROR_KEYS)
def test_keys_of_errors(findings: Sequence[Finding], name: str) -> None:
    assert [x[1] for x in _of(findings, name) if x[0] == "error"] == ERROR_KEYS[name]


@pytest.mark.parametrize("name", STARTS)
def test_the_only_finding(findings: Sequence[Finding], name: str) -> None:
    ((severity, key, message),) = _of(findings, name)
    assert (severity, key) == ("error", STARTS[name][0])
    assert message.startswith(STARTS[name][1])


def test_all_files_are_reported_and_tested(findings: Sequence[Finding]) -> None:
    assert exit_status(findings) == 2
    order = list(dict.fromkeys(x.file.name for x in findings))
    assert order == [name for name in FILES if name in order]
    assert len(order) >= 15
    others = {"selection.yaml", "refused.yaml", "best.yaml", "score_later.yaml"}
    assert {*EXPECTED, *ERRORS, *ERROR_KEYS, *STARTS, *others} == set(FILES)


def test_an_unknown_selection_hides_no_other_error(findings: Sequence[Finding]) -> None:
    (selection_error, dataset_error) = _of(findings, "selection.yaml")
    assert selection_error[:2] == ("error", "finetuning_type")
    assert selection_error[2].startswith(
        "'dtf' is unknown. Choose from: full, lora, freeze, oft, dft, "
    )
    assert dataset_error == ("error", "dataset", f"{REFUSED}Please specify dataset for training.")


def test_all_refusals_of_ours_at_once(findings: Sequence[Finding]) -> None:
    rows = _of(findings, "refused.yaml")
    errors = {"use_dft_loss, use_eaft_loss", "use_kt", "use_unsloth", "packing, neat_packing"}
    errors |= {"moe_aux_loss_coef", "label_smoothing_factor"}
    assert {key for severity, key, _ in rows if severity == "error"} == errors
    assert all(text.startswith(DFT) for severity, _, text in rows if severity == "error")
    warned = [key for severity, key, _ in rows if severity == "warning"]
    assert warned == ["average_tokens_across_devices"]


def test_missing_task_data_and_evaluations(findings: Sequence[Finding]) -> None:
    ((severity, key, message),) = _of(findings, "score_later.yaml")
    assert (severity, key) == ("warning", "score_task")
    assert "its data is not here: " in message
    ((severity, key, _),) = _of(findings, "best.yaml")
    assert severity == "error"
    assert "load_best_model_at_end" in key.split(", ")
