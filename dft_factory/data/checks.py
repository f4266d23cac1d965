"""Small checks that converters share."""

from __future__ import annotations

import re

ESCAPES = "picture path escapes its folder"

_DRIVE = re.compile(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*://")


def normal_path(path: str) -> str | None:
    """The relative path with ``/`` and without ``.`` parts; None if it could lead out of a folder.

    Absolute paths, drives, addresses, ``..`` and control characters are refused, not repaired.
    """
    path = path.replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path) or not path.isprintable():
        return None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or not is_unicode(path):
        return None
    return "/".join(parts)


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8; JSON can spell half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
