"""Does the learning rate put DFT at risk of collapse? A heuristic from a few measured trainings.

DFT sharpens what the model already believes. Where the learning rate is too high for that, its
greedy answers can shrink to a few tokens (``return n``) and its score fall below the base model's,
while the DFT loss looks fine. The data decide too: at 5e-5 code instructions collapsed, in 18 steps
of batch 8 and in 10 of batch 32 alike, and word problems did not.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

LEARNING_RATE = 3e-5
"""From here on DFT is at risk: between 2e-5, where no known training collapsed, and 5e-5."""

SAFE_BATCH = 128
"""Examples a step from which the risk is unknown: between 32, which collapsed at 5e-5, and 256,
with which the paper trains at 5e-5 and reports gains, on models ten times as large and more."""


HEADLINES = {True: "at risk", False: "no known risk", None: "unknown"}


@dataclass(frozen=True)
class Plan:
    """What a training YAML asks for.

    Attributes:
        batch: examples a step, on one process.
        full: whether all parameters are trained.
    """

    learning_rate: float
    batch: int
    n_examples: int
    steps: int
    full: bool


@dataclass(frozen=True)
class Training:
    """A finished DFT training: what it was, whether it collapsed, and where that is from.

    Collapsed: DFT's score below the base model's by more than the 95 % interval of the difference.
    """

    data: str
    plan: Plan
    collapsed: bool
    source: str


_DEMO = "code instructions (configs/demo)"
_PYTHON = "one-line Python functions (configs/study)"
_WORDS = "word problems (configs/study)"
_PREFIX = "word problems in prefix notation (configs/study)"
_WRONG = "word problems with wrong results (configs/study)"
_MEASURED = "measured, SmolLM2-135M,"
_BF16 = f"{_MEASURED} bf16, python-basics greedy:"
_FIRST = f"{_MEASURED} float32, study/first greedy, one seed:"
_FIRST_WORDS = f"{_MEASURED} float32, study/first_words greedy, one seed:"


def _small(learning_rate: float, n_examples: int, steps: int, batch: int = 8) -> Plan:
    return Plan(learning_rate, batch, n_examples, steps, full=True)


TRAININGS = (
    Training(_DEMO, _small(1e-5, 144, 18), False, f"{_BF16} base 40.0, DFT 43.3"),
    Training(
        _DEMO,
        _small(2e-5, 144, 18),
        False,
        f"{_BF16} base 40.0, DFT 31.7, within the interval",
    ),
    Training(
        _DEMO,
        _small(5e-5, 144, 18),
        True,
        f"{_BF16} base 40.0, DFT 10.0; scored in float32 48.3, 10.0",
    ),
    Training(_DEMO, _small(5e-5, 144, 10, batch=32), True, f"{_BF16} base 40.0, DFT 15.0"),
    Training(
        _DEMO,
        _small(5e-5, 144, 18),
        False,
        f"{_MEASURED} float32, another processor: base 48.3, DFT 38.3",
    ),
    Training(_PYTHON, _small(1e-5, 144, 18), False, f"{_FIRST} base 22.0, DFT 31.0"),
    Training(
        _PYTHON,
        _small(5e-5, 160, 20),
        False,
        f"{_FIRST} base 22.0, DFT 21.0, 19 points below SFT",
    ),
    Training(_WORDS, _small(1e-5, 144, 18), False, f"{_FIRST_WORDS} base 34.0, DFT 70.0"),
    Training(_WORDS, _small(5e-5, 144, 18), False, f"{_FIRST_WORDS} base 34.0, DFT 72.0"),
    Training(_PREFIX, _small(1e-5, 144, 18), False, f"{_FIRST_WORDS} base 34.0, DFT 52.0"),
    Training(_PREFIX, _small(5e-5, 144, 18), False, f"{_FIRST_WORDS} base 34.0, DFT 54.0"),
    Training(_WRONG, _small(1e-5, 144, 18), False, f"{_FIRST_WORDS} base 34.0, DFT 69.0"),
    Training(_WRONG, _small(5e-5, 144, 18), False, f"{_FIRST_WORDS} base 34.0, DFT 64.0"),
    Training(
        "NuminaMath-CoT",
        Plan(5e-5, 256, 100_000, 390, full=True),
        False,
        "reported, the DFT paper: models of 1.5 to 8 billion parameters gain",
    ),
)
"""What the rule rests on; ``benchmarks/collapse.py`` holds it against further trainings."""


@dataclass(frozen=True)
class Risk:
    """Whether DFT is at risk of collapse; None where no known training is like this one."""

    plan: Plan
    at_risk: bool | None
    reason: str

    @property
    def headline(self) -> str:
        """In three words at most."""
        return HEADLINES[self.at_risk]

    def to_json(self) -> dict[str, object]:
        """As ``probe.json`` holds it."""
        return {
            **asdict(self.plan),
            "at_risk": self.at_risk,
            "reason": self.reason,
            "learning_rate_from": LEARNING_RATE,
            "batch_below": SAFE_BATCH,
            "evidence": [asdict(training) for training in TRAININGS],
            "heuristic": True,
        }


def nearest(plan: Plan) -> Training:
    """The known training with the most similar learning rate, then batch (as ratios)."""

    def distance(known: Plan) -> tuple[float, float]:
        return (
            abs(math.log(known.learning_rate / plan.learning_rate)),
            abs(math.log(known.batch / plan.batch)),
        )

    return min(TRAININGS, key=lambda training: distance(training.plan))


def at_risk(plan: Plan) -> bool | None:
    """The rule itself; None for trainings of which none is known."""
    if plan.learning_rate < LEARNING_RATE:
        return False
    return True if plan.full and plan.batch < SAFE_BATCH else None


def risk_of(plan: Plan) -> Risk:
    """Whether DFT (``dft_weight: token``) with these settings is at risk of collapse."""
    risk, known = at_risk(plan), nearest(plan)
    alike = [training.collapsed for training in TRAININGS if at_risk(training.plan) == risk]
    share = f"{sum(alike)} of the {len(alike)} known trainings"
    text = (
        f"learning_rate {plan.learning_rate:g} with {plan.batch} examples a step ({plan.steps} "
        f"steps over {plan.n_examples} examples)"
    )
    if risk is None:
        text += (
            f" is above {LEARNING_RATE:g}, from which on small models collapsed with fewer than "
            f"{SAFE_BATCH} examples a step and all parameters trained; of such a training as this "
            "one no collapse is known."
        )
    elif risk:
        text += (
            f" is in the range (from {LEARNING_RATE:g} on, below {SAFE_BATCH} examples a step) in "
            f"which {share} collapsed. Train with learning_rate: 1e-5 or dft_weight: floor:0.1 "
            "too, and let an evaluation decide."
        )
    else:
        text += f" is below {LEARNING_RATE:g}, where {share} collapsed."
    outcome = "it collapsed" if known.collapsed else "it did not collapse"
    text += (
        f" Nearest known training: {known.data}, {known.plan.learning_rate:g}, batch "
        f"{known.plan.batch}: {outcome} ({known.source}). Almost all known trainings are of one "
        "small model."
    )
    return Risk(plan, risk, text)
