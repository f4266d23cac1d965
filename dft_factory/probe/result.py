"""What a probe found, and how ``probe.json`` holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from dft_factory.losses.histogram import bin_edges
from dft_factory.probe.advice import COVERAGE, EVIDENCE, RESAMPLES, THRESHOLDS, Advice
from dft_factory.probe.collapse import Risk
from dft_factory.probe.segments import RULE
from dft_factory.probe.statistics import Numbers, TokenProbabilities
from dft_factory.probe.words import Ignored, Word

POLARISATION = "share of tokens with p < 0.1 or p >= 0.9"


@dataclass(frozen=True)
class ModelProbe:
    """What is shown of one model."""

    probabilities: TokenProbabilities
    segments: Mapping[str, Numbers | None]
    lowest_bin: tuple[Word, ...]
    ignored: tuple[Ignored, ...]
    advice: Advice


@dataclass(frozen=True)
class Probe:
    """One probe of one training set; the advice is that of the first model."""

    config: str
    seed: int
    models: tuple[ModelProbe, ...]
    collapse: Risk
    notes: tuple[str, ...]

    @property
    def advice(self) -> Advice:
        """For a training that starts from the first model."""
        return self.models[0].advice

    def to_json(self) -> dict[str, object]:
        """As ``probe.json`` holds it."""
        return {
            "schema_version": 1,
            "config": self.config,
            "seed": self.seed,
            "bin_edges": bin_edges(),
            "polarisation": POLARISATION,
            "segment_rule": RULE,
            "bootstrap": {"resamples": RESAMPLES, "coverage": COVERAGE, "unit": "example"},
            "advice": {**self.advice.to_json(), "for": self.models[0].probabilities.label},
            "collapse": self.collapse.to_json(),
            "thresholds": [asdict(threshold) for threshold in THRESHOLDS],
            "evidence": [asdict(case) for case in EVIDENCE],
            "models": [
                {
                    **model.probabilities.to_json(),
                    "segments": {
                        name: None if row is None else row.to_json()
                        for name, row in model.segments.items()
                    },
                    "lowest_bin": [asdict(word) for word in model.lowest_bin],
                    "ignored": [asdict(row) for row in model.ignored],
                }
                for model in self.models
            ],
            "notes": list(self.notes),
        }
