"""``python -m dft_factory.demo [--full] [--only text|vision]``, from the top of a checkout."""

from __future__ import annotations

import argparse

from dft_factory.demo import text, vision
from dft_factory.stages import run_or_exit


def main() -> None:
    """Both ways, or the one asked for."""
    parser = argparse.ArgumentParser(prog="scripts/demo.sh", description=__doc__)
    parser.add_argument(
        "--full",
        action="store_true",
        help="all 164 HumanEval problems and three epochs (about an hour), in runs/demo-full",
    )
    parser.add_argument(
        "--only",
        choices=("text", "vision"),
        help="SmolLM2 on code, or a small Qwen2.5-VL on drawn pictures (default: both)",
    )
    given = parser.parse_args()

    def work() -> None:
        if given.only != "vision":
            text.run(text.FULL if given.full else text.Plan())
        if given.only != "text":
            vision.run()

    run_or_exit(work)


if __name__ == "__main__":
    main()
