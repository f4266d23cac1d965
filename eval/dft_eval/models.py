"""Find, fingerprint and load the model under evaluation: a hub id, a folder, or a LoRA adapter."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_eval.benchmark import PixelRange, Request, Subject
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.generation.hf_prepare import prepare
from dft_eval.generation.hf_text import HfTextBackend
from dft_eval.generation.openai_http import Connection
from dft_eval.generation.openai_server import ServerModel
from dft_eval.generation.run import Backend
from dft_eval.vlm import hf_vision

ADAPTER_CONFIG = "adapter_config.json"
KEY_VARIABLE = "OPENAI_API_KEY"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
NOT_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")
"""Files with a weight's suffix that transformers' Trainer leaves beside the weights."""
SETTINGS = (
    *("config.json", "generation_config.json", "adapter_config.json", "*token*.json", "*.model"),
    *("chat_template*", "additional_chat_templates/*", "vocab*", "merges*", "*processor_config*"),
)
"""Files beside the weights that completions depend on."""


@dataclass(frozen=True)
class ModelFiles:
    """Where a model lies on this machine.

    Attributes:
        name: as the user gave it.
        folder: the folder to load; the adapter's own folder for an adapter.
        base: the folder of the adapter's base model; None for a whole model.
    """

    name: str
    folder: Path
    base: Path | None = None

    @property
    def folders(self) -> list[Path]:
        """All folders whose weights make up the model."""
        return [self.folder] if self.base is None else [self.folder, self.base]


def _local_folder(name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise UsageError(
            f"--model {name!r}: there is no such folder, and it is no hub id (owner/name). Give a "
            "model folder, a LoRA adapter folder, or a hub id."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, ignore_patterns=["*.gguf", "original/*"]))
    except Exception as error:
        raise PrerequisiteError(
            f"--model {name!r}: there is no such folder, and the model hub did not give it "
            f"({type(error).__name__}: {error}). Give a folder, or make the hub reachable."
        ) from error


def find_model(name: str) -> ModelFiles:
    """Resolve ``--model``; downloads a hub id through huggingface_hub's cache.

    Raises:
        UsageError: neither a folder nor a hub id, or a folder that holds no model.
        PrerequisiteError: the hub is out of reach.
    """
    folder = _local_folder(name)
    adapter = folder / ADAPTER_CONFIG
    if adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base:
            raise UsageError(f"{adapter} names no base_model_name_or_path.")
        return ModelFiles(name, folder, _local_folder(str(base)))
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"--model {name!r}: {folder} holds neither config.json nor {ADAPTER_CONFIG}: not a "
            "model."
        )
    return ModelFiles(name, folder)


def model_sha256(files: ModelFiles) -> str:
    """SHA-256 over the sorted weight files (names and bytes) of the adapter and its base.

    Raises:
        UsageError: a folder without a weight file.
    """
    digest = hashlib.sha256()
    for folder in files.folders:
        weights = sorted(
            path
            for path in folder.iterdir()
            if path.suffix in WEIGHT_SUFFIXES and path.name not in NOT_WEIGHTS and path.is_file()
        )
        if not weights:
            raise UsageError(f"--model {files.name!r}: no weight file in {folder}.")
        for path in weights:
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as stream:
                while chunk := stream.read(1 << 22):
                    digest.update(chunk)
    return digest.hexdigest()


def settings_sha256(files: ModelFiles) -> str:
    """SHA-256 over what else completions depend on: config, tokenizer, chat template, and dtype."""
    digest = hashlib.sha256(repr(sorted(dtypes(files).items())).encode())
    for folder in files.folders:
        for path in sorted({path for name in SETTINGS for path in folder.glob(name)}):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def dtypes(files: ModelFiles) -> dict[str, str]:
    """``dtype``, in which the model is run, and ``weights_dtype``, in which it was saved.

    The same, but float32 on processors that would emulate 16 bits at a fraction of the speed.
    """
    import torch

    config = json.loads((files.base or files.folder).joinpath("config.json").read_text("utf-8"))
    saved = config.get("dtype") or config.get("torch_dtype") or "float32"
    # An underscore, but torch's only answer to the question.
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    narrow = saved == "float16" or (saved == "bfloat16" and not native)
    run = "float32" if narrow and not torch.cuda.is_available() else saved
    return {"dtype": run, "weights_dtype": saved}


def load_model(files: ModelFiles) -> tuple[Any, Any]:
    """Model and tokenizer, ready to generate: in :func:`dtypes`, on a GPU if there is one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    holds_tokenizer = [f for f in files.folders if (f / "tokenizer_config.json").is_file()]
    if not holds_tokenizer:
        raise UsageError(f"--model {files.name!r}: no tokenizer in {files.folder}.")
    tokenizer = AutoTokenizer.from_pretrained(holds_tokenizer[0])
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(
        files.base or files.folder, dtype=getattr(torch, dtypes(files)["dtype"])
    )
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    prepare(model)
    if files.base is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, files.folder)
    return model.eval(), tokenizer


class LocalModel:
    """A model of this machine or the hub under evaluation; loaded once, when it is first needed."""

    def __init__(self, name: str) -> None:
        """Find and fingerprint it; what cannot be evaluated is refused before anything runs.

        Raises:
            UsageError, PrerequisiteError: as :func:`find_model` and :func:`model_sha256`.
        """
        self.files = find_model(name)
        self.sha256 = model_sha256(self.files)
        self._loaded: tuple[Any, Any] | None = None
        self._loaded_vision: tuple[Any, Any] | None = None
        self._identity = f"{self.sha256} {settings_sha256(self.files)}"
        self.text = HfTextBackend(self._identity, self.load)

    def vision(self, pixels: PixelRange) -> Backend:
        """Completes prompts with pictures."""
        return hf_vision.HfVisionBackend(self._identity, pixels, self.load_vision)

    def load_vision(self) -> tuple[Any, Any]:
        """Model and processor."""
        if self._loaded_vision is None:
            self._loaded_vision = hf_vision.load(self.files, dtypes(self.files)["dtype"])
        return self._loaded_vision

    def record(self) -> dict[str, Any]:
        """How the model was run, for ``results.json``."""
        return {"backend": "hf", **dtypes(self.files)}

    def load(self) -> tuple[Any, Any]:
        """Model and tokenizer."""
        if self._loaded is None:
            self._loaded = load_model(self.files)
        return self._loaded


def open_subject(request: Request) -> Subject:
    """The model that ``request`` asks for, behind its backend.

    Raises:
        UsageError, PrerequisiteError: it is not there, or the options do not fit together.
    """
    if request.backend == "hf":
        if request.base_url is not None:
            raise UsageError(f"--base-url {request.base_url} is for --backend openai.")
        return LocalModel(request.model)
    if request.base_url is None:
        raise UsageError("--backend openai: give --base-url, such as http://localhost:8000/v1.")
    return ServerModel(request.model, Connection(request.base_url, os.environ.get(KEY_VARIABLE)))
