"""The plan of an experiment: commands of this package and of LLaMA-Factory, as a graph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from dft_factory.experiments.schema import Resources, Stage

VERSIONS: Mapping[Stage, int] = {
    "prepare": 1,
    "train": 1,
    "probe": 1,
    "generate": 1,
    "score": 1,
    "card": 1,
    "report": 2,
}
"""Raised by a change of this package that changes what the stage gives: its jobs run again."""

BASE = "base"
PLAN_NAME = "plan.json"


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        what: folder or thing that it is about; unique in its stage.
        after: names of the jobs that it needs.
        commands: run in turn, from the working directory of ``dft-factory run``.
        makes: files and folders that are there afterwards.
        settings: hash of all that decides what it gives. Another hash: it runs again.
        outdated: removed first where the settings changed.
    """

    stage: Stage
    what: str
    after: tuple[str, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    makes: tuple[str, ...] = ()
    settings: str = ""
    outdated: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As users see it: ``train dft/seed0``."""
        return f"{self.stage} {self.what}"

    @property
    def stamp(self) -> str:
        """Written when the job is done; relative to the experiment's folder."""
        return f"jobs/{self.what}.{self.stage}.json"

    @property
    def stamp_text(self) -> str:
        """What the stamp holds. No times: the same settings make nothing that follows run again."""
        return json.dumps({"settings": self.settings}) + "\n"

    @property
    def lock(self) -> str:
        """Held while the job runs; relative to the experiment's folder."""
        return f"jobs/{self.what}.{self.stage}.lock"

    @property
    def log(self) -> str:
        """Of its commands; relative to the experiment's folder."""
        return f"jobs/{self.what}.{self.stage}.log"


@dataclass(frozen=True)
class Comparison:
    """One report: the folders of the runs, the base first.

    Attributes:
        pairs: labels that are compared; none: each with every earlier one.
        jobs: run folder to the job that scores it.
    """

    out: str
    title: str
    pairs: tuple[tuple[str, str], ...]
    against_paper: bool
    jobs: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """All jobs of an experiment.

    Attributes:
        root: folder of everything that it makes, as the user named it.
        cwd: working directory of every job.
        reports: job name to what it compares.
        recipes: file to its text: the recipe of each training.
    """

    name: str
    root: str
    cwd: str
    jobs: Mapping[str, Job]
    reports: Mapping[str, Comparison]
    recipes: Mapping[str, str]
    resources: Mapping[Stage, Resources]

    def pending(self) -> list[Job]:
        """The jobs that are not done with these settings, and all that need one of them.

        Snakemake knows the settings only of jobs that ended while it ran, hence the stamps.
        """
        pending: dict[str, bool] = {}

        def is_pending(job: Job) -> bool:
            if job.name not in pending:
                stamp = Path(self.root) / job.stamp
                done = (
                    stamp.is_file()
                    and stamp.read_text(encoding="utf-8") == job.stamp_text
                    and all(Path(path).exists() for path in job.makes)
                )
                before = [is_pending(self.jobs[name]) for name in job.after]
                pending[job.name] = not done or any(before)
            return pending[job.name]

        return [job for job in self.jobs.values() if is_pending(job)]

    def write(self) -> Path:
        """Write ``plan.json`` into the experiment's folder; gives its path."""
        from dft_eval.results import atomic_write

        path = Path(self.root) / PLAN_NAME
        atomic_write(path, f"{TypeAdapter(Plan).dump_json(self, indent=1).decode()}\n")
        return path


def read_plan(path: Path) -> Plan:
    """What :meth:`Plan.write` wrote."""
    return TypeAdapter(Plan).validate_json(path.read_bytes())
