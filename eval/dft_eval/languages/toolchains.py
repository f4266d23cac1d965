"""Which compilers and interpreters this machine has, and how to get the others."""

from __future__ import annotations

import atexit
import glob
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

from dft_eval.languages.recipes import LANGUAGES, TYPESCRIPT, Language
from dft_eval.sandbox import host
from dft_eval.sandbox.command import ENVIRONMENT

TYPESCRIPT_PACKAGE = "typescript@5.9"
"""TypeScript 7 is another compiler."""
_CHECKOUT = Path(__file__).parents[3]
_lock = Lock()


@dataclass(frozen=True)
class MissingToolchain:
    """A language whose programs cannot be judged here, why, and the install command."""

    language: Language
    what: str
    fix: str


def find_command(name: str) -> str | None:
    """A tool where sandboxed programs find it too, which is below ``/usr`` alone."""
    return shutil.which(name, path=ENVIRONMENT["PATH"])


def _typescript_folders() -> list[Path]:
    folders = [_CHECKOUT / ".toolchains" / "node_modules" / "typescript"]
    on_path = shutil.which("tsc")
    if on_path is not None:
        folders.append(Path(os.path.realpath(on_path)).parent.parent)
    return folders


@lru_cache(maxsize=1)
def _typescript() -> str | None:
    for folder in _typescript_folders():
        if (folder / "lib" / "tsc.js").is_file():
            try:
                seen = subprocess.run(
                    ["test", "-r", str(folder / "lib" / "_tsc.js")],
                    check=False,
                    **host.user_options(),
                )
            except OSError:
                continue
            return str(folder) if seen.returncode == 0 else _staged(folder)
    return None


def typescript() -> str | None:
    """The folder of the npm package, readable to the sandbox's user; ``None`` without one."""
    with _lock:
        return _typescript()


def _staged(folder: Path) -> str:
    """A copy for a sandbox's user who cannot enter our directories."""
    stage = Path(tempfile.mkdtemp(prefix="dft-typescript-"))
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(stage, True) if os.getpid() == owner else None)
    (stage / "lib").mkdir()
    for path in (folder / "lib").iterdir():
        if path.is_file():
            shutil.copyfile(path, stage / "lib" / path.name)
    shutil.copyfile(folder / "package.json", stage / "package.json")
    for path in (stage, *stage.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return str(stage)


def missing_toolchain(language: Language) -> MissingToolchain | None:
    """What keeps programs of this language from being judged here; ``None`` if nothing does."""
    absent = [name for name in language.commands if find_command(name) is None]
    absent += [pattern for pattern in language.files if not glob.glob(pattern)]
    if absent:
        places = ENVIRONMENT["PATH"].replace(":", ", ")
        return MissingToolchain(
            language,
            f"{language.title}: {', '.join(absent)} not found (commands: looked for in {places})",
            f"apt-get install {' '.join(language.packages)}",
        )
    if language.code == "ts" and typescript() is None:
        return MissingToolchain(language, "TypeScript: tsc not found", _typescript_fix())
    return None


def _typescript_fix() -> str:
    if (_CHECKOUT / "scripts" / "toolchains.sh").is_file():
        return f"npm install --prefix {_CHECKOUT / '.toolchains'} {TYPESCRIPT_PACKAGE}"
    return f"npm install --global {TYPESCRIPT_PACKAGE}"


def missing_toolchains() -> list[MissingToolchain]:
    """Of all languages."""
    return [
        row for language in LANGUAGES.values() if (row := missing_toolchain(language)) is not None
    ]


def version(language: Language) -> str:
    """First lines of what its tools say of themselves, such as ``g++ (Debian 12.2.0) 12.2.0``."""
    if language.code == "python":
        return f"Python {_first_line(host.interpreter().path, '--version').split()[-1]}"
    lines = [
        f"node {_first_line('node', '--version')}"
        if name == "node"
        else _first_line(name, "--version")
        for name in language.commands
    ]
    folder = typescript() if language.code == "ts" else None
    if folder is not None:
        lines.append(f"tsc {_first_line('node', f'{folder}/lib/tsc.js', '--version')}")
    return ", ".join(lines)


@lru_cache(maxsize=32)
def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            env={**ENVIRONMENT, "HOME": "/nonexistent"},
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"{command[0]}: {error}"
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else command[0]


def resolve(command: tuple[str, ...]) -> list[str]:
    """A recipe's command with the places of this machine.

    Raises:
        LookupError: no TypeScript compiler here.
    """
    if not any(TYPESCRIPT in word for word in command):
        return list(command)
    folder = typescript()
    if folder is None:
        raise LookupError(f"no TypeScript compiler: {_typescript_fix()}")
    return [word.replace(TYPESCRIPT, folder) for word in command]


def readable(language: Language) -> list[str]:
    """Host paths outside ``/usr`` that the language's tools need."""
    paths = [path for pattern in language.configuration for path in sorted(glob.glob(pattern))]
    folder = typescript() if language.code == "ts" else None
    return paths if folder is None else [*paths, folder]
