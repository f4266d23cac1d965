"""Checks that converters share."""

from __future__ import annotations

import re

from dft_factory.data.records import Dropped

ESCAPES = "picture path escapes its folder"

_DRIVE = re.compile(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*://")


def normal_path(path: str) -> str | None:
    """The relative path with ``/`` and without ``.`` parts; None if it could leave its folder.

    Absolute paths, drives, URLs, ``..`` and control characters are refused, not repaired.
    """
    path = path.replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path) or not path.isprintable():
        return None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or not is_unicode(path):
        return None
    return "/".join(parts)


def check_text(value: object, name: str) -> str | Dropped:
    """``value``, or why it cannot be used: missing, empty or not Unicode."""
    if not isinstance(value, str):
        return Dropped(f"missing {name}")
    if not value.strip():
        return Dropped(f"empty {name}")
    return value if is_unicode(value) else Dropped("invalid Unicode")


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded as UTF-8; JSON can contain half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
