"""Experiment files: their keys and the jobs of their plan."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import yaml

from dft_eval.errors import PrerequisiteError
from dft_eval.humaneval_plus import adapter
from dft_factory.errors import ConfigError
from dft_factory.experiments import catalog
from dft_factory.experiments.expand import make_plan
from dft_factory.experiments.job import clear, compare
from dft_factory.experiments.plan import Plan, read_plan
from dft_factory.experiments.schema import load
from dft_factory.validate.experiments import check_evaluations, check_requirements
from tests.support.reports import write_run

RECIPE = """
model_name_or_path: Qwen/Qwen2.5-Coder-3B
stage: sft
do_train: true
finetuning_type: sft_lora
dataset: own
dataset_dir: data
template: qwen
learning_rate: 5.0e-5
output_dir: out
"""
TEN_LINES = """
model: Qwen/Qwen2.5-Coder-3B
train:
  recipe: recipe.yaml
  data: {prepare: ultrafeedback, source: openbmb/UltraFeedback, limit: 10000}
  variants: [sft, dft]
  seeds: [0, 1, 2]
evaluate:
  - benchmarks: [humaneval+, multipl-e]
"""


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)


def plan_of(text: str, *overrides: str) -> Plan:
    file = Path("own.yaml")
    file.write_text(text)
    return make_plan(load(file, "own", overrides))


def settings(plan: Plan) -> dict[str, str]:
    return {name: job.settings for name, job in plan.jobs.items()}


def changed(before: Plan, after: Plan) -> set[str]:
    old, new = settings(before), settings(after)
    return {name for name in new if old.get(name) != new[name]}


def test_ten_lines_give_all_jobs_in_order() -> None:
    plan = plan_of(TEN_LINES)
    runs = [f"{variant}/seed{seed}" for variant in ("sft", "dft") for seed in range(3)]
    assert set(plan.jobs) == {
        "prepare data",
        "generate base",
        "score base",
        "report own",
        *(f"{stage} {run}" for stage in ("train", "generate", "score", "card") for run in runs),
    }
    assert plan.jobs["train dft/seed1"].after == ("prepare data",)
    assert plan.jobs["generate dft/seed1"].after == ("train dft/seed1",)
    assert plan.jobs["score dft/seed1"].after == ("generate dft/seed1",)
    assert set(plan.jobs["report own"].after) == {f"score {run}" for run in ("base", *runs)}
    words = plan.jobs["generate dft/seed1"].commands[0]
    assert words[:4] == ("dft-factory", "generate", "humaneval+", "multipl-e")
    assert words[words.index("--model") + 1] == "runs/own/dft/seed1/model"
    assert words[words.index("--base-model") + 1] == "Qwen/Qwen2.5-Coder-3B"


def test_recipes_differ_in_variant_and_seed() -> None:
    plan = plan_of(TEN_LINES)
    sft, dft = (
        yaml.safe_load(plan.recipes[f"runs/own/{variant}/seed2/train.yaml"])
        for variant in ("sft", "dft")
    )
    assert {key for key in dft if dft[key] != sft[key]} == {"finetuning_type", "output_dir"}
    # The recipe's method is kept, only the objective differs.
    assert (sft["finetuning_type"], dft["finetuning_type"]) == ("sft_lora", "dft_lora")
    assert dft["seed"] == 2
    assert dft["dataset"] == "ultrafeedback"
    assert dft["dataset_dir"] == "runs/own/data"
    assert dft["learning_rate"] == 5e-5


def test_points_of_a_grid_have_their_own_reference() -> None:
    text = TEN_LINES.replace("  seeds: [0, 1, 2]", "  grid: {learning_rate: [1e-5, 5e-5]}")
    plan = plan_of(text)
    rates = {
        yaml.safe_load(text)["learning_rate"]
        for file, text in plan.recipes.items()
        if file.startswith("runs/own/dft/")
    }
    assert rates == {1e-5, 5e-5}
    assert set(plan.reports["report own"].pairs) == {
        (f"{variant}, learning_rate {rate}" if variant != "base" else "base", f"sft, {key}")
        for variant in ("base", "dft")
        for rate in ("1e-05", "5e-05")
        for key in [f"learning_rate {rate}"]
    }


def test_equal_files_give_equal_settings(tmp_path: Path) -> None:
    first = plan_of(TEN_LINES)
    assert changed(first, plan_of(f"# A comment.\n{TEN_LINES}")) == set()
    assert settings(read_plan(first.write())) == settings(first)


def test_a_change_affects_only_dependent_jobs() -> None:
    first = plan_of(TEN_LINES)
    more = plan_of(TEN_LINES, "train.seeds=[0,1,2,3]")
    jobs = itertools.product(("train", "generate", "score", "card"), ("sft", "dft"))
    assert changed(first, more) == {"report own", *(f"{job} {name}/seed3" for job, name in jobs)}
    limited = plan_of(TEN_LINES, "evaluate.0.limit=10")
    stages = {name.partition(" ")[0] for name in changed(first, limited)}
    assert stages == {"generate", "score", "card", "report"}
    data = plan_of(TEN_LINES, "train.data.limit=500")
    assert changed(first, data) == set(data.jobs) - {"generate base", "score base"}


def test_changed_recipe_or_data_file_changes_the_training(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text("{}\n")
    overrides = ("train.data.source=records.jsonl", "train.seeds=[0]")
    first = plan_of(TEN_LINES, *overrides)
    (tmp_path / "records.jsonl").write_text("{}\n{}\n")
    second = plan_of(TEN_LINES, *overrides)
    assert "train dft/seed0" in changed(first, second)
    (tmp_path / "recipe.yaml").write_text(f"# As before.\n{RECIPE}")
    assert changed(second, plan_of(TEN_LINES, *overrides)) == set()
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("5.0e-5", "1.0e-5"))
    assert "train dft/seed0" in changed(second, plan_of(TEN_LINES, *overrides))


def test_moved_files_change_nothing(tmp_path: Path) -> None:
    """Or a new environment, with its own copy of configs/, would train everything again."""
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "records.jsonl").write_text("{}\n")
        (tmp_path / folder / "zero3.json").write_text("{}\n")
    here, there = (
        plan_of(
            TEN_LINES,
            f"train.data.source={folder}/records.jsonl",
            f"train.set.deepspeed={folder}/zero3.json",
            f"evaluate.0.data={folder}/records.jsonl",
        )
        for folder in ("here", "there")
    )
    assert changed(here, there) == set()


def test_sample_and_evaluation_sets_reach_data_prepare(tmp_path: Path) -> None:
    """A changed evaluation set prepares the training set again."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text('{"problem": "p"}\n')
    guards = "train.data.decontaminate=[one.jsonl, two.jsonl]"
    data = "train.data={prepare: numinamath, source: AI-MO/NuminaMath-CoT, limit: 9, sample: first}"
    first = plan_of(TEN_LINES, data, guards)
    words = first.jobs["prepare data"].commands[0]
    guard_options = ("--decontaminate", "one.jsonl", "--decontaminate", "two.jsonl")
    assert words[-6:] == ("--sample", "first", *guard_options)
    (tmp_path / "two.jsonl").write_text('{"problem": "q"}\n')
    assert "prepare data" in changed(first, plan_of(TEN_LINES, data, guards))


