"""A tiny Qwen2.5-VL and a WeThink set of drawn pictures, as the tiny recipes want them."""

from __future__ import annotations

from pathlib import Path


def tiny_wethink(folder: Path, count: int = 16) -> dict[str, str]:
    """Makes both; gives the recipe's keys that name them."""
    from dft_factory.data.drawn import write_records
    from dft_factory.data.prepare import prepare
    from dft_factory.tiny import make_tiny

    model = make_tiny("qwen2.5-vl", folder / "model")
    source = write_records(folder / "drawn", count, seed=0)
    prepare("wethink", str(source), folder / "wethink")
    return {"model_name_or_path": str(model), "dataset_dir": str(folder / "wethink")}
