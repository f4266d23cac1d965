"""Check experiments: their file, all evaluations, and the recipe of each run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from dft_eval.errors import EvaluationError, PrerequisiteError
from dft_factory.errors import ConfigError
from dft_factory.experiments.expand import make_plan
from dft_factory.experiments.plan import Plan
from dft_factory.experiments.schema import load
from dft_factory.validate.findings import WHOLE, Finding


def expand(file: Path) -> tuple[list[Finding], Mapping[str, str]]:
    """Findings of an experiment's file and evaluations, and the text of each run's recipe."""
    try:
        plan = make_plan(load(file, file.stem))
    except ConfigError as error:
        lines = [line.removeprefix(f"{file}: ") for line in str(error).splitlines()]
        return [Finding(file, "error", *_key(line)) for line in lines], {}
    return check_evaluations(file, plan), plan.recipes


def check_evaluations(file: Path, plan: Plan) -> list[Finding]:
    """Findings about the options of all evaluations and the task files that they name."""
    from dft_factory.cli.evaluate import check_evaluation
    from dft_factory.validate.tasks import check_task, is_task

    findings = []
    for words in _evaluations(plan):
        for path in filter(is_task, map(Path, words)):
            findings += check_task(path)
        try:
            check_evaluation(words)
        except EvaluationError as error:
            findings.append(Finding(file, "error", "evaluate", str(error)))
    return list(dict.fromkeys(findings))


def check_requirements(plan: Plan) -> None:
    """Check that this machine has what the benchmarks of a checked plan need.

    Raises:
        PrerequisiteError: with everything that is missing, and how to install it.
    """
    from dft_factory.cli.evaluate import check_evaluation

    lines: dict[str, None] = {}
    for words in _evaluations(plan):
        for benchmark in check_evaluation(words):
            for requirement in benchmark.missing():
                if requirement.blocks:
                    line = f"{benchmark.name} needs {requirement.name}. Fix: {requirement.fix}"
                    lines[line] = None
    if lines:
        raise PrerequisiteError("\n".join(lines))


def _evaluations(plan: Plan) -> Iterator[tuple[str, ...]]:
    for job in plan.jobs.values():
        for words in job.commands:
            if words[:2] == ("dft-factory", "generate"):
                yield words[2:]


def _key(line: str) -> tuple[str, str]:
    key, colon, message = line.partition(": ")
    return (key, message) if colon and " " not in key else (WHOLE, line)
