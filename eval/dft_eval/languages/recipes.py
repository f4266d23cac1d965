"""How each language's programs are compiled, run and checked.

Two harnesses; the result names the one used:

* ``official``: github.com/nuprl/MultiPL-E, ``evaluation/src/eval_*.py``.
* ``qwen``: github.com/QwenLM/Qwen2.5-Coder at d5ead97, ``multiple-eval/human_eval/execution.py``.

The commands are theirs, plus heap sizes (``sandbox`` has the other memory limits), a driver that
proves that the tests ran to their end (``drivers/``), and tsc's ``--skipDefaultLibCheck``, which
more than halves its time.

Departures in both: Mono's ``mcs`` replaces ``csc``, which Debian does not have; limits are of
processor time, so that a busy machine changes no verdict; a program that crashes or exits before
its tests end fails (Qwen's harness passes JavaScript that exits silently with any status). C# that
crashes passes under ``qwen``, as it does there, and the result counts such programs. Departures
from ``qwen`` alone: numpy is not imported (programs run without packages), and C++ is not linked
with OpenSSL, which one problem (MD5) needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from dft_eval.sandbox import Limits

Harness = Literal["official", "qwen"]
HARNESSES: tuple[Harness, ...] = get_args(Harness)

MIB = 1024 * 1024
TYPESCRIPT = "@typescript"
"""Placeholder in a command for the npm package's folder on this machine."""

Commands = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Recipe:
    """One harness's commands for a program.

    Attributes:
        attempts: command lists (compilers, then the program), tried until one passes.
        silent: a program that prints anything fails.
        crashes_pass: an unhandled exception other than a failed assertion passes.
    """

    attempts: tuple[Commands, ...]
    silent: bool = False
    crashes_pass: bool = False


@dataclass(frozen=True)
class Language:
    """One language.

    Attributes:
        code: as in the names of the data files.
        source: name of the program's file.
        official: None for Python, which the sandbox runs itself.
        qwen: Qwen's recipe; None if it is the official one.
        drivers: files of ``drivers/`` copied beside the program.
        epilogue: file of ``drivers/`` appended to the program.
        complaints: a program whose standard error contains one of these texts fails.
        variables: environment of its programs.
        configuration: host paths outside ``/usr`` that its tools read.
        commands: tools required on the sandbox's PATH.
        files: glob patterns; each must match a file.
        packages: Debian 12 packages of the commands and files.
        trial: a program that passes if the tools work.
    """

    code: str
    title: str
    source: str
    official: Recipe | None = None
    qwen: Recipe | None = None
    drivers: tuple[str, ...] = ()
    epilogue: str | None = None
    complaints: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    configuration: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    trial: str = ""
    limits: Limits = field(default_factory=Limits)

    def recipe(self, harness: Harness) -> Recipe | None:
        """The recipe of a harness."""
        return (self.qwen if harness == "qwen" else None) or self.official


def _limits(
    processes: int, address_space_bytes: int | None = None, cpu_seconds: float = 15.0
) -> Limits:
    """The harnesses allow 15 s of wall time per command (Qwen's: 10 s), whatever the load."""
    return Limits(
        wall_seconds=180.0,
        cpu_seconds=cpu_seconds,
        memory_bytes=1024 * MIB,
        address_space_bytes=address_space_bytes,
        processes=processes,
    )


_GXX = ("g++", "prog.cpp", "driver.cpp", "-o", "prog", "-std=c++17", "-Wl,--wrap=main")
CPP = Language(
    code="cpp",
    title="C++",
    source="prog.cpp",
    official=Recipe(((_GXX, ("./prog",)),)),
    drivers=("driver.cpp",),
    commands=("g++",),
    packages=("g++",),
    trial="#include<assert.h>\n#include<bits/stdc++.h>\n"
    "int main() { assert(std::min(1, 2) == 1); }",
    limits=_limits(processes=64, address_space_bytes=2048 * MIB),
)

_JAR = "/usr/share/java/javatuples.jar"
_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:-UsePerfData")
_JAVAC = (
    "javac",
    *(f"-J{option}" for option in (*_JVM, "-XX:TieredStopAtLevel=1")),
    *("-encoding", "UTF8", "-cp", _JAR, "-d", ".", "Problem.java", "DftDriver.java"),
)
_JAVA = ("java", "-ea", *_JVM, "-cp", f".:{_JAR}", "DftDriver")
JAVA = Language(
    code="java",
    title="Java",
    source="Problem.java",
    official=Recipe(((_JAVAC, _JAVA),)),
    drivers=("DftDriver.java",),
    configuration=("/etc/java-*-openjdk",),
    commands=("javac", "java"),
    files=(_JAR,),
    packages=("default-jdk-headless", "libjavatuples-java"),
    trial="import org.javatuples.*;\nclass Problem { public static void main(String[] args) {"
    " assert Pair.with(1, 2).getValue1() == 2; } }",
    # Its compiler threads use processor time as well.
    limits=_limits(processes=128, cpu_seconds=30.0),
)

