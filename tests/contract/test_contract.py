"""The fingerprints of LLaMA-Factory's sources: which changes matter and which do not."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from dft_factory.patch import contract
from dft_factory.patch.table import PATCHES, SUPPORTED_LLAMAFACTORY
from tests.support.cli import run_command
from tests.support.llamafactory import altered_copy, package_folder

TARGETS = pytest.mark.parametrize("target", contract.FINGERPRINTS)


def parts(target: str) -> tuple[str, str]:
    """File in the package, and name in the file."""
    *packages, module, attribute = target.split(".")[1:]
    return "/".join([*packages, f"{module}.py"]), attribute


def edited(text: str, attribute: str, statement: str) -> str:
    """The file with a statement added to the end of one class or function."""
    tree = ast.parse(text)
    (node,) = (x for x in tree.body if getattr(x, "name", None) == attribute)
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    node.body.extend(ast.parse(statement).body)
    return ast.unparse(tree)


def test_every_patched_object_has_a_fingerprint_for_every_release() -> None:
    assert contract.unknown_targets() == []
    assert {patch.target for patch in PATCHES} <= contract.FINGERPRINTS.keys()
    for known in contract.FINGERPRINTS.values():
        releases = [release for names in known.values() for release in names]
        assert set(releases) == set(SUPPORTED_LLAMAFACTORY)


@TARGETS
def test_changed_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: str) -> None:
    file, attribute = parts(target)
    folder = altered_copy(tmp_path, {file: lambda text: edited(text, attribute, "x = 1")})
    monkeypatch.setattr(contract, "llamafactory_folder", lambda: Path(folder, "llamafactory"))
    assert contract.unknown_targets() == [target]


@TARGETS
def test_removed_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: str) -> None:
    file, attribute = parts(target)
    folder = altered_copy(tmp_path, {file: lambda text: text.replace(attribute, "Renamed")})
    monkeypatch.setattr(contract, "llamafactory_folder", lambda: Path(folder, "llamafactory"))
    assert target in contract.unknown_targets()


def test_comments_docstrings_and_formatting_do_not_count(tmp_path: Path) -> None:
    files = {parts(target)[0] for target in contract.FINGERPRINTS}
    changes = {
        file: lambda text: (
            "# a comment\n" + re.sub('"""(?=[A-Z])', '"""New. ', ast.unparse(ast.parse(text)))
        )
        for file in files
    }
    folder = Path(altered_copy(tmp_path, changes), "llamafactory")
    assert contract.fingerprints(folder) == contract.fingerprints(package_folder())


def test_command_prints_the_fingerprints_of_another_copy(tmp_path: Path) -> None:
    file, attribute = parts(next(iter(contract.FINGERPRINTS)))
    folder = altered_copy(tmp_path, {file: lambda text: edited(text, attribute, "x = 1")})
    command = [sys.executable, "-m", "dft_factory.patch.contract", folder]
    lines = run_command(command).stdout.splitlines()
    assert lines[::2] == list(contract.FINGERPRINTS)
    assert lines[1].endswith("  unknown")
    assert [line for line in lines[3::2] if "unknown" in line] == []
    command[-1] = str(tmp_path / "nowhere")
    assert (
        run_command(command, status=1).stderr
        == f"{tmp_path / 'nowhere'}: holds no LLaMA-Factory package.\n"
    )
