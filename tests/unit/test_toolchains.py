"""Compilers and interpreters: used, or reported with their install command."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dft_eval.errors import PrerequisiteError
from dft_eval.languages import LANGUAGES, Program, judge, toolchains, unusable, version
from dft_eval.requirements import MissingRequirement
from dft_eval.sandbox import host
from dft_factory.doctor import render_text, to_json
from dft_factory.doctor.benchmarks import toolchain_rows
from dft_factory.doctor.report import Activation, BenchmarkRow, Report, ToolchainRow
from tests.conftest import not_run
from tests.support.toolchains import need

SCRIPT = (Path(__file__).parents[2] / "scripts" / "toolchains.sh").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", LANGUAGES)
def test_versions_of_installed_tools(code: str) -> None:
    need(code)
    text = version(LANGUAGES[code])
    assert any(character.isdigit() for character in text)
    assert "error" not in text.lower()


@pytest.mark.parametrize(
    ("code", "right", "wrong"),
    [
        ("cpp", "== 1", "== 3"),
        ("java", "() == 2", "() == 3"),
        ("php", "!== 2", "=== 2"),
        ("ts", "(n, 2)", "(n, 3)"),
        ("js", "length, 2", "length, 3"),
        ("cs", "== 3", "== 4"),
        ("sh", '= "3"', '= "4"'),
    ],
)
def test_the_trial_program_can_fail(code: str, right: str, wrong: str) -> None:
    """So a passing one proves that the tools work."""
    need(code)
    language = LANGUAGES[code]
    assert right in language.trial
    assert judge(language, Program(language.trial.replace(right, wrong)))[0] == 0.0


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        ("cpp", "apt-get install g++"),
        ("java", "apt-get install default-jdk-headless libjavatuples-java"),
        ("php", "apt-get install php-cli php-mbstring"),
        ("cs", "apt-get install mono-mcs mono-runtime libmono-system-core4.0-cil"),
        ("sh", "apt-get install bash bc"),
        ("js", "apt-get install nodejs"),
    ],
)
def test_missing_tools_have_a_command(code: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchains, "find_command", lambda name: None)
    reason = unusable(LANGUAGES[code]) or ""
    assert reason.startswith(f"{LANGUAGES[code].title}: {LANGUAGES[code].commands[0]}")
    assert f"Install it: `{fix}" in reason


def test_missing_files_and_broken_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    language = replace(LANGUAGES["sh"], files=("/nowhere/*.so",))
    assert "/nowhere/*.so not found" in (unusable(language) or "")
    trial = sys.modules["dft_eval.languages.judge"]._trial
    trial.cache_clear()
    broken = replace(LANGUAGES["sh"], trial="exit 1")
    monkeypatch.setitem(LANGUAGES, "sh", broken)
    reason = unusable(broken)
    trial.cache_clear()
    assert reason is not None
    assert reason.startswith("Bash: a program that must pass does not: exit status 1.")
    assert "apt-get install --reinstall bash bc" in reason


def test_typescript_in_closed_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("ts")
    installed = toolchains.typescript()
    assert installed is not None
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "typescript").symlink_to(installed)
    monkeypatch.setattr(toolchains, "_typescript_folders", lambda: [closed / "typescript"])
    folder = toolchains.typescript.__wrapped__()
    assert folder is not None
    command = ["node", f"{folder}/lib/tsc.js", "--version"]
    options = host.user_options()
    assert subprocess.check_output(command, text=True, cwd="/", **options).startswith("Version 5.9")
    monkeypatch.setattr(toolchains, "_typescript_folders", lambda: [tmp_path / "missing"])
    assert toolchains.typescript.__wrapped__() is None


def test_without_typescript_the_fix_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    need("js")
    monkeypatch.setattr(toolchains, "typescript", lambda: None)
    missing = toolchains.missing_toolchain(LANGUAGES["ts"])
    assert missing is not None
    assert missing.fix.startswith("npm install ")
    assert missing.fix.endswith("typescript@5.9")
    with pytest.raises(LookupError, match="npm install"):
        toolchains.resolve(("node", "@typescript/lib/tsc.js"))


def test_the_script_installs_the_packages_of_the_table() -> None:
    for language in LANGUAGES.values():
        for package in set(language.packages) - {"bash"}:
            assert package in SCRIPT, package
        for pattern in language.files:
            assert pattern in SCRIPT, pattern
    assert toolchains.TYPESCRIPT_PACKAGE == "typescript@5.9"
    assert "typescript=5.9\n" in SCRIPT


def test_the_script_does_nothing_if_all_is_installed() -> None:
    for code in LANGUAGES:
        need(code)
    root = Path(__file__).parents[2]
    if not (root / ".toolchains").is_dir():
        not_run("no .toolchains in this checkout: bash scripts/toolchains.sh")
    command = ["bash", str(root / "scripts" / "toolchains.sh")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr == "toolchains: all there.\n"


def test_doctor_shows_languages_and_their_missing_tools() -> None:
    mcs = MissingRequirement("C#: mcs not found", "apt-get install mono-mcs", blocks=False)
    sandbox = MissingRequirement("a sandbox", "install it")
    part, none = ("part", "some languages", (mcs,)), ("none", "no sandbox", (mcs, sandbox))
    report = Report(
        versions=(),
        supported_llamafactory=(),
        gpus=(),
        activation=Activation("on", "here", "there"),
        patches=(),
        benchmarks=(BenchmarkRow(*part), BenchmarkRow(*none)),
        warnings=(),
        problems=(),
        toolchains=(ToolchainRow("C++", "g++ 12"), ToolchainRow("C#", None, mcs)),
    )
    text = render_text(report)
    assert (
        "Languages of model-written programs\n  C++  g++ 12\n  C#   missing\n"
        "    missing: C#: mcs not found\n    fix: apt-get install mono-mcs\n"
    ) in text
    assert "  part: can run here in part (some languages)\n" in text
    assert "  none: cannot run here (no sandbox)\n" in text
    missing = {"name": "C#: mcs not found", "fix": "apt-get install mono-mcs", "blocks": False}
    assert json.loads(json.dumps(to_json(report)))["toolchains"][1]["missing"] == missing


def test_doctor_asks_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchains, "find_command", lambda name: None)
    rows, warnings = toolchain_rows()
    assert warnings == ()
    assert [row.language for row in rows] == [language.title for language in LANGUAGES.values()]
    assert [row.language for row in rows if row.missing is None] == ["Python"]
    assert all(row.missing is None or row.missing.fix for row in rows)


def test_an_evaluation_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> host.Interpreter:
        raise PrerequisiteError("no Python")

    monkeypatch.setattr(host, "interpreter", none)
    with pytest.raises(PrerequisiteError, match="no Python"):
        judge(LANGUAGES["python"], Program("pass"))
