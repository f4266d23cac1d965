"""Sets whose records have an identity: each is kept once, and never what was excluded by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from dft_factory.data.records import Converter, Dropped, Identity, Kept
from dft_factory.data.sources import read_files, source_files
from dft_factory.errors import ConfigError

Convert = Callable[[object], Mapping[str, object] | Kept | Dropped]


def once(converter: Converter, excluded: frozenset[bytes]) -> Convert:
    """The converter's ``convert``, which then drops what it has kept before, or what is excluded.

    A record that is dropped for another reason does not count as kept. Memory holds 16 bytes and
    their object for each kept record.
    """
    identity = converter.identity
    if identity is None:
        return converter.convert
    kept: set[bytes] = set()

    def convert(record: object) -> Mapping[str, object] | Kept | Dropped:
        converted = converter.convert(record)
        digest = _digest(identity, record)
        if isinstance(converted, Dropped) or digest is None:
            return converted
        if digest in excluded:
            return Dropped(f"excluded {identity.of}")
        if digest in kept:
            return Dropped(f"duplicate {identity.of}")
        kept.add(digest)
        return converted

    return convert


def read_excluded(converter: Converter, name: str, exclude: str | None) -> frozenset[bytes]:
    """Identities of the records of ``exclude``, a local file or folder.

    Raises:
        ConfigError: it is not there, has a record without identity (a hole in the guard), or the
            set ``name`` has no identities.
    """
    if exclude is None:
        return frozenset()
    if converter.identity is None:
        raise ConfigError(f"--exclude: {exclude!r}: {name!r} does not take it. Leave it out.")
    files = source_files(exclude, option="--exclude")
    if files is None:
        raise ConfigError(f"--exclude: {exclude!r} does not exist. Give a local file or folder.")
    found: set[bytes] = set()
    for number, record in enumerate(read_files(files, option="--exclude"), start=1):
        digest = _digest(converter.identity, record)
        if digest is None:
            raise ConfigError(
                f"--exclude: {exclude!r}: record {number} has no {converter.identity.of}. Give "
                f"records of the shape of {converter.hub_id}, such as the set you evaluate on."
            )
        found.add(digest)
    if not found:
        raise ConfigError(f"--exclude: {exclude!r} has no record.")
    return frozenset(found)


def _digest(identity: Identity, record: object) -> bytes | None:
    key = identity.key(record)
    if key is None:
        return None
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:16]
