"""From an experiment file to its plan: every variant, grid point, seed and evaluation as jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dft_eval.generation.shard import FOLDER as SHARDS
from dft_eval.own_tasks.task import is_task_path
from dft_factory.experiments import catalog, grouping, shards
from dft_factory.experiments.jobs import Jobs, Run
from dft_factory.experiments.plan import BASE, PLAN_NAME, Comparison, Job, Plan
from dft_factory.experiments.schema import Evaluation, Loaded, ModelSpec, TrainingSpec
from dft_factory.experiments.variants import (
    grid,
    inside,
    label_of,
    matched_label,
    pairs,
    place_of,
    variants,
)


def make_plan(loaded: Loaded) -> Plan:
    """The jobs of an experiment.

    Raises:
        ConfigError: a recipe cannot be read, or a ``$name`` is unknown.
    """
    return _Planner(loaded).plan()


@dataclass(frozen=True)
class _Match:
    """Results whose entropy the base model is decoded at, and the jobs that make them."""

    variant: str
    folders: tuple[str, ...]
    after: tuple[str, ...]


class _Planner(Jobs):
    def __init__(self, loaded: Loaded) -> None:
        super().__init__(loaded)
        self.reports: dict[str, Comparison] = {}

    def plan(self) -> Plan:
        for name in self.experiment.make:
            self.make(name)
        models = self.experiment.models or {"": self.experiment.model or ModelSpec()}
        for name, model in models.items():
            self._compare(f"{name}/" if name else "", model)
        return Plan(
            name=self.loaded.name,
            root=self.root,
            cwd=str(Path.cwd()),
            jobs=self.jobs,
            reports=self.reports,
            recipes=self.recipes,
            resources=self.experiment.resources,
        )

    def _compare(self, prefix: str, model: ModelSpec) -> None:
        """All jobs of one base model."""
        train = self.experiment.train
        recipe = self.recipe(str(model.recipe or train.recipe))
        path, after = self.fill(str(model.path or recipe.get("model_name_or_path")))
        path = catalog.resolve(path, self.here)
        base_model = model.base_model or (path if not after else None)
        base = Run(f"{prefix}{BASE}", BASE, path, after[0] if after else None)
        if model.train is not None:
            base = replace(self._train_base(prefix, model.train, path, after), label=BASE)
        runs = [base] if self.experiment.base else []
        for label, folder, values in variants(train, recipe):
            values["model_name_or_path"] = base.model
            before = [base.after] if base.after else []
            run = self.train(f"{prefix}{folder}", values, train.data, "data", before)
            run = replace(run, label=label)
            runs.append(run)
            for step in train.checkpoints:
                place = f"checkpoint-{step}"
                runs.append(
                    replace(
                        run,
                        folder=f"{run.folder}/{place}",
                        label=f"{label} at step {step}",
                        model=f"{run.model}/{place}",
                    )
                )
        probes = self._probes(runs) if self.experiment.probe else []
        names = dict.fromkeys(evaluation.name for evaluation in self.experiment.evaluate)
        scored = {
            (run, name): self._evaluate(run, name, base_model) for name in names for run in runs
        }
        for run in runs:
            if run.label != BASE:
                self._card(run, {name: scored[run, name] for name in names})
        for group in grouping.reports(self.experiment.evaluate):
            jobs = {
                self.path(inside(run.folder, name)): scored[run, name]
                for run in runs
                for name in group
            }
            for name in group:
                if base in runs:
                    jobs |= self._evaluate_matched(base, name, base_model, runs, scored)
            self._report(prefix, group, base_model, jobs, probes if None in group else [])

    def _train_base(self, prefix: str, spec: TrainingSpec, path: str, after: Sequence[str]) -> Run:
        values = {**self.recipe(spec.recipe), **spec.set, "model_name_or_path": path}
        return self.train(f"{prefix}{BASE}", values, spec.data, f"{prefix}{BASE}-data", after)

    def _probes(self, runs: Sequence[Run]) -> list[str]:
        """Token probabilities of the training set under each model."""
        trained = [run for run in runs if run.label != BASE]
        names = []
        for run in runs:
            first = trained[0] if run.label == BASE else run
            config = f"{self.path(first.folder.partition('/checkpoint-')[0])}/train.yaml"
            words = ["python", "-m", "dft_factory.probe", config]
            words += ["--limit", str(self.experiment.probe)]
            words += ["--model", f"{run.label}={run.model}:{self.path(run.folder)}"]
            before = tuple(dict.fromkeys(job for job in (first.after, run.after) if job))
            output = f"{self.path(run.folder)}/token_probabilities.json"
            job = Job("probe", run.folder, before, (tuple(words),), (output,))
            names.append(self.add(job, words))
        return names

    def _evaluate_matched(
        self,
        base: Run,
        name: str | None,
        base_model: str | None,
        runs: Sequence[Run],
        scored: Mapping[tuple[Run, str | None], str],
    ) -> dict[str, str]:
        """Folders and jobs of the base at the entropy of variants, at each point of the grid."""
        jobs = {}
        named = [evaluation for evaluation in self.experiment.evaluate if evaluation.name == name]
        for variant in filter(None, dict.fromkeys(entry.match_entropy for entry in named)):
            for axes in grid(self.experiment.train):
                label = label_of(variant, axes)
                models = [run for run in runs if run.label == label]
                folder = f"{base.folder}-at-entropy/{place_of(variant, axes)}"
                run = replace(base, folder=folder, label=matched_label(label))
                match = _Match(
                    variant,
                    tuple(self.path(inside(model.folder, name)) for model in models),
                    tuple(scored[model, name] for model in models),
                )
                job = self._evaluate(run, name, base_model, match)
                jobs[self.path(inside(folder, name))] = job
        return jobs

    def _evaluate(
        self, run: Run, name: str | None, base_model: str | None, match: _Match | None = None
    ) -> str:
        """Generation and scoring of one model by the evaluations of one name."""
        folder = inside(run.folder, name)
        out = self.path(folder)
        before = [run.after] if run.after else []
        before += match.after if match else ()
        commands = []
        for evaluation in self.experiment.evaluate:
            if evaluation.name == name and (
                match is None or evaluation.match_entropy == match.variant
            ):
                words, more = self._generate_words(evaluation, match)
                tail = ["--model", run.model, "--label", run.label, "--out", out]
                tail += ["--base-model", base_model] if base_model else []
                commands.append(("dft-factory", "generate", *words, *tail))
                before += more
        generated = Job(
            "generate",
            folder,
            tuple(dict.fromkeys(before)),
            tuple(commands),
            makes=(f"{out}/generation.json",),
            outdated=(f"{out}/generation.json", f"{out}/results.json"),
        )
        scoring = ["dft-factory", "score", out]
        scoring += ["--track"] if self.experiment.report.track and run.label != BASE else []
        scored = Job("score", folder, (), (tuple(scoring),), (f"{out}/results.json",))
        total = self.experiment.shards(name)
        if total == 1:
            marks = self.path(f"jobs/{folder}/{SHARDS}")
            parts = [replace(generated, outdated=(*generated.outdated, f"{out}/{SHARDS}", marks))]
        else:
            parts = shards.divide(generated, scored, out, self.root, total)
            scored = replace(scored, outdated=shards.other_shards(out, total))
        after = [
            self.add(part, [self.identities.of_command(words) for words in part.commands])
            for part in parts
        ]
        return self.add(replace(scored, after=tuple(after)), scoring)

    def _card(self, run: Run, scored: Mapping[str | None, str]) -> None:
        """The model card beside the weights, with the scores of every evaluation."""
        folders = [self.path(inside(run.folder, name)) for name in scored]
        words = ("dft-factory", "card", run.model, *folders)
        self.add(Job("card", run.folder, tuple(scored.values()), (words,)), words)

    def _benchmark(self, name: str) -> str:
        return catalog.resolve(name, self.here) if is_task_path(name) else name

    def _generate_words(
        self, evaluation: Evaluation, match: _Match | None
    ) -> tuple[list[str], list[str]]:
        words, after = [self._benchmark(name) for name in evaluation.benchmarks], []
        for folder in match.folders if match else ():
            words += ["--match-entropy", folder]
        for option, value in evaluation.options.items():
            if match and option == "temperature":
                continue
            text, more = self.fill(str(value))
            after += more
            text = catalog.resolve(text, self.here) if option == "data" else text
            if value is not False:
                words.append(f"--{option.replace('_', '-')}")
                words += [] if value is True else [text]
        return words, after

    def _report(
        self,
        prefix: str,
        group: Sequence[str | None],
        base_model: str | None,
        scored: Mapping[str, str],
        probes: Sequence[str],
    ) -> None:
        report, name = self.experiment.report, group[0]
        evaluations = [one for one in self.experiment.evaluate if one.name in group]
        title = report.title or f"{base_model or self.loaded.name}: " + ", ".join(
            self.experiment.train.variants
        )
        folder = inside(prefix.rstrip("/"), name) if prefix or name else ""
        comparison = Comparison(
            out=self.path(folder),
            title=title if name is None else f"{title} ({name})",
            pairs=pairs(self.experiment, evaluations),
            against_paper=report.against_paper,
            jobs=scored,
        )
        job = Job(
            "report",
            folder or self.loaded.name,
            (*scored.values(), *probes),
            makes=(f"{comparison.out}/report.html",),
        )
        program = ("python", "-m", "dft_factory.experiments.job")
        job = replace(job, commands=((*program, self.path(PLAN_NAME), job.name, "--report"),))
        self.reports[self.add(job, asdict(comparison))] = comparison
