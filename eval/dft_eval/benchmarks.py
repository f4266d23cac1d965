"""What ``dft-factory eval`` can run: one table, and the way from a model to a result."""

from __future__ import annotations

import difflib
import sys

from dft_eval import python_programs
from dft_eval.benchmark import PROMPT_STYLES, Benchmark, Request
from dft_eval.errors import EvaluationError, UsageError
from dft_eval.models import LocalModel
from dft_eval.results import ResultFile, merge_results

__all__ = ["BENCHMARKS", "PROMPT_STYLES", "Benchmark", "Request", "evaluate", "get_benchmark"]

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (python_programs.HUMANEVAL, python_programs.PYTHON_BASICS)
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
    if request.limit is not None and request.limit < 1:
        raise UsageError(f"--limit {request.limit}: give a number of 1 or more.")
    if request.data is not None and len(names) > 1:
        raise UsageError("--data names one benchmark's file: evaluate one benchmark at a time.")
    chosen = [get_benchmark(name) for name in dict.fromkeys(names)]
    if not request.sandboxed:
        sys.stderr.write(
            "dft-factory: --unsafe-no-sandbox: programs that the model wrote run with your rights, "
            "your files and your network.\n"
        )
    subject = LocalModel(request.model)
    header = ResultFile(
        model=request.model,
        model_sha256=subject.sha256,
        base_model=request.base_model,
        label=request.label,
    )
    written = header
    unscored: list[str] = []
    for benchmark in chosen:
        result = benchmark.evaluate(benchmark, request, subject)
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
