"""Write the patch table into its page: ``python scripts/patch_table.py docs/internals.md``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from dft_factory.errors import ConfigError, DftFactoryError
from dft_factory.patch.table import PATCHES, SUPPORTED_LLAMAFACTORY, Patch

BEGIN, END = "<!-- patch-table -->", "<!-- /patch-table -->"
UPDATE = "python scripts/patch_table.py docs/internals.md"
"""The command that updates the page."""

_CODE = re.compile(r"[A-Za-z<][^\s,;()]*[_<>][^\s,;()]*(?<![.:])")


def _cell(text: str) -> str:
    """Text of a table cell. Words that Markdown or HTML would swallow become code."""
    return _CODE.sub(lambda word: f"`{word[0]}`", text).replace("|", r"\|")


def _row(patch: Patch) -> str:
    versions = ", ".join(SUPPORTED_LLAMAFACTORY)
    if patch.on_unsupported is not None:
        versions += "; our objectives are refused by name on any other"
    cells = (
        f"`{patch.target}`",
        _cell(patch.change),
        _cell(patch.reason),
        versions,
        f"[`{Path(patch.test).name}`](../{patch.test})",
    )
    return f"| {' | '.join(cells)} |"


def patch_table_markdown() -> str:
    """The patch table as Markdown, between its two markers."""
    return "\n".join(
        [
            BEGIN,
            "| what | change | reason | LLaMA-Factory | test |",
            "|---|---|---|---|---|",
            *(_row(patch) for patch in PATCHES),
            END,
        ]
    )


def update_page(path: Path) -> bool:
    """Write the patch table between the markers of ``path``; True if the file changed.

    Raises:
        ConfigError: the file cannot be read, or does not have one pair of markers.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}.") from error
    begin, end = text.find(BEGIN), text.find(END)
    if text.count(BEGIN) != 1 or text.count(END) != 1 or end < begin:
        raise ConfigError(f"{path}: needs one line {BEGIN} and, after it, one line {END}.")
    new = text[:begin] + patch_table_markdown() + text[end + len(END) :]
    if new == text:
        return False
    path.write_text(new, encoding="utf-8")
    return True


def _main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write(f"Usage: {UPDATE}\n")
        return 2
    path = Path(arguments[0])
    try:
        changed = update_page(path)
    except DftFactoryError as error:
        sys.stderr.write(f"dft-factory: {error}\n")
        return 2
    sys.stderr.write(f"{path}: {'updated' if changed else 'up to date'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
