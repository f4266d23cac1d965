"""The ``dft-factory`` command: parse, call, print."""

from dft_factory.cli import experiments, recipes  # add their commands to app
from dft_factory.cli.app import main

__all__ = ["experiments", "main", "recipes"]
