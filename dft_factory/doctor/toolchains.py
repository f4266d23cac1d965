"""Compilers and interpreters that this machine has for the programs of MultiPL-E."""

from __future__ import annotations

from dft_eval.requirements import MissingRequirement
from dft_factory.doctor.report import ToolchainRow


def look_for_toolchains() -> tuple[tuple[ToolchainRow, ...], tuple[str, ...]]:
    """One row a language, and warnings. Never raises."""
    try:
        from dft_eval.languages import LANGUAGES, missing_toolchain, version

        rows: list[ToolchainRow] = []
        for language in LANGUAGES.values():
            absent = missing_toolchain(language)
            if absent is None:
                rows.append(ToolchainRow(language.title, version(language)))
            else:
                missing = MissingRequirement(absent.what, absent.fix, blocks=False)
                rows.append(ToolchainRow(language.title, None, missing))
    except Exception as error:  # such as no Python that the sandbox could use
        return (), (f"cannot look for compilers: {type(error).__name__}: {error}",)
    return tuple(rows), ()
