"""Answers to questions with pictures: ours, in batches, against VLMEvalKit's wrapper, one by one.

    python benchmarks/vlm_generation.py                        # 24 items, 96 tokens each, CPU
    python benchmarks/vlm_generation.py --items 8 --tokens 32 --repeats 1
    python benchmarks/vlm_generation.py --items 48 --batch-size 8 --ends 40

Same random Qwen2.5-VL (60 M parameters, float32), same drawn pictures and questions, same pixel
range, same number of threads; a random model never ends its turn, so that both make the same
number of tokens. With ``--ends N`` every N-th token of the vocabulary ends it: the answers are of
unlike length. Our decoding steps and the rows in them are counted. VLMEvalKit's ``Qwen2VLChat``
runs as it is but for what ties it to a GPU: its memory check, flash attention and
``.to('cuda')``. Its sampling (top_k 1) is greedy. Each runs in a process of its own, in turn;
loading is not counted. Processor time is the fairer of the two columns where the machine has other
work.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

MIN_PIXELS, MAX_PIXELS = 64 * 28 * 28, 262_144
WORDS = "Look at the picture and say how many circles, squares and triangles there are in it. "


def make_model(folder: Path, ends: int) -> None:
    """A random Qwen2.5-VL whose decoding is bound by its weights, as a real one's is.

    Args:
        ends: every how many tokens of the vocabulary one ends an answer; 0 for none.
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoProcessor,
        GenerationConfig,
        Qwen2_5_VLForConditionalGeneration,
    )

    from dft_factory.tiny import make_tiny

    tiny = make_tiny("qwen2.5-vl", folder / "tiny")
    config = AutoConfig.from_pretrained(tiny)
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 768, 2048, 8
    text.num_attention_heads, text.num_key_value_heads = 12, 4
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [8, 12, 12]}
    text.layer_types = ["full_attention"] * 8
    vision.hidden_size, vision.intermediate_size, vision.num_heads = 128, 256, 4
    vision.depth, vision.fullatt_block_indexes, vision.out_hidden_size = 4, [1, 3], 768
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    # Without an end of turn both make exactly the tokens asked for.
    eos = [*range(0, text.vocab_size, ends)] if ends else []
    model.generation_config = GenerationConfig(eos_token_id=[*eos, text.vocab_size - 1])
    model.save_pretrained(folder / "model")
    AutoProcessor.from_pretrained(tiny).save_pretrained(folder / "model")


def make_items(folder: Path, count: int) -> list[dict[str, str]]:
    """Questions of several lengths with pictures of several sizes."""
    from tests.support.vlm_tables import picture

    items = []
    for i in range(count):
        path = folder / f"{i}.png"
        size = (280 + 56 * (i % 5), 224 + 84 * (i % 3))
        path.write_bytes(base64.b64decode(picture(i, size)))
        items.append({"id": str(i), "image": str(path), "text": WORDS * (1 + i % 3)})
    return items


def run_ours(job: dict[str, Any]) -> dict[str, Any]:
    """Our backend's batches."""
    from dft_eval.benchmark import PixelRange
    from dft_eval.generation.run import Decoding, Prompt
    from dft_eval.model_files import find_model
    from dft_eval.vlm import hf_vision

    loaded = hf_vision.load(find_model(job["model"]), "float32")
    backend = hf_vision.HfVisionBackend("m", PixelRange(MIN_PIXELS, MAX_PIXELS), lambda: loaded)
    prompts = [
        Prompt(item["id"], item["text"], chat=True, images=(item["image"],))
        for item in job["items"]
    ]
    decoding = Decoding(max_new_tokens=job["tokens"], batch_size=job["batch_size"])
    wall, processor = time.perf_counter(), time.process_time()
    rows = {}
    steps: list[int] = []
    loaded[0].get_input_embeddings().register_forward_pre_hook(
        lambda _, args: steps.append(args[0].shape[0]) if args[0].shape[1] == 1 else None
    )
    for batch in backend.batches(prompts, decoding):
        rows.update(
            {row.id: row for row in backend.complete([prompts[i] for i in batch], decoding)}
        )
    return {
        "wall_s": time.perf_counter() - wall,
        "processor_s": time.process_time() - processor,
        "tokens": sum(row.n_tokens for row in rows.values()),
        "steps": len(steps),
        "rows": sum(steps),
        "answers": {id: row.completion for id, row in rows.items()},
    }


