"""``--gpus N|auto``: a process for each GPU of this machine, each with a shard of its own.

The processes are ``dft-factory generate ... --shard K/N``, so that the folder holds what shards
made by hand hold, and the same call goes on after a crash.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dft_eval import flow
from dft_eval.benchmark import Request
from dft_eval.benchmarks import benchmark_of, check, load, refuse_for_harnesses, score
from dft_eval.errors import EvaluationError, UnscoredError, UsageError
from dft_eval.generation.shard import FOLDER, Shard
from dft_eval.gpus import VARIABLE, visible_ids
from dft_eval.merge_shards import merge_shards, present_shards
from dft_eval.model_files import find_model, hashes_for_children, model_sha256
from dft_eval.processes import die_with_parent
from dft_eval.progress import SECONDS_BETWEEN_LINES, tail
from dft_eval.results import RESULTS_NAME, ResultFile

AUTO = "auto"
_POLL_SECONDS = 0.2
_THREADS = "OMP_NUM_THREADS"


def parse_gpus(text: str) -> int | None:
    """The number of GPUs that ``--gpus`` asks for; None for all that are visible.

    Raises:
        UsageError: neither a number of 1 or more nor ``auto``.
    """
    if text == AUTO:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--gpus {text!r}: give a number of 1 or more, or {AUTO}.")
    return int(text)


def check_gpus(text: str | None, backend: str, shard: str | None, device_map: str | None) -> None:
    """Refuse what does not go with ``--gpus``.

    Args:
        text: of ``--gpus``; None where it was not used. As ``shard`` and ``device_map``.

    Raises:
        UsageError: naming the option.
    """
    if text is None:
        return
    parse_gpus(text)
    if shard is not None:
        raise UsageError(f"--gpus {text} divides the items itself: leave --shard {shard} out.")
    if device_map is not None:
        raise UsageError(
            f"--gpus {text} runs a whole model on each GPU, --device-map {device_map} one model on "
            "all of them. Leave one of them out."
        )
    if backend != "hf":
        raise UsageError(
            f"--gpus {text} is for --backend hf, not {backend}: vllm and sglang take "
            "--data-parallel."
        )


def select_gpus(count: int | None, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Ids of the first ``count`` visible GPUs; of all with None.

    Raises:
        UsageError: there are not so many.
    """
    ids = visible_ids(environment)
    if not ids:
        named = f" ({VARIABLE}={environment[VARIABLE]})" if VARIABLE in environment else ""
        raise UsageError(f"--gpus {count or AUTO}: no GPU is visible{named}; leave --gpus out.")
    if count is not None and count > len(ids):
        raise UsageError(
            f"--gpus {count}: {len(ids)} visible ({', '.join(ids)}). Give {len(ids)} or less."
        )
    return ids[:count]


def evaluate_per_gpu(
    names: list[str],
    requests: Sequence[Request],
    gpus: int | None,
    command: Sequence[str],
    out: Path,
    *,
    scored: bool,
) -> Iterator[tuple[Request, ResultFile]]:
    """As :func:`~dft_eval.several_models.evaluate_all`, generating with one process a GPU.

    Args:
        command: that generates all ``requests``, without ``--shard``.
        out: the command's folder, for the processes' logs.

    Raises:
        UsageError, PrerequisiteError: before anything is generated, where that can be known.
        EvaluationError: processes failed; what the others made is kept.
        UnscoredError: some items could not be scored; when all models are done.
    """
    ids = select_gpus(gpus)
    models = []
    for request in requests:
        chosen = check(names, request)
        refuse_for_harnesses(chosen, f"--gpus {gpus or AUTO}")
        models.append(find_model(request.model))  # downloaded once, not by each process
        load(chosen, request, scored=scored)
        _check_folder(request.out, len(ids))
    for request in requests:
        if request.fresh:  # what is there may be another model's, and is made of the shards again
            for name in (flow.GENERATION_NAME, RESULTS_NAME):
                (request.out / name).unlink(missing_ok=True)
    for model in models:
        model_sha256(model)  # read once, not by each process
    generate_on(ids, command, out)
    unscored = []
    for request in requests:
        if not scored:
            merge_shards(request.out, benchmark_of)
            yield request, flow.read_generation(request.out).header()
            continue
        try:
            yield (
                request,
                score(
                    request.out,
                    sandboxed=request.sandboxed,
                    sandbox_name=request.sandbox,
                    judge_workers=request.judge_workers,
                    fresh=request.fresh,
                ),
            )
        except UnscoredError as error:
            if len(requests) == 1:
                raise
            unscored.append(f"{request.label}: {error}")
    if unscored:
        raise UnscoredError("\n".join(unscored))


