"""Runs of ``llamafactory-cli`` that begin where its imports end.

Nine tenths of a short run are imports, the same in each. A server imports them once; each run is a
fork of it that sets its environment and arguments, calls the command's own entry point and ends as
an interpreter ends. Ranks get the variables that torchrun would give them. What is about the way
into a process, or about its environment, starts a process of its own instead
(``train(..., fresh=True)``).
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

PLUGIN = Path(__file__).parent / "torch_plugin"
"""An entry point that records gradients, for PYTHONPATH."""

_lock = threading.Lock()
_server: _Server | None = None


def python_path() -> str:
    """The recorder, then whatever the tests themselves were started with."""
    return os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH", "")]))


def _without_records(environment: dict[str, str]) -> dict[str, str]:
    """The server's own import of torch must record nothing: every fork would inherit that."""
    return {key: value for key, value in environment.items() if not key.startswith("RECORD_")}


class _Server:
    def __init__(self, environment: dict[str, str]) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="warm-")
        self.path = str(Path(self.folder.name) / "socket")
        self.log = Path(self.folder.name) / "log"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(16)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(listener.fileno())],
                env={**_without_records(environment), "PYTHONPATH": python_path()},
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        listener.close()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def run(
    words: list[str],
    environment: dict[str, str],
    *,
    stdin: str = "",
    ranks: int = 1,
    timeout: float,
) -> tuple[int, str]:
    """Exit status and output of ``llamafactory-cli words``.

    Raises:
        subprocess.TimeoutExpired: every process of the run was killed.
    """
    global _server
    with _lock:
        if _server is None or _server.process.poll() is not None:
            _server = _Server(environment)
            atexit.register(_server.stop)
        server = _server
    with (
        tempfile.NamedTemporaryFile("r", dir=server.folder.name, errors="replace") as output,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.settimeout(timeout)
        connection.connect(server.path)
        task = {
            "words": words,
            "environment": environment,
            "folder": str(Path.cwd()),
            "ranks": ranks,
            "output": output.name,
            "stdin": stdin,
        }
        stream = connection.makefile("rw")
        stream.write(json.dumps(task) + "\n")
        stream.flush()
        group = 0
        try:
            group = int(stream.readline() or 0)
            status = stream.readline()
        except ConnectionError:
            status = ""
        except TimeoutError as error:
            if group:
                os.killpg(group, signal.SIGKILL)
            raise subprocess.TimeoutExpired(words, timeout, output.read()) from error
        text = output.read()
    assert status, f"the server of warm runs ended: {server.log.read_text()[-4000:]}\n{text}"
    return int(status), text


# --- in the server ----------------------------


def _accept(listener: socket.socket) -> dict[str, Any]:
    """Returns in the forks that are to run something, never in the server itself."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _handle(connection)
        connection.close()


def _handle(connection: socket.socket) -> dict[str, Any]:
    """Forks the ranks in a session of their own, waits for them, answers group and status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    stream = connection.makefile("rw")
    task = json.loads(stream.readline())
    ranks = set()
    for rank in range(task["ranks"]):
        process = os.fork()
        if process == 0:
            connection.detach()
            return {**task, "rank": rank}
        ranks.add(process)
    stream.write(f"{os.getpid()}\n")
    stream.flush()
    worst = 0
    while ranks:
        process, status = os.wait()
        ranks.discard(process)
        if status and not worst:
            worst = os.waitstatus_to_exitcode(status)
            for other in ranks:
                os.kill(other, signal.SIGTERM)
    stream.write(f"{worst}\n")
    stream.flush()
    os._exit(0)


def _main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    import torch  # noqa: F401, I001  activates dft-factory, before anything imports llamafactory
    import deepspeed  # noqa: F401
    import timm  # noqa: F401  transformers imports it when it loads its first model
    import llamafactory.cli
    import llamafactory.launcher
    import llamafactory.train.sft.workflow
    import llamafactory.train.tuner
    import transformers.models.qwen2.modeling_qwen2
    import transformers.models.qwen2_5_vl.modeling_qwen2_5_vl
    import transformers.models.qwen2_5_vl.processing_qwen2_5_vl  # noqa: F401

    gc.freeze()
    task = _accept(listener)
    os.environ.clear()
    os.environ.update(task["environment"])
    os.chdir(task["folder"])
    file = os.open(task["output"], os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    typed = os.memfd_create("stdin")
    os.write(typed, task["stdin"].encode())
    os.lseek(typed, 0, os.SEEK_SET)
    os.dup2(typed, 0)
    if task["ranks"] > 1:
        rank, world = str(task["rank"]), str(task["ranks"])
        os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, LOCAL_WORLD_SIZE=world)
    import gradient_recorder

    gradient_recorder.activate()
    if task["ranks"] == 1:
        sys.argv = ["llamafactory-cli", *task["words"]]
        llamafactory.cli.main()
    else:  # as torchrun runs LLaMA-Factory's launcher
        sys.argv = [llamafactory.launcher.__file__, *task["words"][1:]]
        llamafactory.train.tuner.run_exp()


if __name__ == "__main__":
    _main()
