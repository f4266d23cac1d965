"""A server to be started by ``--serve-command``, with the faults that servers have.

``python -m tests.support.scripted_server --port P --names MODEL... [faults]``. It answers ``MODEL
says PROMPT``. Like an engine it has a worker process, in a session of its own and deaf to SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from tests.support.openai_server import FakeServer, serve

WORKER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(900)"


class Scripted(FakeServer):
    """Names the model in its answers, and ends at one of them."""

    ends_at: int | None = None
    seconds: float = 0.0

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.ends_at is not None and self.posts >= self.ends_at:
            sys.stderr.write("RuntimeError: the engine core died\n")
            sys.stderr.flush()
            os._exit(7)
        time.sleep(self.seconds)
        if body["max_tokens"] > 1:
            print("asked", body["messages"][-1]["content"], flush=True)
        self.answer = lambda prompt: f"{body['model']} says {prompt}"
        return super().reply(path, body)


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--names", nargs="+", required=True)
    parser.add_argument("--pids", help="file that gets the ids of its processes")
    parser.add_argument("--seen", help="takes the {model} of a command that serves another")
    parser.add_argument("--start-seconds", type=float, default=0.0)
    parser.add_argument("--fails", choices=["crash", "memory", "killed"])
    parser.add_argument("--ends-at", type=int)
    parser.add_argument("--answer-seconds", type=float, default=0.0)
    args = parser.parse_args(words)
    print("keys:", [name for name in os.environ if name.endswith("_API_KEY")], flush=True)
    worker = subprocess.Popen([sys.executable, "-c", WORKER], start_new_session=True)
    if args.pids:
        with open(args.pids, "a", encoding="ascii") as stream:
            stream.write(f"{os.getpid()} {worker.pid}\n")
    time.sleep(args.start_seconds)
    if args.fails == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if args.fails == "memory":
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
        print("noise\n" * 40, flush=True)
    if args.fails:
        raise ValueError("this model cannot be served")
    state = Scripted(str, models=tuple(args.names), talks=False)
    state.ends_at, state.seconds = args.ends_at, args.answer_seconds
    with serve(state, args.port):
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
