"""``dft-factory run``: checks an experiment as a whole, then hands its jobs to Snakemake."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dft_eval.gpus import visible_ids
from dft_eval.processes import die_with_parent
from dft_eval.progress import tail
from dft_eval.results import atomic_write
from dft_factory.errors import ConfigError, DftFactoryError, MissingDependencyError
from dft_factory.experiments import slurm
from dft_factory.experiments.expand import make_plan
from dft_factory.experiments.job import GPUS, RUN_PROCESS, compare
from dft_factory.experiments.plan import Job, Plan
from dft_factory.experiments.schema import Loaded, Resources

if TYPE_CHECKING:
    from dft_eval.report import MissingRun

LOCAL = "local"
SLURM = "slurm"
INSTALL = "pip install 'dft-factory[experiments]'"


@dataclass(frozen=True)
class Options:
    """How an experiment is run.

    Attributes:
        jobs: at once, at most.
        executor: ``local``, or the name of a Snakemake executor plugin (``slurm``, ...).
        profile: folder of a Snakemake profile.
    """

    jobs: int = 1
    executor: str = LOCAL
    profile: str | None = None


def run(loaded: Loaded, options: Options) -> list[Path]:
    """Run what is not done yet; gives the pages of the reports.

    Raises:
        ConfigError: the experiment cannot run; all errors together, before anything runs.
        PrerequisiteError: a benchmark cannot run on this machine (jobs on a cluster may).
        MissingDependencyError: Snakemake or the executor's plugin is not installed.
        DftFactoryError: jobs failed; everything that does not depend on them is done.
    """
    from dft_factory.validate.experiments import check_requirements

    _require(options)
    plan = make_plan(loaded)
    _check_gpus(plan, options)
    with only_run(Path(plan.root)) as lock:
        check(loaded, plan)
        if options.executor == LOCAL and plan.pending():
            check_requirements(plan)
        execute(plan, options, lock)
    return [Path(comparison.out) / "report.html" for comparison in plan.reports.values()]


def execute(plan: Plan, options: Options, lock: int) -> None:
    """Run the jobs of a checked plan that are not done.

    Args:
        lock: file descriptor of the experiment's lock; Snakemake holds it, too.

    Raises:
        DftFactoryError: jobs failed; everything that does not depend on them is done.
    """
    root = Path(plan.root)
    if options.executor == SLURM:
        slurm.wait_for_jobs(root)
    path = plan.write()
    for job in plan.pending():
        (root / job.stamp).unlink(missing_ok=True)
    snakemake = subprocess.Popen(
        [*_snakemake(plan, path, options), "all"],
        env=_environment(options),
        pass_fds=(lock,),
        preexec_fn=die_with_parent,
    )
    try:
        status = snakemake.wait()
    except KeyboardInterrupt:
        # Snakemake had the same Ctrl-C: it cancels its jobs on the cluster.
        snakemake.wait()
        raise
    failed = [job for job in plan.jobs.values() if not (root / job.stamp).is_file()]
    if status or failed:
        raise DftFactoryError(_explain(plan, failed, status))


def dry_run(loaded: Loaded) -> str:
    """What :func:`run` would do: the jobs with their commands, and their GPU hours as stated."""
    plan = make_plan(loaded)
    check(loaded, plan)
    pending = plan.pending()
    lines = []
    hours = 0.0
    for job in pending:
        need = plan.resources.get(job.stage, Resources())
        cost = need.gpus * need.nodes * (need.hours or 0)
        hours += cost
        lines.append(job.name + (f"  ({cost:g} GPU hours)" if cost else ""))
        lines += [f"    {shlex.join(words)}" for words in job.commands]
    done = len(plan.jobs) - len(pending)
    lines.append(f"{len(pending)} jobs to run, {done} done already")
    if hours:
        lines.append(f"{hours:g} GPU hours, as the experiment states them")
    return "\n".join(lines)


def check(loaded: Loaded, plan: Plan) -> None:
    """Check every recipe and every evaluation, unless nothing is left to run.

    Raises:
        ConfigError: with all errors together.
    """
    from dft_factory.validate import validate_files
    from dft_factory.validate.experiments import check_evaluations

    if not plan.pending():
        return
    findings = check_evaluations(loaded.file, plan)
    for file, text in plan.recipes.items():
        atomic_write(Path(file), text)
    findings += validate_files([Path(file) for file in plan.recipes])
    errors = [str(finding) for finding in findings if finding.severity == "error"]
    if errors:
        raise ConfigError("\n".join(errors))


def _require(options: Options) -> None:
    if importlib.util.find_spec("snakemake") is None:
        raise MissingDependencyError(f"Experiments need Snakemake. `{INSTALL}`")
    plugin = f"snakemake_executor_plugin_{options.executor.replace('-', '_')}"
    if options.executor != LOCAL and importlib.util.find_spec(plugin) is None:
        raise MissingDependencyError(
            f"--executor {options.executor}: its Snakemake plugin is not installed. "
            f"`pip install {plugin.replace('_', '-')}`"
        )
    if options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs}: give a number of 1 or more.")


@contextlib.contextmanager
def only_run(root: Path) -> Iterator[int]:
    """Hold the experiment's folder; Snakemake's own lock outlives a killed process."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".run.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DftFactoryError(
                f"{root}: another `dft-factory run` works on this experiment. Wait for it, or stop "
                "it."
            ) from error
        yield stream.fileno()


