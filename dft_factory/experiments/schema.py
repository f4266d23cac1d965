"""The experiment file: its fields, and how it is read."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from dft_factory.errors import ConfigError

Scalar = bool | int | float | str
Stage = Literal["prepare", "train", "probe", "generate", "score", "card", "report"]

PLACEHOLDERS = ("out", "here", "seed")
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
Name = Annotated[str, Field(pattern=_NAME)]
"""Names become folder names."""
_FILE = re.compile(r".*\.(csv|html|js|jsonl?|lock|log|md|png|ya?ml)")
_NUMBERED = re.compile(r"(checkpoint-.*|seed[-_]?\d+)")
_TAKEN_MODELS = frozenset({"data", "jobs", "make"})
_TAKEN_VARIANTS = frozenset({*_TAKEN_MODELS, "base-at-entropy", "base-data"})
_TAKEN_EVALUATIONS = frozenset({*_TAKEN_VARIANTS, "base", "model", "shards"})
"""Folders that an experiment or an evaluation makes itself where the named one would lie."""


def _refuse_taken(what: str, name: str, taken: Collection[str]) -> None:
    """Refuse a name whose folder would be one of another purpose.

    Raises:
        ValueError: naming all names that are taken.
    """
    if name in taken or _FILE.fullmatch(name) or _NUMBERED.fullmatch(name):
        raise ValueError(
            f"{what} {name!r}: an experiment keeps other things under this name. Choose one that "
            f"is not {', '.join(sorted(taken))}, a seed, a checkpoint or a file name"
        )


class Part(BaseModel):
    """Base of every part of the file: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(Part):
    """A training set, made by ``dft-factory data prepare``, or a folder that is there already.

    Attributes:
        prepare: a converter of ``dft-factory data prepare``; the other fields are its options.
        folder: a LLaMA-Factory data set folder (with ``dataset_info.json``) instead.
        dataset: the recipe's ``dataset``; default: the converter's, or the recipe's own.
    """

    prepare: str | None = None
    source: str | None = None
    limit: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0)
    pictures: str | None = None
    exclude: str | None = None
    sample: str | None = None
    decontaminate: list[str] = Field(default_factory=list)
    folder: str | None = None
    dataset: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> DataSpec:
        if (self.prepare is None) == (self.folder is None):
            raise ValueError("give either 'prepare' (with 'source') or 'folder'")
        if self.prepare is not None and self.source is None:
            raise ValueError(
                f"prepare: {self.prepare} needs 'source': a file, a folder or a hub id"
            )
        options = ("source", "limit", "seed", "pictures", "exclude", "sample", "decontaminate")
        useless = [name for name in options if getattr(self, name) not in (None, [])]
        if self.folder is not None and useless:
            raise ValueError(f"folder: {', '.join(useless)} only go with 'prepare'")
        return self


class TrainingSpec(Part):
    """A training that makes the base model, before the comparison."""

    recipe: str
    data: DataSpec | None = None
    set: dict[str, Any] = Field(default_factory=dict)


class ModelSpec(Part):
    """A base model.

    Attributes:
        path: hub id or folder; default: the recipe's ``model_name_or_path``.
        train: a training that starts from ``path`` and gives the base model.
        recipe: the training recipe of this model, instead of the experiment's.
        base_model: the row of the paper that the model belongs to; default: ``path``.
    """

    path: str | None = None
    train: TrainingSpec | None = None
    recipe: str | None = None
    base_model: str | None = None


