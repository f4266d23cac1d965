"""The only code that runs model-written programs: a sandbox with limits and a watchdog.

:func:`check_program` judges one Python program against its tests, :func:`check_commands` compiles
and judges one of any language (``dft_eval.languages`` has a recipe and limits for each),
:func:`run` runs any command, :func:`check` proves before an evaluation that the sandbox works on
this machine, :func:`describe` names it for a report. All of them are synchronous and may be called
from several threads at once.

``backends.py`` has the sandboxes behind one interface, each with what it protects from and what
not: bubblewrap, Landlock where a container may not create namespaces, and docker or podman.
:func:`select` chooses one for this process. What follows is bubblewrap's; ``landlock.py`` says how
the second one holds a program.

How a program is held
---------------------
* Namespaces of its own for users, processes, network (no interface but an unconfigured loopback),
  IPC, host name and cgroups; no capabilities, and no user namespace to win them back in.
* A root of its own: ``/usr`` and what the loader needs, read-only; an empty, sized ``/work``. Home,
  ``/etc/passwd``, other checkouts and the environment are not there. Nothing else can be written,
  and a run creates nothing on the host's file system: program and secrets travel over a pipe.
* If we are root, bubblewrap itself starts as uid 65534: the kernel excuses root from RLIMIT_NPROC.
* Compilers run in there as well: macros, templates and ``#include`` can be turned against them.
* Limits (:class:`Limits`) set inside the namespaces by ``launcher.py``; resident memory, number of
  files, wall time and output are watched from outside, and a breach kills the namespace's first
  process, with which the kernel kills all others.
* Memory is bounded by RLIMIT_AS and the watchdog. Runtimes that reserve far more than they use
  (JVM, V8, Mono) have the heap size they are started with in place of the first.
* A list of system calls refused (``seccomp.py``): those which hold memory that no limit counts,
  those which look into other processes, and some which only enlarge the kernel's attack surface.
  Sockets are AF_UNIX, AF_INET and AF_INET6 alone: AF_VSOCK knows no network namespace.

How a program is judged
-----------------------
The launcher reports one random secret before model code runs and another once model code *and*
tests have run to their end, over a pipe of its own which output cannot flood. Without the first
secret the sandbox failed and the item is unscored; with the first alone the program is wrong,
whatever its exit status. A program that leaves with status 0 before the tests passes nothing.

In other languages a driver beside the program takes two secrets from standard input before model
code runs (in Bash: puts them out of its way), which then meets an empty one, and prints them
together, the second first, after the tests. No file, variable, command line or open pipe that a
program could print holds that text. C++, Java, C# and JavaScript hold the secrets where only a
search of memory, or of the stack, finds them; PHP in a closure and Bash in descriptor 199, which a
program that knows of the driver can use. Until the last command starts they are in the launcher
alone, which is closed (not dumpable) to what runs beside it, compilers included.

What this does not protect from
-------------------------------
* In MultiPL-E tests and model code share a process. A program that searches its own interpreter
  (frames, ``gc``, memory) for the second secret, or imitates its driver, can fake a pass, and one
  whose objects claim to equal everything, or that disarms its language's assertions (``NDEBUG``,
  ``Debug.Listeners.Clear()``, another ``assert``), satisfies careless tests. The marker stops
  accidents and usual tricks, not a determined forger. HumanEval, HumanEval+ and python-basics
  compare outputs out here.
* Bugs in the kernel or in bubblewrap; side channels (timing, caches, load); what is readable below
  ``/usr`` or the interpreter's own prefix.
* Contention: programs share the processors, and each may burn ``cpu_seconds`` per process. It costs
  time, not verdicts: a program is wrong for its processor time alone. One that the generous wall
  limit ends before it had that time runs again alone, and is unscored if that ends it too.
* The watchdog samples: between two looks (50 ms; more on a busy machine) a program can pass its
  limits of memory and files. Kernel memory of pipes and sockets is bounded only by the number of
  open files and processes.
* Before Linux 5.14 RLIMIT_NPROC counts all processes of a user together; there the watchdog alone
  counts them. On machines other than x86-64 and AArch64 no system call is refused.

The interpreter is a bare one, without site-packages: a program that imports numpy fails.
"""

from dft_eval.sandbox.backends import BACKENDS, SANDBOXES, UNCONFINED, Sandbox, select
from dft_eval.sandbox.cpus import judge_workers
from dft_eval.sandbox.limits import (
    ALL_PROTECTIONS,
    NO_SANDBOX,
    Completed,
    KilledFor,
    Limits,
    Protections,
)
from dft_eval.sandbox.probe import check, describe, prove
from dft_eval.sandbox.runner import check_commands, check_program, run

__all__ = [
    "ALL_PROTECTIONS",
    "BACKENDS",
    "NO_SANDBOX",
    "SANDBOXES",
    "UNCONFINED",
    "Completed",
    "KilledFor",
    "Limits",
    "Protections",
    "Sandbox",
    "check",
    "check_commands",
    "check_program",
    "describe",
    "judge_workers",
    "prove",
    "run",
    "select",
]
