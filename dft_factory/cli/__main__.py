"""``python -m dft_factory.cli``: the command in the environment of this Python."""

from dft_factory.cli import main

main()
