"""Advice on the objective from token probabilities before training: a heuristic, not a rule.

The statistic that decides is the mean probability of the content tokens (reasoning and answer);
where it is high enough for DFT, that of the end-of-turn tokens has a say as well. Both come with a
bootstrap over the examples, and the advice says whether its interval crosses a threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

DFT, FLOOR, SFT = "dft", "floor", "sft"
SETTINGS: Mapping[str, str] = {
    DFT: "finetuning_type: dft",
    FLOOR: "finetuning_type: dft, dft_weight: floor:0.1",
    SFT: "finetuning_type: sft",
}
"""Advice -> the lines of a recipe."""


@dataclass(frozen=True)
class Evidence:
    """One measured or reported case: a mean token probability, and where it is from."""

    data: str
    mean: float
    source: str


EVIDENCE = (
    Evidence("mathematics, upper", 0.81, "reported, arXiv 2510.00526: DFT-like weights win"),
    Evidence("mathematics, lower", 0.76, "reported, arXiv 2510.00526: DFT-like weights win"),
    Evidence("HumanEval solutions", 0.61, "measured, SmolLM2-135M (median .75, 19 % below 0.1)"),
    Evidence("GSM8K", 0.55, "measured, SmolLM2-135M (median .62, 21 % below 0.1)"),
    Evidence("medical", 0.50, "reported, arXiv 2510.00526: no objective clearly wins"),
    Evidence(
        "NQ answers",
        0.23,
        "measured, SmolLM2-135M (median .03, 61 % below 0.1); on NQ the DFT paper reports SFT "
        "above the base model and DFT below it",
    ),
    Evidence("figfont", 0.01, "reported, arXiv 2510.00526: plain NLL wins"),
    Evidence("random letters", 0.003, "measured, SmolLM2-135M (100 % below 0.1)"),
)
"""What the thresholds rest on, most probable first."""


@dataclass(frozen=True)
class Threshold:
    """A value of one statistic above which more of DFT is advised."""

    statistic: str
    value: float
    reason: str


CONTENT_MEAN, END_MEAN = "mean probability of content", "mean probability of end-of-turn tokens"
DFT_FROM = Threshold(
    CONTENT_MEAN,
    0.5,
    "mathematics (.76 to .81), HumanEval (.61) and GSM8K (.55) lie above, medical data (about .5), "
    "where no objective clearly wins, lies on it",
)
FLOOR_FROM = Threshold(
    CONTENT_MEAN,
    0.35,
    "halfway between medical data (about .5) and NQ answers (.23), which DFT does not learn",
)
END_FROM = Threshold(
    END_MEAN,
    0.1,
    "DFT leaves format and end-of-turn tokens unlearned (its issues: a finance set at 40 % where "
    "SFT has above 80 %); below 0.1 the floor 0.1 gives more weight than p does",
)
THRESHOLDS = (DFT_FROM, FLOOR_FROM, END_FROM)

RESAMPLES = 2000
COVERAGE = 0.95
FEW_EXAMPLES = 20
"""Below it a percentile interval is known to be too narrow."""


@dataclass(frozen=True)
class Estimate:
    """A mean over tokens with its percentile interval over resampled examples."""

    value: float
    low: float
    high: float
    n_examples: int

    def crosses(self, threshold: Threshold) -> bool:
        """Whether the interval holds values on both sides."""
        return self.low < threshold.value <= self.high


@dataclass(frozen=True)
class Advice:
    """What to train with.

    Attributes:
        choice: :data:`DFT`, :data:`FLOOR` or :data:`SFT`.
        estimate: of the statistic that decided, which ``threshold`` belongs to.
        certain: no threshold that could change the choice lies within an interval.
    """

    choice: str
    reason: str
    uncertainty: str
    certain: bool
    estimate: Estimate
    threshold: Threshold

    def to_json(self) -> dict[str, object]:
        """As ``probe.json`` holds it."""
        return {
            "choice": self.choice,
            "settings": SETTINGS[self.choice],
            "reason": self.reason,
            "uncertainty": self.uncertainty,
            "certain": self.certain,
            "statistic": self.threshold.statistic,
            "value": self.estimate.value,
            "interval": [self.estimate.low, self.estimate.high],
            "coverage": COVERAGE,
            "threshold": self.threshold.value,
            "threshold_reason": self.threshold.reason,
            "n_examples": self.estimate.n_examples,
            "heuristic": True,
        }


def estimate(p: Tensor, example: Tensor, seed: int = 0) -> Estimate | None:
    """Mean over tokens; whole examples are resampled, since tokens of one are alike.

    Args:
        p: (n,) probabilities.
        example: (n,), int64, the example of each.

    Returns:
        None without a token.
    """
    if p.numel() == 0:
        return None
    _, place = torch.unique(example, return_inverse=True)
    n = int(place.max()) + 1
    sums = torch.zeros(n, dtype=torch.float64).index_add_(0, place, p.double())
    sizes = torch.bincount(place, minlength=n).double()
    drawn = torch.randint(n, (RESAMPLES, n), generator=torch.Generator().manual_seed(seed))
    means = sums[drawn].sum(dim=1) / sizes[drawn].sum(dim=1)
    tail = (1 - COVERAGE) / 2
    return Estimate(
        value=(sums.sum() / sizes.sum()).item(),
        low=means.quantile(tail).item(),
        high=means.quantile(1 - tail).item(),
        n_examples=n,
    )


def _uncertainty(content: Estimate, ends: Estimate | None) -> tuple[str, bool]:
    crossed = [threshold for threshold in (FLOOR_FROM, DFT_FROM) if content.crosses(threshold)]
    interval = f"{COVERAGE:.0%} interval {content.low:.2f} to {content.high:.2f}"
    text = f"{interval} over {content.n_examples} examples"
    if crossed:
        values = " and ".join(f"{threshold.value:g}" for threshold in crossed)
        text += f": it crosses {values}, so that the advice beyond is as possible"
    if ends is not None and ends.crosses(END_FROM):
        crossed.append(END_FROM)
        text += (
            f"; that of the end-of-turn tokens, {ends.low:.2f} to {ends.high:.2f}, crosses "
            f"{END_FROM.value:g}"
        )
    few = content.n_examples < FEW_EXAMPLES
    if few:
        text += "; with so few examples the interval is too narrow"
    certain = not crossed and not few
    text += ": it crosses no threshold" if certain else ". Raise --limit"
    return f"{text}. The thresholds are a heuristic from other data and models.", certain


def advise(content: Estimate, ends: Estimate | None) -> Advice:
    """Which objective the probabilities speak for.

    Args:
        content: mean probability of reasoning and answer tokens under the base model.
        ends: of end-of-turn tokens; None where the data has none.
    """
    near = min(EVIDENCE, key=lambda case: abs(case.mean - content.value))
    text = f"content tokens have a mean probability of {content.value:.2f}"
    like = f"nearest known case: {near.data}, {near.mean:g} ({near.source})"
    half_known = content.value >= DFT_FROM.value
    uncertainty, certain = _uncertainty(content, ends if half_known else None)
    if content.value < FLOOR_FROM.value:
        reason = (
            f"{text}, below {FLOOR_FROM.value:g}: the model does not know this data, and DFT "
            f"does not teach what the model finds improbable; {like}."
        )
        return Advice(SFT, reason, uncertainty, certain, content, FLOOR_FROM)
    if not half_known:
        reason = (
            f"{text}, between {FLOOR_FROM.value:g} and {DFT_FROM.value:g}: partly known; a floor "
            f"keeps a tenth of every token's pull; {like}."
        )
        return Advice(FLOOR, reason, uncertainty, certain, content, DFT_FROM)
    if ends is not None and ends.value < END_FROM.value:
        reason = (
            f"{text}, at least {DFT_FROM.value:g}, but end-of-turn tokens only {ends.value:.2f}, "
            f"below {END_FROM.value:g}: without a floor the model may not learn to stop; {like}."
        )
        return Advice(FLOOR, reason, uncertainty, certain, ends, END_FROM)
    reason = f"{text}, at least {DFT_FROM.value:g}: the model half knows this data; {like}."
    return Advice(DFT, reason, uncertainty, certain, content, DFT_FROM)
