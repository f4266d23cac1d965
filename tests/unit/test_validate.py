"""``dft-factory validate``: the checks that do not start LLaMA-Factory."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from dft_factory.validate import Finding, exit_status, render_checks, render_text, validate_files
from dft_factory.validate.fields import check_values, fields_of
from dft_factory.validate.files import Config, Kind, kind_of, read
from dft_factory.validate.pairs import check_pairs
from dft_factory.validate.parser_errors import parse_errors
from dft_factory.validate.paths import check_paths
from dft_factory.validate.run import CHECKED_AS, _job

# Findings

TASK = "{prompt: '{q}', metric: numeric, answer: a, data: rows.jsonl}"


def test_findings_are_one_line_and_only_errors_fail() -> None:
    warning = Finding(Path("a.yaml"), "warning", "bf16", "needs a GPU.")
    error = Finding(Path("b.yaml"), "error", "stage", "no.")
    assert render_text([warning, error]) == (
        "a.yaml: bf16: warning: needs a GPU.\nb.yaml: stage: no.\n"
    )
    assert (exit_status([]), exit_status([warning]), exit_status([warning, error])) == (0, 0, 2)
    assert set(CHECKED_AS) == {*get_args(Kind), "task"}


def test_files_without_an_error_say_as_what_they_were_checked(tmp_path: Path) -> None:
    for name, text in (("task", TASK), ("recipe", "stage: sft"), ("wrong", "stage: sft")):
        (tmp_path / f"{name}.yaml").write_text(text)
    findings = [
        Finding(tmp_path / "recipe.yaml", "warning", "model_name_or_path", "is not here yet."),
        Finding(tmp_path / "wrong.yaml", "error", "stage", "no."),
    ]
    paths = [tmp_path / name for name in ("task.yaml", "wrong.yaml", "recipe.yaml", "task.yaml")]
    task, recipe = render_checks(paths, findings).splitlines()
    assert task.startswith(f"{tmp_path}/task.yaml: no error, no warning. Checked as a task: ")
    assert recipe.startswith(f"{tmp_path}/recipe.yaml: no error, 1 warning. Checked as a recipe: ")


# Reading


def _read(tmp_path: Path, text: str, name: str = "x.yaml") -> tuple[Config | None, list[str]]:
    file = tmp_path / name
    file.write_text(text)
    config, findings = read(file)
    assert all(finding.severity == "error" for finding in findings)
    return config, [f"{finding.key}: {finding.message}" for finding in findings]


def test_values_and_keys_are_read_as_by_llamafactory(tmp_path: Path) -> None:
    config, findings = _read(
        tmp_path, "do_train: true\nlearning_rate: 1e-5\nsave_strategy: no\nmax_steps: 010\n"
    )
    assert findings == []
    assert config is not None
    # Plain PyYAML reads '1e-5' as text; `no` is a boolean for both.
    assert config.values["learning_rate"] == 1e-5
    assert config.values["save_strategy"] is False
    config, findings = _read(tmp_path, "do_train: true\n1: 2\n")
    assert findings == ["1: this key is a int, not a name. Remove it."]
    assert config is not None
    assert config.values == {"do_train": True}


def test_duplicates_are_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    text = (
        "do_train: true\nlearning_rate: 1e-5\nstage: sft\nfsdp_config: {a: 1, a: 2}\n"
        "learning_rate: 2e-5\nstage: pt\n"
    )
    config, findings = _read(tmp_path, text)
    tail = "and LLaMA-Factory rejects the file. Remove one of them."
    assert findings == [
        f"learning_rate: is set twice, on lines 2 and 5, {tail}",
        f"stage: is set twice, on lines 3 and 6, {tail}",
        f"fsdp_config.a: is set twice, on lines 4 and 4, {tail}",
    ]
    assert config is not None
    rest = {"stage": "pt", "fsdp_config": {"a": 2}}
    assert config.values == {"do_train": True, "learning_rate": 2e-5, **rest}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2\n", "-: is not YAML, line 2, column 2: expected ',' or ']', but got ':'."),
        ("a: b: c\n", "-: is not YAML, line 1, column 5: mapping values are not allowed here."),
        ("\ta: 1\n", "-: is not YAML, line 1, column 1: found character '\\t' that cannot start"),
        ("a: 1\n---\nb: 2\n", "-: is not YAML, line 2, column 1: but found another document."),
        ("", "-: is empty, not keys and values. Expected a LLaMA-Factory recipe"),
        ("- a\n", "-: holds a list, not keys and values."),
        ("just words\n", "-: holds a str, not keys and values."),
        ("colour: red\n", "-: is of an unknown kind. Expected a LLaMA-Factory recipe"),
        ("do_train: ${x\n", "-: cannot be read: "),
    ],
)
def test_syntax_errors_have_a_position(tmp_path: Path, text: str, message: str) -> None:
    config, findings = _read(tmp_path, text)
    assert config is None
    assert len(findings) == 1
    assert findings[0].startswith(message)


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_bytes(b"a: \xff\n")
    findings = validate_files([tmp_path / "none.yaml", tmp_path, tmp_path / "b.yaml"])
    assert [(finding.file, finding.message) for finding in findings] == [
        (tmp_path / "none.yaml", "no such file."),
        (tmp_path, f"is a folder. Name its files, for example {tmp_path}/*.yaml."),
        (tmp_path / "b.yaml", "is not UTF-8 text: byte 3 is invalid start byte."),
    ]


def test_task_files_are_checked_with_their_data(tmp_path: Path) -> None:
    task = tmp_path / "task.yaml"
    task.write_text("{prompt: '{q} ${x', metric: numeric, answer: a, data: rows.jsonl}")
    (finding,) = validate_files([task])
    assert (finding.severity, finding.key) == ("error", "prompt")
    task.write_text(TASK)
    (finding,) = validate_files([task])
    assert (finding.severity, finding.key) == ("warning", "data")
    (tmp_path / "rows.jsonl").write_text('{"q": 1, "a": 1}\n{"q": 1}\n')
    (finding,) = validate_files([task])
    assert (finding.severity, finding.key) == ("error", "data")
    assert "line 2: there is no field 'a'. Choose from: q." in finding.message
    (tmp_path / "rows.jsonl").write_text('{"q": 1, "a": 1}\n')
    assert validate_files([task]) == []
    task.write_text(f"name: gsm8k\n{task.read_text()[1:-1].replace(', ', chr(10))}")
    (finding,) = validate_files([task])
    assert "'gsm8k' is the name of a benchmark" in finding.message


def test_json(tmp_path: Path) -> None:
    config, findings = _read(tmp_path, '{"zero_optimization": {"stage": 2, "stage": 3}}', "ds.json")
    assert config is not None
    assert config.kind == "deepspeed"
    assert config.values == {"zero_optimization": {"stage": 3}}
    assert findings == ["stage: is set twice; only the last value counts. Remove one of them."]
    assert _read(tmp_path, '{"a": 1,}', "x.json")[1][0].startswith("-: is not JSON, line 1: ")
    assert _read(tmp_path, '{"do_train": true}', "r.json")[1] == [
        "-: llamafactory-cli 0.9.5 cannot read JSON recipes. Write it as YAML."
    ]


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["model_name_or_path", "do_train", "deepspeed"], "train"),
        (["model_name_or_path", "stage"], "train"),
        (["model_name_or_path", "export_dir", "finetuning_type"], "export"),
        (["model_name_or_path", "template"], "inference"),
        (["zero_optimization", "bf16", "train_batch_size"], "deepspeed"),
        (["distributed_type", "mixed_precision", "num_processes"], "accelerate"),
        (["bf16"], None),
    ],
)
def test_kinds(keys: list[str], kind: str | None) -> None:
    assert kind_of(dict.fromkeys(keys)) == kind


# Fields


class _Mode(enum.StrEnum):
    NO = "no"
    STEPS = "steps"


@dataclass
class _Arguments:
    whole: int = 1
    number: float = 0.0
    flag: bool = False
    text: str = ""
    maybe: int | None = None
    choice: Literal["cpu", "auto"] = "cpu"
    maybe_choice: Literal["a", "b"] | None = None
    mode: _Mode | str = "no"
    settings: dict[str, Any] | str | None = None
    names: str = field(default="", metadata={"help": "Use commas to separate several."})
    resume_from_checkpoint: str | None = None
    hidden: str = field(default="", init=False)
    text_or_none: str = None  # type: ignore[assignment]


GOOD = [
    ("whole", 3),
    ("number", 3),
    ("number", 1e-5),
    ("flag", True),
    ("text", "x"),
    ("maybe", None),
    ("choice", "auto"),
    ("maybe_choice", None),
    ("maybe_choice", "b"),
    ("mode", "steps"),
    ("settings", {"a": 1}),
    ("settings", "file.json"),
    ("names", "a,b"),
    ("names", ["a", "b"]),
    ("resume_from_checkpoint", True),
    ("text_or_none", None),
]
QUOTE = "Quote the word: YAML reads unquoted no, off and false as a boolean."
BAD = [
    ("whole", "3", "'3' is text, not a whole number. Remove the quotes."),
    ("whole", "many", "'many' is text, not a whole number."),
    ("whole", 1e3, "1000.0 is a number, not a whole number. Write 1000."),
    ("whole", 0.5, "0.5 is a number, not a whole number."),
    ("whole", True, "True is a boolean, not a whole number."),
    ("whole", None, "is empty. Set a value, or remove the line."),
    ("number", "1e-5", "'1e-5' is text, not a number. Remove the quotes."),
    ("flag", 1, "1 is a whole number, not true or false. Write true."),
    ("flag", "true", "'true' is text, not true or false. Remove the quotes."),
    ("flag", "maybe", "'maybe' is text, not true or false."),
    ("text", 2024, "2024 is a whole number, not text. Quote it: '2024'."),
    ("text", False, f"False is a boolean, not text. {QUOTE}"),
    ("text", ["a"], "['a'] is a list, not text."),
    ("text", "${x}", "'${x}': LLaMA-Factory does not expand ${...}. Write the value itself."),
    ("choice", "gpu", "'gpu' is unknown. Choose from: cpu, auto."),
    ("choice", "autp", "'autp' is unknown. Choose from: cpu, auto. Did you mean 'auto'?"),
    ("mode", False, "no without quotes is the boolean false in YAML. Write 'no'."),
    ("mode", "step", "'step' is unknown. Choose from: no, steps. Did you mean 'steps'?"),
    ("settings", [1], "[1] is a list, not text or a mapping."),
    ("hidden", "x", "is not an argument of LLaMA-Factory."),
    ("wohle", 1, "is not an argument of LLaMA-Factory. Did you mean 'whole'?"),
    ("other", 1, "belongs in a training recipe; LLaMA-Factory rejects it here. Remove it."),
]


def _check(key: str, value: Any) -> list[tuple[str, str]]:
    return list(check_values({key: value}, fields_of([_Arguments]), {"other": "a training recipe"}))


@pytest.mark.parametrize(("key", "value"), GOOD)
def test_values_that_fit(key: str, value: Any) -> None:
    assert _check(key, value) == []


@pytest.mark.parametrize(("key", "value", "message"), BAD)
def test_values_that_do_not_fit(key: str, value: Any, message: str) -> None:
    assert _check(key, value) == [(key, message)]


# One error after the other


FIELDS = ("finetuning_type", "stage", "streaming", "max_steps", "val_size", "packing", "seed")


def _errors(
    values: dict[str, Any], *rules: tuple[Callable[[dict[str, Any]], object], str]
) -> list[tuple[str, str]]:
    """Of a parser that raises the message of the first rule that applies."""

    def parse(values: dict[str, Any]) -> BaseException | None:
        return next((ValueError(text) for applies, text in rules if applies(values)), None)

    return [(", ".join(keys), str(error)) for keys, error in parse_errors(parse, values, FIELDS)]


def test_keys_of_a_message_are_removed_or_set() -> None:
    both = (lambda v: "packing" in v and "seed" in v, "`seed` does not go with packing.")
    alone = (lambda v: "val_size" in v, "An integer val size, please.")
    assert _errors({"packing": 1, "seed": 2, "val_size": 3}, both, alone) == [
        ("seed, packing", both[1]),
        ("val_size", alone[1]),
    ]
    assert _errors({"packing": 1}, both, alone) == []
    rule = (lambda v: "seed" in v, "data_seed and seeds are not it; --seed=2 is.")
    assert _errors({"seed": 2, "packing": 1}, rule) == [("seed", rule[1])]
    stage = (lambda v: v.get("stage") == "dpo", "finetuning_type: 'dft' needs stage: sft.")
    both = lambda v: v.get("finetuning_type") == "dft" and v.get("packing")  # noqa: E731
    packing = (both, "finetuning_type: 'dft' refuses packing.")
    values = {"finetuning_type": "dft", "stage": "dpo", "packing": True}
    assert [key for key, _ in _errors(values, stage, packing)] == ["stage", "packing"]
    steps = (
        lambda v: v.get("streaming") and not v.get("max_steps"),
        "Please specify `max_steps` in streaming mode.",
    )
    size = (lambda v: v.get("streaming") and "val_size" in v, "No val_size while streaming.")
    assert _errors({"streaming": True, "val_size": 0.1}, steps, size) == [
        ("max_steps", steps[1]),
        ("val_size", size[1]),
    ]


@pytest.mark.parametrize("text", ["Never.", "Never with seed."])
def test_a_repeated_message_ends_it(text: str) -> None:
    key = "seed" if "seed" in text else ""
    assert _errors({"seed": 1}, (lambda v: True, text)) == [(key, text)]


# What a recipe points at


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a data set, entered from somewhere else."""
    (tmp_path / "project" / "configs").mkdir(parents=True)
    data = tmp_path / "project" / "data"
    data.mkdir()
    info = {
        "here": {"file_name": "here.json"},
        "gone": {"file_name": "gone.json"},
        "hub": {"hf_hub_url": "a/b"},
        "pairs": {"file_name": "here.json", "ranking": True},
    }
    (data / "dataset_info.json").write_text(json.dumps(info))
    (data / "here.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "project"


def _paths(project: Path, **values: Any) -> list[tuple[str, str, str]]:
    config = Config(project / "configs" / "x.yaml", "train", values)
    return [(finding.severity, finding.key, finding.message) for finding in check_paths(config)]


def test_data_sets_are_those_of_the_project(project: Path) -> None:
    assert _paths(project, dataset="here, hub", dataset_dir="data") == []
    assert _paths(project, dataset="here", eval_dataset="hub") == []  # data is the default
    assert _paths(project, dataset="a/b", dataset_dir="ONLINE") == []
    file = project / "configs" / "x.yaml"
    for values, folder in (
        ({}, str(project / "data")),
        ({"dataset_dir": "data"}, str(project / "data")),
        ({"dataset_dir": "REMOTE:a/b"}, "REMOTE:a/b"),
    ):
        assert _job(Config(file, "train", values))["values"]["dataset_dir"] == folder


def test_data_sets_that_are_not_there(project: Path) -> None:
    near = "which has here, gone, hub, pairs. Did you mean 'here'?"
    ranking = "is a ranking data set (ranking: true in dataset_info.json), which stage: sft cannot"
    gone = "'gone': data/gone.json is not here yet. Put it there before training."
    assert _paths(project, dataset="here,heer,gone", eval_dataset="pairs") == [
        ("error", "dataset", f"'heer' is not in data/dataset_info.json, {near}"),
        ("warning", "dataset", gone),
        ("error", "eval_dataset", f"'pairs' {ranking} train on."),
    ]
    absent = "there is no runs/data/dataset_info.json: not here yet."
    fix = "`dft-factory data prepare ultrafeedback --source PATH_OR_HUB_ID --out runs/data`."
    (finding,) = _paths(project, dataset="ultrafeedback", dataset_dir="runs/data")
    assert finding == ("warning", "dataset_dir", f"{absent} Create it: {fix}")


def test_local_models_and_deepspeed_files_are_checked(project: Path) -> None:
    (project / "runs" / "base").mkdir(parents=True)
    for name in ("Qwen/Qwen2.5-Coder-3B", "gpt2", "runs/base"):
        assert _paths(project, model_name_or_path=name) == []
    for name in ("runs/other", "./model", "/no/such/model", "a/b/c"):
        (finding,) = _paths(project, model_name_or_path=name)
        message = f"{name!r} is not here yet. Train, download or create it first."
        assert finding == ("warning", "model_name_or_path", message)
    (project / "configs" / "z3.json").write_text("{}")
    assert _paths(project, deepspeed="configs/z3.json") == []
    assert _paths(project, deepspeed={"zero_optimization": {}}) == []
    fix = "Write its path relative to the folder where llamafactory-cli is started."
    (finding,) = _paths(project, deepspeed="configs/z4.json")
    assert finding == ("error", "deepspeed", f"there is no file 'configs/z4.json'. {fix}")
    (finding,) = _paths(project, deepspeed="/no/such/z3.json")
    assert finding[0] == "warning"


# Pairs

SFT = {"do_train": True, "finetuning_type": "sft", "learning_rate": 1e-5, "output_dir": "a"}


def _pairs(folder: Path, sft: dict[str, Any], dft: dict[str, Any]) -> list[Finding]:
    names = {"m_sft_full.yaml": sft, "m_dft_full.yaml": dft}
    configs = [Config(folder / name, "train", values) for name, values in names.items()]
    findings = list(check_pairs(configs))
    assert findings == list(check_pairs(configs[::-1]))
    assert {finding.file for finding in findings} <= {folder / "m_dft_full.yaml"}
    return findings


def test_pairs_may_differ_only_in_objective_and_names(tmp_path: Path) -> None:
    dft = {"finetuning_type": "dft", "dft_weight": "token", "output_dir": "b", "run_name": "x"}
    assert _pairs(tmp_path, SFT, {**SFT, **dft}) == []
    dft = {**SFT, "finetuning_type": "dft", "output_dir": "b", "learning_rate": 2e-5, "seed": 1}
    tail = "in the paired m_sft_full.yaml: the comparison would measure that, too. Make them equal."
    assert [(x.severity, x.key, x.message) for x in _pairs(tmp_path, SFT, dft)] == [
        ("warning", "learning_rate", f"2e-05 here and 1e-05 {tail}"),
        ("warning", "seed", f"1 here and nothing {tail}"),
    ]


@pytest.mark.parametrize(
    ("sft", "dft", "agree"),
    [
        ("sft", "dft", True),
        ("sft_lora", "dft_lora", True),
        ("full", "dft", False),
        ("sft", "dft_lora", False),
        ("dft", "sft", False),
        ("sft", "sft", False),
    ],
)
def test_pairs_have_the_same_method(tmp_path: Path, sft: str, dft: str, agree: bool) -> None:
    tuned = {**SFT, "finetuning_type": dft, "output_dir": "b"}
    findings = _pairs(tmp_path, {**SFT, "finetuning_type": sft}, tuned)
    assert [finding.key for finding in findings] == ([] if agree else ["finetuning_type"])


def test_one_output_dir_for_both_is_an_error(tmp_path: Path) -> None:
    (finding,) = _pairs(tmp_path, SFT, {**SFT, "finetuning_type": "dft"})
    assert (finding.severity, finding.key) == ("error", "output_dir")


def test_the_other_recipe_is_read_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text("do_train: true\nfinetuning_type: sft\nseed: 1\n")
    (tmp_path / "dft.yaml").write_text("do_train: true\nfinetuning_type: dft\nseed: 2\n")
    (tmp_path / "drafts_sftx.yaml").write_text("do_train: true\n")
    for name in ("sft.yaml", "dft.yaml"):
        config, _ = read(tmp_path / name)
        assert config is not None
        findings = list(check_pairs([config]))
        assert [(finding.file.name, finding.key) for finding in findings] == [("dft.yaml", "seed")]
    alone, _ = read(tmp_path / "drafts_sftx.yaml")
    assert alone is not None
    assert list(check_pairs([alone])) == []
