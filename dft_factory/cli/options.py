"""Options that several commands take, and their values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from dft_eval.benchmark import JudgeChoice

Choice = TypeVar("Choice", bound=str)
Unsafe = Annotated[
    bool,
    typer.Option(
        "--unsafe-no-sandbox", help="Run the model's programs with your own rights. Do not."
    ),
]
SandboxOption = Annotated[
    str,
    typer.Option(
        "--sandbox",
        metavar="auto|bubblewrap|landlock|docker",
        help="What holds the model's programs (auto: the first of them that works here).",
    ),
]
Track = Annotated[
    bool, typer.Option("--track", help="Log the scores to the run that the training reported to.")
]
JudgeWorkers = Annotated[
    int | None,
    typer.Option(help="Programs run at once, at most (default: what CPUs and memory allow)."),
]


def choice_of(option: str, value: str, choices: Sequence[Choice]) -> Choice:
    """The choice that ``value`` names; UsageError names the others."""
    from dft_eval.errors import UsageError

    for choice in choices:
        if choice == value:
            return choice
    raise UsageError(f"{option} {value!r} is unknown. Choose from: {', '.join(choices)}.")


def judge_choice(name: str | None, model: str | None, base_url: str | None) -> JudgeChoice | None:
    """The judge that three options name; UsageError where they do not fit together."""
    from dft_eval.benchmark import JUDGES, JudgeChoice
    from dft_eval.errors import UsageError

    if name != "openai":
        for option, value in (("--judge-model", model), ("--judge-base-url", base_url)):
            if value is not None:
                raise UsageError(f"{option} {value!r} is for --judge openai.")
    if name is None:
        return None
    return JudgeChoice(choice_of("--judge", name, JUDGES), model, base_url)


def words_of(context: typer.Context, command: str, without: Sequence[str]) -> list[str]:
    """Words that run ``command`` with the options of this call, except for those of these names."""
    words = [sys.executable, "-P", "-m", "dft_factory.cli", command]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in without or source is None or source.name == "DEFAULT":
            continue
        value = context.params[name]
        values = value if isinstance(value, (list, tuple)) else [value]
        if parameter.param_type_name == "argument":
            words += map(str, values)
        elif value is True:
            words.append(parameter.opts[0])
        else:
            words += [f"{parameter.opts[0]}={text}" for text in values]
    return words
