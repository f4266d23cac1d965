"""Programs of eight languages: compile, run, judge. Nothing here knows of models or data."""

from dft_eval.languages.judge import Program, judge, run_program, unusable
from dft_eval.languages.recipes import HARNESSES, LANGUAGES, Harness, Language
from dft_eval.languages.toolchains import (
    MissingToolchain,
    missing_toolchain,
    missing_toolchains,
    version,
)

__all__ = [
    "HARNESSES",
    "LANGUAGES",
    "Harness",
    "Language",
    "MissingToolchain",
    "Program",
    "judge",
    "missing_toolchain",
    "missing_toolchains",
    "run_program",
    "unusable",
    "version",
]
