"""The command line of each server.

The options are those of vLLM 0.33.0, whose parser was asked, and SGLang 0.5.23, read in its source.
Both pin other versions of torch and transformers than training does, so that they run in an
environment of their own: one that uv makes and keeps (``uv tool run``), or the one of
``--serve-python``.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.model_files import ADAPTER_CONFIG, ModelFiles
from dft_eval.serving.server import HOST

EngineName = Literal["vllm", "sglang"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
VERSIONS: dict[str, str] = {"vllm": "0.33.0", "sglang": "0.5.23"}
"""Installed by uv where no ``--serve-python`` is given."""
DEFAULT_DTYPE = "bfloat16"
"""For every model of a comparison. Both engines would choose by the dtype that it was saved in."""
BASE = "base"
"""Name of the base model in requests; the text of ``--model`` might be read as something else."""
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""That vLLM takes as ``--max-lora-rank``."""
_TOKENIZER = {"vllm": "--tokenizer", "sglang": "--tokenizer-path"}
_OWN_ENVIRONMENT = ("env", "-u", "PYTHONPATH", "-u", "PYTHONHOME", "-u", "VIRTUAL_ENV")


@dataclass(frozen=True)
class ServeOptions:
    """How to start a server.

    Attributes:
        python: interpreter of the environment that holds the engine; None for one made by uv.
        command: of another server, with ``{model}`` and ``{port}``; None for an engine.
        args: more options of the engine, as on a command line.
        tensor_parallel, data_parallel: None for what the visible GPUs allow.
        timeout: seconds until it has to answer.
    """

    python: Path | None = None
    command: str | None = None
    args: str | None = None
    tensor_parallel: int | None = None
    data_parallel: int | None = None
    timeout: float = 1800.0


FLAGS = {
    "python": "--serve-python",
    "args": "--serve-args",
    "tensor_parallel": "--tensor-parallel",
    "data_parallel": "--data-parallel",
    "timeout": "--serve-timeout",
}


def check_options(
    backend: str, options: ServeOptions, base_url: str | None, dtype: str | None
) -> None:
    """Check the options of a server without looking at the machine.

    Raises:
        UsageError: one that has no effect or cannot be read.
    """
    default = ServeOptions()
    changed = [name for name in FLAGS if getattr(options, name) != getattr(default, name)]
    if options.command is not None:
        if backend != "openai":
            raise UsageError(f"--serve-command is for --backend openai, not {backend}.")
        if base_url is not None:
            raise UsageError("Give --base-url (a server that runs) or --serve-command, not both.")
        if dtype is not None:
            raise UsageError(f"--dtype {dtype}: write it into --serve-command.")
        _command_words(options.command, "", 0)
        changed = [name for name in changed if name != "timeout"]
    if backend in ENGINES:
        if base_url is not None:
            raise UsageError(
                f"--backend {backend} starts a server. For the one at {base_url}: --backend openai."
            )
    elif changed:
        raise UsageError(f"{FLAGS[changed[0]]} is for --backend vllm or sglang, not {backend}.")
    for name in ("tensor_parallel", "data_parallel"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"{FLAGS[name]} {value}: give a number of 1 or more.")
    if not options.timeout > 0:
        raise UsageError(f"--serve-timeout {options.timeout:g}: give a number of seconds above 0.")
    _split("--serve-args", options.args or "")


