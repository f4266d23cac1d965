"""The driver behind ``dft-factory data prepare``: published records -> a LLaMA-Factory data set."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dft_factory.data.decontaminate import decontaminated, read_evaluation_problems
from dft_factory.data.lines import pick, sample_order, write_kept
from dft_factory.data.mathematics import GSM8K, MATH_PROBLEMS, NUMINAMATH, OPENR1_MATH
from dft_factory.data.natural_questions import NATURAL_QUESTIONS
from dft_factory.data.picture_set import Settings, prepare_pictures
from dft_factory.data.records import Converter
from dft_factory.data.repeats import once, read_excluded
from dft_factory.data.report import (
    DATASET_INFO_NAME,
    REPORT_NAME,
    OnceReport,
    ProblemReport,
    Report,
    check_out,
    sha256_of,
    write_json,
)
from dft_factory.data.sources import read_files, read_hub, source_files
from dft_factory.data.ultrafeedback import ULTRAFEEDBACK
from dft_factory.data.wethink import WETHINK
from dft_factory.errors import ConfigError, did_you_mean

CONVERTERS: dict[str, Converter] = {
    "ultrafeedback": ULTRAFEEDBACK,
    "wethink": WETHINK,
    "nq": NATURAL_QUESTIONS,
    "numinamath": NUMINAMATH,
    "openr1_math": OPENR1_MATH,
    "gsm8k": GSM8K,
    "math-problems": MATH_PROBLEMS,
}
"""The data sets of ``data prepare``, by name."""


def prepare(
    name: str,
    source: str,
    out: Path,
    limit: int | None = None,
    seed: int = 0,
    pictures: Path | None = None,
    exclude: str | None = None,
    sample: str | None = None,
    decontaminate: Sequence[str] = (),
) -> Report:
    """Write ``out/<name>.jsonl``, ``out/dataset_info.json`` and ``out/report.json``.

    Without ``limit`` all kept records are written in source order. With it, the kept records are
    shuffled by ``random.Random(seed)`` and the first ``limit`` of them are written, all of them if
    there are fewer. So the same source, limit and seed give the same bytes, a smaller limit gives
    the beginning of a larger one, and LLaMA-Factory's ``max_samples`` takes an unbiased part. With
    ``sample="first"`` the first ``limit`` kept records are written in source order.

    Records are streamed through a file beside ``out``; memory has 8 bytes per kept record and, with
    a limit, a list of their numbers. Each of the three files appears complete or not at all, the
    report last. A folder made with the same settings is overwritten.

    A set with pictures also gets ``out/pictures``, each decoded once; a killed run can be resumed.
    See :mod:`dft_factory.data.picture_set`.

    Args:
        name: a key of :data:`CONVERTERS`.
        source: a file, a folder, or a hub id; see :mod:`dft_factory.data.sources`.
        out: the folder to write; created if it does not exist.
        limit: how many records to sample, at least 1.
        seed: of the sample, at least 0.
        pictures: a folder of pictures or archives, or one archive; default: beside the source. Only
            for sets with pictures.
        exclude: a local file or folder of records to leave out, such as the evaluation set. Only
            for sets whose records have an identity.
        sample: ``random`` (the default) or ``first``; only with a limit and without pictures.
        decontaminate: local files or folders of evaluation problems to leave out, by n-grams
            (:mod:`dft_factory.data.decontaminate`). Only for sets of problems.

    Raises:
        ConfigError: an invalid setting, a source that cannot be read or has no record to keep, or
            an ``out`` with other contents.
        MissingDependencyError: the hub cannot be reached, or a package is missing.
    """
    if name not in CONVERTERS:
        hint = did_you_mean(name.lower(), CONVERTERS)
        choices = ", ".join(CONVERTERS)
        raise ConfigError(f"data set {name!r} is unknown. Choose from: {choices}.{hint}")
    converter = CONVERTERS[name]
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit: {limit} must be 1 or more. Leave it out to keep every record.")
    if seed < 0:  # random.Random(-1) is random.Random(1)
        raise ConfigError(f"--seed: {seed} must be 0 or more.")
    method = _sample(sample, limit, converter, name)
    files = source_files(source)
    problems = read_evaluation_problems(converter, name, decontaminate)
    excluded = read_excluded(converter, name, exclude)
    if converter.pictures_from is not None:
        settings = Settings(name, source, files, out, limit, seed, pictures)
        return prepare_pictures(converter, settings)
    if pictures is not None:
        raise ConfigError(f"--pictures: {str(pictures)!r}: {name!r} has no pictures. Leave it out.")
    check_out(
        out, files, name=name, source=source, limit=limit, sample=method, seed=seed,
        exclude=exclude, decontaminate=list(decontaminate),
    )  # fmt: skip
    if files is None:
        config = converter.hub_config if source == converter.hub_id else None
        records = read_hub(source, converter.split, config)
    else:
        records = read_files(files)

    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        data = scratch / f"{name}.jsonl"
        convert = decontaminated(once(converter, excluded), problems)
        written = write_kept(records, convert, data, limit if method == "first" else None)
        n_written = len(written.offsets)
        if not n_written:
            counts = "".join(f"; {reason}: {n}" for reason, n in sorted(written.dropped.items()))
            raise ConfigError(
                f"--source: {source!r} has no record to keep ({written.read} read{counts}). "
                f"{name!r} expects records of the shape of {converter.hub_id}."
            )
        if limit is not None and method == "random":
            pick(data, written.offsets, sample_order(n_written, limit, seed)[:limit])
        report = Report(
            name=name,
            source=source,
            files=[path.name for path in files or ()],
            read=written.read,
            kept=n_written,
            dropped=dict(sorted(written.dropped.items())),
            sampled=n_written if limit is None else min(n_written, limit),
            limit=limit,
            seed=seed,
            sample=method,
            file_name=data.name,
            sha256=sha256_of(data),
        )
        if converter.identity is not None:
            report = OnceReport(**report.model_dump(), exclude=exclude)
        elif converter.decontaminate:
            report = ProblemReport(**report.model_dump(), decontaminate=list(decontaminate))
        write_json(scratch / DATASET_INFO_NAME, {name: {"file_name": data.name, **converter.entry}})
        write_json(scratch / REPORT_NAME, report.model_dump())
        out.mkdir(exist_ok=True)
        for file_name in (data.name, DATASET_INFO_NAME, REPORT_NAME):
            os.replace(scratch / file_name, out / file_name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return report


def _sample(
    sample: str | None, limit: int | None, converter: Converter, name: str
) -> Literal["random", "first"]:
    if sample is None or sample == "random":
        return "random"
    if sample != "first":
        raise ConfigError(f"--sample: {sample!r} is unknown. Choose from: first, random.")
    if limit is None:
        raise ConfigError("--sample: 'first' needs --limit. Without it every record is kept.")
    if converter.pictures_from is not None:
        raise ConfigError(f"--sample: {name!r} takes 'random' only. Leave it out.")
    return "first"
