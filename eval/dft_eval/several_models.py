"""Several models on the same benchmarks in one command."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dft_eval.benchmark import Request
from dft_eval.benchmarks import check, evaluate
from dft_eval.checkpoints import reuse_completions
from dft_eval.errors import UnscoredError, UsageError
from dft_eval.generation.shard import FOLDER
from dft_eval.model_files import find_model
from dft_eval.results import ResultFile
from dft_eval.serving.pool import Servers

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def requests_of(models: Sequence[str], request: Request) -> list[Request]:
    """A request for each model: itself for one; else each in the folder of its label.

    Args:
        models: a model, or ``LABEL=MODEL`` each.

    Raises:
        UsageError: several without labels, or a label that is there twice or no folder's name.
    """
    if len(models) == 1:
        return [replace(request, model=models[0])]
    labels = [model.partition("=")[0] for model in models]
    for model, label in zip(models, labels, strict=True):
        if "=" not in model or not _LABEL.fullmatch(label):
            raise UsageError(
                f"--model {model!r}: of several models each needs a label: --model base=PATH "
                "--model dft=PATH. A label names a folder in --out."
            )
        if label == FOLDER:
            raise UsageError(
                f"--model {model!r}: {FOLDER} is the folder of --shard. Choose another."
            )
        if labels.count(label) > 1:
            raise UsageError(f"--model: the label {label!r} is there twice.")
    return [
        replace(request, model=model.partition("=")[2], label=label, out=request.out / label)
        for model, label in zip(models, labels, strict=True)
    ]


def evaluate_all(
    names: list[str], requests: Sequence[Request], *, scored: bool = True
) -> Iterator[tuple[Request, ResultFile]]:
    """As :func:`~dft_eval.benchmarks.evaluate`, one model after the other.

    Servers are shared by the models that can be served together.

    Raises:
        UnscoredError: when all models are done.
        UsageError, PrerequisiteError, EvaluationError: as ``evaluate``, at once.
    """
    for request in requests:
        check(names, request)
        if len(requests) > 1 and request.backend == "hf":
            find_model(request.model)
    unscored: list[str] = []
    done: list[tuple[Request, ResultFile]] = []
    with Servers(requests) as servers:
        for request in requests:
            reuse_completions(request, done)
            try:
                results = evaluate(names, request, scored=scored, servers=servers)
            except UnscoredError as error:
                if len(requests) == 1:
                    raise
                unscored.append(f"{request.label}: {error}")
            else:
                done.append((request, results))
                yield done[-1]
            gc.collect()  # a model is part of reference cycles: free it before the next is loaded
    if unscored:
        raise UnscoredError("\n".join(unscored))
