"""Keep each record once, and none of an excluded set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from dft_factory.data.records import Convert, Converter, Dropped, Kept
from dft_factory.data.sources import read_keys
from dft_factory.errors import ConfigError


def once(converter: Converter, excluded: frozenset[bytes]) -> Convert:
    """The converter's ``convert``, which then drops excluded records and duplicates of kept ones.

    Memory has a 16-byte digest for each kept record.
    """
    identity = converter.identity
    if identity is None:
        return converter.convert
    digests: set[bytes] = set()

    def convert(record: Mapping[str, object]) -> Mapping[str, object] | Kept | Dropped:
        converted = converter.convert(record)
        key = identity.key(record)
        if isinstance(converted, Dropped) or key is None:
            return converted
        digest = _digest(key)
        if digest in excluded:
            return Dropped(f"excluded {identity.noun}")
        if digest in digests:
            return Dropped(f"duplicate {identity.noun}")
        digests.add(digest)
        return converted

    return convert


def read_excluded(converter: Converter, name: str, exclude: str | None) -> frozenset[bytes]:
    """Digests of the records of ``exclude``, a local file or folder.

    Raises:
        ConfigError: see :func:`dft_factory.data.sources.read_keys`; or the set ``name`` has no
            identity.
    """
    option, identity = "--exclude", converter.identity
    if exclude is None:
        return frozenset()
    if identity is None:
        raise ConfigError(f"{option}: {exclude!r}: {name!r} does not take it. Leave it out.")
    fix = f"Give records of the shape of {converter.hub_id}, such as the set you evaluate on."
    keys = read_keys(exclude, option, identity.key, identity.noun, fix)
    return frozenset(_digest(key) for group in keys.values() for key in group)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:16]
