"""The temperature at which a model samples with the mean token entropy of other results.

Training often sharpens a model, which lowers the entropy of what it samples and raises its scores
at temperature 1. The base model, sampled at the same entropy, shows how much of a gain is that.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Any

from dft_eval.benchmark import Benchmark, Request, Subject, file_stem
from dft_eval.errors import UsageError
from dft_eval.generation.resume import completion_key
from dft_eval.generation.run import Backend, Completion, Decoding, Prompt, noop
from dft_eval.results import atomic_write, read_results

PROBES = 32
"""Prompts, spread over the benchmark, that are sampled once at every temperature tried."""
COLDEST, HOTTEST = 0.02, 2.0
TOLERANCE = 0.02
"""Relative difference of entropies at which the search ends."""


@dataclass(frozen=True)
class Match:
    """What ``--match-entropy`` found; goes into the result's ``decoding``.

    Attributes:
        target: nats a token, the mean over the results in ``folders``.
        probed: nats a token of the probes at ``temperature``.
        decoding: of the results in ``folders``.
    """

    temperature: float
    target: float
    probed: float
    decoding: str
    folders: tuple[str, ...]


def matched_results(folders: Sequence[Path], benchmark: str, style: str) -> tuple[float, str]:
    """Mean over the folders of the benchmark's ``mean_entropy``, and how they were decoded.

    Raises:
        UsageError: a folder has no such result, or one without an entropy; decodings differ.
    """
    entropies, decodings = [], []
    for folder in folders:
        results = read_results(folder).results
        rows = [row for row in results if (row.benchmark, row.prompt_style) == (benchmark, style)]
        if not rows or rows[0].mean_entropy is None:
            what = "a result without mean_entropy" if rows else "no result"
            raise UsageError(
                f"--match-entropy {folder}: {what} of {benchmark} ({style}). Evaluate it with "
                "--backend hf and a --temperature."
            )
        entropies.append(rows[0].mean_entropy)
        decodings.append(rows[0].decoding_name)
    if len(set(decodings)) > 1:
        raise UsageError(f"--match-entropy: decodings differ: {', '.join(decodings)}.")
    return fmean(entropies), decodings[0]


def match_entropy(
    benchmark: Benchmark, request: Request, subject: Subject, data: Any
) -> tuple[Request, Match]:
    """The request at the temperature that gives the entropy of ``request.match_entropy``.

    Raises:
        UsageError: the entropy is not reached, or not known.
    """
    style = request.prompt_style or benchmark.default_style
    target, decoding = matched_results(request.match_entropy, benchmark.name, style)
    single = replace(request, decoding=replace(request.decoding, samples=1))
    parts = benchmark.parts(benchmark, single, data)
    if len(parts) > 1 or parts[0].pixels is not None:
        raise UsageError(
            f"--match-entropy is for benchmarks of one text part, not {benchmark.name}."
        )
    prompts = parts[0].prompts
    probes = prompts[:: -(-len(prompts) // PROBES)]

    def search() -> tuple[float, float]:
        return solve(subject.text, probes, parts[0].decoding, target)

    if request.shard is None:
        temperature, probed = search()
    else:
        identity = subject.text.identity
        keys = [completion_key(probe, parts[0].decoding, identity) for probe in probes]
        path = request.out.parent / f"{file_stem(benchmark.name, style)}.match.json"
        temperature, probed = once(path, json.dumps([target, *keys]), search)
    match = Match(temperature, target, probed, decoding, tuple(map(str, request.match_entropy)))
    return replace(request, decoding=replace(request.decoding, temperature=temperature)), match


def once(
    path: Path, question: str, search: Callable[[], tuple[float, float]]
) -> tuple[float, float]:
    """The answer in ``path`` to this question; the first process that asks searches for it.

    Shards must agree on the temperature to the last digit, whatever machines they run on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if known.get("question") != question:
            known = {"question": question, "answer": search()}
            atomic_write(path, json.dumps(known))
    temperature, probed = known["answer"]
    return temperature, probed


def solve(
    backend: Backend, prompts: Sequence[Prompt], decoding: Decoding, target: float
) -> tuple[float, float]:
    """The temperature at which the prompts' mean entropy is ``target``, and what it is there.

    Raises:
        UsageError: ``target`` is 0, or is not reached at :data:`COLDEST` or :data:`HOTTEST`.
    """
    from scipy.optimize import brentq

    tried: dict[float, float] = {}

    def above(log_temperature: float) -> float:
        """ln(entropy / target), which is nearly linear in ln(temperature)."""
        temperature = exp(log_temperature)
        if temperature not in tried:
            at = replace(decoding, temperature=temperature)
            tried[temperature] = mean_entropy(backend, prompts, at)
        ratio = tried[temperature] / target
        return 0.0 if abs(ratio - 1) <= TOLERANCE else log(max(ratio, TOLERANCE))

    if target <= 0:
        raise UsageError("--match-entropy: the entropy is 0, that of greedy decoding.")
    low = high = 0.0
    if above(0.0) < 0:
        high = log(HOTTEST)
    while above(low) > 0 and low > log(COLDEST):
        low, high = low - log(2), low
    if above(low) > 0 or above(high) < 0:
        temperature, entropy = list(tried.items())[-1]
        raise UsageError(
            f"--match-entropy: {target:.3f} nats a token are not reached: at temperature "
            f"{temperature:g} it is {entropy:.3f}."
        )
    if low < high:
        brentq(above, low, high, xtol=1e-3)
    # The root itself may lie between two temperatures that were tried.
    nearest = min(tried, key=lambda temperature: abs(tried[temperature] - target))
    return nearest, tried[nearest]


def mean_entropy(backend: Backend, prompts: Sequence[Prompt], decoding: Decoding) -> float:
    """Nats a token, the mean over one completion of each prompt.

    Raises:
        UsageError: the backend does not tell.
    """
    values = []
    for places in backend.batches(prompts, decoding):
        for row in backend.complete([prompts[place] for place in places], decoding, noop):
            if not isinstance(row, Completion) or row.mean_entropy is None:
                raise UsageError("--match-entropy needs --backend hf, which knows the entropy.")
            values.append(row.mean_entropy)
    return fmean(values)
