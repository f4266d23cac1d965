"""``dft-factory validate``: all errors of all files together, before a GPU is rented.

Importing this package imports neither torch nor LLaMA-Factory. :func:`validate_files` starts one
process that does, for any number of files.
"""

from dft_factory.validate.findings import Finding, exit_status, render_text
from dft_factory.validate.run import render_checks, validate_files

__all__ = ["Finding", "exit_status", "render_checks", "render_text", "validate_files"]
