"""The command lines of vLLM and SGLang, and the models that share a server.

Neither engine runs here: ``tests/support/engine_python.py`` takes their options in their place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from dft_eval.benchmark import Request
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.generation.run import Decoding
from dft_eval.model_files import ModelFiles, find_model
from dft_eval.serving.engines import ServeOptions, check_options, server_words
from dft_eval.serving.gpus import Gpus, parallel_sizes, visible_gpus
from dft_eval.serving.tokenizers import tokenizer_key
from dft_eval.several_models import evaluate_all, requests_of
from tests.conftest import Bench
from tests.unit.test_serving import ROOT, write_task


def engine_python(folder: Path) -> Path:
    path = folder / "python"
    # Without the paths of this environment, as a real one would be.
    path.write_text(
        '#!/bin/sh\n[ -z "$PYTHONPATH" ] || exit 9\n'
        f"PYTHONPATH={ROOT}:{ROOT / 'eval'} exec {sys.executable} -m "
        'tests.support.engine_python "$@"\n'
    )
    path.chmod(0o755)
    return path


def adapter(base: Path, folder: Path, rank: int = 8, template: str | None = None) -> Path:
    """A LoRA adapter's folder as LLaMA-Factory writes it; no engine here reads its weights."""
    folder.mkdir(parents=True)
    config = {"base_model_name_or_path": str(base), "r": rank, "rank_pattern": {"q_proj": rank + 4}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_text(folder.name)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (base / name).is_file():
            shutil.copy(base / name, folder / name)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def words_of(files: ModelFiles, *adapters: ModelFiles, dtype: str = "bfloat16") -> Any:
    """vLLM's command line."""
    options = {"files": files, "adapters": adapters, "dtype": dtype, "sizes": (1, 1), "port": 1}
    return server_words("vllm", ServeOptions(Path("python")), **options)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_base_and_its_adapters_share_a_server(
    engine: Any, text_bench: Bench, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own name: SGLang answers the bare name of an adapter with the base."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'eval'}")
    base = text_bench.model
    sft, dft = adapter(base, tmp_path / "s,f=t"), adapter(base, tmp_path / "dft", rank=16)
    serve = ServeOptions(engine_python(tmp_path), timeout=120.0, tensor_parallel=2)
    settings = {"backend": engine, "serve": serve, "decoding": Decoding(max_new_tokens=20)}
    request = Request("", tmp_path / "out", "model", **settings)
    requests = requests_of([f"base={base}", f"sft={sft}", f"dft={dft}"], request)
    results = [results for _, results in evaluate_all([write_task(tmp_path, 2)], requests)]
    assert capsys.readouterr().err.count(f"dft-factory: starting {engine}") == 1
    names = []
    for request_ in requests:
        lines = (request_.out / "task.chat.completions.jsonl").read_text().splitlines()
        names.append({json.loads(line)["completion"].split(" says ")[0] for line in lines})
    prefix = "base:" if engine == "sglang" else ""
    assert names == [{"base"}, {f"{prefix}adapter-1"}, {f"{prefix}adapter-2"}]
    assert len({row.model_sha256 for row in results}) == 3
    decoding = results[1].results[0].decoding
    assert (decoding["backend"], decoding["dtype"]) == (engine, "bfloat16")
    assert (decoding["tensor_parallel"], decoding["data_parallel"]) == (2, 1)
    served = re.search(r"^served: (.*)$", (requests[0].out / "server.log").read_text(), re.M)
    assert served is not None
    options = json.loads(served[1])
    assert (options["model"], options["host"]) == (str(base), "127.0.0.1")
    assert options["enable_lora"] is True
    if engine == "vllm":
        assert (options["max_lora_rank"], options["max_loras"]) == (32, 2)
        assert options["lora_modules"][0] == {"name": "adapter-1", "path": str(sft)}
    else:
        assert options["lora_paths"][1] == {"lora_name": "adapter-2", "lora_path": str(dft)}


def test_a_checkpoint_is_served_with_its_runs_tokenizer(text_bench: Bench, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoint-2"
    shutil.copytree(text_bench.model, checkpoint)
    for path in checkpoint.glob("*token*"):
        path.rename(checkpoint.parent / path.name)
    command = words_of(find_model(str(checkpoint)), dtype="float32")
    assert command[command.index("--tokenizer") + 1] == str(checkpoint.parent)


def test_another_chat_template_takes_another_server(text_bench: Bench, tmp_path: Path) -> None:
    """Two models trained with the same template share a server; their base has another."""
    base = text_bench.model
    same = adapter(base, tmp_path / "same")
    sft, dft = (adapter(base, tmp_path / name, template="{{ 1 }}") for name in ("sft", "dft"))
    config = json.loads((same / "tokenizer_config.json").read_text())
    (same / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": "left"}))
    files = {name: find_model(str(name)) for name in (base, same, sft, dft)}
    keys = {name: tokenizer_key(model.tokenizer_folder()) for name, model in files.items()}
    assert keys[base] == keys[same]
    assert keys[sft] == keys[dft] != keys[base]
    command = words_of(files[sft], files[sft], files[dft])
    assert command[command.index("--tokenizer") + 1] == str(sft)
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = tokenizer["added_tokens"][:-1]
    (same / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert tokenizer_key(same) != keys[base]


def test_an_adapter_of_a_rank_that_vllm_cannot_serve(text_bench: Bench, tmp_path: Path) -> None:
    files = find_model(str(adapter(text_bench.model, tmp_path / "x", rank=600)))
    with pytest.raises(UsageError, match=r"rank 604; vLLM serves up to 512"):
        words_of(files, files)


def test_missing_uv(text_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(**serve: Any) -> None:
        settings = {"backend": "vllm", "serve": ServeOptions(**serve)}
        request = Request(str(text_bench.model), tmp_path, "x", **settings)
        list(evaluate_all([write_task(tmp_path)], [request]))

    with pytest.raises(PrerequisiteError, match=r"--serve-python /no/python: .*vllm==0\.33\.0"):
        run(python=Path("/no/python"))
    with pytest.raises(PrerequisiteError, match=r"Install it: uv pip install --python \S+ vllm\n"):
        run(python=Path(sys.executable))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteError, match=r"uv, .* is missing: `pip install uv`.*--serve-py"):
        run()


@pytest.mark.parametrize(
    ("backend", "serve", "message"),
    [
        ("hf", {"python": Path("x")}, "--serve-python is for --backend vllm or sglang, not hf"),
        ("openai", {"tensor_parallel": 2}, "--tensor-parallel is for --backend vllm or sglang"),
        ("openai", {"timeout": 2.0}, "--serve-timeout is for"),
        ("vllm", {"command": "x {model} {port}"}, "--serve-command is for --backend openai"),
        ("openai", {"command": "x {model}"}, r"write \{port\} where"),
        ("openai", {"command": "x '{model} {port}"}, "No closing quotation"),
        ("openai", {"command": "x {model} {port}", "args": "-v"}, "--serve-args is for"),
        ("vllm", {"data_parallel": 0}, "--data-parallel 0: give a number of 1 or more"),
        ("vllm", {"timeout": 0.0}, "--serve-timeout 0: give a number of seconds above 0"),
        ("sglang", {"args": "'"}, r"--serve-args \"'\": No closing quotation"),
    ],
)
def test_incompatible_options(backend: str, serve: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_options(backend, ServeOptions(**serve), None, None)


def test_a_server_that_runs_and_one_that_is_started() -> None:
    url, command = "http://127.0.0.1:1/v1", ServeOptions(command="x {model} {port}")
    with pytest.raises(UsageError, match=r"--base-url .* or --serve-command, not both"):
        check_options("openai", command, url, None)
    with pytest.raises(UsageError, match=rf"For the one at {url}: --backend openai"):
        check_options("vllm", ServeOptions(), url, None)
    with pytest.raises(UsageError, match=r"--dtype float16: write it into --serve-command"):
        check_options("openai", command, None, "float16")


GIB = 1 << 30


@pytest.mark.parametrize(
    ("weights", "dtype", "gpus", "options", "sizes"),
    [
        (14 * GIB, "bfloat16", Gpus(8, 80 * GIB), (None, None), (1, 8)),
        (14 * GIB, "bfloat16", Gpus(8, 24 * GIB), (None, None), (2, 4)),
        (14 * GIB, "float32", Gpus(8, 24 * GIB), (None, None), (4, 2)),
        (140 * GIB, "bfloat16", Gpus(8, 80 * GIB), (None, None), (4, 2)),
        (140 * GIB, "bfloat16", Gpus(3, 24 * GIB), (None, None), (2, 1)),
        (900 * GIB, "bfloat16", Gpus(64, 24 * GIB), (None, None), (4, 16)),  # of 28 heads
        (14 * GIB, "bfloat16", Gpus(8, 24 * GIB), (4, None), (4, 2)),
        (14 * GIB, "bfloat16", Gpus(8, 24 * GIB), (None, 1), (2, 1)),
        (14 * GIB, "bfloat16", Gpus(0, 0), (None, None), (1, 1)),
        (14 * GIB, "bfloat16", Gpus(0, 0), (2, 2), (2, 2)),
    ],
)
def test_parallel_sizes(
    weights: int, dtype: str, gpus: Gpus, options: Any, sizes: Any, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"num_attention_heads": 28, "dtype": "bfloat16"}')
    with (tmp_path / "model.safetensors").open("wb") as stream:
        stream.truncate(weights)  # a sparse file
    assert parallel_sizes(find_model(str(tmp_path)), dtype, gpus, *options) == sizes


def test_more_gpus_than_there_are(text_bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"--tensor-parallel 2 with --data-parallel 4 needs 8 GPU"):
        parallel_sizes(find_model(str(text_bench.model)), "bfloat16", Gpus(4, GIB), 2, 4)


def test_visible_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus({}) == Gpus(0, 0)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf '81559\\n81559\\n40960\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert visible_gpus({}) == Gpus(3, 40960 << 20)
    for variable, count in (("0,2", 2), ("", 0), ("1,-1,2", 1), ("GPU-8932f937", 1)):
        assert visible_gpus({"CUDA_VISIBLE_DEVICES": variable}).count == count


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["a", "b"], "--model 'a': of several models each needs a label"),
        (["x/y=a", "z=b"], "A label names a folder"),
        (["x=a", "x=b"], "the label 'x' is there twice"),
        (["x=a", "shards=b"], "shards is the folder of --shard"),
    ],
)
def test_labels_of_several_models(models: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        requests_of(models, Request("", tmp_path, "model"))
