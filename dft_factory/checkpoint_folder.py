"""Folders of checkpoints that ``tiny`` and ``smollm2`` make: complete or absent, and marked.

``--force`` replaces a folder that carries the mark and holds nothing else, and no other.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from dft_factory.errors import ConfigError

MARK = "made_by_dft_factory.json"
"""Lists the files of the checkpoint beside it."""


@contextlib.contextmanager
def new_checkpoint(out: Path, *, force: bool) -> Iterator[Path]:
    """A new folder beside ``out`` to fill; at the end of the block it becomes ``out``.

    After an error it is removed, and what was at ``out`` is untouched.

    Raises:
        ConfigError: ``out`` exists without ``force``, or is not a checkpoint made by this function.
    """
    _check(out, force)
    whole = out.absolute()  # "." has no name
    partial = whole.with_name(f".{whole.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        yield partial
        files = sorted(path.name for path in partial.iterdir())
        (partial / MARK).write_text(json.dumps({"files": files}, indent=2) + "\n", encoding="utf-8")
        _check(out, force)  # it may have changed in the meantime
        if out.is_dir():
            former = partial.with_name(f"{partial.name}.former")
            out.rename(former)
            partial.rename(out)
            shutil.rmtree(former)
        else:
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(out: Path, force: bool) -> None:
    if not (out.exists() or out.is_symlink()):
        return
    if not force:
        raise ConfigError(f"--out {out} exists. Choose another folder, or add --force.")
    try:
        files = json.loads((out / MARK).read_text(encoding="utf-8"))["files"]
        extra = sorted({path.name for path in out.iterdir()} - {*files, MARK})
    except (OSError, ValueError, KeyError, TypeError):
        extra = None
    if extra is None or out.is_symlink():
        raise ConfigError(
            f"--out {out} --force: not a checkpoint folder made by `dft-factory tiny` or "
            "`dft-factory smollm2`; only these are replaced. Choose another folder, or remove it "
            "yourself."
        )
    if extra:
        raise ConfigError(
            f"--out {out} --force: the folder also holds {', '.join(extra)}, which `dft-factory` "
            "did not put there. Choose another folder, or move them away."
        )
