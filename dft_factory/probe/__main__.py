"""``python -m dft_factory.probe CONFIG --model LABEL=PATH:OUT ...``: one file a model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dft_factory.errors import ConfigError, MissingDependencyError
from dft_factory.probe.measure import measure
from dft_factory.probe.settings import read_config

FILE_NAME = "token_probabilities.json"


def main() -> None:
    """Parse, measure, write ``token_probabilities.json`` into each model's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="training YAML whose data is measured")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="as after `llamafactory-cli train CONFIG`"
    )
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="LABEL=PATH:OUT",
        help="a model folder and the folder that receives its file; may be repeated",
    )
    parser.add_argument("--limit", type=int, default=64, help="examples (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    args = parser.parse_intermixed_args()
    config = read_config(args.config, args.overrides)
    models: dict[str, str | None] = {}
    folders: dict[str, Path] = {}
    for word in args.model:
        label, equals, rest = word.partition("=")
        path, colon, out = rest.rpartition(":")
        if not (equals and colon and label and path and out):
            raise ConfigError(f"--model {word!r}: write LABEL=PATH:OUT.")
        models[label], folders[label] = path, Path(out)

    def progress(label: str, done: int, total: int) -> None:
        if done == total:
            sys.stderr.write(f"token probabilities of {label}: done\n")

    for measured in measure(config, models, limit=args.limit, seed=args.seed, progress=progress):
        row = measured.probabilities
        target = folders[row.label] / FILE_NAME
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(row.to_json(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.stderr.write(f"dft-factory: {error}\n")
        sys.exit(2)
    except MissingDependencyError as error:
        sys.stderr.write(f"dft-factory: {error}\n")
        sys.exit(3)
