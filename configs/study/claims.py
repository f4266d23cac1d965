"""The study's claims: what is compared, in which experiments, and what would settle it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """``first`` scores higher (``expected`` 1) or lower (-1) than ``second``.

    ``benchmark``: its name, or how it begins.
    """

    text: str
    first: str
    second: str
    experiments: tuple[str, ...]
    settle: str
    benchmark: str = "python"
    decoding: str = "temperature 1"
    expected: int = 1


MAIN = ("demo", "study/first", "study/python", "study/grid")
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
        MAIN,
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
        ("study/python",),
        "general benchmarks before and after, on the paper's models.",
        benchmark="arithmetic",
        decoding="greedy",
    ),
    Claim(
        "DFT learns less than SFT of a style that the model does not believe in",
        "dft",
        "sft",
        ("study/notation",),
        "more styles, and a score of the style itself beside that of the answer.",
        benchmark="arithmetic",
        decoding="greedy",
        expected=-1,
    ),
    Claim(
        "A floor of 0.1 under the weight scores higher than DFT in that style",
        "dft-floor",
        "dft",
        ("study/notation",),
        "the same, with floors between 0.01 and 0.5.",
        benchmark="arithmetic",
        decoding="greedy",
    ),
    Claim(
        "Token weights score higher than weights of whole sequences",
        "dft",
        "dft-sequence",
        ("study/weights",),
        "the paper's ablation at its own scale.",
    ),
    Claim("With LoRA too, DFT scores higher than SFT", "dft", "sft", ("study/lora",), FULL_SCALE),
    Claim(
        "DFT reaches SFT's accuracy in a third of the steps",
        "dft at step 18",
        "sft",
        ("study/curves",),
        "`paper/mathematics-main` with checkpoints; step 18 of 47 is the nearest to a third here.",
    ),
    Claim(
        "DFT resists wrong labels better than SFT",
        "dft",
        "sft",
        ("study/noise",),
        "more noise, kinds of noise and tasks.",
        benchmark="arithmetic",
        decoding="greedy",
    ),
)
