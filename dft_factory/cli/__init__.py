"""The ``dft-factory`` command: parse, call, print."""

from dft_factory.cli import experiments  # adds its commands to app
from dft_factory.cli.app import main

__all__ = ["experiments", "main"]
