"""MultiPL-E: HumanEval's problems in eight languages (arXiv 2208.08227).

The score is the mean over all problems; ``breakdown`` has pass@1 of each language and their
``average``, the paper's figure, which weighs every language alike.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from dft_eval import languages, sandbox
from dft_eval.benchmark import (
    Benchmark,
    Part,
    PromptStyle,
    Request,
    Rows,
    finish,
    missing_sandbox,
    size_notes,
)
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.generation.run import Completion, Failure, Prompt
from dft_eval.languages import HARNESSES, LANGUAGES, Harness
from dft_eval.languages.judge import CRASH_PASSES
from dft_eval.languages.programs import (
    Problem,
    from_answer,
    from_completion,
    prompt_text,
    question,
    stop_texts,
)
from dft_eval.multipl_e.data import from_hub, read_folder
from dft_eval.progress import Progress
from dft_eval.requirements import MissingRequirement
from dft_eval.results import BenchmarkResult, ItemScore
from dft_eval.statistics import mean_and_stderr

HARNESS_NAMES: Mapping[Harness, str] = {
    "official": "MultiPL-E, official recipes (nuprl/MultiPL-E)",
    "qwen": "MultiPL-E, recipes of Qwen2.5-Coder (multiple-eval at d5ead97)",
}
Data = dict[str, list[Problem]]


def judge(
    problems: Sequence[Problem],
    completions: Sequence[Completion | Failure],
    style: PromptStyle,
    harness: Harness,
    *,
    sandboxed: bool,
    workers: int | None = None,
    progress: Callable[[int, int], None],
) -> list[ItemScore]:
    """Scores in the order of the problems; at most ``workers`` programs run at once."""

    def verdict(pair: tuple[Problem, Completion | Failure]) -> ItemScore:
        problem, completion = pair
        if isinstance(completion, Failure):
            return ItemScore(id=problem.id, score=None, reason=completion.reason)
        build = from_answer if style == "chat" else from_completion
        program = build(problem, completion.completion, harness)
        score, reason = languages.judge(problem.language, program, harness, sandboxed=sandboxed)
        if score == 0.0 and completion.finish_reason == "length":
            reason += " (completion cut at max_new_tokens)"
        return ItemScore(id=problem.id, score=score, reason=reason)

    pairs = list(zip(problems, completions, strict=True))
    return sandbox.judge_each(verdict, pairs, workers, progress)


def _missing() -> list[MissingRequirement]:
    toolchains = map(languages.missing_toolchain, LANGUAGES.values())
    return [
        *missing_sandbox(),
        *(replace(row, name=f"{row.name}; unscored without it") for row in toolchains if row),
    ]


def _harness(name: str | None) -> Harness:
    for harness in HARNESSES:
        if name in (None, harness):
            return harness
    raise UsageError(f"--harness {name!r} is unknown. Choose from: {', '.join(HARNESSES)}.")


def _load(benchmark: Benchmark, request: Request) -> Data:
    return read_folder(request.data) if request.data else from_hub()


def _parts(benchmark: Benchmark, request: Request, data: Data) -> list[Part]:
    """One part per language."""
    style = request.prompt_style or benchmark.default_style
    harness = _harness(request.harness)
    parts = []
    for code, problems in data.items():
        problems = problems[: request.limit]
        if style == "chat":
            prompts = [Prompt(problem.id, question(problem), chat=True) for problem in problems]
            stops: set[tuple[str, ...]] = {()}
        else:
            prompts = [Prompt(problem.id, prompt_text(problem, harness)) for problem in problems]
            stops = {stop_texts(problem, harness) for problem in problems}
        if len(stops) > 1:
            raise UsageError(f"humaneval-{code}: its problems have different stop_tokens.")
        stem = f"{benchmark.name}.{style}.{harness}.{code}"
        parts.append(Part(stem, prompts, replace(request.decoding, stop=stops.pop())))
    return parts


def _scorer(
    benchmark: Benchmark, request: Request, data: Data
) -> Callable[[Rows], BenchmarkResult]:
    if request.sandboxed:
        sandbox.check()
    reasons = {
        code: languages.unusable(LANGUAGES[code], sandboxed=request.sandboxed) for code in data
    }
    if all(reasons.values()):
        raise PrerequisiteError("\n".join(filter(None, reasons.values())))
    return partial(_score, benchmark, request, data, reasons)


def _score(
    benchmark: Benchmark,
    request: Request,
    data: Data,
    reasons: Mapping[str, str | None],
    rows: Rows,
) -> BenchmarkResult:
    style = request.prompt_style or benchmark.default_style
    harness = _harness(request.harness)
    items: list[ItemScore] = []
    for (code, problems), completions in zip(data.items(), rows, strict=True):
        problems = problems[: request.limit]
        if reason := reasons[code]:
            items += [ItemScore(id=problem.id, score=None, reason=reason) for problem in problems]
            continue
        title = f"{request.label} {benchmark.name}.{style} {LANGUAGES[code].title}"
        with Progress(f"{title}: programs run") as progress:
            items += judge(
                problems,
                completions,
                style,
                harness,
                sandboxed=request.sandboxed,
                workers=request.judge_workers,
                progress=progress,
            )
    items = [
        item.model_copy(update={"cluster": problem_of(item.id), "category": item.id.split("/")[0]})
        for item in items
    ]
    decoding = request.decoding.record()
    if style == "completion":
        decoding["stop"] = "the data's, of each language"
    return finish(
        benchmark,
        request,
        items,
        metric="pass@1",
        style=style,
        harness=HARNESS_NAMES[harness],
        decoding=decoding,
        notes=_notes(benchmark, request, data, items, reasons),
        breakdown=breakdown(items),
        cluster="HumanEval problem",
    )


def problem_of(id: str) -> str:
    """The cluster of a problem's translations: its HumanEval number, else its name."""
    match = re.search(r"HumanEval_\d+", id)
    return match[0] if match else id.partition("/")[2]


