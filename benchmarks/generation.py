"""Generation speed beside EvalPlus' own transformers backend: same problems, model and threads.

    python benchmarks/generation.py --model runs/demo/smollm2 --problems 32
    python benchmarks/generation.py --model runs/demo/smollm2 --problems 32 --samples 16 \\
        --max-new-tokens 16

EvalPlus completes one problem at a time; we complete them in batches. Both start from the same
prompts, run in the same precision (``--evalplus-dtype bfloat16`` is what EvalPlus does unasked) and
stop at the same texts. Completions are compared, those that differ (ties between logits) are named,
and tokens are counted on ours. Seconds are wall time and processor time; on a machine that does
other work the second says more, with one thread.

With ``--samples`` the comparison is of ours with ours: the samples of a problem one after the
other, which share one run of its prompt, against an order in which no two of a batch can.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dft_eval.generation.run import Completion, Decoding, Prompt, samples_of
from dft_eval.humaneval_plus.adapter import COMPLETION_STOP
from dft_eval.models import LocalModel
from dft_eval.python_programs import human_eval


@dataclass
class Spent:
    """Seconds of one side."""

    wall: float = 0.0
    cpu: float = 0.0

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


def evalplus_decoder(model: str, dtype: str, max_new_tokens: int) -> Callable[[str], str]:
    """EvalPlus' HuggingFaceDecoder as its ``codegen --greedy --backend hf`` makes it."""
    from evalplus.provider.hf import HuggingFaceDecoder

    with contextlib.redirect_stdout(sys.stderr):
        decoder: Any = HuggingFaceDecoder(
            name=model,
            dataset="humaneval",
            force_base_prompt=True,
            temperature=0.0,
            batch_size=1,
            dtype=dtype,
            max_new_tokens=max_new_tokens,
        )
    # It extends one list of the module for every decoder made.
    decoder.eos = list(dict.fromkeys(decoder.eos))

    def complete(prompt: str) -> str:
        # In its favour: its stop criteria of all former prompts stay on the model, each with its
        # own prompt's length, which costs time and can end a later completion before it begins.
        vars(decoder.model).pop("_get_stopping_criteria", None)
        return str(decoder.codegen(prompt, do_sample=False, num_samples=1)[0])

    return complete


def shared_prompts(model: LocalModel, prompts: list[Prompt], decoding: Decoding) -> dict[str, Any]:
    """Samples of a prompt together and apart: the seconds of both, and completions that differ."""
    planned = [prompts[i] for i in model.text.batches(prompts, decoding)[0]]
    together = samples_of(planned, decoding)
    apart = [row for k in range(decoding.samples) for row in together[k :: decoding.samples]]
    spent = {"together": Spent(), "apart": Spent()}
    rows: dict[str, dict[str, Completion]] = {}
    for name, order in (("together", together), ("apart", apart)):
        with spent[name].clock():
            rows[name] = {row.id: row for row in model.text.complete(order, decoding)}
    tokens = sum(row.n_tokens for row in rows["apart"].values())

    def other(row: Completion) -> bool:
        return rows["together"][row.id].completion != row.completion

    return {
        "tokens": tokens,
        **{
            name: {"seconds": s.wall, "cpu_seconds": s.cpu, "tokens/s": tokens / s.wall}
            for name, s in spent.items()
        },
        "ratio": spent["apart"].wall / spent["together"].wall,
        "cpu_ratio": spent["apart"].cpu / spent["together"].cpu,
        "other completions": [id for id, row in rows["apart"].items() if other(row)],
    }


def main() -> None:
    """Run both and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--evalplus-dtype", default="float32")
    parser.add_argument("--ours-only", action="store_true", help="leave EvalPlus out")
    parser.add_argument("--samples", type=int, default=1, help="of each problem, at temperature 1")
    args = parser.parse_args()
    if args.samples > 1 and args.batch_size > args.problems:
        parser.error(f"--batch-size {args.batch_size}: at most --problems ({args.problems})")

    import torch

    torch.set_num_threads(args.threads)
    prompts = [Prompt(p.task_id, f"{p.prompt.strip()}\n") for p in human_eval()[: args.problems]]
    decoding = Decoding(args.max_new_tokens, args.batch_size, COMPLETION_STOP)
    model = LocalModel(args.model)
    model.load()
    if args.samples > 1:
        decoding = replace(decoding, samples=args.samples, temperature=1.0)
        names = ("problems", "samples", "batch_size", "max_new_tokens", "threads")
        settings = {name: getattr(args, name) for name in names}
        print(
            json.dumps({**model.record(), **settings, **shared_prompts(model, prompts, decoding)})
        )
        return
    ours, theirs = Spent(), Spent()
    rows = {}
    planned = model.text.batches(prompts, decoding)
    model.text.complete([Prompt("warm", "x")], Decoding(max_new_tokens=2))
    decoder = None
    if not args.ours_only:
        decoder = evalplus_decoder(str(Path(args.model)), args.evalplus_dtype, args.max_new_tokens)
        decoder("x")
    differ = []
    for batch in planned:  # side by side, so that a machine that changes its pace does it to both
        with ours.clock():
            completions = model.text.complete([prompts[i] for i in batch], decoding)
        rows.update((row.id, row) for row in completions)
        if decoder is None:
            continue
        for place, i in enumerate(batch):
            with theirs.clock():
                text = decoder(prompts[i].text)
            if text != completions[place].completion.replace("\t", "    "):
                differ.append(prompts[i].id)
    tokens = sum(row.n_tokens for row in rows.values())
    result: dict[str, Any] = {
        **model.record(),
        **{name: getattr(args, name) for name in ("problems", "batch_size", "threads")},
        "tokens": tokens,
        "ours": {"seconds": ours.wall, "cpu_seconds": ours.cpu, "tokens/s": tokens / ours.wall},
    }
    if decoder is not None:
        result |= {
            "evalplus_dtype": args.evalplus_dtype,
            "evalplus": {
                "seconds": theirs.wall,
                "cpu_seconds": theirs.cpu,
                "tokens/s": tokens / theirs.wall,
            },
            "ratio": theirs.wall / ours.wall,
            "cpu_ratio": theirs.cpu / ours.cpu,
            "other completions": differ,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