def run_stock(job: dict[str, Any]) -> dict[str, Any]:
    """VLMEvalKit's wrapper, made to run without a GPU."""
    import vlmeval.vlm.qwen2_vl.model as stock
    from transformers import Qwen2_5_VLForConditionalGeneration as Model
    from transformers.feature_extraction_utils import BatchFeature

    load = Model.from_pretrained
    stock.get_gpu_memory = lambda: [1]
    Model.from_pretrained = lambda path, **_: load(path, dtype="auto")
    BatchFeature.to = lambda self, device: self
    chat = stock.Qwen2VLChat(
        model_path=job["model"],
        min_pixels=MIN_PIXELS,
        max_pixels=MAX_PIXELS,
        max_new_tokens=job["tokens"],
        use_custom_prompt=False,
    )
    lengths = []
    generate = chat.model.generate

    def counted(**inputs: Any) -> Any:
        output = generate(**inputs)
        lengths.append(output.shape[1] - inputs["input_ids"].shape[1])
        return output

    chat.model.generate = counted
    wall, processor = time.perf_counter(), time.process_time()
    answers = {
        item["id"]: chat.generate(
            [
                {"type": "image", "value": item["image"]},
                {"type": "text", "value": item["text"]},
            ],
            dataset="MathVision",
        )
        for item in job["items"]
    }
    return {
        "wall_s": time.perf_counter() - wall,
        "processor_s": time.process_time() - processor,
        "tokens": sum(lengths),
        "answers": answers,
    }


def in_process(who: str, job: dict[str, Any], folder: Path, threads: int) -> dict[str, Any]:
    """One run in a process of its own."""
    (folder / "job.json").write_text(json.dumps(job))
    subprocess.run(
        [sys.executable, __file__, "--worker", who, str(folder / "job.json")],
        check=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join(str(Path(__file__).parents[1] / d) for d in ("", "eval")),
        },
        stdout=subprocess.DEVNULL,
    )
    result: dict[str, Any] = json.loads((folder / "job.json").read_text())
    return result


def main() -> None:
    """Measure, or be one of the two processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--ends", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", nargs=2)
    options = parser.parse_args()
    if options.worker:
        who, file = options.worker
        job = json.loads(Path(file).read_text())
        result = run_ours(job) if who == "ours" else run_stock(job)
        Path(file).write_text(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder, options.ends)
        job = {
            "model": str(folder / "model"),
            "items": make_items(folder, options.items),
            "tokens": options.tokens,
            "batch_size": options.batch_size,
        }
        runs: dict[str, list[dict[str, Any]]] = {"VLMEvalKit": [], "ours": []}
        for _ in range(options.repeats):
            for who, rows in runs.items():
                rows.append(in_process(who, job, folder, options.threads))
    first = [rows[0] for rows in runs.values()]
    same = sum(first[0]["answers"][id] == text for id, text in first[1]["answers"].items())
    print(
        f"{options.items} items, {options.tokens} tokens each, {options.threads} threads, median "
        f"of {options.repeats}: {same} of {options.items} answers are the same"
    )
    print("| | tokens | wall s | tokens/s | processor s |\n|---|---|---|---|---|")
    medians: dict[str, dict[str, float]] = {}
    for who, rows in runs.items():
        wall, processor = (
            statistics.median(row[key] for row in rows) for key in ("wall_s", "processor_s")
        )
        medians[who] = {"wall": wall, "processor": processor}
        tokens = rows[0]["tokens"]
        print(f"| {who} | {tokens} | {wall:.1f} | {tokens / wall:.1f} | {processor:.1f} |")
    ratios = [medians["VLMEvalKit"][key] / medians["ours"][key] for key in ("wall", "processor")]
    ours = runs["ours"][0]
    print(f"\nours: {ours['steps']} decoding steps, {ours['rows']} rows in them")
    print(f"ours is {ratios[0]:.1f} x as fast by the clock, {ratios[1]:.1f} x by processor time")


if __name__ == "__main__":
    main()