def _snakemake(plan: Plan, path: Path, options: Options) -> list[str]:
    cores = len(os.sched_getaffinity(0))
    words = [sys.executable, "-m", "snakemake"]
    words += ["--snakefile", str(Path(__file__).with_name("Snakefile"))]
    words += ["--directory", plan.root, "--nolock", "--rerun-incomplete", "--keep-going"]
    # What must run again has no stamp any more.
    words += ["--rerun-triggers", "mtime", "--scheduler", "greedy", "--quiet", "all"]
    if options.executor == LOCAL:
        words += ["--cores", str(max(cores, options.jobs))]
        # Cores alone would let jobs of few threads run beside each other.
        words += ["--resources", f"gpu={len(visible_ids())}", f"job={options.jobs}"]
    else:
        words += ["--executor", options.executor, "--jobs", str(options.jobs)]
    if options.executor == SLURM:
        words += ["--slurm-jobname-prefix", slurm.job_name_prefix(Path(plan.root))]
    if options.profile is not None:
        words += ["--profile", options.profile]
    threads = max(1, cores // options.jobs)
    words += [
        "--config",
        f"plan={path.resolve()}",
        f"python={sys.executable}",
        f"threads={threads}",
    ]
    return [*words, "--"]


def _check_gpus(plan: Plan, options: Options) -> None:
    if options.executor != LOCAL:
        return
    visible = len(visible_ids())
    for stage, need in plan.resources.items():
        if need.gpus > visible:
            raise ConfigError(
                f"resources.{stage}.gpus: a job takes {need.gpus}, this machine has {visible}. "
                f"Use --executor for a cluster, or --set resources.{stage}.gpus={visible}."
            )


def _environment(options: Options) -> dict[str, str]:
    environment = dict(os.environ)
    if options.executor == LOCAL:
        environment[RUN_PROCESS] = str(os.getpid())
        environment[GPUS] = ",".join(visible_ids())
    return environment


def _explain(plan: Plan, failed: Sequence[Job], status: int) -> str:
    """What failed, why, and what to do; writes the reports of what is there."""
    root = Path(plan.root)
    causes = [
        job for job in failed if all((root / plan.jobs[a].stamp).is_file() for a in job.after)
    ]
    lines = [f"{len(failed)} of {len(plan.jobs)} jobs are not done (Snakemake: {status})."]
    lines += [f"{job.name}: its log is {root / job.log}" for job in causes]
    if waiting := [job.name for job in failed if job not in causes]:
        lines.append(f"Not run, since they need what failed: {', '.join(waiting)}")
    for name, comparison in plan.reports.items():
        missing = _missing(plan, comparison.jobs)
        if 0 < len(missing) < len(comparison.jobs):
            page = compare(plan, name, missing)
            lines.append(f"Report of what is there: {page}")
    return "\n".join([*lines, "Fix the cause and run the same command again: it goes on."])


def _missing(plan: Plan, runs: Mapping[str, str]) -> list[MissingRun]:
    """Of each run without a score: the job that is the cause, and the end of its log."""
    from dft_eval.report import MissingRun

    root = Path(plan.root)
    missing = []
    for folder, name in runs.items():
        job = plan.jobs[name]
        if (root / job.stamp).is_file():
            continue
        while before := [
            name for name in job.after if not (root / plan.jobs[name].stamp).is_file()
        ]:
            job = plan.jobs[before[0]]
        run = Path(folder).relative_to(root).as_posix()
        text = tail(root / job.log)
        missing.append(MissingRun(run, f"{job.name} failed, or was not run", text))
    return missing
