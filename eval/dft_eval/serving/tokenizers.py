"""Whether models can share a server: it has one tokenizer and one chat template."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_NOT_OF_TEXT = ("padding", "truncation", "version")
"""Of ``tokenizer.json``: settings of batches, which differ with whoever saved it last."""
_SPECIAL = ("eos_token", "bos_token", "add_bos_token", "add_eos_token")


def tokenizer_key(folder: Path) -> str:
    """Hash of what a tokenizer makes of texts and chats; equal however it was saved."""
    config = _read(folder / "tokenizer_config.json")
    template = folder / "chat_template.jinja"
    chat = template.read_text("utf-8") if template.is_file() else config.get("chat_template")
    special = [config.get(name) for name in _SPECIAL]
    texts = [token.get("content") if isinstance(token, dict) else token for token in special]
    tokenizer = _read(folder / "tokenizer.json")
    fields = {name: value for name, value in tokenizer.items() if name not in _NOT_OF_TEXT}
    digest = hashlib.sha256(json.dumps([chat, texts, fields], sort_keys=True).encode())
    if not tokenizer:
        for path in sorted(
            {*folder.glob("*.model"), *folder.glob("vocab*"), *folder.glob("merges*")}
        ):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return values if isinstance(values, dict) else {}