def test_outputs_of_jobs_are_no_change(tmp_path: Path) -> None:
    """Or a second call would train again, since the data set now exists."""
    first = plan_of(TEN_LINES)
    for name in ("data", "sft/seed0/model"):
        (tmp_path / "runs/own" / name).mkdir(parents=True)
        (tmp_path / "runs/own" / name / "config.json").write_text("{}")
    assert changed(first, plan_of(TEN_LINES)) == set()


def test_make_folders_are_dependencies() -> None:
    text = TEN_LINES.replace("model: Qwen/Qwen2.5-Coder-3B", "model: $small")
    plan = plan_of(f"{text}make: {{small: dft-factory tiny qwen2.5-coder --out $out}}\n")
    command = ("dft-factory", "tiny", "qwen2.5-coder", "--out", "runs/own/make/small")
    assert plan.jobs["prepare small"].commands == (command,)
    assert "prepare small" in plan.jobs["train sft/seed0"].after
    assert plan.jobs["generate base"].after == ("prepare small",)
    recipe = yaml.safe_load(plan.recipes["runs/own/sft/seed0/train.yaml"])
    assert recipe["model_name_or_path"] == "runs/own/make/small"


def test_make_folders_may_not_need_themselves() -> None:
    make = "make: {large: cp -r $small $out, small: mkdir $out}\n"
    plan = plan_of(TEN_LINES + make)
    assert plan.jobs["prepare large"].after == ("prepare small",)
    with pytest.raises(ConfigError, match="needs itself"):
        plan_of(TEN_LINES + "make: {a: cp $b $out, b: cp $a $out}\n")


