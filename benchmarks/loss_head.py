"""Time and memory of the loss from hidden states on: ours and its peers.

    python benchmarks/loss_head.py                 # H 2048; N 2048, 4096, 8192; labelled 1 and .25
    python benchmarks/loss_head.py --grid          # also H 896 and 3584
    python benchmarks/loss_head.py --tokens 2048 --repeats 1
    python benchmarks/loss_head.py --dtype float32 # on a processor without bf16 arithmetic
    pip install --no-deps --target build/trl trl==1.16.0
    python benchmarks/loss_head.py --trl build/trl # beside TRL's chunked log-probabilities

Every point runs in a process of its own: forward and backward of the head and the loss, vocabulary
151,936, bf16 unless another type is asked for. Memory is the peak above what was there before
(inputs and the head's weight are not counted, its gradient is); time is the median of the repeats
(with --repeats 0, the first time), and of the rounds. Where other work comes and goes, several
rounds compare better than several repeats. Compare within one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dft_factory.estimate.measure import resident

VOCABULARY = 151_936
IGNORE_INDEX = -100
TRL = "TRL chunked, loss_type dft"
TRL_COLUMNS = 32768
"""``_CHUNKED_LOGPROB_CHUNK_SIZE`` of TRL 1.16.0."""
TRL_OUTPUTS = ("entropy", "is_top1")
"""What its SFTTrainer logs beside the loss."""


def _inputs(point: dict[str, Any], device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states (1, N, H), head (V, H) and labels (1, N), the labelled share at the end."""
    generator = torch.Generator().manual_seed(0)
    n, h = point["tokens"], point["hidden"]
    dtype = getattr(torch, point["dtype"])
    hidden = torch.randn(1, n, h, generator=generator).to(dtype)
    weight = (torch.randn(VOCABULARY, h, generator=generator) * h**-0.5).to(dtype)
    labels = torch.randint(VOCABULARY, (1, n), generator=generator)
    labels[:, : round(n * (1 - point["labelled"]))] = IGNORE_INDEX
    return (
        hidden.to(device).requires_grad_(),
        weight.to(device).requires_grad_(not point["frozen"]),
        labels.to(device),
    )


