"""Installed as the top-level module ``_dft_factory_autoload``: torch's way into this package.

torch >= 2.5 calls every ``torch.backends`` entry point at the end of ``import torch`` and turns any
exception into a failure of that import. So this file is installed as a real file in site-packages
in wheel and editable installs alike, uses nothing but the standard library, and lets no failure
out: whatever became of the ``dft_factory`` package, ``import torch`` works.
"""

import contextlib
import sys


def activate() -> None:
    """Wait for LLaMA-Factory to be imported; never raise."""
    try:
        from dft_factory.startup import install

        install()
    except (Exception, SystemExit) as error:
        with contextlib.suppress(Exception):  # no stderr: the notice is lost, torch still imports
            sys.stderr.write(
                "dft-factory: not active, LLaMA-Factory runs as if it were not installed "
                f"({type(error).__name__}: {error}). Reinstall it, or run "
                "`pip uninstall dft-factory`.\n"
            )
