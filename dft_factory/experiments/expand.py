"""From an experiment file to its plan: every variant, grid point, seed and evaluation as jobs."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from string import Template
from typing import Any

from dft_eval.own_tasks.task import is_task_path
from dft_factory.errors import ConfigError
from dft_factory.experiments import catalog, grouping
from dft_factory.experiments.identity import Identities
from dft_factory.experiments.plan import BASE, PLAN_NAME, VERSIONS, Comparison, Job, Plan
from dft_factory.experiments.schema import (
    DataSpec,
    Evaluation,
    Loaded,
    ModelSpec,
    Resources,
    TrainingSpec,
)
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


PATHS = ("model_name_or_path", "dataset_dir", "deepspeed")
"""Keys of a recipe that name files or folders."""


@dataclass(frozen=True)
class _Run:
    """One model that is evaluated."""

    folder: str
    label: str
    model: str
    after: str | None
    seed: int | None = None


@dataclass(frozen=True)
class _Match:
    """Results whose entropy the base model is decoded at, and the jobs that make them."""

    variant: str
    folders: tuple[str, ...]
    after: tuple[str, ...]


class _Planner:
    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.experiment = loaded.experiment
        self.here = loaded.file.resolve().parent
        self.root = self.experiment.out or f"runs/{loaded.name}"
        self.jobs: dict[str, Job] = {}
        self.reports: dict[str, Comparison] = {}
        self.recipes: dict[str, str] = {}
        self.making: list[str] = []
        self.identities = Identities(self.root)

    def plan(self) -> Plan:
        for name in self.experiment.make:
            self._make(name)
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

    def _path(self, name: str) -> str:
        return str(Path(self.root) / name)

    def _add(self, job: Job, decides: Any) -> str:
        """Add a job; ``decides`` is all that its result depends on beside the jobs before it."""
        before = [self.jobs[name].settings for name in job.after]
        parts = [VERSIONS[job.stage], decides, before]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
        former = self.jobs.get(job.name)
        job = replace(job, settings=digest.hexdigest()[:16])
        if former is not None and former != job:
            raise ConfigError(f"{self.loaded.file}: two jobs are named {job.name!r}. Rename one.")
        self.jobs[job.name] = job
        return job.name

    def _fill(self, text: str, **values: str) -> tuple[str, list[str]]:
        """``text`` with its ``$names`` replaced, and the jobs that make what they name."""
        folders = {name: self._path(f"make/{name}") for name in self.experiment.make}
        known = {"here": str(self.here), **folders, **values}
        template = Template(text)
        used = template.get_identifiers() if template.is_valid() else None
        if used is None or not set(used) <= set(known):
            unknown = "a lone '$'" if used is None else f"${(set(used) - set(known)).pop()}"
            choices = ", ".join(f"${name}" for name in known)
            raise ConfigError(
                f"{self.loaded.file}: {text!r}: {unknown} stands for nothing here. Choose from: "
                f"{choices}; write $$ for a dollar sign."
            )
        return template.substitute(known), [self._make(name) for name in used if name in folders]

    def _make(self, name: str) -> str:
        """The job that makes ``name``, and those that it needs."""
        if f"prepare {name}" in self.jobs:
            return f"prepare {name}"
        if name in self.making:
            raise ConfigError(f"{self.loaded.file}: make.{name} needs itself.")
        self.making.append(name)
        folder = self._path(f"make/{name}")
        text, after = self._fill(self.experiment.make[name], out=folder)
        words = shlex.split(text)
        job = Job(
            "prepare",
            name,
            tuple(after),
            (tuple(words),),
            makes=(folder,),
            outdated=(folder,),
        )
        return self._add(job, self.identities.of_command(words))

    def _data(self, name: str, data: DataSpec, seed: int | None) -> tuple[str, list[str]]:
        """The data set's folder, and the jobs that make it."""
        seeds = {} if seed is None else {"seed": str(seed)}
        if data.folder is not None:
            folder, after = self._fill(data.folder, **seeds)
            return catalog.resolve(folder, self.here), after
        source, after = self._fill(str(data.source), **seeds)
        if source != self._fill(str(data.source), seed="")[0]:
            name = f"{name}/seed{seed}"
        out = self._path(name)
        words = ["dft-factory", "data", "prepare", str(data.prepare), "--out", out]
        named = ("source", "limit", "seed", "pictures", "exclude", "sample")
        options = [(option, getattr(data, option)) for option in named]
        options += [("decontaminate", file) for file in data.decontaminate]
        for option, value in options:
            if value is not None:
                text, more = self._fill(str(value), **seeds)
                after += more
                words += [f"--{option}", catalog.resolve(text, self.here)]
        after = list(dict.fromkeys(after))
        job = Job("prepare", name, tuple(after), (tuple(words),), makes=(out,), outdated=(out,))
        return out, [self._add(job, self.identities.of_command(words))]

    def _recipe(self, name: str) -> dict[str, Any]:
        from dft_factory.validate.files import read

        path = Path(catalog.resolve(name, self.here))
        config, problems = read(path)
        if problems or config is None or config.kind != "train":
            what = "; ".join(map(str, problems)) or f"{path}: is no training recipe."
            raise ConfigError(f"{self.loaded.file}: recipe {name!r}: {what}")
        return config.values

    def _train(
        self,
        folder: str,
        values: Mapping[str, Any],
        data: DataSpec | None,
        data_name: str,
        after: Sequence[str],
    ) -> _Run:
        """One ``llamafactory-cli train`` into ``folder/model``."""
        values = dict(values)
        before = list(after)
        seed = values.get("seed")
        if data is not None:
            values["dataset_dir"], more = self._data(data_name, data, seed)
            before += more
            if data.dataset or data.prepare:
                values["dataset"] = data.dataset or data.prepare
        path = values.get("deepspeed")
        if isinstance(path, str):
            values["deepspeed"] = catalog.resolve(path.removeprefix("configs/"), self.here)
        model = f"{self._path(folder)}/model"
        values |= {"output_dir": model, "overwrite_output_dir": False}
        yaml_file = f"{self._path(folder)}/train.yaml"
        nodes = self.experiment.resources.get("train", Resources()).nodes
        words: tuple[str, ...] = ("llamafactory-cli", "train", yaml_file)
        if path is not None:
            words = ("env", "FORCE_TORCHRUN=1", *words)
        if nodes > 1:
            words = ("python", "-m", "dft_factory.experiments.launch", str(nodes), *words)
        job = Job(
            "train",
            folder,
            tuple(before),
            (words,),
            makes=(model,),
            outdated=(model,),
        )
        self.recipes[yaml_file] = _dump(values)
        identities = {
            key: self.identities.of_path(str(values[key])) for key in PATHS if key in values
        }
        return _Run(folder, "", model, self._add(job, {**values, **identities}), seed)

    def _compare(self, prefix: str, model: ModelSpec) -> None:
        """All jobs of one base model."""
        train = self.experiment.train
        recipe = self._recipe(str(model.recipe or train.recipe))
        path, after = self._fill(str(model.path or recipe.get("model_name_or_path")))
        path = catalog.resolve(path, self.here)
        base_model = model.base_model or (path if not after else None)
        base = _Run(f"{prefix}{BASE}", BASE, path, after[0] if after else None)
        if model.train is not None:
            base = replace(self._train_base(prefix, model.train, path, after), label=BASE)
        runs = [base] if self.experiment.base else []
        for label, folder, values in variants(train, recipe):
            values["model_name_or_path"] = base.model
            before = [base.after] if base.after else []
            run = self._train(f"{prefix}{folder}", values, train.data, "data", before)
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
        names = dict.fromkeys(each.name for each in self.experiment.evaluate)
        scored = {
            (run, name): self._evaluate(run, name, base_model) for name in names for run in runs
        }
        for run in runs:
            if run.label != BASE:
                self._card(run, {name: scored[run, name] for name in names})
        for group in grouping.reports(self.experiment.evaluate):
            jobs = {
                self._path(inside(run.folder, name)): scored[run, name]
                for run in runs
                for name in group
            }
            for name in group:
                if base in runs:
                    jobs |= self._evaluate_matched(base, name, base_model, runs, scored)
            self._report(prefix, group[0], base_model, jobs, probes if None in group else [])

    def _train_base(self, prefix: str, spec: TrainingSpec, path: str, after: Sequence[str]) -> _Run:
        values = {**self._recipe(spec.recipe), **spec.set, "model_name_or_path": path}
        return self._train(f"{prefix}{BASE}", values, spec.data, f"{prefix}{BASE}-data", after)

    def _probes(self, runs: Sequence[_Run]) -> list[str]:
        """Token probabilities of the training set under each model."""
        trained = [run for run in runs if run.label != BASE]
        names = []
        for run in runs:
            first = trained[0] if run.label == BASE else run
            config = f"{self._path(first.folder.partition('/checkpoint-')[0])}/train.yaml"
            words = ["python", "-m", "dft_factory.probe", config]
            words += ["--limit", str(self.experiment.probe)]
            words += ["--model", f"{run.label}={run.model}:{self._path(run.folder)}"]
            before = tuple(dict.fromkeys(each for each in (first.after, run.after) if each))
            made = f"{self._path(run.folder)}/token_probabilities.json"
            job = Job("probe", run.folder, before, (tuple(words),), (made,))
            names.append(self._add(job, words))
        return names

    def _evaluate_matched(
        self,
        base: _Run,
        name: str | None,
        base_model: str | None,
        runs: Sequence[_Run],
        scored: Mapping[tuple[_Run, str | None], str],
    ) -> dict[str, str]:
        """Folders and jobs of the base at the entropy of variants, at each point of the grid."""
        jobs = {}
        named = [each for each in self.experiment.evaluate if each.name == name]
        for variant in dict.fromkeys(each.match_entropy for each in named if each.match_entropy):
            for axes in grid(self.experiment.train):
                label = label_of(variant, axes)
                models = [run for run in runs if run.label == label]
                folder = f"{base.folder}-at-entropy/{place_of(variant, axes)}"
                run = replace(base, folder=folder, label=matched_label(label))
                match = _Match(
                    variant,
                    tuple(self._path(inside(model.folder, name)) for model in models),
                    tuple(scored[model, name] for model in models),
                )
                job = self._evaluate(run, name, base_model, match)
                jobs[self._path(inside(folder, name))] = job
        return jobs

    def _evaluate(
        self, run: _Run, name: str | None, base_model: str | None, match: _Match | None = None
    ) -> str:
        """Generation and scoring of one model by the evaluations of one name."""
        folder = inside(run.folder, name)
        out = self._path(folder)
        before = [run.after] if run.after else []
        before += match.after if match else ()
        commands = []
        for each in self.experiment.evaluate:
            if each.name == name and (match is None or each.match_entropy == match.variant):
                words, more = self._generate_words(each, match)
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
        after = self._add(generated, [self.identities.of_command(words) for words in commands])
        scoring = ["dft-factory", "score", out]
        scoring += ["--track"] if self.experiment.report.track and run.label != BASE else []
        scored = Job("score", folder, (after,), (tuple(scoring),), (f"{out}/results.json",))
        return self._add(scored, scoring)

    def _card(self, run: _Run, scored: Mapping[str | None, str]) -> None:
        """The model card beside the weights, with the scores of every evaluation."""
        folders = [self._path(inside(run.folder, name)) for name in scored]
        words = ("dft-factory", "card", run.model, *folders)
        self._add(Job("card", run.folder, tuple(scored.values()), (words,)), words)

    def _benchmark(self, name: str) -> str:
        return catalog.resolve(name, self.here) if is_task_path(name) else name

    def _generate_words(
        self, each: Evaluation, match: _Match | None
    ) -> tuple[list[str], list[str]]:
        words, after = [self._benchmark(name) for name in each.benchmarks], []
        for folder in match.folders if match else ():
            words += ["--match-entropy", folder]
        for option, value in each.options.items():
            if match and option == "temperature":
                continue
            text, more = self._fill(str(value))
            after += more
            text = catalog.resolve(text, self.here) if option == "data" else text
            if value is not False:
                words.append(f"--{option.replace('_', '-')}")
                words += [] if value is True else [text]
        return words, after

    def _report(
        self,
        prefix: str,
        name: str | None,
        base_model: str | None,
        scored: Mapping[str, str],
        probes: Sequence[str],
    ) -> None:
        report = self.experiment.report
        title = report.title or f"{base_model or self.loaded.name}: " + ", ".join(
            self.experiment.train.variants
        )
        folder = inside(prefix.rstrip("/"), name) if prefix or name else ""
        comparison = Comparison(
            out=self._path(folder),
            title=title if name is None else f"{title} ({name})",
            pairs=pairs(self.experiment),
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
        job = replace(job, commands=((*program, self._path(PLAN_NAME), job.name, "--report"),))
        self.reports[self._add(job, asdict(comparison))] = comparison


def _dump(values: Mapping[str, Any]) -> str:
    import yaml

    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    return f"# Written by `dft-factory run`. By hand: llamafactory-cli train THIS_FILE\n{text}"
