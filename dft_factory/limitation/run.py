"""The two experiments: models trained through the stock command line, asked, compared."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dft_eval.natural_questions.rules import judge
from dft_eval.results import atomic_write
from dft_factory.errors import DftFactoryError
from dft_factory.limitation.facts import facts
from dft_factory.limitation.questions import questions, split, with_wrong_answers
from dft_factory.limitation.records import Record, write_records
from dft_factory.limitation.table import Experiment, render
from dft_factory.stages import STAMP, command, run_logged, say, train

CONFIGS = Path("configs/limitation")
BASE = "base"
METHODS: Mapping[str, tuple[str, ...]] = {
    "sft": ("sft",),
    "dft": ("dft",),
    "dft, floor:0.1": ("dft", "dft_weight=floor:0.1"),
    "dft, power:0.5": ("dft", "dft_weight=power:0.5"),
}
"""Which twin's YAML, and the words after it: all that differs between the runs of one seed."""


@dataclass(frozen=True)
class Plan:
    """How large the reproduction is.

    Attributes:
        facts: of each seed; trained on and asked for.
        held_out: share of the questions that are asked and not trained on.
        wrong: share of the other questions whose training answer is replaced.
        noise_methods: keys of :data:`METHODS` that meet the wrong answers.
        at_once: models that are trained at the same time, each on its share of the processors:
            what a run does on one core alone (imports, data, files) holds up no other.
    """

    root: Path = Path("runs/limitation")
    seeds: tuple[int, ...] = (0, 1, 2)
    facts: int = 32
    held_out: float = 0.4
    wrong: float = 0.3
    noise_methods: tuple[str, ...] = ("sft", "dft")
    max_new_tokens: int = 24
    overrides: tuple[str, ...] = ()
    at_once: int = 2

    @property
    def environment(self) -> dict[str, str]:
        """Of each training and each evaluation."""
        return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.at_once))}


Answers = dict[str, dict[str, float | None]]
"""Question -> rule -> score."""


def ask(
    model: Path, data: Path, out: Path, label: str, plan: Plan, environment: Mapping[str, str]
) -> Answers:
    """What ``dft-factory eval nq --data`` makes of each question, by rule."""
    words = [command("dft-factory"), "eval", "nq", "--model", str(model), "--label", label]
    words += ["--out", str(out), "--data", str(data), "--prompt-style", "chat"]
    words += ["--max-new-tokens", str(plan.max_new_tokens), "--batch-size", "64"]
    out.mkdir(parents=True, exist_ok=True)
    run_logged(words, out / "eval.log", None, f"{label}: answers", environment)
    return read_answers(out / "nq.chat.completions.jsonl", data)


def read_answers(completions: Path, data: Path) -> Answers:
    """Judge the completions of one run again, each question by every rule."""
    from dft_eval.natural_questions.data import read_data

    said = {}
    for line in completions.read_text(encoding="utf-8").split("\n"):
        if line:
            row = json.loads(line)
            said[row["id"]] = row["completion"]
    found: Answers = {}
    for question in read_data(data).questions:
        verdict = judge(said[question.id], question.answer)
        found[question.question] = {
            "exact match": float(verdict.exact_match),
            "contains": float(verdict.contains),
        }
    return found


def once(folder: Path, settings: object, make: Callable[[], Answers]) -> Answers:
    """``make()``, or what it gave before; ``folder`` is kept only under the same settings."""
    wanted = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    stamp, kept = folder / "settings.sha256", folder / "answers.json"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        atomic_write(stamp, wanted)
    elif kept.is_file():
        say(f"{folder} is there already")
        former: Answers = json.loads(kept.read_text(encoding="utf-8"))
        return former
    answers = make()
    atomic_write(kept, json.dumps(answers, ensure_ascii=False) + "\n")
    return answers


def trained(
    name: str, method: str, seed: int, source: Path, asked: Path, base: Path, plan: Plan
) -> Answers:
    """Train one model on ``source``, ask it ``asked``; its weights are not kept, its logs are."""
    folder = plan.root / name / f"seed{seed}" / method.replace(", ", "-").replace(":", "")
    twin, *weight = METHODS[method]
    config = CONFIGS / f"smollm2_{name}_{twin}.yaml"
    training = folder / "training"
    data = source.with_suffix("")
    overrides = [
        *weight,
        f"seed={seed}",
        f"model_name_or_path={base}",
        f"dataset_dir={data}",
        f"output_dir={training / 'model'}",
        *plan.overrides,
    ]

    def make() -> Answers:
        inputs = [base / "config.json", source]
        label = f"{name}, seed {seed}, {method}"
        model = train(label, config, overrides, training, inputs, plan.environment)
        return ask(model, asked, folder, label, plan, plan.environment)

    settings = [
        config.read_text(encoding="utf-8"),
        overrides,
        source.read_text(encoding="utf-8"),
        asked.read_text(encoding="utf-8"),
        plan.max_new_tokens,
    ]
    answers = once(folder, settings, make)
    for path in (training / STAMP, *(training / "model").glob("*.safetensors")):
        path.unlink(missing_ok=True)
    return answers


