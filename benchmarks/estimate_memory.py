"""`dft-factory estimate` beside the measured peak of real trainings, on a CPU.

    python benchmarks/estimate_memory.py
    python benchmarks/estimate_memory.py --configs lora vl

Models with random weights (a Qwen2 of 41 million, a Qwen2.5-VL of 31 million) train a few steps
through LLaMA-Factory's ``run_exp``, as its command line does. A step is measured in two ways:

* torch: the peak of torch's CPU allocator, from the memory events of its profiler, with the weights
  and the optimizer's state, which lay there before. On a GPU this is ``max_memory_allocated``.
* process: the peak of resident memory (VmHWM) less that before the model was made, both without
  pages of files (RssFile): a fork maps its libraries anew. Weights are made in place
  (train_from_scratch), for a mapped checkpoint is such a page too. Freed tensors must go back to
  the system at once, so malloc has one arena and maps each block above 64 KiB by itself.

A tiny training before them loads every library. Each training and each estimate runs in a fork.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # a pool of threads does not survive a fork
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}
VOCABULARY = 32_768
TEXT: dict[str, Any] = {"model_name_or_path": "text", "dataset": "words", "template": "qwen"}
PICTURES: dict[str, Any] = {
    "model_name_or_path": "vl",
    "dataset": "pictures",
    "template": "qwen2_vl",
    "image_max_pixels": 448 * 448,
    "cutoff_len": 640,  # truncation must not cut the picture
    "per_device_train_batch_size": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "dft, full, bf16": {**TEXT, "finetuning_type": "dft", "bf16": True},
    "stock SFT, full logits, bf16": {**TEXT, "finetuning_type": "full", "bf16": True},
    "dft, full, pure bf16, accumulated": {
        **TEXT,
        "finetuning_type": "dft",
        "pure_bf16": True,
        "gradient_accumulation_steps": 2,
    },
    "dft_lora, bf16, no checkpointing": {
        **TEXT,
        "finetuning_type": "dft_lora",
        "bf16": True,
        "disable_gradient_checkpointing": True,
    },
    "dft_freeze, fp32, no checkpointing": {
        **TEXT,
        "finetuning_type": "dft_freeze",
        "freeze_trainable_layers": 2,
        "disable_gradient_checkpointing": True,
    },
    "dft, full with vision tower, pictures": {
        **PICTURES,
        "finetuning_type": "dft",
        "bf16": True,
        "freeze_vision_tower": False,
        "freeze_multi_modal_projector": False,
    },
}


WARM_UP = {**TEXT, "model_name_or_path": "tiny-text", "finetuning_type": "dft", "cutoff_len": 16}


def make_models(folder: Path) -> None:
    """Two checkpoints with their tokenizers."""
    import torch
    from transformers import (
        AutoConfig,
        AutoProcessor,
        AutoTokenizer,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2ForCausalLM,
    )

    from dft_factory.tiny import make_tiny

    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(0)
    tiny = make_tiny("qwen2.5-coder", folder / "tiny-text")
    config = AutoConfig.from_pretrained(tiny)
    config.update({**sizes, "num_hidden_layers": 8, "layer_types": ["full_attention"] * 8})
    config.architectures = ["Qwen2ForCausalLM"]
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "text")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder / "text")

    tiny = make_tiny("qwen2.5-vl", folder / "tiny-vl")
    config = AutoConfig.from_pretrained(tiny)
    text = config.text_config
    text.update({**sizes, "num_hidden_layers": 4, "layer_types": ["full_attention"] * 4})
    text.rope_parameters["mrope_section"] = [8, 12, 12]
    config.tie_word_embeddings = True
    vision = {"hidden_size": 256, "intermediate_size": 768, "num_heads": 4, "depth": 4}
    config.vision_config.update({**vision, "out_hidden_size": 512, "fullatt_block_indexes": [1, 3]})
    model = Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
    model.save_pretrained(folder / "vl")
    AutoProcessor.from_pretrained(tiny).save_pretrained(folder / "vl")


def make_data(folder: Path, side: int) -> None:
    """Answers longer than cutoff_len; pictures of the largest size."""
    from PIL import Image

    Image.new("RGB", (side, side), "red").save(folder / "picture.png")
    answer = " ".join(f"word{i}" for i in range(2000))
    words = [{"instruction": "Go.", "input": "", "output": answer}] * 16
    pictures = [
        {**row, "instruction": "<image>Go.", "images": [str(folder / "picture.png")]}
        for row in words
    ]
    info: dict[str, Any] = {}
    for name, rows in (("words", words), ("pictures", pictures)):
        (folder / f"{name}.json").write_text(json.dumps(rows))
        info[name] = {"file_name": f"{name}.json"}
    info["pictures"]["columns"] = {
        "prompt": "instruction",
        "response": "output",
        "images": "images",
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))


def recipe(folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """A whole training YAML."""
    return {
        "stage": "sft",
        "do_train": True,
        "dataset_dir": str(folder),
        "cutoff_len": 256,
        "max_steps": 3,
        "train_from_scratch": True,
        "max_samples": 16,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-5,
        "optim": "adamw_torch",
        "use_cpu": True,
        "output_dir": tempfile.mkdtemp(dir=folder),
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        **changes,
        "model_name_or_path": str(folder / changes["model_name_or_path"]),
    }


def measure(values: dict[str, Any]) -> dict[str, float]:
    """Peaks in bytes: ``process`` of the second step, ``torch`` of the third."""
    import torch
    from llamafactory.hparams import parser
    from llamafactory.train.sft import workflow
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    from dft_factory.estimate.measure import resident

    parser.is_torch_bf16_gpu_available = lambda: True  # LLaMA-Factory's pure_bf16 asks for a GPU
    before: list[int] = []
    load_model = workflow.load_model

    def load(*args: Any, **kwargs: Any) -> Any:
        before.append(resident("VmRSS") - resident("RssFile"))
        return load_model(*args, **kwargs)

    workflow.load_model = load
    profile = torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    )
    peaks: dict[str, float] = {}

    class Watch(TrainerCallback):  # type: ignore[misc]
        """The two steps after the first, each with the loading of its batch."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            elif state.global_step == 2:
                peaks["process"] = resident("VmHWM") - resident("RssFile") - before[0]
                self.lasting = lasting_bytes(kwargs["model"], kwargs["optimizer"])
                profile.start()  # after the second step, for its events take memory
            else:
                profile.stop()
                peaks["torch"] = self.lasting + allocated(profile)

    run_exp(values, callbacks=[Watch()])
    return peaks


