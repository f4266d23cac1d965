"""The documentation agrees with the code."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from dft_factory.errors import ConfigError
from dft_factory.patch.table import PATCHES, SUPPORTED_LLAMAFACTORY
from scripts.patch_table import BEGIN, END, UPDATE, patch_table_markdown, update_page
from tests.support.cli import run_command

ROOT = Path(__file__).parents[2]


def test_the_patch_table_is_current_and_the_readme_short() -> None:
    text = (ROOT / "docs" / "internals.md").read_text(encoding="utf-8")
    assert patch_table_markdown() in text, (
        f"docs/internals.md is behind dft_factory/patch/table.py. Run `{UPDATE}`."
    )
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120


def _cells(markdown: str) -> list[list[str]]:
    """Body cells as a reader sees them: rendered, tags and code marks gone."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows:
            rows[-1].append("".join(child.content for child in token.children or ()))
    return rows[1:]


def test_nothing_of_the_table_is_swallowed_by_markdown() -> None:
    rows = _cells(patch_table_markdown())
    assert len(rows) == len(PATCHES)
    for row, patch in zip(rows, PATCHES, strict=True):
        assert row[:3] == [patch.target, patch.change, patch.reason]
        assert row[3].startswith(", ".join(SUPPORTED_LLAMAFACTORY))
        assert f"(../{patch.test})" in patch_table_markdown()


def test_update_replaces_what_is_between_the_markers_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    assert update_page(page) is True
    assert page.read_text() == f"# before\n\n{patch_table_markdown()}\n\nafter\n"
    assert update_page(page) is False


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_update_refuses_a_file_without_one_place_for_the_table(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ConfigError, match="needs one line"):
        update_page(page)
    assert page.read_text() == text


def test_the_command_that_the_failing_test_names_works(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(f"{BEGIN}\n{END}\n")
    command = [sys.executable, *UPDATE.split()[1:-1]]
    assert run_command([*command, tmp_path / "page.md"], cwd=ROOT).stdout == ""
    assert (tmp_path / "page.md").read_text() == f"{patch_table_markdown()}\n"
    missing = run_command([*command, "NONE.md"], cwd=ROOT, status=2)
    assert missing.stderr.startswith("dft-factory: NONE.md: cannot be read")


LINK = re.compile(r"\]\(([^)#\s]+)?(?:#([^)\s]+))?\)")


def _anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.stem
)
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text("utf-8")):
        if "://" in path:
            continue
        target = page.parent / path if path else page
        assert target.exists(), f"{page}: {path}"
        assert not anchor or anchor in _anchors(target), f"{page}: {path}#{anchor}"
