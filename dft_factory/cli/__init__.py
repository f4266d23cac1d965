"""The ``dft-factory`` command: parse, call, print. Heavy imports stay inside the commands."""

# Each adds its commands to the program.
from dft_factory.cli import checks, data, evaluate, experiments, recipes, score
from dft_factory.cli.app import main

__all__ = ["checks", "data", "evaluate", "experiments", "main", "recipes", "score"]