def test_data_per_seed() -> None:
    plan = plan_of(TEN_LINES, "train.data.source=records_$seed.jsonl", "train.seeds=[3,5]")
    assert plan.jobs["train dft/seed5"].after == ("prepare data/seed5",)
    assert "records_5.jsonl" in plan.jobs["prepare data/seed5"].commands[0]


def test_base_model_can_be_trained_first() -> None:
    text = TEN_LINES.replace(
        "model: Qwen/Qwen2.5-Coder-3B",
        "model: {path: some/start, train: {recipe: recipe.yaml, set: {finetuning_type: full}}}",
    )
    plan = plan_of(text)
    assert "train base" in plan.jobs["train dft/seed0"].after
    assert plan.jobs["generate base"].after == ("train base",)
    recipes = {name: yaml.safe_load(recipe) for name, recipe in plan.recipes.items()}
    assert recipes["runs/own/base/train.yaml"]["model_name_or_path"] == "some/start"
    dft = recipes["runs/own/dft/seed0/train.yaml"]
    assert dft["model_name_or_path"] == "runs/own/base/model"


def test_several_models_are_compared_one_by_one() -> None:
    text = TEN_LINES.replace(
        "model: Qwen/Qwen2.5-Coder-3B",
        "models: {small: {path: Qwen/A}, large: {path: Qwen/B, recipe: other.yaml}}",
    )
    Path("other.yaml").write_text(RECIPE.replace("5.0e-5", "2.0e-5"))
    plan = plan_of(text)
    assert set(plan.reports) == {"report small", "report large"}
    recipe = yaml.safe_load(plan.recipes["runs/own/large/dft/seed0/train.yaml"])
    assert (recipe["model_name_or_path"], recipe["learning_rate"]) == ("Qwen/B", 2e-5)


def test_launchers_of_deepspeed_and_of_several_nodes() -> None:
    plan = plan_of(TEN_LINES, "train.set.deepspeed=configs/deepspeed/zero3.json", "train.seeds=[0]")
    recipe = yaml.safe_load(plan.recipes["runs/own/dft/seed0/train.yaml"])
    assert Path(recipe["deepspeed"]).is_file()
    assert plan.jobs["train dft/seed0"].commands[0][:2] == ("env", "FORCE_TORCHRUN=1")
    plan = plan_of(TEN_LINES, "resources.train.nodes=2", "train.seeds=[0]")
    words = plan.jobs["train dft/seed0"].commands[0]
    assert words[:4] == ("python", "-m", "dft_factory.experiments.launch", "2")


def test_checkpoints_and_named_evaluations_have_their_own_folders() -> None:
    text = TEN_LINES + "  - {name: sampled, benchmarks: [humaneval+], temperature: 1, samples: 4}\n"
    plan = plan_of(text, "train.checkpoints=[20]", "train.seeds=[0]")
    job = plan.jobs["generate dft/seed0/checkpoint-20/sampled"]
    words = job.commands[0]
    assert words[words.index("--model") + 1] == "runs/own/dft/seed0/model/checkpoint-20"
    assert words[words.index("--samples") + 1] == "4"
    # Greedy and sampled scores of HumanEval+ are side by side.
    (report,) = plan.reports.values()
    assert list(report.jobs)[:2] == ["runs/own/base", "runs/own/base/sampled"]


