"""The ``dft-factory`` command: parse, call, print."""

# Each adds its commands to the program.
from dft_factory.cli import data, estimate, evaluate, experiments, recipes, score
from dft_factory.cli.app import main

__all__ = ["data", "estimate", "evaluate", "experiments", "main", "recipes", "score"]
