"""All hostile programs in containers of docker or podman: `bash scripts/test_containers.sh`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dft_eval import sandbox
from dft_eval.sandbox import ALL_PROTECTIONS
from dft_eval.sandbox.backends import BACKENDS, using
from tests.support.hostile import Scene
from tests.support.landlock import assert_contained_or_listed
from tests.unit import test_sandbox_hostile as python
from tests.unit import test_sandbox_hostile_languages as languages

scene = python.scene

LETS_THROUGH: dict[str, str] = {}
"""What this tier does not contain."""

CONTAINS_OTHERWISE: dict[str, python.Evidence] = {}
"""Contained all the same, with another error than bubblewrap's."""


@pytest.fixture(autouse=True)
def in_containers() -> Iterator[None]:
    with using(BACKENDS["docker"]):
        yield


def test_a_mild_program_passes() -> None:
    sandbox.prove(BACKENDS["docker"])


@python.each_attack
def test_python(attack: python.Attack, scene: Scene) -> None:
    done = python.launch(attack, scene, ALL_PROTECTIONS)
    assert_contained_or_listed(
        done, scene, attack, lets_through=LETS_THROUGH, contains_otherwise=CONTAINS_OTHERWISE
    )


@languages.each_attack
def test_languages(attack: languages.Attack, scene: Scene) -> None:
    done = languages.launch(attack, scene, ALL_PROTECTIONS)
    assert_contained_or_listed(
        done, scene, attack, lets_through=LETS_THROUGH, contains_otherwise=CONTAINS_OTHERWISE
    )