def test_one_report_of_greedy_and_sampled_runs_of_three_seeds() -> None:
    """Of five items dft solves one more than sft, only when sampled."""
    text = TEN_LINES + "  - {name: sampled, benchmarks: [humaneval+], temperature: 1, samples: 4}\n"
    plan = plan_of(text, "report.reference=sft")
    (name, report), *others = plan.reports.items()
    assert not others
    assert len(report.jobs) == 2 * (1 + 2 * 3)
    for folder in map(Path, report.jobs):
        label, *_ = folder.relative_to(plan.root).parts
        sampled = folder.name == "sampled"
        right = 4 if sampled and label == "dft" else 3
        scores = {f"HumanEval/{n}": float(n < right) for n in range(5)}
        decoding: dict[str, object] = {"strategy": "greedy"}
        if sampled:
            decoding = {"strategy": "sampling", "temperature": 1.0}
        model = str(folder.parent if sampled else folder)
        write_run(folder, label, {"humaneval+": scores}, sha=None, model=model, decoding=decoding)
    page = compare(plan, name)
    text = page.with_name("report.md").read_text(encoding="utf-8").replace("\\", "")
    assert "On humaneval+ over 3 seeds dft" in text
    assert "at temperature 1: +20.0 points" in text
    assert "under greedy decoding the difference is 0.0 points" in text
    assert "| dft | 60.0 %, " in text
    assert "| 80.0 %, " in text


@pytest.mark.parametrize(
    ("evaluation", "reports"),
    [
        ("{name: b, benchmarks: [multipl-e], temperature: 0.8, samples: 4}", 1),
        ("{name: b, benchmarks: [humaneval+], temperature: 0}", 2),  # the same decoding
        ("{name: b, benchmarks: [humaneval+], temperature: 1, limit: 5}", 2),
        ("{name: b, benchmarks: [humaneval+, nq], temperature: 1}", 2),
    ],
)
def test_decodings_of_the_same_items_share_a_report(evaluation: str, reports: int) -> None:
    assert len(plan_of(f"{TEN_LINES}  - {evaluation}\n").reports) == reports


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.variants=[]", "train: variants: give at least one"),
        ("train.variants=[dtf]", "finetuning_type: 'dtf_lora' is unknown"),
        ("train.seeds=[0,0]", "seeds: a value is there twice"),
        ("train.sedes=[0]", "train.sedes: unknown key"),
        ("train.recipe=none.yaml", "recipe 'none.yaml'"),
        ("train.data.source=$nothing", "$nothing stands for nothing here"),
        ("train.data.source=", "needs 'source'"),
        ("report.reference=dtf", "report.reference 'dtf': choose from: base, sft, dft"),
        ("evaluate=[]", "evaluate: "),
        ("make.small=true", "make.small"),
        ("make={out: 'x $out'}", "make.out: this name is taken"),
        ("resources.train.gpus=-1", "resources.train.gpus"),
        ("resources.training.gpus=1", "resources.training"),
        ("train", "--set 'train': write key=value"),
        ("evaluate.3.limit=1", "--set 'evaluate.3.limit=1'"),
    ],
)
def test_mistakes_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(TEN_LINES, override)
    assert message in str(caught.value)


def test_all_mistakes_of_a_file_are_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of("tran: {}\nmodel: {pth: x}\nevaluate: [{}]\n")
    text = str(caught.value)
    for key in ("tran: unknown key", "model.pth: unknown key", "train: ", "evaluate.0.benchmarks"):
        assert f"own.yaml: {key}" in text


def test_one_benchmark_scored_in_two_ways_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="humaneval\\+ is there twice without a name"):
        plan_of(TEN_LINES + "  - {benchmarks: [humaneval+], temperature: 1}\n")


def test_flags_of_an_evaluation_and_tracking() -> None:
    plan = plan_of(TEN_LINES, "evaluate.0.fresh=true", "report.track=true", "train.seeds=[0]")
    assert plan.jobs["generate dft/seed0"].commands[0][4:6] == ("--fresh", "--model")
    assert plan.jobs["score dft/seed0"].commands[0][-1] == "--track"
    assert "--track" not in plan.jobs["score base"].commands[0]


