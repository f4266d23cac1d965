"""What a converter is: one pure function from a published record to a training record."""

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

    The contents hold one ``<image>`` for each picture, in their order. ``images`` are paths that
    LLaMA-Factory takes from ``media_dir``, which is ``dataset_dir`` unless a recipe says otherwise.
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
    """A record that is left out; the report counts them by ``reason``."""

    reason: str


@dataclass(frozen=True)
class Kept:
    """A record that was kept, with what the report must say about it.

    Attributes:
        notes: what was changed or passed over; the report counts each text.
    """

    record: Mapping[str, object]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Identity:
    """What makes two published records the same one; each is kept once.

    Attributes:
        of: the word for it in messages and reports.
        key: of a published record (any JSON value), None where it has none; it never raises.
    """

    of: str
    key: Callable[[object], str | None]


@dataclass(frozen=True)
class Converter:
    """A data set that ``dft-factory data prepare`` knows.

    Attributes:
        convert: takes one published record (any JSON value) and gives the training record (in
            :class:`Kept` if there is more to say) or :class:`Dropped`; it never raises and keeps
            no state, so records can come in any order.
        entry: the set's entry in ``dataset_info.json``, without its ``file_name``.
        hub_id: where the set is published, named in messages.
        split: the split that is read from the hub.
        hub_config: the configuration of ``hub_id`` that is read, where it has several.
        pictures_from: where its pictures are published, None if it has none. With pictures the
            converted record's ``images`` are relative paths below the place that is searched.
        identity: of its records, None where repeated ones are kept.
        decontaminate: whether its ``instruction`` is a problem that can be looked for in
            evaluation sets.
    """

    convert: Callable[[object], Mapping[str, object] | Kept | Dropped]
    entry: Mapping[str, object]
    hub_id: str
    split: str = "train"
    hub_config: str | None = None
    pictures_from: str | None = None
    identity: Identity | None = None
    decontaminate: bool = False
