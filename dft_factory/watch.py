"""Warnings during DFT training: what its own log shows and its loss hides.

DFT gives up on what the model finds improbable, and its loss falls while it does. Three rules look
at what is logged (field reports: NLL rises while the loss falls, DFT #6 and its author; end-of-turn
and format tokens are not learned, DFT's issues; from improbable data nothing is learned). A fourth,
:func:`collapse`, looks at evaluations on held-out data. Each speaks once.

Pure logic on numbers: no torch, no trainer. A rule on logs compares the first :data:`WINDOW` rows
with the last, against their own scatter, so that it neither depends on the scale of the data nor
fires on noise. Evaluations are of the same tokens each time and need no window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WINDOW = 8
"""Rows averaged at the start and at the end: enough for a scatter, and two windows fit into the
few dozen logged rows of a short run."""

SIGMAS = 5.0
"""Standard errors by which two windows must differ. A rule looks at every log, thousands of times a
run, and the scatter of 8 rows is itself uncertain: 2 would fire on noise."""

HOLDS = 4
"""Logs in a row at which a rule must hold before it speaks: half a window is new by then."""

NLL_RISE = 0.05
"""Least rise of the NLL, as a share of where it began.

The demo's DFT run, on 144 examples, rises by 12 % on held-out text.
"""

WARM_UP = 0.25
"""Share of the training before which a lack of progress says nothing: LLaMA-Factory's recipes warm
up for a tenth."""

STOPS_AT = 0.5
"""Above a half the end-of-turn token is the most probable one, whatever the others: greedy decoding
stops where the data stops."""

EOT_RISE = 0.01
"""Least rise of the end-of-turn probability that counts as learning: a slow but steady one does."""

SHORT = 0.5
"""Share of the references' length below which greedy answers are too short."""

REPEATED = 0.5
"""Share of answers that equal another one, above that of the references, that is too many."""

SHARP = 0.5
"""Share of its start to which the entropy must fall, without a gain in NLL, to be overconfident.

Measured, SmolLM2-135M in 18 steps of DFT on the demo's data at a learning rate of 5e-5, which ended
at 10 % of python-basics (base 40 %): entropy 0.739, 0.460 and 0.283 nats, NLL 0.974, 0.902 and
1.013 at steps 0, 6 and 12. At 1e-5, where DFT is well, entropy 0.665 and NLL 0.933 at step 12.
"""

LEAST_WEIGHT = 0.01
"""Below it DFT's gradient is a hundredth of SFT's. arXiv 2510.00526 has its least fit data set,
figfont, at a mean probability of about 0.01; random letters have 0.003 (SmolLM2-135M)."""


@dataclass(frozen=True)
class Row:
    """What one log of the training says, means over the tokens since the log before.

    Attributes:
        step: optimizer step.
        objective: what is minimised, sg(w)·NLL, in nats a token.
        nll: in nats a token.
        token_weight: mean weight.
        end_of_turn: mean probability of the labelled end-of-turn tokens; None where there was none.
    """

    step: int
    objective: float
    nll: float
    token_weight: float
    end_of_turn: float | None = None


