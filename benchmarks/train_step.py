"""Time and memory of a whole training step through LLaMA-Factory: ours against stock.

    python benchmarks/train_step.py                          # Qwen2-like, H 896, 4 layers, N 1024
    python benchmarks/train_step.py --tokens 2048 --hidden 2048 --layers 8

Every recipe runs in a process of its own through LLaMA-Factory's ``run_exp``, as its command line
does: a Qwen2-like model with random weights and Qwen's vocabulary of 151,936, one example of N
tokens a step, nearly all labelled. Time is the median of the steps after the first, from a step's
begin to its end (forward, backward, optimizer). Memory is the peak of a later step above what lay
there before training (weights), so that it holds gradients, optimizer and activations.
Compare within one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from loss_head import VOCABULARY, _ratio, in_own_process

from dft_factory.estimate.measure import resident

RECIPES: dict[str, dict[str, Any]] = {
    "stock SFT (full)": {"finetuning_type": "full"},
    "stock use_dft_loss": {"finetuning_type": "full", "use_dft_loss": True},
    "ours: sft": {"finetuning_type": "sft"},
    "ours: dft": {"finetuning_type": "dft"},
    "ours: dft, sequence": {"finetuning_type": "dft", "dft_weight": "sequence"},
    "stock SFT (lora)": {"finetuning_type": "lora"},
    "ours: dft_lora": {"finetuning_type": "dft_lora"},
}


def make_bench(folder: Path, tokens: int, hidden: int, layers: int, dtype: str) -> None:
    """Model, tokenizer and data set."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from dft_factory.tiny import make_tiny

    make_tiny("qwen2.5-coder", folder / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tiny")
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 2,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [
        {
            "instruction": "Go.",
            "input": "",
            "output": " ".join(f"word{i * k}" for k in range(tokens)),
        }
        for i in range(1, 9)
    ]
    data = folder / "data"
    data.mkdir()
    (data / "bench.json").write_text(json.dumps(rows))
    (data / "dataset_info.json").write_text(json.dumps({"bench": {"file_name": "bench.json"}}))


def run_point(point: dict[str, Any]) -> dict[str, Any]:
    """Train a few steps in this process."""
    import torch
    from transformers import TrainerCallback

    torch.set_num_threads(point["threads"])
    cuda = torch.cuda.is_available()
    seconds: list[float] = []
    peaks: list[int] = []
    state: dict[str, float] = {}

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Clock and memory around every optimizer step."""

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            state["before"] = torch.cuda.memory_allocated() if cuda else resident("VmRSS")

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            if cuda:
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            else:
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            state["started"] = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - state["started"])
            peak = torch.cuda.max_memory_allocated() if cuda else resident("VmHWM")
            peaks.append(peak - int(state["before"]))

    from llamafactory.train.tuner import run_exp

    folder = Path(point["folder"])
    with tempfile.TemporaryDirectory() as out:
        run_exp(
            {
                "model_name_or_path": str(folder / "model"),
                "stage": "sft",
                "do_train": True,
                "dataset": "bench",
                "dataset_dir": str(folder / "data"),
                "template": "qwen",
                "cutoff_len": point["tokens"],
                "max_steps": point["repeats"] + 1,
                "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": 1,
                "learning_rate": 1e-5,
                "bf16": point["dtype"] == "bfloat16",
                "use_cpu": not cuda,
                "output_dir": out,
                "report_to": "none",
                "save_strategy": "no",
                "logging_steps": 1,
                "preprocessing_num_workers": 1,
                "overwrite_cache": True,
                **RECIPES[point["recipe"]],
            },
            callbacks=[Watch()],
        )
    return {**point, "seconds": statistics.median(seconds[1:]), "bytes": max(peaks[1:])}


def main() -> None:
    """Parse, run every recipe in a fresh process, print the table with its ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3, help="timed steps")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--point", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point:
        print("POINT " + json.dumps(run_point(json.loads(args.point))))
        return
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"{name}, torch {torch.__version__}, {args.dtype}, V {VOCABULARY}, H {args.hidden}, "
        f"{args.layers} layers, N {args.tokens}, {args.threads} threads"
    )
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_bench(Path(folder), args.tokens, args.hidden, args.layers, args.dtype)
        for recipe in args.recipes:
            point = {
                "recipe": recipe,
                "folder": folder,
                "tokens": args.tokens,
                "repeats": args.repeats,
                "threads": args.threads,
                "dtype": args.dtype,
            }
            done, why = in_own_process(__file__, point, {"OMP_NUM_THREADS": str(args.threads)})
            if done is None:
                print(f"{recipe:24}failed: {why}")
            else:
                rows[recipe] = done
    print(f"{'':24}{'s a step':>10}{'x stock':>9}{'peak MiB':>10}{'x stock':>9}")
    for recipe, row in rows.items():
        stock = rows.get(f"stock SFT ({'lora' if 'lora' in recipe else 'full'})")
        print(
            f"{recipe:24}{row['seconds']:10.3f}{_ratio(row, stock, 'seconds'):>9}"
            f"{row['bytes'] / 2**20:10.0f}{_ratio(row, stock, 'bytes'):>9}"
        )


if __name__ == "__main__":
    main()