def _check_folder(out: Path, total: int) -> None:
    """Refuse a folder whose completions were divided in another way, or not at all."""
    if not (out / FOLDER).is_dir():
        if (out / flow.GENERATION_NAME).is_file():
            raise UsageError(
                f"--gpus: {out} holds what one process generated. Use another --out, or leave "
                "--gpus out."
            )
        return
    totals = {shard.total for shard in present_shards(out)}
    if totals - {total}:
        former = ", ".join(map(str, sorted(totals)))
        raise UsageError(
            f"--gpus: {out} holds parts of {former}, and this call makes parts of {total}. Give "
            f"--gpus {former} as before, or use another --out."
        )


@dataclass(frozen=True)
class _Child:
    """The process of one GPU."""

    gpu: str
    shard: Shard
    log: Path
    process: subprocess.Popen[bytes]

    def __str__(self) -> str:
        return f"GPU {self.gpu}, shard {self.shard}"

    def stop(self) -> None:
        """End it with all that it started."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def generate_on(ids: Sequence[str], command: Sequence[str], out: Path) -> None:
    """Run ``command`` with ``--shard K/N`` on each of N GPUs, and wait for all.

    The processes end with this one, however that ends.

    Raises:
        EvaluationError: some failed; it names their GPUs and shards.
    """
    _warn_without_gpu(ids)
    out.mkdir(parents=True, exist_ok=True)
    children: list[_Child] = []
    try:
        for number, gpu in enumerate(ids, 1):
            children.append(_start(gpu, Shard(number, len(ids)), command, out))
        _wait(children)
    finally:
        for child in children:
            child.stop()
    failed = [child for child in children if child.process.returncode]
    if failed:
        done = len(children) - len(failed)
        raise EvaluationError(
            "\n".join(map(_why_it_failed, failed))
            + f"\n{done} of {len(children)} shards are done. The same command goes on with what "
            "was completed."
        )


def _warn_without_gpu(ids: Sequence[str]) -> None:
    import torch

    if not torch.cuda.is_available():
        sys.stderr.write(
            f"dft-factory: --gpus: torch {torch.__version__} finds none of the GPUs "
            f"{', '.join(ids)}: the {len(ids)} processes run on the CPU\n"
        )


def _start(gpu: str, shard: Shard, command: Sequence[str], out: Path) -> _Child:
    log = out / f"shard-{shard.number}-of-{shard.total}.log"
    stated = os.environ.get(_THREADS, "")
    threads = int(stated) if stated.isdecimal() else len(os.sched_getaffinity(0))
    share = str(max(1, threads // shard.total))
    environment = {**os.environ, **hashes_for_children(), VARIABLE: gpu, _THREADS: share}
    words = [*command, "--shard", str(shard)]
    with log.open("wb") as stream:
        stream.write(f"$ {VARIABLE}={gpu} {shlex.join(words)}\n".encode())
        stream.flush()
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=environment,
            start_new_session=True,  # Ctrl-C is for this process, which then stops them
            preexec_fn=die_with_parent,
        )
    child = _Child(gpu, shard, log, process)
    sys.stderr.write(f"{child}: process {process.pid}, {log}\n")
    return child


def _wait(children: Sequence[_Child]) -> None:
    """Return when all have ended; now and then a line for each that has something new to say."""
    lines = dict.fromkeys((child.shard for child in children), "")
    running = list(children)
    last = time.monotonic()
    while running:
        time.sleep(_POLL_SECONDS)
        due = time.monotonic() - last >= SECONDS_BETWEEN_LINES
        for child in list(running):
            ended = child.process.poll() is not None
            line = tail(child.log, 1)[:150] if ended or due else ""
            if ended:
                running.remove(child)
                line = f"ended ({_status(child)}): {line}"
            if line not in ("", lines[child.shard]):
                lines[child.shard] = line
                sys.stderr.write(f"{child}: {line}\n")
        sys.stderr.flush()
        last = time.monotonic() if due else last


def _status(child: _Child) -> str:
    code = child.process.returncode
    return f"exit status {code}" if code >= 0 else signal.Signals(-code).name


def _why_it_failed(child: _Child) -> str:
    hint = ""
    if child.process.returncode == -signal.SIGKILL:
        hint = " The kernel does that where a machine runs out of memory: see `dmesg`."
    return f"{child} failed: {_status(child)}.{hint} The end of {child.log}:\n" + "\n".join(
        f"  {line[:300]}" for line in tail(child.log).split("\n")
    )
