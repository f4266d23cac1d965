"""All hostile programs in containers of docker or podman: `bash scripts/test_containers.sh`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dft_eval import sandbox
from dft_eval.sandbox import ALL_PROTECTIONS
from dft_eval.sandbox.backends import BACKENDS
from dft_eval.sandbox.selection import using
from tests.support.hostile import Attack, Evidence, Scene, launch, says, scene
from tests.support.landlock import assert_contained_or_listed
from tests.unit.test_sandbox_hostile import ATTACKS

__all__ = ["scene"]  # a fixture

PODMAN_LETS_THROUGH = {
    "fills the kernel with empty files": "podman bounds no number of files, but their memory",
}
"""What this tier does not contain on podman; Docker contains all."""

KILLED = lambda done, scene: done.signal == 9 or done.killed_for == "wall time"  # noqa: E731
CONTAINS_OTHERWISE: dict[str, Evidence] = {
    # The control group ends one process, and its parent may go on waiting.
    "memory of many processes": KILLED,
    "JavaScript takes memory outside its heap": KILLED,
    "calls kcmp": says("OSError [Errno 38]", "PermissionError"),
    "regains capabilities": says("OSError [Errno 38]"),
    "fills the kernel with empty files": says("OSError [Errno 28]"),  # Docker's nr_inodes
}
"""Contained all the same, with another error than bubblewrap's."""


@pytest.fixture(autouse=True)
def lets_through() -> Iterator[dict[str, str]]:
    """What the engine that answers lets through."""
    with using(BACKENDS["docker"]):
        yield PODMAN_LETS_THROUGH if "podman" in sandbox.check() else {}


def test_a_harmless_program_passes() -> None:
    sandbox.prove(BACKENDS["docker"])


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack: Attack, scene: Scene, lets_through: dict[str, str]) -> None:
    done = launch(attack, scene, ALL_PROTECTIONS)
    assert_contained_or_listed(
        done, scene, attack, lets_through=lets_through, contains_otherwise=CONTAINS_OTHERWISE
    )