_PHP = (
    *("php", "-d", "auto_prepend_file=./dft_prologue.php"),
    *("-d", "auto_append_file=./dft_epilogue.php", "prog.php"),
)
PHP = Language(
    code="php",
    title="PHP",
    source="prog.php",
    official=Recipe(((_PHP,),)),
    drivers=("dft_prologue.php", "dft_epilogue.php"),
    configuration=("/etc/php",),
    commands=("php",),
    files=("/usr/lib/php/*/mbstring.so",),
    packages=("php-cli", "php-mbstring"),
    trial="<?php if (mb_strlen('ab') !== 2) { throw new Exception('Test failed!'); }",
    limits=_limits(processes=64, address_space_bytes=1024 * MIB),
)

_NODE = ("node", "--max-old-space-size=512")
_RUN_JS = (*_NODE, "--require", "./dft_prologue.js", "prog.js")


def _tsc(*options: str) -> tuple[str, ...]:
    return (*_NODE, f"{TYPESCRIPT}/lib/tsc.js", *options, "--skipDefaultLibCheck", "prog.ts")


TYPESCRIPT_LANGUAGE = Language(
    code="ts",
    title="TypeScript",
    source="prog.ts",
    official=Recipe(((_tsc("--target", "esnext"), _RUN_JS),)),
    qwen=Recipe(((_tsc("--target", "ES2015", "--lib", "ES2015,DOM"), _RUN_JS), (_tsc(), _RUN_JS))),
    drivers=("dft_prologue.js",),
    commands=("node",),
    packages=("nodejs", "npm"),
    trial="declare var require: any;\nlet n: number = 2;\nrequire('node:assert').equal(n, 2);",
    limits=_limits(processes=64, cpu_seconds=30.0),
)

JAVASCRIPT = Language(
    code="js",
    title="JavaScript",
    source="prog.js",
    official=Recipe(((_RUN_JS,),)),
    qwen=Recipe(((_RUN_JS,),), silent=True),
    drivers=("dft_prologue.js",),
    commands=("node",),
    packages=("nodejs",),
    trial="require('node:assert').equal([1, 2].length, 2);",
    limits=_limits(processes=64),
)


def _cs(*options: str) -> Commands:
    compiler = ("mcs", "/d:DEBUG", *options, "/out:prog.exe", "-main:DftDriver")
    return ((*compiler, "prog.cs", "driver.cs"), ("mono", "prog.exe"))


CSHARP = Language(
    code="cs",
    title="C#",
    source="prog.cs",
    official=Recipe((_cs("-r:System.Numerics.dll"),)),
    # Qwen's harness fails a compiled program only for "Fail" in its standard error or its time.
    qwen=Recipe((_cs(),), crashes_pass=True),
    drivers=("driver.cs",),
    # Mono goes on after a failed assertion and exits with 0.
    complaints=("System.Diagnostics.DefaultTraceListener.Fail", "Unhandled Exception"),
    variables={"MONO_TRACE_LISTENER": "Console.Error", "MONO_GC_PARAMS": "max-heap-size=512m"},
    configuration=("/etc/mono",),
    commands=("mcs", "mono"),
    files=("/usr/lib/mono/4.*/System.Core.dll", "/usr/lib/mono/4.*/System.Numerics.dll"),
    packages=(
        *("mono-mcs", "mono-runtime"),
        *("libmono-system-core4.0-cil", "libmono-system-numerics4.0-cil"),
    ),
    trial="using System.Diagnostics;\nusing System.Linq;\nclass Problem {"
    " public static void Main(string[] args) { Debug.Assert(new int[]{1, 2}.Sum() == 3); } }",
    limits=_limits(processes=64),
)

_BASH = (("bash", "prog.sh"),)
BASH = Language(
    code="sh",
    title="Bash",
    source="prog.sh",
    official=Recipe((_BASH,)),
    drivers=("dft_prologue.sh",),
    epilogue="dft_epilogue.sh",
    variables={"BASH_ENV": "./dft_prologue.sh"},
    commands=("bash", "bc"),
    packages=("bash", "bc"),
    trial='set -e\n[[ $(echo "1 + 2" | bc) = "3" ]]\n',
    # A recursive function called as $(f ...) is one process per level.
    limits=_limits(processes=256, address_space_bytes=1024 * MIB),
)

PYTHON = Language(
    code="python",
    title="Python",
    source="",
    limits=_limits(processes=32, address_space_bytes=1024 * MIB),
)

#: In the order of the paper's table.
LANGUAGES: dict[str, Language] = {
    language.code: language
    for language in (PYTHON, CPP, JAVA, PHP, TYPESCRIPT_LANGUAGE, CSHARP, BASH, JAVASCRIPT)
}