def lasting_bytes(model: Any, optimizer: Any) -> int:
    """Weights, buffers and the optimizer's state."""
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [x for state in optimizer.state.values() for x in state.values()]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(storages.values())


def allocated(profile: Any) -> int:
    """Most that was allocated at once while the profiler ran."""
    with tempfile.NamedTemporaryFile(suffix=".json") as trace:
        profile.export_chrome_trace(trace.name)
        events = json.loads(Path(trace.name).read_text(encoding="utf-8"))["traceEvents"]
    totals = [
        event["args"]["Total Allocated"]
        for event in events
        if event["name"] == "[memory]" and event["args"]["Device Type"] == 0
    ]
    return int(max(totals))


def estimate(values: dict[str, Any]) -> dict[str, float]:
    """The same from ``dft-factory estimate``."""
    from dft_factory.estimate.worker import estimate as simulate

    job = {"values": values, "pictures": None}
    result = simulate({**job, "on_gpu": False, "sharded": False, "zero": False, "plan": False})
    return {"bytes": sum(result["at_peak"].values())}


def in_fork(
    function: Callable[[dict[str, Any]], dict[str, float]], values: dict[str, Any]
) -> dict[str, float]:
    """``function(values)`` in a process of its own, which has all imports."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as answer:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                log = os.open(os.devnull, os.O_WRONLY)
                os.dup2(log, 1)
                started = time.process_time()
                result = function(values)
                result["seconds"] = time.process_time() - started
                Path(answer.name).write_text(json.dumps(result), encoding="utf-8")
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        if status:
            raise RuntimeError(f"{function.__name__} failed")
        return dict(json.load(answer))


def compare(folder: Path, names: list[str]) -> None:
    """Train, estimate, print one line for each configuration."""
    width = max(map(len, CONFIGS))
    print(f"{'MiB':{width}}  estimate  torch  ratio  process  ratio  processor s")
    for name in names:
        values = recipe(folder, CONFIGS[name])
        ours, real = in_fork(estimate, values), in_fork(measure, values)
        ratios = {key: ours["bytes"] / real[key] for key in ("torch", "process")}
        print(
            f"{name:{width}}  {ours['bytes'] / 2**20:8.0f}  {real['torch'] / 2**20:5.0f}"
            f"  {ratios['torch']:5.3f}  {real['process'] / 2**20:7.0f}  {ratios['process']:5.3f}"
            f"  {ours['seconds']:.0f} + {real['seconds']:.0f}",
            flush=True,
        )


def main() -> None:
    """Parse, import, make models and data, compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS), metavar="NAME")
    options = parser.parse_args()
    names = [name for name in CONFIGS if any(word in name for word in options.configs)]
    if not ENVIRONMENT.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})
    from dft_factory import startup

    startup.install()
    from llamafactory.train.tuner import run_exp

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_models(folder)
        make_data(folder, 448)
        stdout = os.dup(1)
        os.dup2(2, 1)
        run_exp(recipe(folder, WARM_UP))
        sys.stdout.flush()
        os.dup2(stdout, 1)
        compare(folder, names)


if __name__ == "__main__":
    main()