def test_an_evaluation_starts_its_server(tmp_path: Path) -> None:
    """Server options are checked by the command's parser; a command stays one argument."""
    options = "    backend: vllm\n    tensor_parallel: 2\n    serve_args: --max-model-len 9\n"
    plan = plan_of(TEN_LINES + options)
    (words,) = plan.jobs["generate dft/seed0"].commands
    expected = ("vllm", "--tensor-parallel", "2", "--serve-args", "--max-model-len 9")
    assert words[words.index("--backend") :][:6] == ("--backend", *expected)
    assert check_evaluations(tmp_path / "x.yaml", plan) == []
    plan = plan_of(TEN_LINES + "    backend: openai\n    serve_command: serve {model} {port}\n")
    assert check_evaluations(tmp_path / "x.yaml", plan) == []
    (finding,) = check_evaluations(tmp_path / "x.yaml", plan_of(TEN_LINES + "    serve_args: -x\n"))
    assert "--serve-args is for --backend vllm or sglang, not hf" in str(finding)


def test_task_files_are_hashed_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs get the absolute path; a changed task or data set is generated again."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    task, data = folder / "task.yaml", folder / "rows.jsonl"
    task.write_text("{data: rows.jsonl, prompt: '{q}', metric: numeric, answer: a}")
    data.write_text('{"q": "?", "a": 1}\n')
    (folder / "own.yaml").write_text(TEN_LINES.replace("multipl-e", "task.yaml"))

    def plan() -> Plan:
        return make_plan(load(folder / "own.yaml", "own"))

    first = plan()
    words = first.jobs["generate base"].commands[0]
    assert words[:4] == ("dft-factory", "generate", "humaneval+", str(task))
    assert check_evaluations(folder / "own.yaml", first) == []
    data.write_text('{"q": "?", "a": 2}\n')
    second = plan()
    stages = {name.split()[0] for name in changed(first, second)}
    assert stages == {"generate", "score", "card", "report"}
    data.write_text('{"q": "?", "a": "x"}\n')
    (finding,) = check_evaluations(folder / "own.yaml", second)
    assert "line 1: the field 'a' is 'x', no number" in str(finding)
    task.write_text("{data: rows.jsonl, prompt: '{q}', metric: bleu}")
    findings = "\n".join(map(str, check_evaluations(folder / "own.yaml", plan())))
    assert "'bleu' is unknown" in findings


def test_names_of_shipped_experiments_have_near_matches() -> None:
    assert "demo" in catalog.names()
    with pytest.raises(ConfigError, match="Did you mean 'demo'"):
        catalog.find("dmo")


@pytest.mark.parametrize("name", catalog.names())
def test_shipped_experiments_have_a_plan_and_a_description(name: str) -> None:
    loaded = load(catalog.find(name)[1], name)
    plan = make_plan(loaded)
    assert loaded.experiment.description
    assert json.loads(json.dumps(sorted(plan.jobs)))
    makes = [path for job in plan.jobs.values() for path in job.makes]
    assert len(makes) == len(set(makes))


MATCHED = TEN_LINES.replace(
    "  - benchmarks: [humaneval+, multipl-e]\n",
    """
  - benchmarks: [humaneval]
  - {name: sampled, benchmarks: [humaneval], samples: 2, temperature: 1.0, match_entropy: dft}
""",
)


def test_the_base_is_also_decoded_at_the_entropy_of_a_variant() -> None:
    plan = plan_of(MATCHED)
    job = plan.jobs["generate base-at-entropy/dft/sampled"]
    (words,) = job.commands
    scored = [f"score dft/seed{seed}/sampled" for seed in range(3)]
    assert set(job.after) == set(scored)
    folders = [words[i + 1] for i, word in enumerate(words) if word == "--match-entropy"]
    assert folders == [f"runs/own/dft/seed{seed}/sampled" for seed in range(3)]
    assert "--temperature" not in words
    assert words[words.index("--label") + 1] == "base at the entropy of dft"
    assert words[words.index("--samples") + 1] == "2"
    assert words[words.index("--model") + 1] == "Qwen/Qwen2.5-Coder-3B"
    assert "runs/own/base-at-entropy/dft/sampled" in plan.reports["report own"].jobs
    starts = ("card base", "generate base-at-entropy/dft ")
    assert not any(name.startswith(starts) for name in plan.jobs)


