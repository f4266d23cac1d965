"""The installed VLMEvalKit in a process of its own: what it asks, matches and scores.

``python -m tests.support.stock_vlmevalkit JOBS.json OUT.json`` runs a list of jobs, since its
import takes seconds. A job that raises gives ``{"error": "<type>: <message>"}``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run_stock(jobs: list[dict[str, Any]], folder: Path, *, cwd: Path = ROOT) -> list[Any]:
    """The results of all jobs, from one process; ``folder`` gets its files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = {**os.environ, "LMUData": str(folder / "LMUData"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "eval")])
    ended = subprocess.run(
        [sys.executable, "-m", __name__, str(folder / "jobs.json"), str(folder / "out.json")],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    results: list[Any] = json.loads((folder / "out.json").read_text())
    return results


def _dataset(name: str, table: str) -> Any:
    import vlmeval.dataset as stock
    from vlmeval.smp import load

    kind = {"MathVerse_MINI": "MathVerse"}.get(name, name)
    base = getattr(stock, kind, None)
    if base is None:
        import vlmeval.dataset.image_mcq as choice
        import vlmeval.dataset.image_vqa as free

        base = getattr(free, kind, None) or getattr(choice, kind)
    local = type(kind, (base,), {"load_data": lambda self, dataset: load(table)})
    return local(name)


def prompts(job: dict[str, Any]) -> Any:
    """What the model is asked, by row: the text, and the pixels of its pictures."""
    import hashlib

    from PIL import Image

    data = _dataset(job["dataset"], job["table"])
    made = {}
    for i in range(len(data)):
        message = data.build_prompt(i)
        pixels = [
            hashlib.sha256(Image.open(part["value"]).convert("RGB").tobytes()).hexdigest()
            for part in message
            if part["type"] == "image"
        ]
        texts = [part["value"] for part in message if part["type"] == "text"]
        kinds = [part["type"] for part in message]
        made[str(data.data.iloc[i]["index"])] = {"texts": texts, "pixels": pixels, "kinds": kinds}
    return made


def judge_prompts(job: dict[str, Any]) -> Any:
    """The judge's prompts for lines."""
    from vlmeval.dataset.utils import mathv, mathverse
    from vlmeval.dataset.utils.multiple_choice import build_prompt_wemath
    from vlmeval.smp.vlm import build_option_str

    makers = {
        "mathvision": mathv.build_mathv_gpt4_prompt,
        "mathverse_extract": mathverse.build_mathverse_gpt4_extract_prompt,
        "mathverse_score": mathverse.build_mathverse_gpt4_score_prompt,
        "wemath": lambda line: build_prompt_wemath(
            line["question"], build_option_str(line["options"]), line["prediction"]
        ),
    }
    return [makers[job["kind"]](line) for line in job["lines"]]


def equal(job: dict[str, Any]) -> Any:
    """MathVision's comparison of pairs (answer, gold)."""
    from vlmeval.dataset.utils.mathv import is_equal

    return [bool(is_equal(answer, gold)) for answer, gold in job["pairs"]]


def infer(job: dict[str, Any]) -> Any:
    """The option of answers: [answer, {letter: text}]."""
    from vlmeval.utils import can_infer

    return [can_infer(answer, dict(choices)) or None for answer, choices in job["pairs"]]


def evaluate(job: dict[str, Any]) -> Any:
    """Score predictions by row, ``None`` leaving the row out; ``judge`` as build_judge takes it."""
    import pandas
    from vlmeval.smp import dump

    data = _dataset(job["dataset"], job["table"])
    frame = data.data.drop(columns="image").copy()
    predictions = job["predictions"]
    kept = [str(index) in predictions for index in frame["index"]]
    frame = frame[kept]
    frame["prediction"] = [predictions[str(index)] for index in frame["index"]]
    os.environ["PRED_FORMAT"] = job.get("format", "xlsx")
    file = Path(job["folder"]) / f"model_{job['dataset']}.{os.environ['PRED_FORMAT']}"
    file.parent.mkdir(parents=True, exist_ok=True)
    dump(frame, str(file))
    judge = {"nproc": 1, "retry": 1, "wait": 0.01, "verbose": False, **job.get("judge", {})}
    result = data.evaluate(str(file), **judge)
    assert isinstance(result, pandas.DataFrame)
    return json.loads(result.to_json(orient="records"))


JOBS = {
    "prompts": prompts,
    "judge_prompts": judge_prompts,
    "equal": equal,
    "infer": infer,
    "evaluate": evaluate,
}


def main() -> None:
    """Run the jobs of a file."""
    jobs = json.loads(Path(sys.argv[1]).read_text())
    results = []
    for job in jobs:
        try:
            results.append(JOBS[job["job"]](job))
        except BaseException as error:
            results.append({"error": f"{type(error).__name__}: {error}"})
    Path(sys.argv[2]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
