"""The second sandbox in tests: where it cannot run, and what it may let through."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from dft_eval.sandbox import Completed
from dft_eval.sandbox.backends import BACKENDS
from dft_eval.sandbox.landlock import abi
from dft_eval.sandbox.selection import using
from tests.conftest import not_run
from tests.support.hostile import MARK, Scene


def need_landlock() -> None:
    """Skip the calling test on a kernel without Landlock."""
    if abi() == 0:
        not_run("this kernel has no Landlock")


@contextmanager
def landlock() -> Iterator[None]:
    """Programs run under Landlock; the calling test is skipped on a kernel without it."""
    need_landlock()
    with using(BACKENDS["landlock"]):
        yield


def assert_contained_or_listed(
    done: Completed,
    scene: Scene,
    attack: Any,
    lets_through: Collection[str],
    contains_otherwise: dict[str, Callable[[Completed, Scene], bool]],
) -> None:
    """An attack is contained, or the test's own list says that it is not."""
    if attack.name in lets_through:
        # A burst that the watchdog happens to see is the exception that the list may name.
        assert attack.mark(done, scene) or done.killed_for == "disk", f"contained: {done}"
        return
    assert contains_otherwise.get(attack.name, attack.contained)(done, scene), done
    assert MARK not in done.stdout
    assert not scene.daemons()
