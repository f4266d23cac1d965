"""The patch table against the real LLaMA-Factory: every row names what exists, and applies."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import pytest
import torch  # noqa: F401 - activates dft-factory, before anything here imports llamafactory

from dft_factory.patch.apply import APPLIED, llamafactory_version, status
from dft_factory.patch.table import PATCHES, SUPPORTED_LLAMAFACTORY, Patch

ROOT = Path(__file__).resolve().parents[2]
ROWS = pytest.mark.parametrize("patch", PATCHES, ids=[patch.name for patch in PATCHES])


def factory(name: str) -> object:
    module, colon, function = name.partition(":")
    assert colon
    return getattr(importlib.import_module(module), function)


def test_rows_are_unique_and_the_release_supported() -> None:
    assert len({patch.name for patch in PATCHES}) == len(PATCHES)
    assert len({patch.target for patch in PATCHES}) == len(PATCHES)
    assert llamafactory_version() in SUPPORTED_LLAMAFACTORY


@ROWS
def test_target_is_llamafactorys_own(patch: Patch) -> None:
    """The attribute is written down in the module itself, not imported into it."""
    spec = importlib.util.find_spec(patch.module)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text("utf-8")
    assert any(
        line.startswith((f"def {patch.attribute}(", f"class {patch.attribute}("))
        for line in source.splitlines()
    )


@ROWS
def test_factory_takes_the_original(patch: Patch) -> None:
    assert callable(factory(patch.factory))
    if patch.on_unsupported is not None:
        assert callable(factory(patch.on_unsupported))


@ROWS
def test_row_explains_itself_and_names_its_test(patch: Patch) -> None:
    test = ROOT / patch.test
    assert test.is_file()
    assert test.parent == Path(__file__).parent
    assert patch.change
    assert patch.reason


def test_every_patch_is_applied_once_its_module_is_imported() -> None:
    for patch in PATCHES:
        importlib.import_module(patch.module)
    assert {row.patch.name: (row.state, row.detail) for row in status()} == {
        patch.name: (APPLIED, "") for patch in PATCHES
    }


@pytest.mark.parametrize(
    ("name", "importer"),
    [
        ("arguments", "llamafactory.hparams"),
        ("arguments", "llamafactory.hparams.parser"),
        ("refusals_v1", "llamafactory.v1.config"),
        ("loss", "llamafactory.train.sft.workflow"),
    ],
)
def test_copies_are_of_the_replacement(name: str, importer: str) -> None:
    """The patch comes before any ``from X import Y``."""
    (patch,) = (patch for patch in PATCHES if patch.name == name)
    replacement = getattr(importlib.import_module(patch.module), patch.attribute)
    if name == "refusals_v1" and llamafactory_version() == "0.9.4":
        return  # which copies it nowhere
    assert getattr(importlib.import_module(importer), patch.attribute) is replacement


@ROWS
def test_replacement_goes_by_the_same_name(patch: Patch) -> None:
    """Pickle, ``inspect`` and messages find what they look for."""
    replacement = getattr(importlib.import_module(patch.module), patch.attribute)
    assert replacement.__module__ == patch.module
    assert replacement.__name__ == patch.attribute