def breakdown(items: Sequence[ItemScore]) -> dict[str, float | None]:
    """pass@1 of each language over its scored items, and their average where all eight have one."""
    scores: dict[str, float | None] = {}
    for code in LANGUAGES:
        rows = [row for row in items if row.id.startswith(f"{code}/")]
        scores[code], _ = mean_and_stderr([row.score for row in rows if row.score is not None])
    means = [score for score in scores.values() if score is not None]
    average, _ = mean_and_stderr(means if len(means) == len(LANGUAGES) else [])
    return {**scores, "average": average}


def _notes(
    benchmark: Benchmark,
    request: Request,
    data: Data,
    items: Sequence[ItemScore],
    reasons: Mapping[str, str | None],
) -> list[str]:
    notes = size_notes(len(items), sum(map(len, data.values())), benchmark.published)
    if request.limit is not None:
        notes.append(f"--limit {request.limit} problems a language")
    missing = [LANGUAGES[code].title for code in LANGUAGES if code not in data]
    if missing:
        notes.append(f"no data for {', '.join(missing)}")
    digest = hashlib.sha256()
    for problems in data.values():
        for problem in problems:
            digest.update(json.dumps([problem.id, problem.prompt, problem.tests]).encode())
    notes.append(f"data sha256 {digest.hexdigest()}")
    crashed = sum((item.reason or "").startswith(CRASH_PASSES) for item in items)
    if crashed:
        notes.append(f"C#: {crashed} crashed programs count as passing, as in Qwen's harness")
    notes += [f"unscored: {reason}" for reason in reasons.values() if reason]
    usable = [LANGUAGES[code] for code, reason in reasons.items() if reason is None]
    notes.append("tools: " + "; ".join(languages.version(language) for language in usable))
    notes.append(
        f"programs ran in {sandbox.check()}" if request.sandboxed else "programs ran UNSANDBOXED"
    )
    return notes


MULTIPL_E = Benchmark(
    name="multipl-e",
    summary="MultiPL-E: HumanEval in Python, C++, Java, PHP, TypeScript, C#, Bash and JavaScript "
    "(arXiv 2208.08227)",
    published=1280,
    default_style="completion",
    missing=_missing,
    runs_programs=True,
    data=Data,
    load=_load,
    parts=_parts,
    scorer=_scorer,
    harnesses=HARNESSES,
)