def test_each_point_of_the_grid_has_its_own_match() -> None:
    plan = plan_of(MATCHED.replace("  seeds: [0, 1, 2]", "  grid: {learning_rate: [1e-5, 5e-5]}"))
    jobs = [name for name in plan.jobs if name.startswith("score base-at-entropy/")]
    assert len(jobs) == 2
    label = "dft, learning_rate 1e-05"
    assert (label, f"base at the entropy of {label}") in plan.reports["report own"].pairs


def test_reports_compare_with_a_matched_base_where_there_is_one() -> None:
    """An evaluation of other items has a report of its own, and here no base at DFT's entropy."""
    other = "  - {name: other, benchmarks: [nq]}\n"
    plan = plan_of(f"{MATCHED}{other}report: {{reference: sft}}\n")
    matched = ("dft", "base at the entropy of dft")
    assert matched in plan.reports["report own"].pairs
    assert plan.reports["report other"].pairs == (("dft", "sft"), ("base", "sft"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.1.match_entropy=nft", "'nft': choose from: sft, dft"),
        ("evaluate.1.temperature=0", "give a temperature above 0"),
        ("base=false", "'base: false' leaves out the base"),
    ],
)
def test_a_match_that_cannot_be_made_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match="match_entropy") as caught:
        plan_of(MATCHED, override)
    assert message in str(caught.value)


def test_a_benchmark_that_cannot_run_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(TEN_LINES, "evaluate.0.benchmarks=[humaneval+, nq]")
    check_requirements(plan)
    monkeypatch.setattr(adapter, "is_installed", lambda package: package != "evalplus")
    with pytest.raises(PrerequisiteError) as caught:
        check_requirements(plan)
    assert str(caught.value) == (
        "humaneval+ needs the Python package evalplus (data, sanitiser). "
        "Fix: uv pip install 'dft-factory[code]'"
    )


SHARDED = ("evaluate.0.shards=3", "train.seeds=[0]")


NUMBERED = ["seed0", "seed-1", "checkpoint-20", "checkpoint-best"]
FILES = ["plan.json", "train.yaml", "report.html", "results.json", "x.lock", "report.md"]


@pytest.mark.parametrize(
    ("key", "names"),
    [
        (
            "evaluate.1.name",
            ["shards", "model", "base", "sft", "dft", "data", "jobs", "make", "base-data"],
        ),
        ("train.variants", ["data", "jobs", "make", "base-data", "base-at-entropy"]),
        ("models", ["data", "jobs", "make"]),
    ],
)
def test_a_name_whose_folder_is_another_one_is_refused(key: str, names: list[str]) -> None:
    """By what the names would share: shards removes an unnamed evaluation's folder of that name,
    model is the trained model, ``sft`` the run beside which the report would lie."""
    text = f"{TEN_LINES}  - {{name: x, benchmarks: [nq]}}\n".replace("model:", "#", 1)
    for name in [*names, *NUMBERED, *FILES]:
        value = {"evaluate.1.name": name, "train.variants": f"{{{name}: {{objective: sft}}}}"}
        override = f"{key}={value.get(key, f'{{{name}: Qwen/Qwen2.5-Coder-3B}}')}"
        with pytest.raises(ConfigError) as refusal:
            plan_of(text, override)
        assert f" {name!r}: an experiment keeps other things under this name" in str(refusal.value)
        assert "Choose one that is not " in str(refusal.value)


def test_names_that_collide_with_nothing_stay(tmp_path: Path) -> None:
    """Each folder of a job is the job's own."""
    text = f"{TEN_LINES}  - {{name: t0.7, benchmarks: [nq], shards: 2}}\n"
    override = "train.variants={dft-floor_0.1: {objective: dft}, shards: {}, model: {}, probe: {}}"
    plan = plan_of(text, override, "train.seeds=[]")
    made = [path for job in plan.jobs.values() for path in job.makes]
    assert len(set(made)) == len(made)


