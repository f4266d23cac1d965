"""The only code that runs model-written programs: a sandbox with limits and a watchdog.

:func:`check_program` judges a Python program against its tests, :func:`check_commands` compiles and
judges a program of any language (``dft_eval.languages`` has the recipes and limits), :func:`run`
runs any command, :func:`check` proves that the sandbox works on this machine and names it. All of
them are synchronous and thread-safe.

``backends.py`` has the sandboxes, each with what it protects from and what not: bubblewrap,
Landlock for containers that may not create namespaces, and docker or podman. :func:`select` chooses
one for this process. The rest of this text describes bubblewrap; ``landlock.py`` describes the
second one.

How a program is contained
--------------------------
* Its own namespaces for users, processes, network (only an unconfigured loopback), IPC, host name
  and cgroups; no capabilities, and no user namespaces to regain them.
* Its own root: ``/usr`` and the loader's files, read-only, and an empty, sized ``/work``. Home,
  ``/etc/passwd`` and the environment do not exist. Nothing else can be written, and nothing is
  created on the host's file system: program and secrets travel over a pipe.
* As root, bubblewrap itself runs as uid 65534: the kernel exempts root from RLIMIT_NPROC.
* Compilers run inside as well: macros, templates and ``#include`` can attack them.
* ``launcher.py`` sets the limits (:class:`Limits`) inside the namespaces. Resident memory, number
  of files, wall time and output are watched from outside. A breach kills the namespace's first
  process, and with it all others.
* RLIMIT_AS and the watchdog bound memory. Runtimes that reserve far more than they use (JVM, V8,
  Mono) have a heap limit instead of RLIMIT_AS.
* ``seccomp.py`` refuses system calls: those that use memory which no limit counts, those that
  access other processes, and some that only enlarge the kernel's attack surface. Sockets are
  AF_UNIX, AF_INET and AF_INET6 only, since AF_VSOCK ignores network namespaces.

How a program is judged
-----------------------
Over its own pipe, which output cannot flood, the launcher reports one random secret before model
code runs and another after model code *and* tests have run to their end. Without the first secret
the sandbox failed and the item is unscored; with the first alone the program is wrong, whatever its
exit status. A program that exits with status 0 before the tests does not pass.

In other languages a driver beside the program reads two secrets from standard input before model
code runs (Bash: moves them away), so that the program's standard input is empty, and prints them in
reverse order after the tests. No file, variable, command line or open pipe contains that text. In
C++, Java, C# and JavaScript only a search of memory or of the stack finds the secrets; PHP keeps
them in a closure and Bash in descriptor 199, which a program that knows the driver can read. Until
the last command starts, only the launcher has them, whose memory is closed (not dumpable) to
processes beside it, compilers included.

What this does not protect from
-------------------------------
* In MultiPL-E, tests and model code share a process. A program that searches its interpreter
  (frames, ``gc``, memory) for the second secret or imitates its driver can fake a pass. Objects
  that equal everything, and disarmed assertions (``NDEBUG``, ``Debug.Listeners.Clear()``, another
  ``assert``), pass careless tests. The marker stops accidents and common tricks, not a determined
  forger. HumanEval, HumanEval+ and python-basics compare outputs outside the sandbox.
* Bugs in the kernel or in bubblewrap; side channels (timing, caches, load); what is readable below
  ``/usr`` or the interpreter's prefix.
* Contention: programs share the processors. It costs time, not verdicts: a program fails for its
  processor time only. One that the generous wall limit ends earlier runs again alone, and is
  unscored if that ends it too.
* Between two samples of the watchdog (50 ms; more on a busy machine) a program can exceed its
  limits of memory and files. Kernel memory of pipes and sockets is bounded only by the number of
  open files and processes.
* Before Linux 5.14 RLIMIT_NPROC counts all processes of a user together; there only the watchdog
  counts them. On machines other than x86-64 and AArch64 no system call is refused.

The interpreter has no site-packages: a program that imports numpy fails.
"""

from dft_eval.sandbox.backends import BACKENDS, SANDBOXES, UNCONFINED
from dft_eval.sandbox.cpus import judge_each, judge_workers
from dft_eval.sandbox.interface import Sandbox
from dft_eval.sandbox.limits import (
    ALL_PROTECTIONS,
    NO_SANDBOX,
    Completed,
    KilledFor,
    Limits,
    Protections,
)
from dft_eval.sandbox.probe import prove
from dft_eval.sandbox.runner import check_commands, check_program, run
from dft_eval.sandbox.selection import check, select

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
    "judge_each",
    "judge_workers",
    "prove",
    "run",
    "select",
]
