"""The jobs of an experiment that its evaluations rest on: what is made, prepared and trained."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any

from dft_factory.errors import ConfigError
from dft_factory.experiments import catalog
from dft_factory.experiments.identity import Identities
from dft_factory.experiments.plan import VERSIONS, Job
from dft_factory.experiments.schema import DataSpec, Loaded, Resources

PATHS = ("model_name_or_path", "dataset_dir", "deepspeed")
"""Keys of a recipe that name files or folders."""


@dataclass(frozen=True)
class Run:
    """One model that is evaluated."""

    folder: str
    label: str
    model: str
    after: str | None
    seed: int | None = None


class Jobs:
    """The jobs of one experiment so far, and what makes them: commands, data sets, trainings."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.experiment = loaded.experiment
        self.here = loaded.file.resolve().parent
        self.root = self.experiment.out or f"runs/{loaded.name}"
        self.jobs: dict[str, Job] = {}
        self.recipes: dict[str, str] = {}
        self._making: list[str] = []
        self.identities = Identities(self.root)

    def path(self, name: str) -> str:
        return str(Path(self.root) / name)

    def add(self, job: Job, decides: Any) -> str:
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

    def fill(self, text: str, **values: str) -> tuple[str, list[str]]:
        """``text`` with its ``$names`` replaced, and the jobs that make what they name."""
        folders = {name: self.path(f"make/{name}") for name in self.experiment.make}
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
        return template.substitute(known), [self.make(name) for name in used if name in folders]

    def make(self, name: str) -> str:
        """The job that makes ``name``, and those that it needs."""
        if f"prepare {name}" in self.jobs:
            return f"prepare {name}"
        if name in self._making:
            raise ConfigError(f"{self.loaded.file}: make.{name} needs itself.")
        self._making.append(name)
        folder = self.path(f"make/{name}")
        text, after = self.fill(self.experiment.make[name], out=folder)
        words = shlex.split(text)
        job = Job(
            "prepare",
            name,
            tuple(after),
            (tuple(words),),
            makes=(folder,),
            outdated=(folder,),
        )
        return self.add(job, self.identities.of_command(words))

    def data(self, name: str, data: DataSpec, seed: int | None) -> tuple[str, list[str]]:
        """The data set's folder, and the jobs that make it."""
        seeds = {} if seed is None else {"seed": str(seed)}
        if data.folder is not None:
            folder, after = self.fill(data.folder, **seeds)
            return catalog.resolve(folder, self.here), after
        source, after = self.fill(str(data.source), **seeds)
        if source != self.fill(str(data.source), seed="")[0]:
            name = f"{name}/seed{seed}"
        out = self.path(name)
        words = ["dft-factory", "data", "prepare", str(data.prepare), "--out", out]
        named = ("source", "limit", "seed", "pictures", "exclude", "sample")
        options = [(option, getattr(data, option)) for option in named]
        options += [("decontaminate", file) for file in data.decontaminate]
        for option, value in options:
            if value is not None:
                text, more = self.fill(str(value), **seeds)
                after += more
                words += [f"--{option}", catalog.resolve(text, self.here)]
        after = list(dict.fromkeys(after))
        job = Job("prepare", name, tuple(after), (tuple(words),), makes=(out,), outdated=(out,))
        return out, [self.add(job, self.identities.of_command(words))]

    def recipe(self, name: str) -> dict[str, Any]:
        from dft_factory.validate.files import read

        path = Path(catalog.resolve(name, self.here))
        config, problems = read(path)
        if problems or config is None or config.kind != "train":
            what = "; ".join(map(str, problems)) or f"{path}: is no training recipe."
            raise ConfigError(f"{self.loaded.file}: recipe {name!r}: {what}")
        return config.values

    def train(
        self,
        folder: str,
        values: Mapping[str, Any],
        data: DataSpec | None,
        data_name: str,
        after: Sequence[str],
    ) -> Run:
        """One ``llamafactory-cli train`` into ``folder/model``."""
        values = dict(values)
        before = list(after)
        seed = values.get("seed")
        if data is not None:
            values["dataset_dir"], more = self.data(data_name, data, seed)
            before += more
            if data.dataset or data.prepare:
                values["dataset"] = data.dataset or data.prepare
        path = values.get("deepspeed")
        if isinstance(path, str):
            values["deepspeed"] = catalog.resolve(path.removeprefix("configs/"), self.here)
        model = f"{self.path(folder)}/model"
        values |= {"output_dir": model, "overwrite_output_dir": False}
        yaml_file = f"{self.path(folder)}/train.yaml"
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
        return Run(folder, "", model, self.add(job, {**values, **identities}), seed)


def _dump(values: Mapping[str, Any]) -> str:
    import yaml

    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    return f"# Written by `dft-factory run`. By hand: llamafactory-cli train THIS_FILE\n{text}"
