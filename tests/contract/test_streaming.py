"""``streaming: true``: trains what the whole data set does; refused where it would read nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: F401 - activates dft-factory, before anything here imports llamafactory

from dft_factory.errors import ConfigError
from tests.conftest import Bench
from tests.support.cli import parseable, relative_error, train

REFUSAL = (
    "streaming: true with dataloader_num_workers: 0 reads no example of local: LLaMA-Factory "
    "splits local files into dataloader_num_workers shards. Write dataloader_num_workers: 1, or "
    "remove streaming."
)


def _parse(**changes: Any) -> Any:
    from llamafactory.hparams import get_train_args

    return get_train_args(
        parseable(**{"finetuning_type": "dft", "streaming": True, "max_steps": 1, **changes})
    )


def test_refused_where_no_example_would_be_read(tmp_path: Path) -> None:
    info = {"local": {"file_name": "local.json"}, "hub": {"hf_hub_url": "some/set"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    config: dict[str, Any] = {"dataset": "local,hub", "dataset_dir": str(tmp_path)}
    with pytest.raises(ConfigError) as refusal:
        _parse(**config)
    assert str(refusal.value) == REFUSAL
    with pytest.raises(ConfigError):
        _parse(**{**config, "dataset": "hub", "eval_dataset": "local"})
    for works in (
        {"dataset": "hub"},
        {"dataloader_num_workers": 1},
        {"streaming": False},
        {"tokenized_path": "some_folder"},
        {"finetuning_type": "full"},  # untouched
        {"dataset": "unregistered"},  # LLaMA-Factory's own message comes with the data
    ):
        _parse(**{**config, **works})


@pytest.mark.cli
def test_one_worker_trains_the_same_without_streaming(text_bench: Bench, tmp_path: Path) -> None:
    def run(folder: str, **changes: Any) -> Any:
        config = text_bench.config(per_device_train_batch_size=8, **changes)
        return train(config, tmp_path / folder)

    refused = run("refused", streaming=True)
    assert refused.status != 0
    assert REFUSAL.replace("local:", "tiny_text:") in refused.output
    streamed = run("streamed", streaming=True, dataloader_num_workers=1).ok()
    whole = run("whole").ok()
    assert relative_error(streamed.gradients, whole.gradients) < 1e-6


@pytest.mark.cli
def test_what_is_refused_dies_in_llamafactory(text_bench: Bench, tmp_path: Path) -> None:
    """When this fails, LLaMA-Factory streams without workers: the refusal can go."""
    stock = text_bench.config(finetuning_type="full", streaming=True)
    assert "StopIteration" in train(stock, tmp_path / "stock").output
