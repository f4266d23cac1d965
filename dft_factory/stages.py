"""What the scripts are made of: one training run, and lines that say what happens."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from dft_eval.errors import EvaluationError
from dft_eval.progress import Progress
from dft_eval.results import atomic_write
from dft_factory.errors import DftFactoryError

STAMP = "trained.json"
"""In the folder of a finished training: what it was made of."""


def say(text: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"dft-factory: {text}\n")
    sys.stderr.flush()


def run_or_exit(work: Callable[[], object]) -> None:
    """Run a script's work; an error of ours is said in one line, with its exit status."""
    try:
        work()
    except EvaluationError as error:
        say(str(error))
        sys.exit(error.exit_status)
    except DftFactoryError as error:
        say(str(error))
        sys.exit(1)


def percent(score: float | None, stderr: float | None) -> str:
    """``12.3 % ± 4.5``, or that there is none."""
    if score is None:
        return "unscored"
    return f"{100 * score:5.1f} %" + ("" if stderr is None else f" ± {100 * stderr:.1f}")


def command(name: str) -> str:
    """A command of the environment that runs this."""
    return str(Path(sys.executable).parent / name)


def run_logged(
    words: Sequence[str],
    log: Path,
    steps: Path | None,
    title: str,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command with its output in ``log``; follow LLaMA-Factory's step log if there is one.

    Args:
        environment: put over that of this process.

    Raises:
        DftFactoryError: it failed; the message ends with the last lines of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream, Progress(title) as progress:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        try:
            while process.poll() is None:
                time.sleep(1)
                if steps is not None and steps.is_file():
                    lines = steps.read_text(encoding="utf-8").split("\n")[:-1]
                    if lines:
                        last = json.loads(lines[-1])
                        progress(last["current_steps"], last["total_steps"])
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise DftFactoryError(f"`{' '.join(words)}` failed; the end of {log}:\n{tail}")


def train(
    label: str,
    config: Path,
    overrides: Sequence[str],
    folder: Path,
    inputs: Sequence[Path],
    environment: Mapping[str, str] | None = None,
) -> Path:
    """One run of ``llamafactory-cli train``, skipped if it is done; gives its model folder.

    Args:
        overrides: words after the YAML.
        folder: of this model: its log and scores; ``folder/model`` holds the weights, unless the
            folder itself is the YAML's ``output_dir``.
        inputs: files that it depends on. Where one changed, everything in ``folder`` is made anew:
            completions and results of another model must not survive it.
        environment: of the command, put over that of this process.
    """
    written = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings = dict(each.split("=", 1) for each in overrides)
    model = Path(settings.get("output_dir", written["output_dir"]))
    stamp = folder / STAMP
    parts = [config.read_bytes(), "\n".join(overrides).encode(), *(p.read_bytes() for p in inputs)]
    wanted = hashlib.sha256(b"\0".join(parts)).hexdigest()
    if stamp.is_file() and json.loads(stamp.read_text()).get("fingerprint") == wanted:
        say(f"{label}: trained already, {model} is reused")
        return model
    shutil.rmtree(folder, ignore_errors=True)
    words = [command("llamafactory-cli"), "train", str(config), *overrides]
    say(" ".join(["llamafactory-cli", *words[1:]]))
    started = time.monotonic()
    steps = model / "trainer_log.jsonl"
    run_logged(words, folder / "train.log", steps, f"{label}: training steps", environment)
    seconds = round(time.monotonic() - started)
    atomic_write(stamp, json.dumps({"fingerprint": wanted, "seconds": seconds}) + "\n")
    say(f"{label}: trained in {seconds} s")
    return model
