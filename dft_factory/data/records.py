"""Converters: pure functions from a published record to a training record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypedDict


class AlpacaRecord(TypedDict):
    """LLaMA-Factory's ``alpaca`` format: one question and one answer."""

    instruction: str
    input: str
    output: str


ALPACA_ENTRY: Mapping[str, object] = {
    "columns": {"prompt": "instruction", "query": "input", "response": "output"}
}
"""The ``dataset_info.json`` entry of a file of :class:`AlpacaRecord`, without its ``file_name``."""


class SharegptRecord(TypedDict):
    """LLaMA-Factory's ``sharegpt`` format: turns, a system prompt and pictures.

    The contents have one ``<image>`` per picture, in order. ``images`` are paths relative to
    ``media_dir``, by default ``dataset_dir``.
    """

    messages: list[dict[str, str]]
    system: str
    images: list[str]


SHAREGPT_ENTRY: Mapping[str, object] = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "system": "system", "images": "images"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
    },
}
"""The ``dataset_info.json`` entry of a file of :class:`SharegptRecord`, without its
``file_name``."""


@dataclass(frozen=True)
class Dropped:
    """A record left out; the report counts them by ``reason``."""

    reason: str


@dataclass(frozen=True)
class Kept:
    """A converted record with notes on what was changed or ignored, which the report counts."""

    record: Mapping[str, object]
    notes: tuple[str, ...] = ()


Convert = Callable[[Mapping[str, object]], Mapping[str, object] | Kept | Dropped]
"""A published record to its training record, in :class:`Kept` if there are notes. Never raises and
keeps no state, so records can come in any order."""


@dataclass(frozen=True)
class Identity:
    """Which published records are duplicates; each is kept once.

    Attributes:
        noun: what is compared, for messages and reports.
        key: equal for duplicates, None for a record (any JSON value) without one; never raises.
    """

    noun: str
    key: Callable[[object], str | None]


@dataclass(frozen=True)
class Converter:
    """A data set of ``dft-factory data prepare``.

    Attributes:
        entry: the set's entry in ``dataset_info.json``, without its ``file_name``.
        hub_id: where the set is published, named in messages.
        split: the split to read from the hub.
        hub_config: the configuration of ``hub_id`` to read, if it has several.
        pictures_from: where its pictures are published, None if it has none. The converted record's
            ``images`` are then relative paths below the searched folder.
        identity: of its records; None keeps duplicates.
        decontaminate: whether its ``instruction`` is a problem to compare with evaluation sets.
    """

    convert: Convert
    entry: Mapping[str, object]
    hub_id: str
    split: str = "train"
    hub_config: str | None = None
    pictures_from: str | None = None
    identity: Identity | None = None
    decontaminate: bool = False
