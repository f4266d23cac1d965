"""The ``dft-factory`` command: parse, call, print."""

from dft_factory.cli.app import main

__all__ = ["main"]
