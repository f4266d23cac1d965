"""``dft-factory doctor``: what is installed, what works here, and how to fix the rest.

Importing this package imports neither torch nor LLaMA-Factory; :func:`examine` starts a process
that does.
"""

from dft_factory.doctor.examine import examine
from dft_factory.doctor.report import Report, exit_status, to_json
from dft_factory.doctor.text import render_text

__all__ = ["Report", "examine", "exit_status", "render_text", "to_json"]
