"""The program, to which the modules beside this one add their commands."""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer

app = typer.Typer(
    name="dft-factory",
    help="Dynamic Fine-Tuning (DFT) for LLaMA-Factory: train it with llamafactory-cli, and see "
    "whether it helped.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        import dft_factory

        typer.echo(f"dft-factory {dft_factory.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


_FOLDER = "A file stands where a folder is needed, or a folder where a file is: use another path."
_RIGHTS = "Use a folder that this user may write to, or change its permissions."
_SPACE = "Free some, or use another folder. The same command then goes on where it can."
_FILE_ERRORS = {
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST, errno.EISDIR), _FOLDER),
    **dict.fromkeys((errno.EACCES, errno.EROFS), _RIGHTS),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _SPACE),
    errno.ENAMETOOLONG: "Use a shorter name.",
}
"""Failures of files that are the user's to fix; others keep their traceback."""


def main() -> None:
    """Entry point: a user's mistake is one message and an exit status, never a traceback."""
    from dft_eval.errors import EvaluationError
    from dft_factory.errors import ConfigError, DftFactoryError, MissingDependencyError

    try:
        app()
    except EvaluationError as error:
        sys.stderr.write(f"dft-factory: {error}\n")
        sys.exit(error.exit_status)
    except DftFactoryError as error:
        sys.stderr.write(f"dft-factory: {error}\n")
        statuses = ((ConfigError, 2), (MissingDependencyError, 3))
        sys.exit(next((status for kind, status in statuses if isinstance(error, kind)), 1))
    except OSError as error:
        if error.errno not in _FILE_ERRORS:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        sys.stderr.write(f"dft-factory: {where}{error.strerror}. {_FILE_ERRORS[error.errno]}\n")
        sys.exit(1)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("dft_factory", "dft_eval"):
            raise
        sys.stderr.write(
            f"dft-factory: the Python package {error.name} is not installed. --backend hf needs "
            "`pip install 'dft-factory[hf]'`, training `pip install 'dft-factory[tested]'`.\n"
        )
        sys.exit(3)