def test_shards_are_jobs_that_the_score_waits_for() -> None:
    unsharded, plan = plan_of(TEN_LINES, "train.seeds=[0]"), plan_of(TEN_LINES, *SHARDED)
    names = [f"generate dft/seed0/shards/{number}-of-3" for number in (1, 2, 3)]
    assert "generate dft/seed0" not in plan.jobs
    assert plan.jobs["score dft/seed0"].after == tuple(names)
    for number, name in enumerate(names, 1):
        job = plan.jobs[name]
        (words,), (whole_words,) = job.commands, unsharded.jobs["generate dft/seed0"].commands
        assert words == (*whole_words, "--shard", f"{number}/3")
        assert job.after == ("train dft/seed0",)
        assert job.makes == (f"runs/own/dft/seed0/shards/{number}-of-3/generation.json",)
    assert len({plan.jobs[name].settings for name in names}) == 3
    assert check_evaluations(Path("own.yaml"), plan) == []
    # 1 equals a missing key.
    assert changed(unsharded, plan_of(TEN_LINES, "train.seeds=[0]", "evaluate.0.shards=1")) == set()
    stages = {name.partition(" ")[0] for name in changed(unsharded, plan)}
    assert stages == {"generate", "score", "card", "report"}


def test_settings_without_shards_are_those_of_earlier_versions() -> None:
    """Or finished evaluations of users would run again."""
    jobs = plan_of(TEN_LINES, "train.seeds=[0]").jobs
    assert jobs["generate base"].settings == "e1f32cbe6817a724"
    assert jobs["score base"].settings == "5acbb450fcd2b6c0"


def test_evaluations_of_one_name_have_equal_shards() -> None:
    text = TEN_LINES + "  - {benchmarks: [nq], shards: 2}\n"
    with pytest.raises(ConfigError, match="shards 1 and 2 without a name: such evaluations are"):
        plan_of(text)
    assert plan_of(text.replace("nq]", "nq], name: nq"), "train.seeds=[0]")
    with pytest.raises(ConfigError, match="shards"):
        plan_of(TEN_LINES, "evaluate.0.shards=0")


def test_shards_do_not_separate_decodings() -> None:
    entry = "{name: b, benchmarks: [humaneval+], temperature: 1, shards: 4, gpus: 2}"
    assert len(plan_of(f"{TEN_LINES}  - {entry}\n").reports) == 1


def test_changed_shards_remove_the_earlier_ones(tmp_path: Path) -> None:
    """3 shards, then 2 or none, then 3 again: no stamp is left for deleted completions."""

    def do(plan: Plan) -> list[str]:
        """Run the pending jobs of the base as the engine does, without their commands."""
        names = []
        for job in plan.pending():
            if job.what.startswith("base"):
                root = Path(plan.root)
                lock = root / job.lock
                lock.parent.mkdir(parents=True, exist_ok=True)
                lock.touch()
                clear(job, root)
                for path in map(Path, job.makes):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text("{}")
                (root / job.stamp).write_text(job.stamp_text)
                names.append(job.name)
        assert not [job for job in plan.pending() if job.what.startswith("base")]
        return names

    def shards() -> set[str]:
        return {path.name for path in Path("runs/own/base").glob("shards/*")}

    parts = {total: {f"{number}-of-{total}" for number in range(1, total + 1)} for total in (2, 3)}
    three, two, none = (f"evaluate.0.shards={number}" for number in (3, 2, 1))
    assert len(do(plan_of(TEN_LINES, three))) == 4
    assert do(plan_of(TEN_LINES, three)) == []
    assert len(do(plan_of(TEN_LINES, two))) == 3
    assert shards() == parts[2]
    assert len(do(plan_of(TEN_LINES, three))) == 4
    assert shards() == parts[3]
    assert do(plan_of(TEN_LINES, none)) == ["generate base", "score base"]
    assert shards() == set()
    assert len(do(plan_of(TEN_LINES, three))) == 4
    assert not Path("runs/own/base/generation.json").exists()
    assert do(plan_of(TEN_LINES, none)) == ["generate base", "score base"]
    assert shards() == set()
