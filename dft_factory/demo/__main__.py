"""``python -m dft_factory.demo [--full] [--only text|vision]``, from the top of a checkout."""

from __future__ import annotations

import argparse
import sys

from dft_eval.errors import EvaluationError
from dft_factory.demo import text, vision
from dft_factory.errors import DftFactoryError
from dft_factory.stages import say


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
    try:
        if given.only != "vision":
            text.run(text.FULL if given.full else text.Plan())
        if given.only != "text":
            vision.run()
    except EvaluationError as error:
        say(str(error))
        sys.exit(error.exit_status)
    except DftFactoryError as error:
        say(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
