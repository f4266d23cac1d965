"""``python -m dft_factory.limitation [--only facts|noise] [--seeds N]``, from a checkout's top."""

from __future__ import annotations

import argparse
from dataclasses import replace

from dft_factory.limitation.run import Plan, run
from dft_factory.stages import run_or_exit


def main() -> None:
    """Both experiments, or the one asked for."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce_limitation.sh", description=__doc__)
    parser.add_argument(
        "--only",
        choices=("facts", "noise"),
        help="facts that no model knows, or known questions with wrong answers among them",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="runs of each method (default: 3, about an hour)"
    )
    given = parser.parse_args()
    if given.seeds < 1:
        parser.error(f"--seeds {given.seeds}: give a number of 1 or more.")
    plan = replace(Plan(), seeds=tuple(range(given.seeds)))
    which = (given.only,) if given.only else ("facts", "noise")
    run_or_exit(lambda: run(plan, which))


if __name__ == "__main__":
    main()
