"""How the package is activated in a process, what that costs, and what happens when it fails.

The other environments are real virtual environments: links to each entry of this one's
site-packages except dft-factory's, which uv then installs as a wheel or editable.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bench
from tests.support.cli import (
    Futures,
    Run,
    clean_environment,
    executable,
    parseable,
    printed_json,
    relative_error,
    run_command,
    train,
    two_at_a_time,
)
from tests.support.llamafactory import altered_copy, package_folder

ROOT = Path(__file__).resolve().parents[2]
AUTOLOAD_OFF = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
NOT_ACTIVE = "dft-factory: not active, LLaMA-Factory runs as if it were not installed "


@dataclass(frozen=True)
class Environment:
    """A virtual environment and, for an editable install, the source tree that it points to."""

    python: Path
    site: Path
    source: Path

    def run(self, code: str, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """``python -c code``; the working directory is not on the path."""
        safe = {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ""}
        command = [self.python, "-c", textwrap.dedent(code), *args]
        environment = clean_environment(**safe, **variables)
        return run_command(command, status=None, env=environment, cwd=self.python.parent)

    def result(self, code: str, *args: str, **variables: str) -> Any:
        """What the code printed as JSON after ``RESULT``."""
        result = self.run(code, *args, **variables)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
        return printed_json(result.stdout)


HERE = Environment(Path(sys.executable), Path(sysconfig.get_path("purelib")), ROOT)


def make_environment(folder: Path) -> Environment:
    """Everything that this environment holds, except dft-factory."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = folder / "lib" / HERE.site.parent.name / "site-packages"
    installed = importlib.metadata.distribution("dft-factory").files or []
    ours = {file.parts[0] for file in installed}
    assert "_dft_factory_autoload.py" in ours
    for entry in HERE.site.iterdir():
        if entry.name not in ours and entry.name != "__pycache__":
            (site / entry.name).symlink_to(entry)
    return Environment(folder / "bin" / "python", site, folder)


def uv(*args: str | Path) -> None:
    run_command([executable("uv"), "--quiet", *args], env=None)