@dataclass(frozen=True)
class Answers:
    """Greedy answers to a few held-out prompts beside their references, all cut to one length.

    Attributes:
        n: number of prompts.
        length: mean, in tokens; ``reference_length`` that of the reference answers.
        repeated: share of answers that equal another one; ``reference_repeated`` of references.
    """

    n: int
    length: float
    repeated: float
    reference_length: float
    reference_repeated: float


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on the same held-out tokens as the one before.

    Attributes:
        nll: in nats a token.
        entropy: mean entropy of the model's next-token distributions, in nats.
        answers: None where none were generated.
    """

    nll: float
    entropy: float
    answers: Answers | None = None


@dataclass(frozen=True)
class Warned:
    """One warning: the name of its rule, and one line that ends with what to do."""

    rule: str
    message: str


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _squared_error(values: Sequence[float]) -> float:
    """Variance of the mean."""
    mean = _mean(values)
    return math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1) / len(values)


@dataclass(frozen=True)
class _Change:
    """The first window against the last."""

    start: float
    now: float
    error: float

    @property
    def rises(self) -> bool:
        """By more than the scatter explains."""
        return self.now - self.start > SIGMAS * self.error

    @classmethod
    def of(cls, values: Sequence[float]) -> _Change | None:
        """None before there are two windows that share no row."""
        if len(values) < 2 * WINDOW:
            return None
        first, last = values[:WINDOW], values[-WINDOW:]
        error = math.sqrt(_squared_error(first) + _squared_error(last))
        return cls(_mean(first), _mean(last), error)


def _nll_rises(rows: Sequence[Row], progress: float) -> str | None:
    nll = _Change.of([row.nll for row in rows])
    objective = _Change.of([row.objective for row in rows])
    if nll is None or objective is None or objective.now >= objective.start:
        return None
    if not nll.rises or nll.now - nll.start < NLL_RISE * nll.start:
        return None
    return (
        f"the NLL has risen from {nll.start:.3g} to {nll.now:.3g} nats a token while the DFT loss "
        f"fell from {objective.start:.3g} to {objective.now:.3g}: improbable tokens are being "
        "given up. Usual for reasoning data; if the data holds facts or a format that must be "
        "learned, train with dft_weight: floor:0.1 or finetuning_type: sft, and let an evaluation "
        "decide."
    )


def _end_of_turn(rows: Sequence[Row], progress: float) -> str | None:
    if progress < WARM_UP:
        return None
    change = _Change.of([row.end_of_turn for row in rows if row.end_of_turn is not None])
    if change is None or change.now >= STOPS_AT:
        return None
    # Half the usual scatter: here a rise keeps the rule silent.
    if change.now - change.start > max(EOT_RISE, SIGMAS / 2 * change.error):
        return None
    return (
        f"the probability of the end-of-turn token does not rise ({change.start:.2g} at the start, "
        f"{change.now:.2g} now): the trained model may not stop. Train with dft_weight: floor:0.1, "
        "or choose a template whose end-of-turn token the model knows."
    )


def _weight_near_zero(rows: Sequence[Row], progress: float) -> str | None:
    if len(rows) < WINDOW:
        return None
    weight = _mean([row.token_weight for row in rows[-WINDOW:]])
    if weight >= LEAST_WEIGHT:
        return None
    return (
        f"token_weight_mean is {weight:.2g}, so that next to nothing is trained: the model finds "
        "this data improbable. Look at it with `dft-factory probe`; train with finetuning_type: "
        "sft first, or with dft_weight: floor:0.1."
    )


RULES: dict[str, Callable[[Sequence[Row], float], str | None]] = {
    "nll_rises": _nll_rises,
    "end_of_turn": _end_of_turn,
    "weight_near_zero": _weight_near_zero,
}
"""Name -> (all rows, share of the training that is done) -> the line, or None where all is well."""


def _shrunken(answers: Answers) -> str | None:
    if answers.length >= SHORT * answers.reference_length:
        return None
    return (
        f"its greedy answers to {answers.n} held-out prompts have {answers.length:.3g} tokens, the "
        f"references {answers.reference_length:.3g}"
    )


def _alike(answers: Answers) -> str | None:
    if answers.repeated - answers.reference_repeated <= REPEATED:
        return None
    return (
        f"{answers.repeated:.0%} of its greedy answers to {answers.n} held-out prompts equal "
        f"another one, {answers.reference_repeated:.0%} of the references do"
    )


def _overconfident(first: Evaluation, last: Evaluation) -> str | None:
    if last.nll < first.nll or last.entropy > SHARP * first.entropy:
        return None
    return (
        f"the entropy of its predictions on held-out text fell from {first.entropy:.3g} to "
        f"{last.entropy:.3g} nats while the NLL went from {first.nll:.3g} to {last.nll:.3g}"
    )


def collapse(evaluations: Sequence[Evaluation], progress: float) -> str | None:
    """The rule on evaluations: the line, or None where all is well."""
    if progress < WARM_UP:
        return None
    first, last = evaluations[0], evaluations[-1]
    signs = [_overconfident(first, last)]
    if last.answers is not None:
        signs += [_shrunken(last.answers), _alike(last.answers)]
    text = "; ".join(sign for sign in signs if sign is not None)
    return text and (
        f"signs of collapse: {text}. Train with a lower learning_rate (a fifth of this one) or "
        "with dft_weight: floor:0.1, and let an evaluation decide."
    )


class Watch:
    """Looks at every log and evaluation; gives each rule's warning once."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._held = dict.fromkeys(RULES, 0)
        self._evaluations: list[Evaluation] = []  # the first and the last
        self._collapsed = False

    def see_evaluation(self, evaluation: Evaluation, progress: float) -> list[Warned]:
        """What is to be said after an evaluation; as :meth:`see`."""
        if not math.isfinite(evaluation.nll + evaluation.entropy):
            return []
        self._evaluations[1:] = [evaluation]
        message = None if self._collapsed else collapse(self._evaluations, progress)
        if not message:
            return []
        self._collapsed = True
        return [Warned("collapse", message)]

    def see(self, row: Row, progress: float) -> list[Warned]:
        """What is to be said now that ``row`` was logged.

        Args:
            row: rows with a number that is not finite are left out.
            progress: share of the training that is done, from 0 to 1.
        """
        numbers = (row.objective, row.nll, row.token_weight, row.end_of_turn or 0.0)
        if not all(math.isfinite(x) for x in numbers):
            return []
        self._rows.append(row)
        # The middle is never looked at.
        del self._rows[WINDOW : max(WINDOW, len(self._rows) - 2 * WINDOW)]
        warnings = []
        for name, rule in RULES.items():
            if self._held[name] >= HOLDS:
                continue
            message = rule(self._rows, progress)
            self._held[name] = 0 if message is None else self._held[name] + 1
            if message is not None and self._held[name] == HOLDS:
                warnings.append(Warned(name, message))
        return warnings
