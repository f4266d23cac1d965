"""Which compilers and interpreters of model-written programs this machine has."""

from __future__ import annotations

from dft_factory.doctor.report import Lack, ToolchainRow


def look_for_toolchains() -> tuple[tuple[ToolchainRow, ...], tuple[str, ...]]:
    """Rows, and warnings about what could not be looked for; never raises."""
    try:
        from dft_eval.languages import LANGUAGES, missing_toolchain, version

        rows: list[ToolchainRow] = []
        for language in LANGUAGES.values():
            found = missing_toolchain(language)
            if found is None:
                rows.append(ToolchainRow(language.title, version(language)))
            else:
                missing = Lack(found.what, found.fix, blocks=False)
                rows.append(ToolchainRow(language.title, None, missing))
    except Exception as error:  # such as no Python that the sandbox could use
        return (), (f"compilers cannot be looked for: {type(error).__name__}: {error}",)
    return tuple(rows), ()
