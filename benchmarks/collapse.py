"""Collapse of finished DFT trainings: what came of them, what `probe` advised, what the watch said.

    python benchmarks/collapse.py runs/demo/base runs/demo/dft
    python benchmarks/collapse.py BASE_DIR RUN_DIR... --benchmark python-basics

BASE_DIR and RUN_DIR are result folders as for `dft-factory report`; a run's training record is
looked for in its model's folder. A training collapsed on a benchmark where its score lies below the
base model's by more than the 95 % interval of the paired difference. The advice is that of
`dft_factory/probe/collapse.py` on the recorded settings; the watch sees the recorded
`evaluations.jsonl` again, by the rules of today. Printed are one row a run and benchmark, and both
confusion tables, as Markdown. Runs that were not trained with DFT are rows too, without advice, as
a comparison.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_eval.errors import UsageError
from dft_eval.report.collect import read_run
from dft_eval.report.comparison import Effect, compare
from dft_eval.report.runs import Evaluation, Run
from dft_eval.training_file import training_folder, training_record
from dft_factory.errors import ConfigError
from dft_factory.objectives import split_finetuning_type
from dft_factory.patch.record import EVALUATIONS_FILE, evaluation_of
from dft_factory.probe.collapse import HEADLINES, Plan, at_risk
from dft_factory.watch import Watch

OUTCOMES = {True: "warned", False: "silent", None: "no record"}


@dataclass(frozen=True)
class Outcome:
    """One training on one benchmark.

    Attributes:
        effect: the training's score minus the base model's.
        risk: what `probe` says of the settings; ``warned``: whether the watch spoke.
    """

    run: str
    benchmark: str
    dft: bool
    plan: Plan
    effect: Effect
    risk: bool | None
    warned: bool | None

    @property
    def collapsed(self) -> bool:
        """Below the base model by more than the interval."""
        return self.effect.interval[1] < 0


def _plan(record: Mapping[str, Any], method: str) -> Plan:
    settings = record["hyperparameters"]
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    return Plan(
        learning_rate=settings["learning_rate"],
        batch=batch * settings["num_processes"],
        n_examples=record.get("n_examples") or 0,
        steps=max(settings["max_steps"], 0),
        full=method == "full",
    )


def _warned(folder: Path) -> bool | None:
    path = folder / EVALUATIONS_FILE
    if not path.is_file():
        return None
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    watch = Watch()
    return any(watch.see_evaluation(evaluation_of(line), line["progress"]) for line in lines)


def _scores(evaluation: Evaluation) -> dict[str, float | None]:
    return {item.id: item.score for item in evaluation.units.values()}


def outcomes(base: Run, run: Run, benchmarks: Sequence[str] = ()) -> Iterator[Outcome]:
    """What came of one training, on each benchmark that the base model has taken too.

    Raises:
        UsageError: the model's folder has no training record.
    """
    places = [str(run.folder / "model"), run.results.model]
    model = next((place for place in places if training_folder(place)), None)
    folder = None if model is None else training_folder(model)
    if model is None or folder is None:
        raise UsageError(
            f"{run.folder}: no training record in {' or '.join(places)}. Name result folders of "
            "trained models after that of the base model."
        )
    record = training_record(model)
    parts = split_finetuning_type(record["finetuning_type"])
    assert parts is not None  # only our objectives leave a record
    dft, plan = parts[0].weighted, _plan(record, parts[1])
    for key, evaluation in run.evaluations.items():
        if key not in base.evaluations or (benchmarks and key[0] not in benchmarks):
            continue
        units = [*base.evaluations[key].units.values(), *evaluation.units.values()]
        clusters = {unit.id: unit.cluster for unit in units if unit.cluster}
        pair = (_scores(base.evaluations[key]), _scores(evaluation))
        effect = compare([pair], clusters).effect
        if effect is None:
            raise UsageError(f"{run.folder}: no item of {key[0]} is scored in both runs.")
        yield Outcome(
            run=str(run.folder),
            benchmark=key[0],
            dft=dft,
            plan=plan,
            effect=effect,
            risk=at_risk(plan) if dft and record["token_weight"] == "token" else None,
            warned=_warned(folder),
        )


def table(rows: Sequence[Outcome]) -> str:
    """One line an outcome."""
    lines = [
        "| run | benchmark | learning rate | batch | base | trained | difference, points | "
        "collapsed | advice | watch |",
        "|" + " --- |" * 10,
    ]
    for row in rows:
        low, high = (100 * bound for bound in row.effect.interval)
        lines.append(
            f"| {row.run} | {row.benchmark} | {row.plan.learning_rate:g} | {row.plan.batch} | "
            f"{100 * row.effect.mean_first:.1f} | {100 * row.effect.mean_second:.1f} | "
            f"{100 * row.effect.difference:+.1f} ({low:+.1f} to {high:+.1f}) | "
            f"{'yes' if row.collapsed else 'no'} | "
            f"{HEADLINES[row.risk] if row.dft else '-'} | {OUTCOMES[row.warned]} |"
        )
    return "\n".join(lines)


def confusion(title: str, pairs: Sequence[tuple[str, bool]]) -> str:
    """Counts of (word, collapsed)."""
    counts = Counter(pairs)
    words = dict.fromkeys(word for word, _ in pairs)
    lines = [f"| {title} | collapsed | did not |", "| --- | --- | --- |"]
    lines += [f"| {word} | {counts[word, True]} | {counts[word, False]} |" for word in words]
    return "\n".join(lines)


def main() -> None:
    """Parse, read, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path, help="result folder of the base model")
    parser.add_argument("runs", type=Path, nargs="+", help="result folders of trained models")
    parser.add_argument("--benchmark", action="append", default=[], help="only this one")
    args = parser.parse_args()
    base = read_run(args.base)
    rows = [row for folder in args.runs for row in outcomes(base, read_run(folder), args.benchmark)]
    if not rows:
        raise UsageError("No benchmark was taken by both the base model and a run.")
    ours = [row for row in rows if row.dft]
    parts = [
        table(rows),
        confusion("advice", [(HEADLINES[row.risk], row.collapsed) for row in ours]),
        confusion("watch", [(OUTCOMES[row.warned], row.collapsed) for row in ours]),
    ]
    sys.stdout.write("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (UsageError, ConfigError) as error:
        sys.stderr.write(f"collapse: {error}\n")
        sys.exit(2)
