"""The comparison of evaluated runs: run folders in, Markdown, HTML and pictures out."""

from dft_eval.report.render import ReportPaths, build_report

__all__ = ["ReportPaths", "build_report"]