def _split(option: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: {error}.") from error


def _command_words(command: str, model: str, port: int) -> list[str]:
    """``--serve-command`` with its places filled; no shell reads it."""
    missing = [place for place in ("{model}", "{port}") if place not in command]
    if missing:
        raise UsageError(
            f"--serve-command {command!r}: write {' and '.join(missing)} where the model's path "
            "and the port go, as in 'transformers serve {model} --port {port}'."
        )
    words = _split("--serve-command", command)
    return [word.replace("{model}", model).replace("{port}", str(port)) for word in words]


def check_engine(backend: str, options: ServeOptions) -> None:
    """Look for the engine's interpreter, or for uv.

    Raises:
        PrerequisiteError: it is not there.
    """
    if options.command is not None:
        return
    if options.python is None and shutil.which("uv") is None:
        raise PrerequisiteError(
            f"--backend {backend}: uv, which installs {backend} into an environment of its own, "
            "is missing: `pip install uv`. Or give --serve-python, the interpreter of an "
            f"environment that holds {backend}."
        )
    if options.python is not None and shutil.which(options.python) is None:
        raise PrerequisiteError(
            f"--serve-python {options.python}: there is no such program. Make one: uv venv "
            f"FOLDER && uv pip install --python FOLDER/bin/python {backend}=={VERSIONS[backend]}"
        )


@dataclass(frozen=True)
class Served:
    """A model as its server knows it.

    Attributes:
        name: in requests.
        listed: under ``/models``; SGLang lists an adapter without the base that requests name.
    """

    name: str
    listed: str


def served_name(backend: str, files: ModelFiles, adapters: Sequence[ModelFiles]) -> Served:
    """The name of ``files``: a base model, or one of ``adapters``."""
    if backend not in ENGINES:
        name = str(files.folder.absolute())
        return Served(name, name)
    if files.base is None:
        return Served(BASE, BASE)
    listed = _adapter_name(adapters.index(files))
    # SGLang serves the base, without a word, to a request that names an adapter alone.
    return Served(f"{BASE}:{listed}" if backend == "sglang" else listed, listed)


def _adapter_name(index: int) -> str:
    return f"adapter-{index + 1}"


def server_words(
    backend: str,
    options: ServeOptions,
    *,
    files: ModelFiles,
    adapters: Sequence[ModelFiles],
    dtype: str,
    sizes: tuple[int, int],
    port: int,
) -> list[str]:
    """The command that serves a model.

    Args:
        files: the base model (or for ``--serve-command`` whatever the user named).
        adapters: LoRA adapters of it, served beside it, which share the tokenizer of ``files``.
        sizes: tensor and data parallel size.

    Raises:
        UsageError: an adapter's rank is above what vLLM can serve.
    """
    if options.command is not None:
        return _command_words(options.command, str(files.folder.absolute()), port)
    base = files.base or files.folder
    model = str(base.absolute())
    words = [*_OWN_ENVIRONMENT, *(_vllm if backend == "vllm" else _sglang)(options, model)]
    words += ["--host", HOST, "--port", str(port), "--served-model-name", BASE, "--dtype", dtype]
    for option, size in zip(("tensor", "data"), sizes, strict=True):
        words += [f"--{option}-parallel-size", str(size)] if size > 1 else []
    tokenizer = files.tokenizer_folder()
    if tokenizer != base:
        words += [_TOKENIZER[backend], str(tokenizer.absolute())]
    if adapters:
        paths = {
            _adapter_name(i): str(adapter.folder.absolute()) for i, adapter in enumerate(adapters)
        }
        words += (_vllm_adapters if backend == "vllm" else _sglang_adapters)(adapters, paths)
    return [*words, *_split("--serve-args", options.args or "")]


def _vllm(options: ServeOptions, model: str) -> list[str]:
    # Not the sampling defaults of generation_config.json; its end tokens stay.
    tail = ["serve", model, "--generation-config", "vllm", "--disable-uvicorn-access-log"]
    return [*_program("vllm", options, "vllm.entrypoints.cli.main"), *tail]


def _sglang(options: ServeOptions, model: str) -> list[str]:
    start = _program("sglang", options, "sglang.launch_server")
    start += [] if options.python else ["serve"]
    return [*start, "--model-path", model, "--sampling-defaults", "openai"]


def _program(engine: EngineName, options: ServeOptions, module: str) -> list[str]:
    if options.python is not None:
        return [str(options.python), "-m", module]
    return ["uv", "tool", "run", "--from", f"{engine}=={VERSIONS[engine]}", engine]


def _vllm_adapters(adapters: Sequence[ModelFiles], paths: Mapping[str, str]) -> list[str]:
    rank = max(map(_rank, adapters))
    if rank > _RANKS[-1]:
        raise UsageError(
            f"An adapter has rank {rank}; vLLM serves up to {_RANKS[-1]}. Merge it into its base "
            "(llamafactory-cli export), or use --backend hf."
        )
    words = ["--enable-lora", "--max-lora-rank", str(min(r for r in _RANKS if r >= rank))]
    words += ["--max-loras", str(len(adapters)), "--lora-modules"]
    return words + [json.dumps({"name": name, "path": path}) for name, path in paths.items()]


def _sglang_adapters(adapters: Sequence[ModelFiles], paths: Mapping[str, str]) -> list[str]:
    words = ["--enable-lora"]
    if len(adapters) >= 8:  # with requests to the base, more than fit by default
        words += ["--max-loras-per-batch", str(len(adapters) + 1)]
    rows = [{"lora_name": name, "lora_path": path} for name, path in paths.items()]
    return [*words, "--lora-paths", *map(json.dumps, rows)]


def _rank(adapter: ModelFiles) -> int:
    config = json.loads((adapter.folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return max([int(config.get("r", 8)), *map(int, (config.get("rank_pattern") or {}).values())])
