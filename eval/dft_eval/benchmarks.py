"""What ``dft-factory eval`` can run: one table, and the way from a model to a result."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import replace

from dft_eval import python_programs, sandbox
from dft_eval.benchmark import PROMPT_STYLES, Benchmark, Request
from dft_eval.errors import EvaluationError, UsageError
from dft_eval.humaneval_plus.adapter import HUMANEVAL_PLUS
from dft_eval.models import open_subject
from dft_eval.multipl_e.benchmark import MULTIPL_E
from dft_eval.natural_questions.benchmark import NATURAL_QUESTIONS
from dft_eval.results import ResultFile, merge_results
from dft_eval.system_prompts import NONE, TRAINING_FILE, trained_with
from dft_eval.vlm.mathverse import MATHVERSE
from dft_eval.vlm.mathvision import MATHVISION
from dft_eval.vlm.wemath import WEMATH

__all__ = ["BENCHMARKS", "PROMPT_STYLES", "Benchmark", "Request", "evaluate", "get_benchmark"]

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        python_programs.HUMANEVAL,
        HUMANEVAL_PLUS,
        MULTIPL_E,
        python_programs.PYTHON_BASICS,
        MATHVERSE,
        MATHVISION,
        WEMATH,
        NATURAL_QUESTIONS,
    )
}


def get_benchmark(name: str) -> Benchmark:
    """Look a benchmark up.

    Raises:
        UsageError: naming the value, the choices and the nearest match.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    near = difflib.get_close_matches(name, BENCHMARKS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"Benchmark {name!r} is unknown. Choose of {', '.join(BENCHMARKS)}.{hint}")


def evaluate(names: list[str], request: Request) -> ResultFile:
    """Score one model on the named benchmarks and write ``results.json`` into ``request.out``.

    Every result is written as soon as it is there. Unscored items are kept out of the score, and
    make the whole call fail at its end, with everything else done.

    Raises:
        UsageError, PrerequisiteError: before anything is generated, where that can be known.
        EvaluationError: some items could not be scored.
    """
    chosen = [get_benchmark(name) for name in dict.fromkeys(names)]
    _check(chosen, request)
    held_by: sandbox.Sandbox | None = None
    if any(benchmark.runs_programs for benchmark in chosen):
        held_by = sandbox.select(request.sandbox) if request.sandboxed else sandbox.UNCONFINED
    if held_by is not None and held_by.name == "landlock":
        sys.stderr.write(
            f"dft-factory: programs run in {held_by.describe()}, which does not protect from: "
            f"{'; '.join(held_by.does_not_protect_from)}.\n"
        )
    if not request.sandboxed:
        sys.stderr.write(
            "dft-factory: --unsafe-no-sandbox: programs that the model wrote run with your rights, "
            "your files and your network.\n"
        )
    subject = open_subject(request)
    header = ResultFile(
        model=request.model,
        model_sha256=subject.sha256,
        base_model=request.base_model,
        label=request.label,
    )
    written = header
    unscored: list[str] = []
    for benchmark in chosen:
        decoding = request.decoding
        if request.own_max_new_tokens:
            decoding = replace(decoding, max_new_tokens=benchmark.max_new_tokens)
        style = request.prompt_style or benchmark.default_style
        as_trained = None
        if style == "chat" and request.backend == "hf" and decoding.system_prompt is None:
            as_trained = trained_with(request.model)
            decoding = replace(decoding, system_prompt=as_trained)
        result = benchmark.evaluate(benchmark, replace(request, decoding=decoding), subject)
        notes = result.notes
        if as_trained is not None:
            notes = [*notes, f"system prompt: that of the model's training ({TRAINING_FILE})"]
        if request.backend == "openai" and decoding.system_prompt == NONE:
            notes = [*notes, "no system message is sent; the server's template may insert its own"]
        result = result.model_copy(
            update={"decoding": {**subject.record(), **result.decoding}, "notes": notes}
        )
        if held_by is not None and benchmark.runs_programs:
            limits = "; ".join(held_by.does_not_protect_from)
            notes = [*notes, f"the sandbox ({held_by.name}) does not protect from: {limits}"]
            result = result.model_copy(update={"sandbox": held_by.name, "notes": notes})
        written = merge_results(request.out, header, [result])
        if result.n_scored < result.n_total:
            unscored.append(
                f"{benchmark.name}: {result.n_total - result.n_scored} of {result.n_total}"
            )
    if unscored:
        raise EvaluationError(
            f"Items without a score ({'; '.join(unscored)}); their reasons are in the items files."
        )
    return written


def _check(chosen: Sequence[Benchmark], request: Request) -> None:
    """Refuse options that the chosen benchmarks do not take."""
    if request.limit is not None and request.limit < 1:
        raise UsageError(f"--limit {request.limit}: give a number of 1 or more.")
    if request.judge_workers is not None and request.judge_workers < 1:
        raise UsageError(f"--judge-workers {request.judge_workers}: give a number of 1 or more.")
    formats = {benchmark.data_format or benchmark.name for benchmark in chosen}
    if request.data is not None and len(formats) > 1:
        raise UsageError("--data names one benchmark's file: evaluate one benchmark at a time.")
    for option in ("judge", "min_pixels", "max_pixels"):
        without = [benchmark.name for benchmark in chosen if option not in benchmark.options]
        if getattr(request, option) is not None and without:
            able = [name for name, benchmark in BENCHMARKS.items() if option in benchmark.options]
            raise UsageError(
                f"--{option.replace('_', '-')} has no effect on {', '.join(without)}. Leave it "
                f"out, or evaluate {', '.join(able)} by themselves."
            )
    single = [benchmark.name for benchmark in chosen if not benchmark.samples]
    if request.decoding.samples > 1 and single:
        able = [name for name, benchmark in BENCHMARKS.items() if benchmark.samples]
        raise UsageError(
            f"--samples {request.decoding.samples}: {', '.join(single)}: scored on one completion "
            f"an item. Several are taken by {', '.join(able)}."
        )
    for benchmark in chosen:
        style = request.prompt_style or benchmark.default_style
        if request.decoding.system_prompt is not None and style == "completion":
            raise UsageError(
                f"--system-prompt: {benchmark.name} is asked by raw completion, which has no "
                "system message. Leave it out, or add --prompt-style chat."
            )
        if request.harness is not None and request.harness not in benchmark.harnesses:
            known = ", ".join(benchmark.harnesses) or "its own alone; leave the option out"
            raise UsageError(f"--harness {request.harness!r}: {benchmark.name} knows {known}.")
