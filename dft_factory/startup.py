"""Waits for LLaMA-Factory's modules and patches each right after it has run.

Runs at every ``import torch`` of the environment: standard library only, and quick. Nothing of
LLaMA-Factory is imported here; a process that never imports it pays for one finder.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from types import ModuleType

from dft_factory.patch.table import PATCHES


class _PatchingLoader(importlib.abc.Loader):
    """Runs the module through its own loader, then patches it."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module looks as if it had been loaded without us (inspect, reload).
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        try:
            from dft_factory.patch.apply import apply_to

            apply_to(module)
        except (Exception, SystemExit) as error:
            # Our own code is broken or gone. LLaMA-Factory must not be: its module is as it was, so
            # stock runs go on, and LLaMA-Factory itself or require_intact refuses our objectives.
            _report(
                f"dft-factory: cannot patch {module.__name__} ({type(error).__name__}: {error}). "
                "Stock runs are untouched, runs with dft or sft objectives are refused. Reinstall "
                "dft-factory.\n"
            )


def _report(message: str) -> None:
    with contextlib.suppress(Exception):  # stderr may be None or closed
        sys.stderr.write(message)


class PatchingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of the patch table through the other finders and wraps their loaders."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._waiting = frozenset(modules)
        self._searching: set[str] = set()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._waiting or fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            spec = find_spec(fullname)
        finally:
            self._searching.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _PatchingLoader(spec.loader)
        return spec


def installed() -> PatchingFinder | None:
    """The finder of this process, if activation has happened."""
    for finder in sys.meta_path:
        if isinstance(finder, PatchingFinder):
            return finder
    return None


def install() -> None:
    """Activate: idempotent, touches ``sys.meta_path`` alone."""
    if installed() is None:
        sys.meta_path.insert(0, PatchingFinder([patch.module for patch in PATCHES]))


def uninstall() -> None:
    """Take the finder out again; what is patched already is undone by ``patch.apply.revert``."""
    finder = installed()
    if finder is not None:
        sys.meta_path.remove(finder)
