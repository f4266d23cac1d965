"""False positives of the report's paired test: equal models, items that are versions of a problem.

    python benchmarks/false_positives.py [--pairs 2000]

Each simulated pair of models is equally good. Whether a model solves an item is the sign of a
normal variable, of which a share, the correlation, belongs to the problem and is the same for all
its versions. A difference at p < 0.05 is a false positive; about 5 % are right. The second column
takes every item for an independent draw.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np

from dft_eval.statistics import LEVEL, sign_flip_test


@dataclass(frozen=True)
class Design:
    """A benchmark of ``problems`` in ``versions`` each."""

    name: str
    problems: int
    versions: int


DESIGNS = (Design("MathVerse", 788, 5), Design("MultiPL-E", 161, 8))
CORRELATIONS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def rate(design: Design, correlation: float, *, pairs: int, seed: int) -> tuple[float, float]:
    """Share of false positives, by problem and by item."""
    rng = np.random.default_rng(seed)
    by_problem = by_item = 0
    for _ in range(pairs):
        shared = rng.normal(size=(2, design.problems, 1)) * math.sqrt(correlation)
        own = rng.normal(size=(2, design.problems, design.versions)) * math.sqrt(1 - correlation)
        first, second = (shared + own > 0).astype(float)
        differences = second - first
        by_problem += sign_flip_test(differences.sum(axis=1)) < LEVEL
        by_item += sign_flip_test(differences.ravel()) < LEVEL
    return by_problem / pairs, by_item / pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2000, help="simulated pairs of models a row")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{args.pairs} pairs a row, seed {args.seed}; p < {LEVEL}")
    print(f"{'benchmark':<30} {'correlation':>11} {'by problem':>11} {'by item':>9}")
    for design in DESIGNS:
        name = f"{design.name} ({design.problems} x {design.versions})"
        for correlation in CORRELATIONS:
            rates = rate(design, correlation, pairs=args.pairs, seed=args.seed)
            cells = " ".join(f"{100 * rate:>9.1f} %" for rate in rates)
            print(f"{name:<30} {correlation:>11} {cells}", flush=True)


if __name__ == "__main__":
    main()
