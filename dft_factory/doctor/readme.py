"""The patch table in README.md: ``python -m dft_factory.doctor.readme README.md`` renews it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from dft_factory.errors import ConfigError, DftFactoryError
from dft_factory.patch.table import PATCHES, SUPPORTED_LLAMAFACTORY, Patch

BEGIN, END = "<!-- patch-table -->", "<!-- /patch-table -->"
UPDATE = "python -m dft_factory.doctor.readme README.md"
"""The command that mends a README which is behind the table."""

_CODE = re.compile(r"[A-Za-z<][^\s,;()]*[_<>][^\s,;()]*(?<![.:])")


def _cell(text: str) -> str:
    """Prose for a table cell: words that Markdown or HTML would swallow become code."""
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
        f"[`{Path(patch.test).name}`]({patch.test})",
    )
    return f"| {' | '.join(cells)} |"


def patch_table_markdown() -> str:
    """The patch table as Markdown, between its two markers, without a newline at the end."""
    return "\n".join(
        [
            BEGIN,
            "| what | change | reason | LLaMA-Factory | test |",
            "|---|---|---|---|---|",
            *(_row(patch) for patch in PATCHES),
            END,
        ]
    )


def update_readme(path: Path) -> bool:
    """Put the current patch table between the markers of ``path``; True if that changed the file.

    Raises:
        ConfigError: the file cannot be read, or the two markers are not there once each.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}.") from error
    begin, end = text.find(BEGIN), text.find(END)
    if text.count(BEGIN) != 1 or text.count(END) != 1 or end < begin:
        raise ConfigError(
            f"{path}: needs the lines {BEGIN} and {END}, once each and in this order, around the "
            "place of the patch table."
        )
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
        changed = update_readme(path)
    except DftFactoryError as error:
        sys.stderr.write(f"dft-factory: {error}\n")
        return 2
    sys.stderr.write(f"{path}: {'the patch table is new' if changed else 'is current'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
