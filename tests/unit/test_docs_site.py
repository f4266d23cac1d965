"""The documentation site: its pages, the commands in them, and the messages that they explain."""

from __future__ import annotations

import functools
import math
import re
import shlex
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import dft_factory.losses.weights as weights
from dft_factory.cli.app import app
from dft_factory.experiments import catalog
from dft_factory.experiments.expand import make_plan
from dft_factory.experiments.schema import load
from scripts import docs_site

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in FENCE.findall(page.read_text("utf-8")) if name == language]


# Pages


def _leaves(nav: Any) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else _leaves(value)


def test_the_navigation_leads_to_every_page_and_to_nothing_else() -> None:
    nav = list(_leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert sorted(nav) == sorted(pages | set(docs_site.PAGES))


def test_every_command_is_in_the_table_of_commands_and_every_option_in_the_reference() -> None:
    """Recipes' fields are explained in the page on training."""
    table = (DOCS / "recipes.md").read_text("utf-8")
    reference = docs_site.cli_reference()
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        assert f"`dft-factory {name}" in table
        options = [option for each in command.params for option in each.opts if option[:2] == "--"]
        assert [option for option in options if f"`{option}" not in reference] == []
    for benchmark in ("lm-eval:TASK", "vlmeval:DATASET"):
        assert benchmark in table
        assert benchmark in reference
    fields = (DOCS / "training.md").read_text("utf-8")
    assert all(name in fields for name in ("score_task:", "score_steps:", "score_limit:"))


def test_generated_pages_have_their_content() -> None:
    recipes = docs_site.shipped_recipes()
    for name in catalog.recipe_names():
        pair = re.sub(r"_(sft|dft)$", "_{sft,dft}", name)
        (row,) = [line for line in recipes.splitlines() if line.startswith(f"| `{pair}` |")]
        what, needs, rate = (cell.strip() for cell in row.split("|")[2:5])
        assert what
        assert re.search(r"GPU|CPU|memory", needs), row
        assert float(rate) > 0
    paper = docs_site.paper_tables()
    assert "| Qwen2.5-Math-1.5B | DFT | 64.89 | 20.94 | 27.08 | 6.87 | 38.13 | 31.58 |" in paper
    experiments = set(re.findall(r"dft-factory run (\S+?)`", paper))
    assert experiments == {name for name in catalog.names() if name.startswith("paper/")}
    commands = docs_site.cli_reference()
    for name in ("recipes copy", "experiments list", "data prepare", "run", "eval", "doctor"):
        assert f"`dft-factory {name}`" in commands
    assert "](docs/" not in docs_site.home()


def test_outside_links_become_text_and_roles_code() -> None:
    text = "[a](../tests/x.py), [b](training.md#x), ![c](../x.png), [d](https://x.org)"
    plain = "a, [b](training.md#x), ![c](../x.png), [d](https://x.org)"
    assert docs_site.plain_outside_links(text) == plain
    html = "<p>:func:<code>a.b</code>, :class:<code>~a.b.C</code>, <code>~x.y</code></p>"
    plain = "<p><code>a.b</code>, <code>C</code>, <code>~x.y</code></p>"
    assert docs_site.without_roles(html) == plain


# Commands


def _commands(page: Path) -> Iterator[list[str]]:
    """Commands of code blocks, fenced or indented, word by word, without comments."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    fenced = "".join(body for name, body in FENCE.findall(text) if name in ("", "bash"))
    indented = "\n".join(re.findall(r"^    (\S.*)$", FENCE.sub("", text), re.MULTILINE))
    for line in f"{fenced}\n{indented}".splitlines():
        if re.match(r"(\w+=\S+ )*(dft-factory|llamafactory-cli|accelerate) ", line):
            yield [word for word in shlex.split(line, comments=True) if not re.match(r"\w+=", word)]


@functools.cache
def _program() -> Any:
    return typer.main.get_command(app)


def _command(command_line: list[str]) -> Any:
    """The click command that the words begin with; fails on an unknown one."""
    command = _program()
    for word in command_line[1:]:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands, command_line
        command = command.commands[word]
    return command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_their_options_exist(page: Path) -> None:
    for command_line in _commands(page):
        if command_line[0] == "dft-factory":
            options = {
                name for parameter in _command(command_line).params for name in parameter.opts
            }
            used = {word.partition("=")[0] for word in command_line if word.startswith("--")}
            assert used <= options | {"--help", "--version"}, command_line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_name_shipped_files(page: Path) -> None:
    for command_line in _commands(page):
        for word in command_line:
            for path in re.findall(r"^configs/[\w./{},-]+", word):
                brace = re.search(r"\{(.*?)\}", path)
                for part in brace[1].split(",") if brace else [""]:
                    file = path if brace is None else path.replace(brace[0], part)
                    assert (ROOT / file).is_file(), command_line
        if command_line[1:3] == ["recipes", "copy"]:
            catalog.find_recipe(command_line[3])
        if (
            command_line[1] == "run"
            and not command_line[2].endswith(".yaml")
            and command_line[2].islower()
        ):
            catalog.find(command_line[2])


def test_there_are_commands_to_check() -> None:
    counts = {page.stem: len(list(_commands(page))) for page in PAGES}
    assert counts["README"] >= 5
    assert counts["one-gpu"] >= 10
    assert counts["no-gpu"] >= 7


@pytest.mark.parametrize("page", ["experiments.md", "quickstart/several-nodes.md"])
def test_experiments_in_the_pages_make_a_plan(page: Path, tmp_path: Path) -> None:
    (text,) = [text for text in blocks(DOCS / page, "yaml") if text.startswith("# coder.yaml")]
    file = tmp_path / "coder.yaml"
    file.write_text(text)
    plan = make_plan(load(file, "coder"))
    assert plan.recipes
    assert any("train" in name for name in plan.jobs)


def test_the_override_for_two_nodes_keeps_the_batch(tmp_path: Path) -> None:
    page = DOCS / "quickstart/several-nodes.md"
    (text,) = blocks(page, "yaml")
    file = tmp_path / "coder.yaml"
    file.write_text(text)

    def batch(gpus: int, *overrides: str) -> set[int]:
        plan = make_plan(load(file, "coder", overrides))
        recipes = [yaml.safe_load(recipe) for recipe in plan.recipes.values()]
        keys = ("per_device_train_batch_size", "gradient_accumulation_steps")
        return {gpus * math.prod(recipe[key] for key in keys) for recipe in recipes}

    (override,) = re.findall(r"`--set (\S+)`", page.read_text("utf-8"))
    assert batch(16, override) == batch(8) == {16}


def test_the_weight_of_the_own_weight_page(monkeypatch: pytest.MonkeyPatch) -> None:
    script, row = blocks(DOCS / "own-weight.md", "python")
    names: dict[str, Any] = {}
    exec(script, names)
    labels = names["labels"][:, 1:]
    p = names["logits"][:, :-1].softmax(-1)
    probability = p.gather(2, labels.clamp(min=0)[..., None])[..., 0][labels != -100]
    expected = ((1 - probability) ** 2 * -probability.log()).mean()
    assert names["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert names["logits"].grad.abs().sum() > 0
    monkeypatch.setattr(weights, "WEIGHTS", dict(weights.WEIGHTS))
    exec(row, vars(weights) | {"WEIGHTS": weights.WEIGHTS})
    logps = (0.25 * labels.new_ones(1)).log()
    focal = weights.parse_weight("focal:2")(logps, labels.new_zeros(1), 1)
    assert focal.item() == pytest.approx(0.75**2)


# Messages


def _sources() -> str:
    """All sources, adjacent string literals joined."""
    llamafactory = util.find_spec("llamafactory")
    assert llamafactory is not None
    assert llamafactory.origin is not None
    files = [
        *(ROOT / "dft_factory").rglob("*.py"),
        *(ROOT / "eval").rglob("*.py"),
        Path(llamafactory.origin).parent / "hparams" / "finetuning_args.py",
    ]
    text = "\n".join(file.read_text("utf-8") for file in files)
    return re.sub(r"\"\s*\n\s*f?\"", "", text)


def test_explained_messages_are_in_the_sources() -> None:
    """The text between dots is literal; dots stand for ``{...}`` or %s in the source."""
    sources = re.sub(r"\{[^{}]*\}|%[sd]", "…", _sources())
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    messages = re.findall(r"^\*\*`(.+?)`\*\*", page, re.MULTILINE)
    assert len(messages) >= 30
    for message in messages:
        for part in filter(None, (part.strip() for part in message.split("…"))):
            assert part in sources, f"{message}: no source has {part!r}"