def _ours(spec: str, chunk: int = 1024) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    from dft_factory.losses.linear import linear_token_weighted_nll
    from dft_factory.losses.token import shift_labels
    from dft_factory.losses.weights import parse_weight

    token_weight = parse_weight(spec)

    def run(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        targets = shift_labels(labels)[0]
        positions = targets.ne(IGNORE_INDEX).nonzero().squeeze(-1)
        tokens = max(1, len(positions))
        loss = linear_token_weighted_nll(
            hidden[0],
            weight,
            positions,
            targets[positions],
            torch.zeros_like(positions),
            1,
            token_weight,
            chunk=chunk,
            expected_scale=1 / tokens,  # known before the forward pass, as in training
        )
        return loss.total / tokens

    return run


def _evaluation(spec: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    run = torch.no_grad()(_ours(spec))
    return lambda *inputs: run(*inputs).requires_grad_()  # whose backward pass does nothing


def _plain(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    from transformers.loss.loss_utils import ForCausalLMLoss

    return ForCausalLMLoss(hidden @ weight.t(), labels, VOCABULARY)


def _llamafactory(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    from llamafactory.train.trainer_utils import dft_loss_func

    return dft_loss_func(
        {"logits": hidden @ weight.t()}, labels, labels[:, 1:].ne(IGNORE_INDEX).sum()
    )


def _liger(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    from dft_factory.losses.token import shift_labels

    loss = LigerFusedLinearCrossEntropyLoss(use_token_scaling=True, reduction="mean")
    return loss(weight, hidden[0], shift_labels(labels)[0])


def _trl(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """As TRL 1.16.0's SFTTrainer with ``loss_type="dft"``: every position without Triton."""
    from trl.kernels import ChunkedLogProbFunction

    from dft_factory.losses.token import shift_labels

    targets = shift_labels(labels)[0]
    rows, mask = hidden[0], targets.ne(IGNORE_INDEX)
    tokens = mask.sum()
    if hidden.is_cuda:
        rows, targets, mask = rows[mask], targets[mask], mask[mask]
    logps = ChunkedLogProbFunction.apply(
        rows, weight, None, targets.clamp(min=0), 1.0, TRL_COLUMNS, None, 1.0, TRL_OUTPUTS
    )[0].masked_fill(~mask, 0)
    return -(logps.exp().detach() * logps).sum() / tokens


class _Gemms(torch.autograd.Function):
    """The three products that any exact loss needs, in the same chunks, and nothing else.

    As ours in what it allocates, too: the first chunk writes the head's gradient, the others add.
    They are ours also in that bf16 goes in blocks of fp32 where the processor would emulate it.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, chunk: int) -> Tensor:
        from dft_factory.losses.product import Multiplier

        multiply_ = Multiplier()
        rows = hidden[0]
        buffer = rows.new_empty((min(chunk, rows.shape[0]), weight.shape[0]))
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.empty_like(weight) if weight.requires_grad else None
        for start in range(0, rows.shape[0], chunk):
            part = rows[start : start + chunk]
            out = multiply_(buffer[: part.shape[0]], part, weight.t())
            multiply_(grad_hidden[0, start : start + chunk], out, weight)
            if grad_weight is not None:
                multiply_(grad_weight, out.t(), part, add=start > 0)
        ctx.gradients = (grad_hidden, grad_weight)
        return hidden.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        gradients, ctx.gradients = ctx.gradients, ()  # held here, they would be copied
        return (*gradients, None)


def _gemms(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    out: Tensor = _Gemms.apply(hidden, weight, 1024)
    return out


METHODS: dict[str, Callable[[], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "three bare GEMMs": lambda: _gemms,
    "plain CE (transformers)": lambda: _plain,
    "LLaMA-Factory use_dft_loss": lambda: _llamafactory,
    "ours: token": lambda: _ours("token"),
    "ours: geometric_mean": lambda: _ours("geometric_mean"),
    "ours: sequence": lambda: _ours("sequence"),
    "ours: token, evaluation": lambda: _evaluation("token"),
    "Liger use_token_scaling": lambda: _liger,
    TRL: lambda: _trl,
}


def run_point(point: dict[str, Any]) -> dict[str, Any]:
    """One method at one size, in this process."""
    torch.set_num_threads(point["threads"])
    device = point["device"]
    method = METHODS[point["method"]]()
    hidden, weight, labels = _inputs(point, device)
    method(hidden[:, -64:].detach().requires_grad_(), weight, labels[:, -64:]).backward()
    weight.grad = None

    def step() -> float:
        hidden.grad = weight.grad = None
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        method(hidden, weight, labels).backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = [step()]
        peak = torch.cuda.max_memory_allocated() - before
    else:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as stream:
            stream.write("5")  # forget the high-water mark
        before = resident("VmRSS")
        seconds = [step()]
        peak = resident("VmHWM") - before
    seconds += [step() for _ in range(point["repeats"])]
    return {**point, "seconds": statistics.median(seconds[1:] or seconds), "bytes": peak}


def main() -> None:
    """Parse, run every point in a fresh process, print the table with its ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--grid", action="store_true", help="also H 896 and 3584")
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 4096, 8192])
    parser.add_argument("--labelled", type=float, nargs="+", default=[1.0, 0.25])
    parser.add_argument("--repeats", type=int, default=3, help="in a process, after a first time")
    parser.add_argument("--rounds", type=int, default=1, help="of all methods, one after another")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="default: all that can run")
    parser.add_argument("--frozen", action="store_true", help="head without a gradient (LoRA)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--trl", help="folder that holds the package trl")
    parser.add_argument("--json", action="store_true", help="one JSON line a point")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point:
        print("POINT " + json.dumps(run_point(json.loads(args.point))))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {args.threads} threads"
    methods = args.methods or [
        method
        for method in METHODS
        if (device == "cuda" or not method.startswith("Liger")) and (args.trl or method != TRL)
    ]
    print(f"{name}, torch {torch.__version__}, {args.dtype}, V {VOCABULARY}")
    for h in [2048, 896, 3584] if args.grid else [2048]:
        for n in args.tokens:
            for share in args.labelled:
                print(f"\nH {h}, N {n}, labelled {share:g}{', head frozen' * args.frozen}")
                print(f"{'':28}{'s':>9}{'x CE':>8}{'x GEMMs':>9}{'peak MiB':>10}{'x LF':>8}")
                rounds: dict[str, list[dict[str, Any]]] = {}
                for method in methods * args.rounds:
                    point = {
                        "method": method,
                        "hidden": h,
                        "tokens": n,
                        "labelled": share,
                        "frozen": args.frozen,
                        "repeats": args.repeats,
                        "threads": args.threads,
                        "device": device,
                        "dtype": args.dtype,
                    }
                    # For this point alone: LLaMA-Factory refuses so new a TRL.
                    paths = [args.trl] if args.trl and method == TRL else []
                    paths += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
                    done, why = in_own_process(
                        __file__, point, {"PYTHONPATH": os.pathsep.join(paths)}
                    )
                    if done is None:
                        print(f"{method:28}failed: {why}")
                    else:
                        rounds.setdefault(method, []).append(done)
                rows = {method: _median(points) for method, points in rounds.items()}
                for method, row in rows.items():
                    print(
                        f"{method:28}{row['seconds']:9.3f}"
                        f"{_ratio(row, rows.get('plain CE (transformers)'), 'seconds'):>8}"
                        f"{_ratio(row, rows.get('three bare GEMMs'), 'seconds'):>9}"
                        f"{row['bytes'] / 2**20:10.0f}"
                        f"{_ratio(row, rows.get('LLaMA-Factory use_dft_loss'), 'bytes'):>8}"
                    )
                    if args.json:
                        print(json.dumps(row))
                sys.stdout.flush()


def in_own_process(
    file: str, point: dict[str, Any], environment: dict[str, str]
) -> tuple[dict[str, Any] | None, str]:
    """What ``run_point`` of a benchmark gives, or None and why it failed."""
    done = subprocess.run(
        [sys.executable, file, "--point", json.dumps(point)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [x for x in done.stdout.splitlines() if x.startswith("POINT ")]
    if not lines:
        return None, f"exit status {done.returncode} {done.stderr.strip().splitlines()[-1:]}"
    return json.loads(lines[0].removeprefix("POINT ")), ""


def _median(points: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several rounds: the median time, the largest peak."""
    seconds = statistics.median(point["seconds"] for point in points)
    return {**points[0], "seconds": seconds, "bytes": max(point["bytes"] for point in points)}


def _ratio(row: dict[str, Any], other: dict[str, Any] | None, key: str) -> str:
    return "" if other is None or not other[key] else f"{row[key] / other[key]:.3f}"


if __name__ == "__main__":
    main()
