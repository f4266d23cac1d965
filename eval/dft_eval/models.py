"""Find, fingerprint and load the model under evaluation: a hub id, a folder, or a LoRA adapter."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.hf_text import HfTextBackend

ADAPTER_CONFIG = "adapter_config.json"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
NOT_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")
"""Files with a weight's suffix that transformers' Trainer leaves beside the weights."""


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


def load_model(files: ModelFiles) -> tuple[Any, Any]:
    """Model and tokenizer, ready to generate: its own dtype, on a GPU if there is one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    holds_tokenizer = [f for f in files.folders if (f / "tokenizer_config.json").is_file()]
    if not holds_tokenizer:
        raise UsageError(f"--model {files.name!r}: no tokenizer in {files.folder}.")
    tokenizer = AutoTokenizer.from_pretrained(holds_tokenizer[0])
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(files.base or files.folder, dtype="auto")
    if files.base is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, files.folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), tokenizer


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
        self.text = HfTextBackend(self.sha256, self.load)

    def load(self) -> tuple[Any, Any]:
        """Model and tokenizer."""
        if self._loaded is None:
            self._loaded = load_model(self.files)
        return self._loaded
