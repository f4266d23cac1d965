"""What harnesses have in common that ask the model themselves, in a process of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from math import isclose
from pathlib import Path

from dft_eval.benchmark import Benchmark, Request
from dft_eval.errors import UsageError
from dft_eval.generation.run import Decoding
from dft_eval.processes import die_with_parent
from dft_eval.results import BenchmarkResult
from dft_eval.system_prompts import NONE


def refuse_options(benchmark: Benchmark, request: Request, *, takes: Sequence[str] = ()) -> None:
    """Refuse options that the harness decides itself.

    Args:
        takes: those that it leaves to us.

    Raises:
        UsageError: naming the option.
    """
    if request.backend != "hf":
        raise UsageError(f"{benchmark.name} runs with --backend hf, not {request.backend}.")
    if request.decoding.system_prompt == NONE:
        raise UsageError(f"--system-prompt none: {benchmark.name} leaves that to the template.")
    sampling = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    plain, decoding = Decoding(), request.decoding
    changed = [name for name in sampling if getattr(decoding, name) != getattr(plain, name)]
    if not request.own_max_new_tokens:
        changed.append("max_new_tokens")
    options = [f"--{name.replace('_', '-')}" for name in changed if name not in takes]
    if options:
        names = ", ".join(options)
        raise UsageError(f"{names}: {benchmark.name} is decoded as its task says. Leave it out.")


def run_logged(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
    """Exit status of a command that ends with this process; its output goes to ``log``."""
    with log.open("w", encoding="utf-8") as stream:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=environment,
            preexec_fn=die_with_parent,
            check=False,
        ).returncode


def as_printed(result: BenchmarkResult, score: float, stderr: float | None) -> BenchmarkResult:
    """``result`` with the score that the harness printed; a note where the items' mean differs."""
    if result.score is not None and isclose(result.score, score, abs_tol=1e-9):
        return result
    note = "the score is the harness's own aggregate, not the mean of the items"
    return result.model_copy(
        update={"score": score, "stderr": stderr, "notes": [*result.notes, note]}
    )
