"""The comparison of evaluated runs: run folders in, Markdown, HTML and pictures out."""

from dft_eval.report.render import ReportPaths, build_report
from dft_eval.report.view import MissingRun

__all__ = ["MissingRun", "ReportPaths", "build_report"]