def build_wheel(folder: Path) -> Path:
    uv("build", "--wheel", "--out-dir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_wheel_environment(folder: Path, wheel: Path) -> Environment:
    environment = make_environment(folder)
    uv("pip", "install", "--python", environment.python, "--no-deps", "--no-index", wheel)
    return Environment(environment.python, environment.site, environment.site)


def make_editable_environment(folder: Path) -> Environment:
    """Installed from a copy of the source tree, which may be broken."""
    source = folder / "source"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("dft_factory", "eval", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    environment = make_environment(folder / "venv")
    uv("pip", "install", "--python", environment.python, "--no-deps", "--editable", source)
    return Environment(environment.python, environment.site, source)


# --- what runs in those processes ----------------------------

IMPORT_TORCH = """
    import sys
    if "no stderr" in sys.argv:
        sys.stderr = None
    import torch
    print("torch works", torch.ones(2).sum().item())
"""
WHERE = """
    import json, sys
    import torch
    import dft_eval, dft_factory
    from dft_factory import startup
    print("RESULT " + json.dumps([startup.installed() is not None, dft_factory.__file__,
                                 dft_eval.__file__]))
"""
ADDED_MODULES = """
    import json, sys, time
    import torch
    before = set(sys.modules)
    finders = list(sys.meta_path)
    start = time.perf_counter()
    import _dft_factory_autoload
    _dft_factory_autoload.activate()
    seconds = time.perf_counter() - start
    added = sorted(set(sys.modules) - before)
    new = [type(finder).__name__ for finder in sys.meta_path if finder not in finders]
    _dft_factory_autoload.activate()
    print("RESULT " + json.dumps([added, seconds, new, len(sys.meta_path) - len(finders)]))
"""
TRY = """
    import json, sys
    import torch
    {before}
    from llamafactory.hparams import finetuning_args, get_train_args
    {after}
    def attempt(value):
        config = json.loads(sys.argv[1])
        try:
            parsed = get_train_args(dict(config, finetuning_type=value))
        except Exception as error:
            return [type(error).__name__, str(error)]
        return ["parsed", parsed[3].finetuning_type]
    results = {{"dft": attempt("dft"), "full": attempt("full")}}
    {last}
    print("RESULT " + json.dumps(results))
"""
FAILING_PATCH = TRY.format(
    before="""
    from dft_factory.patch.table import PATCHES
    loss = next(patch for patch in PATCHES if patch.name == "loss")
    object.__setattr__(loss, "attribute", "GoneInTheNextRelease")
    """,
    after="""
    import llamafactory.train.sft.trainer
    """,
    last="""
    import llamafactory.train.tuner
    """,
)
MISSING_HOOK = TRY.format(
    before="""
    from transformers import Trainer
    del Trainer._get_num_items_in_batch
    """,
    after="""
    import llamafactory.train.sft.trainer
    """,
    last="",
)
LATE = TRY.format(
    before="""
    import llamafactory.train.sft.trainer
    import _dft_factory_autoload
    _dft_factory_autoload.activate()
    """,
    after="",
    last="""
    import importlib
    arguments = importlib.reload(finetuning_args).FinetuningArguments
    results["method"] = arguments(finetuning_type="full").finetuning_type
    try:
        arguments(finetuning_type="dft")
    except Exception as error:
        results["reloaded"] = [type(error).__name__, str(error)]
    """,
)
PLAIN = TRY.format(before="", after="", last="")
UNSUPPORTED = TRY.format(
    before="",
    after="",
    last="""
    import dataclasses
    import llamafactory.hparams.parser as parser
    import llamafactory.train.sft.trainer as trainer
    import llamafactory.v1.config.arg_parser as v1
    from dft_factory.patch.apply import status
    arguments = finetuning_args.FinetuningArguments
    results["folder"] = llamafactory.__file__
    results["states"] = [row.state for row in status()]
    results["mro"] = [cls.__module__ for cls in arguments.__mro__[:3]]
    results["fields"] = "dft_weight" in {field.name for field in dataclasses.fields(arguments)}
    results["trainer"] = [cls.__module__ for cls in trainer.CustomSeq2SeqTrainer.__mro__[:2]]
    results["wrapped"] = [hasattr(function, "__wrapped__") for function in (
        parser._parse_train_args, parser._parse_train_mca_args, v1.get_args)]
    """,
).replace("import torch", "import torch, llamafactory", 1)

PARSES = json.dumps(parseable())


def another_llamafactory(folder: Path, *, changed: bool) -> Any:
    """A process whose LLaMA-Factory reports version 0.9.9; ``changed``: with another parser."""
    changes = {
        "extras/env.py": lambda text: re.sub('(?m)^VERSION = ".*"', 'VERSION = "0.9.9"', text),
    }
    if changed:
        changes["hparams/parser.py"] = lambda text: text.replace(
            "    # Setup logging\n    if training_args", "    pass\n    if training_args"
        )
    altered_copy(folder, changes)
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n" + textwrap.dedent(UNSUPPORTED)
    return HERE.result(code, PARSES)


BREAKAGES: dict[str, tuple[str, str | None, str]] = {
    # name -> file, its broken content (None: the folder dft_factory is moved away), the notice
    "moved away": ("__init__.py", None, "ModuleNotFoundError: No module named 'dft_factory"),
    "syntax error in __init__": ("__init__.py", "def (:\n", "SyntaxError: invalid syntax"),
    "syntax error in startup": ("startup.py", "def (:\n", "SyntaxError: invalid syntax"),
    "syntax error in table": ("patch/table.py", "def (:\n", "SyntaxError: invalid syntax"),
    "exits": ("__init__.py", "raise SystemExit('over')\n", "SystemExit: over"),
    "import error": (
        "startup.py",
        "import no_such_module_at_all\n",
        "ModuleNotFoundError: No module named 'no_such_module_at_all'",
    ),
}
BROKEN_IN = {
    "in wheel": tuple(BREAKAGES),
    # the rest is the same code as in a wheel
    "in editable": ("moved away", "syntax error in __init__", "import error"),
}


def run_broken_installs(make: Callable[[], Environment], layout: str) -> dict[str, Any]:
    """``import torch`` in one environment under each breakage, with a repair in between."""
    environment = make()
    package = environment.source / "dft_factory"
    results: dict[str, Any] = {"where": environment.result(WHERE), "site": str(environment.source)}
    results["healthy"] = environment.run(IMPORT_TORCH)
    for name in BROKEN_IN[layout]:
        file, text, _ = BREAKAGES[name]
        away = package.rename(package.with_name("gone"))
        if text is not None:
            shutil.copytree(away, package)
            (package / file).write_text(text)
        results[name] = environment.run(IMPORT_TORCH)
        if name == "moved away":
            results["no stderr"] = environment.run(IMPORT_TORCH, "no stderr")
        if text is not None:
            shutil.rmtree(package)
        away.rename(package)
    if layout == "in wheel":
        (environment.site / "_dft_factory_autoload.py").unlink()
        results["deleted"] = environment.run(IMPORT_TORCH)
        results["deleted, switched off"] = environment.run(IMPORT_TORCH, **AUTOLOAD_OFF)
        uv("pip", "uninstall", "--python", environment.python, "dft-factory")
        results["uninstalled"] = environment.run(IMPORT_TORCH)
    return results


def broken_later(make: Callable[[], Environment]) -> dict[str, Any]:
    """Only the module that is imported with LLaMA-Factory is broken."""
    environment = make()
    (environment.source / "dft_factory" / "patch" / "apply.py").write_text("def (:\n")
    result = environment.run(PLAIN, PARSES)
    assert result.returncode == 0, result.stderr[-4000:]
    notices = [line for line in result.stderr.splitlines() if "dft-factory:" in line]
    return {**printed_json(result.stdout), "notices": notices}


# --- all processes ----------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("activation")


@pytest.fixture(scope="module")
def wheel(folder: Path) -> Path:
    return build_wheel(folder / "dist")


@pytest.fixture(scope="module")
def started(text_bench: Bench, folder: Path, wheel: Path) -> Iterator[Futures]:
    """Every process of this module."""
    none = make_environment(folder / "none")
    installed = make_wheel_environment(folder / "wheel", wheel)
    dft, full = text_bench.config(), text_bench.config(finetuning_type="full", max_steps=2)
    launcher = package_folder() / "launcher.py"
    safe = {"PYTHONSAFEPATH": "1"}

    def cli(name: str, config: dict[str, Any], python: Path | None = None, **options: Any) -> None:
        if python is not None:
            options["command"] = (str(python), "-m", "llamafactory.cli", "train")
        futures[name] = pool.submit(train, config, folder / "runs" / name, fresh=True, **options)

    with two_at_a_time() as pool:
        futures: Futures = {}
        cli("torchrun", dft, ranks=2)
        cli("cli", dft)
        cli("wheel", dft, installed.python, environment=safe)
        command = ("accelerate", "launch", "--cpu", "--num_processes", "1", str(launcher))
        cli("accelerate", dft, command=command)
        cli("off", dft, environment=AUTOLOAD_OFF)
        cli("stock", full, HERE.python, environment=safe)
        cli("stock without", full, none.python, environment=safe)
        layouts = {
            "in wheel": partial(make_wheel_environment, folder / "broken wheel", wheel),
            "in editable": partial(make_editable_environment, folder / "broken editable"),
        }
        for name, make in layouts.items():
            futures[name] = pool.submit(run_broken_installs, make, name)
        later = partial(make_wheel_environment, folder / "later", wheel)
        futures["later"] = pool.submit(broken_later, later)
        futures["modules"] = pool.submit(HERE.result, ADDED_MODULES, **AUTOLOAD_OFF)
        for name, changed in (("unsupported", True), ("another version", False)):
            futures[name] = pool.submit(another_llamafactory, folder / name, changed=changed)
        futures["missing hook"] = pool.submit(HERE.result, MISSING_HOOK, PARSES)
        futures["failing"] = pool.submit(HERE.result, FAILING_PATCH, PARSES)
        futures["late"] = pool.submit(HERE.result, LATE, PARSES, **AUTOLOAD_OFF)
        yield futures


# --- (a) active ----------------------------


@pytest.mark.cli
def test_active_in_the_stock_command_line(started: Futures) -> None:
    run: Run = started["cli"].result().ok()
    assert run.log[0]["nll"] > 10 * run.log[0]["loss"] > 0


@pytest.mark.cli
@pytest.mark.parametrize("name", ["torchrun", "accelerate", "wheel"])
def test_active_elsewhere_with_the_same_gradients(started: Futures, name: str) -> None:
    """torchrun's workers, ``accelerate launch``, and a wheel instead of an editable install."""
    run: Run = started[name].result().ok()
    expected: Run = started["cli"].result().ok()
    assert run.log[0]["nll"] > 10 * run.log[0]["loss"] > 0
    if name != "torchrun":  # which trains twice as many examples at a time
        assert relative_error(run.gradients, expected.gradients) <= 1e-6


def test_wheel_holds_both_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        texts = {name: archive.read(name) for name in archive.namelist()}
    (points,) = [text for name, text in texts.items() if name.endswith("entry_points.txt")]
    tree = {
        path.relative_to(root).as_posix()
        for root, package in ((ROOT, "dft_factory"), (ROOT / "eval", "dft_eval"))
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    configs = {
        f"dft_factory/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "configs").rglob("*")
        if path.is_file()
    }
    assert names == tree - {"dft_factory/_autoload.py"} | {"_dft_factory_autoload.py"} | configs
    autoload = (ROOT / "dft_factory" / "_autoload.py").read_bytes()
    assert texts["_dft_factory_autoload.py"] == autoload
    assert "dft_factory/configs/experiments/demo.yaml" in names
    assert "dft_factory/configs/demo/code_instructions.jsonl" in names
    assert "dft_eval/resources/python_basics.jsonl" in names
    assert "dft_eval/report/templates/report.html.j2" in names
    assert b"[torch.backends]\ndft_factory = _dft_factory_autoload:activate" in points
    assert b"[console_scripts]\ndft-factory = dft_factory.cli:main" in points
    assert not any(str(ROOT).encode() in text for text in texts.values())


@pytest.mark.parametrize("layout", ["in wheel", "in editable"])
def test_healthy_install_is_found_and_silent(started: Futures, layout: str) -> None:
    results = started[layout].result()
    active, training, evaluation = results["where"]
    assert active
    assert training.startswith(results["site"])
    assert evaluation.startswith(results["site"])
    healthy = results["healthy"]
    assert (healthy.returncode, healthy.stdout, healthy.stderr) == (0, "torch works 2.0\n", "")


# --- (b) never in the way of torch ----------------------------


@pytest.mark.parametrize(
    ("layout", "name"), [(layout, name) for layout, names in BROKEN_IN.items() for name in names]
)
def test_torch_imports_with_a_broken_package(started: Futures, layout: str, name: str) -> None:
    result = started[layout].result()[name]
    assert (result.returncode, result.stdout) == (0, "torch works 2.0\n"), result.stderr
    (notice,) = result.stderr.splitlines()
    assert notice.startswith(f"{NOT_ACTIVE}({BREAKAGES[name][2]}")
    assert notice.endswith("). Reinstall it, or run `pip uninstall dft-factory`.")


@pytest.mark.parametrize("layout", ["in wheel", "in editable"])
def test_torch_imports_where_no_notice_can_be_written(started: Futures, layout: str) -> None:
    """A daemon has no stderr."""
    result = started[layout].result()["no stderr"]
    assert (result.returncode, result.stdout, result.stderr) == (0, "torch works 2.0\n", "")


def test_deleting_the_autoload_file_by_hand_is_torchs_error(started: Futures) -> None:
    """The one way to break ``import torch``; torch's own switch or an uninstall repairs it."""
    results = started["in wheel"].result()
    assert results["deleted"].returncode != 0
    assert "Failed to load the backend extension: dft_factory." in results["deleted"].stderr
    assert "TORCH_DEVICE_BACKEND_AUTOLOAD=0" in results["deleted"].stderr
    for name in ("deleted, switched off", "uninstalled"):
        result = results[name]
        assert (result.returncode, result.stdout, result.stderr) == (0, "torch works 2.0\n", ""), (
            name
        )


def test_stock_llamafactory_runs_with_a_broken_patch_module(started: Futures) -> None:
    results = started["later"].result()
    assert results["full"] == ["parsed", "full"]
    assert results["dft"] == ["AssertionError", "Invalid fine-tuning method."]
    assert results["notices"]
    for notice in results["notices"]:
        assert re.match(
            r"dft-factory: cannot patch llamafactory\.\S+ \(SyntaxError: .*\)\. Stock runs are "
            r"untouched, runs with dft or sft objectives are refused\. Reinstall dft-factory\.$",
            notice,
        )


# --- (c) cost ----------------------------


def test_activation_imports_five_small_modules(started: Futures, record_property: Any) -> None:
    added, seconds, finders, more_finders = started["modules"].result()
    record_property("activation in ms, once", 1000 * seconds)
    assert [name for name in added if name.split(".")[0] not in sys.stdlib_module_names] == [
        "_dft_factory_autoload",
        "dft_factory",
        "dft_factory.patch",
        "dft_factory.patch.table",
        "dft_factory.startup",
    ]
    assert finders == ["PatchingFinder"]
    assert more_finders == 1  # after a second activation


# --- (d) to (f) where the patches do not apply ----------------------------


def test_only_another_llamafactory_with_the_same_code_is_patched(
    started: Futures, folder: Path
) -> None:
    results = started["unsupported"].result()
    assert results["folder"].startswith(str(folder))
    assert results["full"] == ["parsed", "full"]
    assert results["dft"] == [
        "ConfigError",
        "finetuning_type: 'dft': LLaMA-Factory 0.9.9 is not supported by this dft-factory: "
        "llamafactory.hparams.parser.get_train_args differs from the supported releases (0.9.4, "
        "0.9.5, 0.9.6.dev0). Stock runs are untouched. Install a supported release: `pip install "
        "llamafactory==0.9.5`.",
    ]
    assert set(results["states"]) == {"unsupported"}
    stock = "llamafactory.hparams.finetuning_args"
    assert results["mro"] == [stock] * 3
    assert results["fields"] is False
    assert results["trainer"] == ["llamafactory.train.sft.trainer", "transformers.trainer_seq2seq"]
    assert results["wrapped"] == [False] * 3
    results = started["another version"].result()
    assert results["folder"].startswith(str(folder))
    assert results["dft"] == ["parsed", "full"]
    assert set(results["states"]) == {"applied"}


@pytest.mark.cli
def test_without_autoload_llamafactory_refuses_a_dft_recipe(started: Futures) -> None:
    run: Run = started["off"].result()
    assert run.status != 0
    assert "AssertionError: Invalid fine-tuning method." in run.output
    assert "dft-factory" not in run.output
    assert not (run.folder / "trainer_state.json").exists()


BROKEN = (
    "The patch of LLaMA-Factory is broken ({0}), so this run would train plain SFT. It is refused. "
    "Run `dft-factory doctor`."
)


def test_a_broken_patch_refuses_only_our_runs(started: Futures) -> None:
    results = started["failing"].result()
    assert results["full"] == ["parsed", "full"]
    target = "llamafactory.train.sft.trainer.GoneInTheNextRelease"
    reason = "UpstreamContractError: llamafactory.train.sft.trainer has no GoneInTheNextRelease"
    assert results["dft"] == ["UpstreamContractError", BROKEN.format(f"{target}: {reason}")]
    results = started["missing hook"].result()
    assert results["full"] == ["parsed", "full"]
    version = importlib.metadata.version("transformers")
    reason = (
        f"UpstreamContractError: transformers {version} has no _get_num_items_in_batch. Install "
        "another: `pip install 'transformers!=5.6.0,<=5.8.0,>=4.57.1'`"
    )
    target = "llamafactory.train.sft.trainer.CustomSeq2SeqTrainer"
    assert results["dft"] == ["UpstreamContractError", BROKEN.format(f"{target}: {reason}")]


def test_modules_imported_before_activation_are_refused(started: Futures) -> None:
    """LLaMA-Factory refuses dft; where only its arguments are patched, dft-factory does."""
    results = started["late"].result()
    assert results["full"] == ["parsed", "full"]
    assert results["dft"] == ["AssertionError", "Invalid fine-tuning method."]
    assert results["method"] == "full"
    kind, message = results["reloaded"]
    assert kind == "UpstreamContractError"
    early = "its module was imported before activation"
    assert f"llamafactory.train.sft.trainer.CustomSeq2SeqTrainer: {early}" in message


# --- (g) a stock run with and without the package ----------------------------


@pytest.mark.cli
def test_stock_run_with_and_without_the_package_installed(started: Futures) -> None:
    """The same weights bit for bit, and the same log."""
    runs: list[Run] = [started[name].result().ok() for name in ("stock", "stock without")]
    weights = [(run.folder / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]
    timed = re.compile("runtime|second|flos")
    logs = [
        [{k: v for k, v in row.items() if not timed.search(k)} for row in run.log] for run in runs
    ]
    assert logs[0] == logs[1]
    assert "nll" not in logs[0][0]
