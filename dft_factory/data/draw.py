"""``python -m dft_factory.data.draw WHAT --out FOLDER``: data and model of the vision demo.

records   WeThink's record shape, for ``dft-factory data prepare wethink``
dataset   a prepared data set, with and without its system prompt (wethink, wethink_plain)
tables    MathVerse, MathVision and WeMath tables of held-out pictures
model     a small Qwen2.5-VL with random weights whose tokenizer knows the questions' words
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path


def main() -> None:
    """Parse the arguments and write one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("records", "dataset", "tables", "model"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=240, help="records, or rows of each table")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures")
    parser.add_argument("--blank", action="store_true", help="tables with white pictures")
    args = parser.parse_args()
    if args.what == "records":
        from dft_factory.data.drawn import write_records

        write_records(args.out, args.count, args.seed)
    elif args.what == "dataset":
        make_dataset(args.out, args.count, args.seed)
    elif args.what == "tables":
        from dft_factory.data.drawn_tables import write_tables

        write_tables(args.out, args.count, args.seed, blank=args.blank)
    else:
        from dft_factory.data.drawn import texts
        from dft_factory.tiny import make_tiny

        make_tiny("qwen2.5-vl", args.out, size="small", corpus=texts() * 3)


def make_dataset(out: Path, count: int, seed: int) -> None:
    """A prepared set of drawn pictures, registered with and without its system prompt.

    VLMEvalKit uses none, so a model trained from random weights must learn both.
    """
    from dft_factory.data.drawn import write_records
    from dft_factory.data.prepare import prepare

    with tempfile.TemporaryDirectory() as folder:
        source = write_records(Path(folder), count, seed)
        prepare("wethink", str(source), out)
    path = out / "dataset_info.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    entry = dict(info["wethink"])
    entry["columns"] = {key: value for key, value in entry["columns"].items() if key != "system"}
    path.write_text(json.dumps({**info, "wethink_plain": entry}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
