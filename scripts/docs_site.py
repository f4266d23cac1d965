"""MkDocs hook: the pages that are made from the code each time the site is built.

``index.md`` is the README; ``shipped-recipes.md``, ``paper.md`` and ``cli.md`` come from
``configs/``, ``paper.json`` and the command line. Links from the pages to files that are not on the
site (tests, recipes) become plain text.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import yaml

import dft_factory.cli.app
from dft_eval.report.paper.tables import WHOLE_ROW, load_paper
from dft_factory.experiments import catalog

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = {
    1: ("paper/mathematics-main", "paper/mathematics-7b"),
    3: ("paper/code-3b", "paper/code-7b"),
    4: ("paper/multimodal",),
    8: ("paper/mathematics-openr1",),
    9: ("paper/mathematics-lora",),
}
"""Shipped experiments that repeat a table of the paper, by its number."""
LABELS = {"base": "base", "sft": "SFT", "dft": "DFT"}
_ROLE = re.compile(r":(?:func|class|data|meth|mod):<code>(?:~[\w.]*\.)?([\w.]+)</code>")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def home() -> str:
    """The README with links as the site has them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.replace("](docs/", "](").replace('src="docs/', 'src="')


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|")


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _needs(recipe: Path) -> str:
    """The header's sentence after ``Needs:``."""
    header = " ".join(
        line.lstrip("# ") for line in recipe.read_text("utf-8").split("\n\n")[0].splitlines()
    )
    match = re.search(r"Needs: (.*?)(?:; the data set|; any|[.:;] |$)", header)
    return match[1].rstrip(".:") if match else ""


def shipped_recipes() -> str:
    """One table per folder of ``configs/``: what each pair of recipes trains, on what it needs."""
    folders: dict[str, dict[str, Path]] = defaultdict(dict)
    for name in catalog.recipe_names():
        folder, _, stem = name.partition("/")
        if not stem.endswith("_sft"):
            pair = re.sub(r"_dft$", "_{sft,dft}", stem)
            folders[folder][pair] = catalog.find_recipe(name)
    lines = [
        "# Shipped recipes",
        "",
        "Made from `configs/` when this site was built. `dft-factory recipes copy NAME` writes a",
        "recipe, its pair and the files that they name to `configs/` in the working directory;",
        "`dft-factory recipes show NAME` prints one.",
    ]
    for folder, recipes in folders.items():
        lines += ["", f"## {folder}", ""]
        lines += [_row("recipe", "what", "needs", "learning rate"), "|---|---|---|---|"]
        for pair, path in recipes.items():
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
            what = catalog.summary(path).replace(" with DFT", "").partition(": one half of ")[0]
            rate = f"{float(values['learning_rate']):g}"
            lines.append(_row(f"`{folder}/{pair}`", what, _needs(path), rate))
    return "\n".join(lines) + "\n"


def _tables() -> Iterator[str]:
    for table in load_paper().tables:
        measured = load_paper().measured[table.measured]
        runs = EXPERIMENTS[table.number]
        yield f"## Table {table.number}: {table.title}"
        yield ""
        yield f"Training: {table.training}."
        yield ""
        yield "Run it: " + ", ".join(f"`dft-factory run {name}`" for name in runs) + "."
        yield ""
        yield _row("model", "", *(column.title for column in measured.columns))
        yield "|" + "---|" * (len(measured.columns) + 2)
        for row in table.rows:
            yield _row(row.model, LABELS[row.label], *row.values)
        yield ""
        yield "How the paper measured, and what it leaves open:"
        yield ""
        sources = (measured.style_source, measured.decoding_source, measured.harness_source)
        for text in (*filter(None, sources), *(point.text for point in measured.open)):
            yield f"- {text[0].upper()}{text[1:].rstrip('.')}."
        for row in table.rows:
            for column, remark in row.remarks.items():
                where = "" if column == WHOLE_ROW else f", {column}"
                yield f"- {row.model}, {LABELS[row.label]}{where}: {remark.rstrip('.')}."
        yield ""


def paper_tables() -> str:
    """The paper's rows, each with the experiment that repeats it."""
    questions = load_paper().without_table["nq"]
    return "\n".join(
        [
            "# The paper, row by row",
            "",
            "Percentages as printed in [arXiv 2508.05629](https://arxiv.org/abs/2508.05629). This",
            "project has run none of these rows. `dft-factory report --against-paper` sets your",
            "scores beside them and says whether the paper's figure lies in your 95 % interval.",
            "",
            *_tables(),
            "## Natural Questions",
            "",
            f"{questions[0].upper()}{questions.partition(';')[0][1:]}.",
            "",
            "Run it: `dft-factory run paper/natural-questions`.",
            "",
        ]
    )


def _keep_whole_summaries(command: Any) -> None:
    """Lists of commands: typer cuts a summary at 45 characters, unless it is a ``short_help``."""
    for each in getattr(command, "commands", {}).values():
        each.short_help = (each.help or "").partition("\n\n")[0]
        _keep_whole_summaries(each)


def cli_reference() -> str:
    """All commands and options, as typer documents them."""
    from typer.cli import get_docs_for_click

    command = typer.main.get_command(dft_factory.cli.app.app)
    _keep_whole_summaries(command)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="dft-factory")
    return text.replace("# `dft-factory`", "# Command line", 1)


PAGES = {
    "index.md": home,
    "shipped-recipes.md": shipped_recipes,
    "paper.md": paper_tables,
    "cli.md": cli_reference,
}


def plain_outside_links(markdown: str) -> str:
    """Links that lead out of ``docs/`` as plain text: the site has no page for them."""
    return _LINK.sub(lambda match: match[1] if match[2].startswith("../") else match[0], markdown)


def on_files(files: Any, config: Any) -> Any:
    """MkDocs event: add the pages."""
    from mkdocs.structure.files import File

    for name, make in PAGES.items():
        files.append(File.generated(config, name, content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs event: one page's text."""
    return plain_outside_links(markdown) if page.file.src_uri.count("/") == 0 else markdown


def without_roles(html: str) -> str:
    """``:func:`x` `` of docstrings as plain code."""
    return _ROLE.sub(r"<code>\1</code>", html)


def on_page_content(html: str, **_: Any) -> str:
    """MkDocs event: one page's HTML."""
    return without_roles(html)