def _model(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


ModelField = Annotated[ModelSpec, BeforeValidator(_model)]


def _variants(value: Any) -> Any:
    """``[sft, dft]`` is short for a mapping: the recipe's method with that objective."""
    if isinstance(value, list):
        return {name: {"objective": name} for name in value}
    return value


class Training(Part):
    """What is trained: a recipe in several variants and seeds.

    Attributes:
        recipe: LLaMA-Factory YAML: a path beside the experiment file, or one of the shipped
            recipes (``ultrafeedback/qwen2_5_coder_3b_sft.yaml``).
        set: keys of the recipe that all runs change.
        variants: name to keys of the recipe; a list of objectives is short for that.
            ``objective: dft`` stands for the recipe's ``finetuning_type`` with that objective.
        grid: key of the recipe to the values that each variant is trained with.
        seeds: training seeds; none: the recipe's own.
        checkpoints: steps whose checkpoint is evaluated too.
    """

    recipe: str | None = None
    data: DataSpec | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    variants: Annotated[dict[Name, dict[str, Any]], BeforeValidator(_variants)]
    grid: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = Field(default_factory=dict)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    checkpoints: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _no_repeats(self) -> Training:
        if not self.variants:
            raise ValueError("variants: give at least one, for example [sft, dft]")
        if "base" in self.variants:
            raise ValueError("variants: 'base' names the model before training")
        for name in self.variants:
            _refuse_taken("variants:", name, _TAKEN_VARIANTS)
        repeatable: dict[str, list[Any]] = {**self.grid}
        repeatable |= {"seeds": self.seeds, "checkpoints": self.checkpoints}
        for key, values in repeatable.items():
            if len(set(map(str, values))) < len(values):
                raise ValueError(f"{key}: a value is there twice: {values}")
        return self


class Evaluation(BaseModel):
    """Benchmarks with the options of ``dft-factory eval``, hyphens written as underscores.

    A benchmark is a name, or the path of a task file: beside the experiment file, or shipped.

    Attributes:
        name: of the evaluation's folder; none: the run's folder itself. Needed where one benchmark
            is scored in two ways. Decodings of the same items (greedy and sampled) share a report,
            any other named evaluation has its own.
        match_entropy: a variant, for sampling: the base model is also decoded at the temperature
            at which its mean token entropy is that variant's, as a row of its own.
        shards: jobs that generate, each a part of the items; evaluations of one name are
            generated together and have the same number.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    benchmarks: list[str] = Field(min_length=1)
    name: Name | None = None
    match_entropy: Name | None = None
    shards: int = Field(default=1, ge=1)

    @property
    def options(self) -> dict[str, Scalar]:
        """Those of ``dft-factory eval``; the values are checked by its own parser."""
        return dict(self.model_extra or {})

    @property
    def where(self) -> str:
        """How error messages name this evaluation."""
        return "without a name" if self.name is None else f"named {self.name!r}"


class Report(Part):
    """What the report compares.

    Attributes:
        reference: the variant that the others are compared with first; default: the first.
        against_paper: with the paper's figures, by ``base_model``.
        track: scores are logged to the run that the training reported to (``report_to``).
    """

    title: str | None = None
    reference: str | None = None
    against_paper: bool = False
    track: bool = False


class Resources(Part):
    """What one job needs; a Snakemake profile or ``--set`` overrides it.

    Attributes:
        gpus: a node.
        hours: wall time, used for the cluster's limit and the estimate of ``--dry-run``.
        threads: processor cores of a job on this machine; default: its share.
    """

    gpus: int = Field(default=0, ge=0)
    nodes: int = Field(default=1, ge=1)
    memory_gb: float | None = Field(default=None, gt=0)
    hours: float | None = Field(default=None, gt=0)
    threads: int | None = Field(default=None, ge=1)


class Experiment(Part):
    """The whole file.

    ``$name`` in a path or command stands for the folder that ``make.name`` writes, ``$out`` (in
    ``make``) for that folder itself, ``$seed`` (in ``train.data``) for the training seed, ``$here``
    for the folder of the experiment file.

    Attributes:
        out: folder of everything that the experiment makes; default: ``runs/<name>``.
        make: commands, each of which writes the folder ``$out``: a model, a data set, pictures.
        model: the base model, or ``models``: several by name.
        probe: examples whose token probabilities are measured before and after training.
        base: whether the base model is evaluated too.
    """

    description: str = ""
    out: str | None = None
    make: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = Field(
        default_factory=dict
    )
    model: ModelField | None = None
    models: dict[Name, ModelField] = Field(default_factory=dict)
    train: Training
    probe: int | None = Field(default=None, ge=1)
    base: bool = True
    evaluate: list[Evaluation] = Field(min_length=1)
    report: Report = Field(default_factory=Report)
    resources: dict[Stage, Resources] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        for name, command in self.make.items():
            if name in PLACEHOLDERS:
                raise ValueError(f"make.{name}: this name is taken. Choose another")
            if "$out" not in command and "${out}" not in command:
                raise ValueError(f"make.{name}: write $out where the command's folder goes")
        if self.model is not None and self.models:
            raise ValueError("give 'model' (one) or 'models' (several by name), not both")
        for name in self.models:
            _refuse_taken("models:", name, _TAKEN_MODELS)
        models = list(self.models.values()) or [self.model or ModelSpec()]
        if self.train.recipe is None and any(model.recipe is None for model in models):
            raise ValueError("train: give 'recipe', or each of the models its own")
        reference = self.report.reference
        if reference is not None and reference not in (*self.train.variants, "base"):
            choices = ", ".join(("base", *self.train.variants))
            raise ValueError(f"report.reference {reference!r}: choose from: {choices}")
        seen: set[tuple[str | None, str]] = set()
        # The report of a named evaluation lies beside the variants.
        taken = {*_TAKEN_EVALUATIONS, *self.train.variants}
        for evaluation in self.evaluate:
            if evaluation.name is not None:
                _refuse_taken("evaluate: name", evaluation.name, taken)
            self._check_match(evaluation)
            for benchmark in evaluation.benchmarks:
                if (evaluation.name, benchmark) in seen:
                    raise ValueError(
                        f"evaluate: {benchmark} is there twice {evaluation.where}: name one of them"
                    )
                seen.add((evaluation.name, benchmark))
            shards = self.shards(evaluation.name)
            if evaluation.shards != shards:
                raise ValueError(
                    f"evaluate: shards {shards} and {evaluation.shards} {evaluation.where}: such "
                    "evaluations are generated together. Give one number, or name one of them"
                )
        return self

    def shards(self, name: str | None) -> int:
        """Number of jobs that generate for the evaluations of this name."""
        return next(evaluation.shards for evaluation in self.evaluate if evaluation.name == name)

    def _check_match(self, evaluation: Evaluation) -> None:
        variant = evaluation.match_entropy
        if variant is None:
            return
        if variant not in self.train.variants:
            choices = ", ".join(self.train.variants)
            raise ValueError(f"evaluate.match_entropy {variant!r}: choose from: {choices}")
        if not evaluation.options.get("temperature"):
            raise ValueError(f"evaluate.match_entropy {variant!r}: give a temperature above 0")
        if not self.base:
            raise ValueError(
                f"evaluate.match_entropy {variant!r}: 'base: false' leaves out the base"
            )


class _Loader(yaml.SafeLoader):
    """Reads 1e-5 as a number, as YAML 1.2 and LLaMA-Factory do; PyYAML alone reads text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class Loaded:
    """An experiment and where it was read from."""

    name: str
    file: Path
    experiment: Experiment


def load(file: Path, name: str, overrides: Sequence[str] = ()) -> Loaded:
    """Read an experiment file.

    Args:
        overrides: ``key=value``, dots between levels (``train.seeds=[0]``), values as in YAML.

    Raises:
        ConfigError: with all errors of the file together.
    """
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: holds no keys and values. `dft-factory experiments show demo`")
    for override in overrides:
        _override(values, override)
    try:
        return Loaded(name, file, Experiment.model_validate(values))
    except ValidationError as error:
        lines = [f"{file}: {_where(row['loc'])}: {_message(row)}" for row in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error


def _override(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {override!r}: write key=value, for example train.seeds=[0,1].")
    *parents, last = path.split(".")
    level: Any = values
    for key in parents:
        level = level.setdefault(key, {}) if isinstance(level, dict) else level
        if isinstance(level, list) and key.isdigit() and int(key) < len(level):
            level = level[int(key)]
    if isinstance(level, list) and last.isdigit() and int(last) < len(level):
        level[int(last)] = yaml.load(text, Loader=_Loader)
    elif isinstance(level, dict):
        level[last] = yaml.load(text, Loader=_Loader)
    else:
        raise ConfigError(f"--set {override!r}: {'.'.join(parents)} holds no keys.")


def _where(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc) or "-"


def _message(row: Any) -> str:
    if row["type"] == "extra_forbidden":
        return "unknown key."
    return f"{row['msg'].removeprefix('Value error, ')}" + (
        f" (is {row['input']!r})" if isinstance(row["input"], (str, int, float, bool)) else ""
    )
