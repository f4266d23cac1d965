"""Trusted first program inside the sandbox: sets the limits, then runs the job.

Its *source* is passed to ``python -I -S -B -c``; the evaluation never imports it. Standard library
only. Everything it uses is bound before model code could replace it.

It stays process 1 of the namespace, which its children cannot kill, and reaps them. A child sets
its own limits and does the work; when it ends, process 1 ends, and all others with it. Commands (a
compiler, then the program) run one after the other, each in its own child.

Arguments: the numbers of two inherited pipes. The first has the job, which is read before model
code runs; the second takes the launcher's markers. In a container, which passes no other
descriptors, they are standard input (the program's input follows the job) and standard error.
Job: 8 bytes (big endian) length of the JSON header, the header, then the files' bytes one by one.
"""

import json
import os
import resource
import signal
import sys
from typing import Any, NoReturn

PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 4, 22, 36, 38
SECCOMP_MODE_FILTER = 2
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_RULE_PATH_BENEATH = 1


def set_limits(limits: dict[str, list[int]]) -> None:
    """Apply ``{"RLIMIT_X": [soft, hard]}``, never above our own hard limits."""
    for name, values in limits.items():
        which = getattr(resource, name)
        ceiling = resource.getrlimit(which)[1]
        bounded = [v if ceiling == resource.RLIM_INFINITY else min(v, ceiling) for v in values]
        resource.setrlimit(which, (bounded[0], bounded[1]))


def confine(rules: dict[str, Any] | None) -> None:
    """Without bubblewrap: restrict what this process and its children may open and call, for good.

    ``{"ruleset": hex of struct landlock_ruleset_attr or None, "paths": [[path, rights], ...],
    "seccomp": hex of the BPF program or None}``. OSError if the kernel refuses.
    """
    if rules is None:
        return
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)

    def call(function: Any, *arguments: Any) -> int:
        result = function(*arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), f"{function.__name__}{arguments}")
        return int(result)

    call(libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if rules["ruleset"] is not None:
        attributes = bytes.fromhex(rules["ruleset"])
        ruleset = call(
            libc.syscall, LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0
        )
        for path, rights in rules["paths"]:
            try:
                descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            rule = struct.pack("=Qi", rights, descriptor)
            call(libc.syscall, LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0)
            os.close(descriptor)
        call(libc.syscall, LANDLOCK_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)
    if rules["seccomp"] is not None:
        program = bytes.fromhex(rules["seccomp"])
        buffer = ctypes.create_string_buffer(program)
        header = struct.pack(
            "@HP", len(program) // 8, ctypes.addressof(buffer)
        )  # struct sock_fprog
        call(libc.prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0)


def adopt_orphans() -> None:
    """Without a PID namespace: processes whose parent ended become our children."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans() -> None:
    """Kill and reap all remaining descendants; we adopt each one's children in turn."""
    while True:
        with open("/proc/thread-self/children", encoding="ascii") as stream:
            pids = [int(word) for word in stream.read().split()]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def read_exactly(descriptor: int, size: int) -> bytes:
    """The next ``size`` bytes; the rest of standard input belongs to the program."""
    data = bytearray()
    while len(data) < size:
        chunk = os.read(descriptor, min(size - len(data), 2**20))
        if not chunk:
            sys.exit("the job ended early")
        data += chunk
    return bytes(data)


def write_files(files: list[list[Any]], blobs: bytes) -> None:
    """Write ``[[relative path, size], ...]`` into the working directory."""
    offset = 0
    for name, size in files:
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as stream:
            stream.write(blobs[offset : offset + size])
        offset += size


def run_commands(job: dict[str, Any], report: int) -> NoReturn:
    """Run the commands until one fails; end with its status, 128 + n for signal n.

    The last one reads ``job["input"]``, the others nothing; without an input (None) all read our
    standard input. Until then the input is only in our memory, which ``PR_SET_DUMPABLE`` closes to
    processes beside us.
    """
    import ctypes
    import shutil

    commands, text = job["commands"], job["input"]
    missing = [c[0] for c in commands if "/" not in c[0] and shutil.which(c[0]) is None]
    if missing:
        sys.exit(f"no program {missing[0]!r} in the sandbox (PATH={os.environ.get('PATH', '')})")
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.set_inheritable(report, False)
    for number, command in enumerate(commands):
        is_last = number == len(commands) - 1
        stdin = None if text is None else pipe_with(text if is_last else "")
        worker = os.fork()
        if worker == 0:
            if stdin is not None:
                os.dup2(stdin, 0)
            confine(job["confinement"])
            set_limits(job["limits"])
            if number == 0:
                os.write(report, job["start"].encode())
            os.execvp(command[0], command)
        if stdin is not None:
            os.close(stdin)
        status = wait_for(worker)
        if status == 0:
            os.write(report, job["step"].encode())
        if status != 0 or is_last:
            leave(job, status)
    raise AssertionError("no command")


def leave(job: dict[str, Any], status: int) -> NoReturn:
    """Exit with ``status``, after ending what the program left running."""
    if job["confinement"] is not None:
        end_orphans()
    os._exit(status)


def pipe_with(text: str) -> int:
    """The reading end of a pipe with ``text`` (less than a pipe's capacity)."""
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    return reading


def run_python(
    solution: str, test: str, limits: dict[str, list[int]], report: int, start: bytes, finish: bytes
) -> NoReturn:
    """Run solution and test in one module; the finish marker only if both ran to their end.

    The test is compiled first: a broken test must not make a program wrong.
    """
    import site
    import traceback
    import types

    site.setquit()  # exit() and quit(), which -S leaves out
    execute, write, leave, own_pid = exec, os.write, os._exit, os.getpid
    checked = compile(test, "<test>", "exec", dont_inherit=True)
    module = types.ModuleType(
        "candidate"
    )  # as in HumanEval, not "__main__": guarded blocks do not run
    sys.modules["candidate"] = module
    sys.argv[:] = ["candidate"]
    me = own_pid()
    set_limits(limits)
    write(report, start)
    try:
        execute(compile(solution, "<solution>", "exec", dont_inherit=True), module.__dict__)
        execute(checked, module.__dict__)
        sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException:
        try:
            traceback.print_exc()
            sys.stdout.flush()
        finally:
            leave(1)
    if own_pid() == me:  # not in a forked child
        write(report, finish)
    leave(0)


def wait_for(worker: int) -> int:
    """Reap children until ``worker`` ends; its status, 128 + n for signal n."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a handler process 1 ignores it
    while True:
        ended, status = os.wait()
        if ended == worker:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def main() -> None:
    """Read the job, close its pipe, run it in a child."""
    control, report = int(sys.argv[1]), os.dup(int(sys.argv[2]))
    if int(sys.argv[2]) > 2:
        os.close(int(sys.argv[2]))
    job = json.loads(read_exactly(control, int.from_bytes(read_exactly(control, 8), "big")))
    write_files(job["files"], read_exactly(control, sum(size for _, size in job["files"])))
    if control > 2:
        os.close(control)
    if job["confinement"] is not None:
        adopt_orphans()
    if job["commands"]:
        run_commands(job, report)
    worker = os.fork()
    if worker:
        leave(job, wait_for(worker))
    confine(job["confinement"])
    start, finish, limits = job["start"].encode(), job["finish"].encode(), job["limits"]
    run_python(job["solution"], job["test"], limits, report, start, finish)


if __name__ == "__main__":
    main()
