"""MLflow and W&B for real, on files: `bash scripts/test_trackers.sh`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dft_eval.tracking import track, tracking_runs
from tests.conftest import Bench
from tests.contract.test_tracking import EVALUATION, METRICS, results, tracked


def test_mlflow(text_bench: Bench, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    folder = tracked(text_bench, tmp_path, "mlflow", MLFLOW_TRACKING_URI=uri)
    (run,) = tracking_runs(str(folder))
    assert run["tracking_uri"] == uri
    client = MlflowClient(tracking_uri=uri)
    names = {name.replace("train/", "").replace("eval_", "eval/") for name in METRICS | EVALUATION}
    logged = {name.replace("eval_", "eval/") for name in client.get_run(run["run_id"]).data.metrics}
    assert logged >= names
    assert track(str(folder), results(str(folder))) == ["mlflow"]
    (point,) = client.get_metric_history(run["run_id"], "humaneval_plus/pass_at_1")
    assert (point.step, point.value) == (3, 0.25)


def offline_history(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of all offline runs below ``folder``, by run id."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    runs: dict[str, dict[str, str]] = {}
    for path in sorted(folder.rglob("*.wandb")):
        rows = runs.setdefault(path.stem.removeprefix("run-"), {})
        store = DataStore()
        store.open_for_scan(str(path))
        while (data := store.scan_data()) is not None:
            record = Record()
            record.ParseFromString(data)
            for item in record.history.item:
                rows[item.key or "/".join(item.nested_key)] = item.value_json
    return runs


def test_wandb_offline(text_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_PROJECT": "p"}
    folder = tracked(text_bench, tmp_path, "wandb", **environment)
    (run,) = tracking_runs(str(folder))
    assert run["project"] == "p"
    assert offline_history(tmp_path)[run["run_id"]].keys() >= METRICS | EVALUATION
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert track(str(folder), results(str(folder))) == ["wandb"]
    rows = offline_history(tmp_path)[run["run_id"]]  # `wandb sync` merges runs of one id
    assert (rows["humaneval+/pass@1"], rows["train/global_step"]) == ("0.25", "3")
