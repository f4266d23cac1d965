"""Compile, run and judge programs of eight languages; independent of models and data."""

from dft_eval.languages.judge import Program, judge, run_program, unusable
from dft_eval.languages.recipes import HARNESSES, LANGUAGES, Harness, Language
from dft_eval.languages.toolchains import missing_toolchain, version

__all__ = [
    "HARNESSES",
    "LANGUAGES",
    "Harness",
    "Language",
    "Program",
    "judge",
    "missing_toolchain",
    "run_program",
    "unusable",
    "version",
]
