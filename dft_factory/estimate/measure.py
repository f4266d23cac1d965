"""Subprocess of ``estimate --measure``: three steps of the real training on the user's own device.

The first step is not counted: libraries load and kernels compile in it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dft_factory.errors import ConfigError
from dft_factory.estimate.worker import BESIDE_STEPS
from dft_factory.worker_process import serve

STEPS = 3


def measure(values: Mapping[str, Any]) -> dict[str, float]:
    """``tokens`` and ``seconds`` of the steps after the first, ``peak`` in bytes.

    The peak is torch's on a GPU; on a CPU resident memory above that before the model was loaded,
    with the libraries that the training brings in.

    Raises:
        ConfigError: a training for a GPU, and none is here.
    """
    import torch
    from llamafactory.train.sft import workflow
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    on_gpu = not values.get("use_cpu")
    if on_gpu and not torch.cuda.is_available():
        raise ConfigError(
            "--measure: torch sees no GPU here, and the YAML trains on one. Run it where the GPU "
            "is, put use_cpu=true after the YAML, or state a rate: --tokens-per-second X."
        )
    before: list[int] = []
    peaks: list[int] = []
    clocks: list[tuple[float, int]] = []
    load_model = workflow.load_model

    def load(*args: Any, **kwargs: Any) -> Any:
        before.append(0 if on_gpu else resident("VmRSS"))
        return load_model(*args, **kwargs)

    def peak() -> int:
        return torch.cuda.max_memory_allocated() if on_gpu else resident("VmHWM") - before[0]

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Clock and tokens at the end of each step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if on_gpu:
                torch.cuda.synchronize()
            clocks.append((time.perf_counter(), int(state.num_input_tokens_seen)))
            if len(clocks) == 1:
                if on_gpu:
                    torch.cuda.reset_peak_memory_stats()
                else:
                    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            elif len(clocks) == STEPS:
                peaks.append(peak())

    workflow.load_model = load
    with tempfile.TemporaryDirectory() as scratch:
        settings = {key: value for key, value in values.items() if key not in BESIDE_STEPS}
        settings.update(output_dir=scratch, report_to="none", save_strategy="no", do_train=True)
        # As the data set's lengths: padding is part of a packed row alone.
        packed = values.get("packing") or values.get("neat_packing")
        settings.update(include_num_input_tokens_seen="all" if packed else "non_padding")
        settings.update(max_steps=STEPS, logging_steps=1)
        run_exp(settings, callbacks=[Watch()])
    (start, first), (end, last) = clocks[0], clocks[-1]
    return {"tokens": last - first, "seconds": end - start, "peak": peaks[0]}


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    serve(lambda job: measure(job["values"]))
