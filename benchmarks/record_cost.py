"""What token_probabilities.jsonl and the warnings cost of a training step.

    python benchmarks/record_cost.py                                  # tiny Qwen2-like checkpoint
    dft-factory smollm2 --out runs/demo/smollm2
    python benchmarks/record_cost.py --model runs/demo/smollm2 --steps 6 --words 200

One run through LLaMA-Factory's ``run_exp`` with a log at every step, the dearest setting. Steps
alternate: with the record, and without it (its sums replaced by those of nll and its like alone,
nothing written). Printed are the medians of both and their ratio, in wall-clock and in CPU time,
and the share of the recorded steps' time that was spent in the added code.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Parse, train, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="default: a tiny checkpoint, made here")
    parser.add_argument("--template", default="qwen")
    parser.add_argument("--steps", type=int, default=40, help="steps of each kind")
    parser.add_argument("--words", type=int, default=100, help="words an answer")
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()

    from transformers import TrainerCallback

    from dft_factory.patch import record, trainer
    from dft_factory.tiny import make_tiny

    spent = 0.0
    recording = True

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent += time.perf_counter() - started

        return call

    full = timed(record.sums_of)

    def sums_of(loss: Any, end_of_turn: Any) -> Any:
        if recording:
            return full(loss, end_of_turn)
        import torch

        sums = loss.rows.double().sum(dim=0)
        return torch.nn.functional.pad(sums, (0, len(record.COLUMNS) - len(sums)))

    write = timed(record.Recorder.record)
    trainer.sums_of = sums_of
    record.Recorder.record = (  # type: ignore[method-assign]
        lambda *args, **kwargs: write(*args, **kwargs) if recording else None
    )

    rows: dict[bool, list[tuple[float, float]]] = {True: [], False: []}

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Clocks from one step's begin to the next one's, logging included."""

        clocks: tuple[float, float] | None = None

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            nonlocal recording
            now = (time.perf_counter(), time.process_time())
            if self.clocks is not None and state.global_step > 2:
                took = (now[0] - self.clocks[0], now[1] - self.clocks[1])
                rows[recording].append(took)
            recording = state.global_step % 2 == 0
            self.clocks = now

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = args.model or make_tiny("qwen2.5-coder", folder / "model")
        data = [
            {
                "instruction": "Go.",
                "input": "",
                "output": " ".join(f"word{i * k}" for k in range(args.words)),
            }
            for i in range(1, 17)
        ]
        (folder / "set.json").write_text(json.dumps(data))
        (folder / "dataset_info.json").write_text(json.dumps({"set": {"file_name": "set.json"}}))
        from llamafactory.train.tuner import run_exp

        run_exp(
            {
                "model_name_or_path": str(model),
                "stage": "sft",
                "do_train": True,
                "finetuning_type": "dft",
                "dataset": "set",
                "dataset_dir": str(folder),
                "template": args.template,
                "cutoff_len": 2048,
                "max_steps": 2 * args.steps + 4,
                "per_device_train_batch_size": args.batch,
                "learning_rate": 1e-5,
                "output_dir": str(folder / "out"),
                "report_to": "none",
                "save_strategy": "no",
                "logging_steps": 1,
                "preprocessing_num_workers": 1,
            },
            callbacks=[Watch()],
        )
    medians = {
        kind: [statistics.median(column) for column in zip(*times, strict=True)]
        for kind, times in rows.items()
    }
    for place, clock in enumerate(("wall clock", "CPU time")):
        ours, without = medians[True][place], medians[False][place]
        sys.stdout.write(
            f"{clock}: {1000 * ours:.1f} ms a step with the record, {1000 * without:.1f} without, "
            f"ratio {ours / without:.3f}\n"
        )
    recorded = sum(wall for wall, _ in rows[True])
    sys.stdout.write(f"share of the recorded steps in the added code: {spent / recorded:.2%}\n")


if __name__ == "__main__":
    main()
