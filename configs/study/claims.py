"""The study's claims: what is compared, in which experiments, and what would settle it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Where:
    """An experiment that tests a claim.

    Attributes:
        benchmark: its name, or how it begins.
        grid: a part of the grid point's label: the claim is tested at these points alone.
        step: the first side is this checkpoint, not the end of the training.
    """

    experiment: str
    benchmark: str = "python"
    grid: str = ""
    step: int | None = None


@dataclass(frozen=True)
class Claim:
    """``first`` scores higher (``expected`` 1) or lower (-1) than ``second``."""

    text: str
    first: str
    second: str
    where: tuple[Where, ...]
    settle: str
    decoding: str = "temperature 1"
    expected: int = 1


MAIN = (
    Where("demo"),
    Where("study/first"),
    Where("study/first_words", "arithmetic", "dataset arithmetic,"),
    Where("study/python"),
    Where("study/arithmetic", "arithmetic"),
    Where("study/grid"),
)
NOTATION = (
    Where("study/first_words", "arithmetic", "dataset notation,"),
    Where("study/notation", "arithmetic"),
)
NOISE = (
    Where("study/first_words", "arithmetic", "dataset arithmetic_noisy,"),
    Where("study/noise", "arithmetic"),
)
FLOOR = (
    Where("study/first"),
    Where("study/first_words", "arithmetic", "dataset arithmetic,"),
    Where("study/python"),
    Where("study/arithmetic", "arithmetic"),
)
MATCHED = (Where("demo"), Where("study/first"), Where("study/python"))
FULL_SCALE = "the paper's models and data: `dft-factory run paper/mathematics-main`."
CLAIMS = (
    Claim("DFT scores higher than SFT at temperature 1", "dft", "sft", MAIN, FULL_SCALE),
    Claim(
        "DFT scores higher than SFT under greedy decoding",
        "dft",
        "sft",
        MAIN,
        FULL_SCALE,
        decoding="greedy",
    ),
    Claim(
        "DFT's gain at temperature 1 is more than sharpening: it beats the base at equal entropy",
        "dft",
        "base at the entropy of dft",
        MATCHED,
        "the same control (`match_entropy: dft`) at 1.5 to 7 billion parameters.",
    ),
    Claim(
        "DFT scores higher than the base under greedy decoding (far below it, it has collapsed)",
        "dft",
        "base",
        MAIN,
        "`study/grid` over all learning rates, batches and sizes.",
        decoding="greedy",
    ),
    Claim(
        "DFT keeps more than SFT of what is not trained on (word problems, trained on Python)",
        "dft",
        "sft",
        (Where("study/first", "arithmetic"), Where("study/python", "arithmetic")),
        "general benchmarks before and after, on the paper's models.",
        decoding="greedy",
    ),
    Claim(
        "DFT learns less than SFT of a style that the model does not believe in",
        "dft",
        "sft",
        NOTATION,
        "more styles, and a score of the style itself beside that of the answer.",
        decoding="greedy",
        expected=-1,
    ),
    Claim(
        "Trained in that style, DFT scores higher than SFT at temperature 1",
        "dft",
        "sft",
        NOTATION,
        "a score of the style itself: DFT may score by keeping the model's own style.",
    ),
    Claim(
        "A floor of 0.1 under the weight scores higher than DFT in that style",
        "dft-floor",
        "dft",
        NOTATION,
        "the same, with floors between 0.01 and 0.5.",
        decoding="greedy",
    ),
    Claim(
        "A floor of 0.1 scores higher than DFT in a style that the model knows",
        "dft-floor",
        "dft",
        FLOOR,
        "the same, with floors between 0.01 and 0.5.",
        decoding="greedy",
    ),
    Claim(
        "The weight's square root (power:0.5) scores higher than DFT",
        "dft-power",
        "dft",
        (Where("study/first"), Where("study/python"), Where("study/arithmetic", "arithmetic")),
        "powers between 0 (SFT) and 1 (DFT) at the paper's scale.",
        decoding="greedy",
    ),
    Claim(
        "Token weights score higher than weights of whole sequences",
        "dft",
        "dft-sequence",
        (Where("study/first"), Where("study/weights")),
        "the paper's ablation at its own scale.",
    ),
    Claim(
        "With LoRA too, DFT scores higher than SFT",
        "dft",
        "sft",
        (Where("study/lora"),),
        FULL_SCALE,
    ),
    Claim(
        "DFT reaches SFT's accuracy in a third of the steps",
        "dft",
        "sft",
        (Where("demo", step=6), Where("study/curves", step=18)),
        "`paper/mathematics-main` with checkpoints; step 18 of 47 is the nearest to a third in "
        "`study/curves`.",
    ),
    Claim(
        "DFT resists wrong labels better than SFT",
        "dft",
        "sft",
        NOISE,
        "more noise, kinds of noise and tasks.",
        decoding="greedy",
    ),
    Claim(
        "Trained on wrong labels, DFT scores higher than SFT at temperature 1",
        "dft",
        "sft",
        NOISE,
        "more noise, kinds of noise and tasks.",
    ),
)
