"""The ``dft-factory`` command: parse, call, print. Heavy imports stay inside the commands."""

# Each adds its commands to the program.
from dft_factory.cli import checks, data, estimate, evaluate, experiments, recipes, score
from dft_factory.cli.app import main

__all__ = ["checks", "data", "estimate", "evaluate", "experiments", "main", "recipes", "score"]