def asked_of_base(base: Path, data: Path, out: Path, plan: Plan) -> Answers:
    """The answers of the model before any training."""
    settings = [data.read_text(encoding="utf-8"), plan.max_new_tokens]
    return once(out, settings, lambda: ask(base, data, out, BASE, plan, {}))


Job = tuple[str, int]
"""Method and seed."""


def run_all(jobs: Mapping[Job, Callable[[], Answers]], plan: Plan) -> dict[Job, Answers]:
    """What each job gives; the first error ends the rest."""
    with ThreadPoolExecutor(plan.at_once) as pool:
        futures = {job: pool.submit(work) for job, work in jobs.items()}
        try:
            return {job: future.result() for job, future in futures.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def set_of(path: Path, records: Sequence[Record]) -> Path:
    """The records as a file, and as a data set in the folder of the file's name."""
    from dft_factory.data.prepare import prepare

    source = write_records(path, records)
    prepare("nq", str(source), path.with_suffix(""))
    return source


def run_facts(base: Path, plan: Plan) -> Experiment:
    """Made-up facts: trained on, then asked for in the same words."""
    found = Experiment("facts that no model knows", "exact match", (BASE, *METHODS))
    jobs: dict[Job, Callable[[], Answers]] = {}
    for seed in plan.seeds:
        folder = plan.root / "facts" / f"seed{seed}"
        source = set_of(folder / "facts.jsonl", facts(plan.facts, seed))
        found.add(BASE, seed, asked_of_base(base, source, folder / BASE, plan))
        for method in METHODS:
            jobs[method, seed] = partial(trained, "facts", method, seed, source, source, base, plan)
    for (method, seed), answers in run_all(jobs, plan).items():
        found.add(method, seed, answers)
    return found


def run_noise(base: Path, plan: Plan) -> Experiment:
    """Known questions, some with wrong training answers; asked are others of the same kinds.

    Known is what the base answers correctly, by ``contains``: it answers in sentences.
    """
    title = f"known questions, {plan.wrong:.0%} of the training answers wrong"
    found = Experiment(title, "contains", (BASE, *plan.noise_methods))
    found.note("base has every answer right since the questions were chosen so")
    every = questions()
    folder = plan.root / "noise"
    source = write_records(folder / "questions.jsonl", every)
    say(f"base: {len(every)} questions")
    answers = asked_of_base(base, source, folder / BASE, plan)
    known = [each for each in every if answers[each.question]["contains"]]
    if len(known) < 10:
        raise DftFactoryError(f"the base model answers {len(known)} of {len(every)} questions.")
    jobs: dict[Job, Callable[[], Answers]] = {}
    for seed in plan.seeds:
        learned, held = split(known, plan.held_out, seed)
        noisy, wrong = with_wrong_answers(learned, plan.wrong, seed)
        found.note(f"seed {seed}: trained on {len(noisy)}, {len(wrong)} wrong; asked {len(held)}")
        place = folder / f"seed{seed}"
        trained_on = set_of(place / "train.jsonl", noisy)
        asked = write_records(place / "held_out.jsonl", held)
        found.add(BASE, seed, {each.question: answers[each.question] for each in held})
        for method in plan.noise_methods:
            jobs[method, seed] = partial(
                trained, "noise", method, seed, trained_on, asked, base, plan
            )
    for (method, seed), given in run_all(jobs, plan).items():
        found.add(method, seed, given)
    return found


def run(plan: Plan, which: Sequence[str] = ("facts", "noise")) -> Path:
    """Both experiments, or those named; prints the tables and gives the report's path."""
    from dft_factory.smollm2 import make_smollm2

    started = time.monotonic()
    base = plan.root / "smollm2"
    if not base.is_dir():
        say(f"SmolLM2-135M-Instruct from its wheel to {base}")
        make_smollm2(base)
    ways = {"facts": run_facts, "noise": run_noise}
    text = render([ways[each](base, plan) for each in which])
    sys.stdout.write(text)
    report = plan.root / "report.md"
    atomic_write(report, text)
    say(f"done in {(time.monotonic() - started) / 60:.1f} minutes: {report}")
    return report
