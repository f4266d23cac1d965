"""Which compilers and interpreters this machine has, and how to get the others."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from dft_eval.languages.recipes import TYPESCRIPT, Language
from dft_eval.requirements import MissingRequirement
from dft_eval.sandbox import host
from dft_eval.sandbox.command import ENVIRONMENT

TYPESCRIPT_PACKAGE = "typescript@5.9"
"""TypeScript 7 is another compiler."""
_CHECKOUT = Path(__file__).parents[3]


def find_command(name: str) -> str | None:
    """Path of a tool on the sandbox's own PATH, which is below ``/usr``."""
    return shutil.which(name, path=ENVIRONMENT["PATH"])


def _typescript_folders() -> list[Path]:
    folders = [_CHECKOUT / ".toolchains" / "node_modules" / "typescript"]
    on_path = shutil.which("tsc")
    if on_path is not None:
        folders.append(Path(os.path.realpath(on_path)).parent.parent)
    return folders


@lru_cache(maxsize=1)
def typescript() -> str | None:
    """The npm package's folder, readable by the sandbox's user; None if it is not installed."""
    for folder in _typescript_folders():
        if (folder / "lib" / "tsc.js").is_file():
            try:
                test = subprocess.run(
                    ["test", "-r", str(folder / "lib" / "_tsc.js")],
                    check=False,
                    **host.user_options(),
                )
            except OSError:
                continue
            if test.returncode == 0:
                return str(folder)
            return str(host.stage({"lib": folder / "lib", "package.json": folder / "package.json"}))
    return None


def missing_toolchain(language: Language) -> MissingRequirement | None:
    """What is missing to judge programs of this language here, or None."""
    missing = [name for name in language.commands if find_command(name) is None]
    missing += [pattern for pattern in language.files if not glob.glob(pattern)]
    if missing:
        path = ENVIRONMENT["PATH"].replace(":", ", ")
        return MissingRequirement(
            f"{language.title}: {', '.join(missing)} not found (commands are searched in {path})",
            f"apt-get install {' '.join(language.packages)}",
            blocks=False,
        )
    if language.code == "ts" and typescript() is None:
        return MissingRequirement("TypeScript: tsc not found", _typescript_fix(), blocks=False)
    return None


def _typescript_fix() -> str:
    if (_CHECKOUT / "scripts" / "toolchains.sh").is_file():
        return f"npm install --prefix {_CHECKOUT / '.toolchains'} {TYPESCRIPT_PACKAGE}"
    return f"npm install --global {TYPESCRIPT_PACKAGE}"


def version(language: Language) -> str:
    """Versions of its tools as they print them, such as ``g++ (Debian 12.2.0) 12.2.0``."""
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
        process = subprocess.run(
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
    lines = (process.stdout or process.stderr).strip().splitlines()
    return lines[0] if lines else command[0]


def resolve(command: tuple[str, ...]) -> list[str]:
    """A recipe's command with this machine's paths filled in.

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
