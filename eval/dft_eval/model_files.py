"""Find and fingerprint what makes up a model: a hub id, a folder, or a LoRA adapter."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.training_file import is_checkpoint

DTYPES = ("float32", "bfloat16", "float16")
DEFAULT_DTYPE = "float32"
"""For every model, whatever it was saved in and whatever the processor: the models of a comparison
run alike. It rounds no saved weight, and completions do not change with the batch size, where 16
bits make near ties fall either way. ``--dtype bfloat16`` takes half the memory."""
_BYTES = {"float32": 4, "float64": 8}
"""Of one weight; any other dtype has 2."""
ADAPTER_CONFIG = "adapter_config.json"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
NOT_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")
"""Files with a weight's suffix that transformers' Trainer leaves beside the weights."""
TOKENIZER = ("tokenizer_config.json",)
PROCESSOR = ("preprocessor_config.json", "processor_config.json")
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

    @property
    def settings_folders(self) -> list[Path]:
        """Where its tokenizer and processor are looked for, in this order.

        A checkpoint that was saved without one takes that of its run, in the folder above it.
        """
        folder = self.folder.resolve()
        fallback = []
        if is_checkpoint(folder) and any(
            _holds(folder.parent, names) and not _holds(folder, names)
            for names in (TOKENIZER, PROCESSOR)
        ):
            fallback = [folder.parent]
        return [self.folder, *fallback, *self.folders[1:]]

    def tokenizer_folder(self) -> Path:
        """The folder to load the tokenizer from.

        Raises:
            UsageError: there is none.
        """
        folders = [folder for folder in self.settings_folders if _holds(folder, TOKENIZER)]
        if not folders:
            raise UsageError(
                f"--model {self.name!r}: no tokenizer in {self.folder}. Copy the files of the base "
                "model's tokenizer there."
            )
        return folders[0]


def _holds(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).is_file() for name in names)


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder that hold its model's weights, by name; of a single file, itself."""
    if folder.is_file():
        return [folder]
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in WEIGHT_SUFFIXES and path.name not in NOT_WEIGHTS and path.is_file()
    )


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


def find_model(name: str, *, single_file: bool = False) -> ModelFiles:
    """Resolve ``--model``; downloads a hub id through huggingface_hub's cache.

    Args:
        single_file: it may also be a file with everything in it, such as llama.cpp's GGUF.

    Raises:
        UsageError: neither a folder nor a hub id, or a folder that holds no model.
        PrerequisiteError: the hub is out of reach.
    """
    if single_file and Path(name).is_file():
        return ModelFiles(name, Path(name))
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

    Files that this process or its parent (:func:`hashes_for_children`) has read are read again only
    if they have changed: minutes for a large model.

    Raises:
        UsageError: a folder without a weight file.
    """
    paths = []
    for folder in files.folders:
        weights = weight_files(folder)
        if not weights:
            raise UsageError(f"--model {files.name!r}: no weight file in {folder}.")
        paths += weights
    state = _state(paths)
    if state not in _hashes:
        _hashes.update(json.loads(os.environ.get(_HASHES_VARIABLE, "{}")))
    if state not in _hashes:
        digest = hashlib.sha256()
        for path in paths:
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as stream:
                while chunk := stream.read(1 << 22):
                    digest.update(chunk)
        _hashes[state] = digest.hexdigest()
    return _hashes[state]


_hashes: dict[str, str] = {}
"""By :func:`_state`."""
_HASHES_VARIABLE = "DFT_FACTORY_MODEL_HASHES"


def _state(paths: Sequence[Path]) -> str:
    """What changes with the files: their places, sizes and times of change."""
    stats = [(path.resolve(), path.stat()) for path in paths]
    rows = [[str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns] for path, stat in stats]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def hashes_for_children() -> dict[str, str]:
    """Environment in which a process on this machine knows the hashes that this one knows."""
    return {_HASHES_VARIABLE: json.dumps(_hashes)}


def settings_sha256(files: ModelFiles) -> str:
    """SHA-256 over the other files that completions depend on: config, tokenizer, chat template."""
    digest = hashlib.sha256()
    for folder in files.settings_folders:
        for path in sorted({path for name in SETTINGS for path in folder.glob(name)}):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def weights_dtype(files: ModelFiles) -> str:
    """The dtype in which the model was saved."""
    config = json.loads((files.base or files.folder).joinpath("config.json").read_text("utf-8"))
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def weights_bytes(files: ModelFiles, dtype: str) -> float:
    """Bytes of the whole model's weights in ``dtype``, by the size of their files."""
    saved = sum(path.stat().st_size for path in weight_files(files.base or files.folder))
    return saved * _BYTES.get(dtype, 2) / _BYTES.get(weights_dtype(files), 2)
