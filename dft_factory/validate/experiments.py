"""Check an experiment as a whole: its file, the recipe of every run, every evaluation."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dft_eval.errors import EvaluationError
from dft_factory.errors import ConfigError
from dft_factory.experiments.expand import make_plan
from dft_factory.experiments.plan import Plan
from dft_factory.experiments.schema import load
from dft_factory.validate.findings import WHOLE, Finding


def check_experiment(file: Path) -> list[Finding]:
    """Findings of an experiment file."""
    try:
        plan = make_plan(load(file, file.stem))
    except ConfigError as error:
        lines = str(error).splitlines()
        return [Finding(file, "error", *_key(line.removeprefix(f"{file}: "))) for line in lines]
    return check_plan(file, plan)


def check_plan(file: Path, plan: Plan) -> list[Finding]:
    """Findings of an experiment's recipes and evaluations; one for all runs that share it."""
    from dft_factory.cli.app import check_evaluation
    from dft_factory.validate.run import validate_files

    findings = []
    for job in plan.jobs.values():
        for words in job.commands:
            if words[:2] == ("dft-factory", "generate"):
                try:
                    check_evaluation(words[2:])
                except EvaluationError as error:
                    findings.append(Finding(file, "error", "evaluate", str(error)))
    with tempfile.TemporaryDirectory() as folder:
        recipes = _write(Path(folder), list(plan.recipes.values()))
        findings += [replace(each, file=file) for each in validate_files(recipes)]
    return list(dict.fromkeys(findings))


def _write(folder: Path, recipes: Sequence[str]) -> list[Path]:
    paths = [folder / f"{number}.yaml" for number, _ in enumerate(recipes)]
    for path, text in zip(paths, recipes, strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def _key(line: str) -> tuple[str, str]:
    key, colon, message = line.partition(": ")
    return (key, message) if colon and " " not in key else (WHOLE, line)
