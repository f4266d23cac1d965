"""Open the model under evaluation: weights on this machine or the hub, or a server."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from dft_eval.benchmark import PixelRange, Request, Subject
from dft_eval.errors import UsageError
from dft_eval.generation import hf_load
from dft_eval.generation.hf_text import HfTextBackend
from dft_eval.generation.openai_http import Connection
from dft_eval.generation.openai_server import OpenAIServer
from dft_eval.generation.run import Backend
from dft_eval.model_files import (
    DEFAULT_DTYPE,
    ModelFiles,
    find_model,
    model_sha256,
    settings_sha256,
    weights_dtype,
)
from dft_eval.serving.pool import Running, Servers
from dft_eval.vlm import hf_vision

KEY_VARIABLE = "OPENAI_API_KEY"


def load_model(
    files: ModelFiles, dtype: str = DEFAULT_DTYPE, device_map: hf_load.DeviceMap | None = None
) -> tuple[Any, Any]:
    """Model and tokenizer; arguments as :func:`~dft_eval.generation.hf_load.load`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(files.tokenizer_folder())
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return hf_load.load(AutoModelForCausalLM, files, dtype, device_map), tokenizer


class LocalModel:
    """A model of this machine or the hub under evaluation; loaded once, when it is first needed."""

    def __init__(
        self, name: str, dtype: str = DEFAULT_DTYPE, device_map: str | None = None
    ) -> None:
        """Find and fingerprint it; what cannot be evaluated is refused before anything runs.

        Args:
            device_map: None to spread it over GPUs only if it does not fit one.

        Raises:
            UsageError, PrerequisiteError: as :func:`find_model` and :func:`model_sha256`.
        """
        self.files = find_model(name)
        self.sha256 = model_sha256(self.files)
        self._loaded: tuple[Any, Any] | None = None
        self._loaded_vision: tuple[Any, Any] | None = None
        self.dtype = dtype
        self.device_map = device_map
        self._identity = f"{self.sha256} {settings_sha256(self.files)} {dtype}"
        self.text = HfTextBackend(self._identity, self.load)

    def vision(self, pixels: PixelRange) -> Backend:
        """Completes prompts with pictures."""
        return hf_vision.HfVisionBackend(self._identity, pixels, self.load_vision)

    def load_vision(self) -> tuple[Any, Any]:
        """Model and processor."""
        if self._loaded_vision is None:
            self._loaded_vision = hf_vision.load(self.files, self.dtype, self._devices())
        return self._loaded_vision

    def record(self) -> dict[str, Any]:
        """How the model was run, for ``results.json``."""
        spread = {} if self.device_map is None else {"device_map": self.device_map}
        return {
            "backend": "hf",
            "dtype": self.dtype,
            "weights_dtype": weights_dtype(self.files),
            "attn_implementation": hf_load.attention(self.files, self.dtype),
            **spread,
        }

    def load(self) -> tuple[Any, Any]:
        """Model and tokenizer."""
        if self._loaded is None:
            self._loaded = load_model(self.files, self.dtype, self._devices())
        return self._loaded

    def _devices(self) -> str | None:
        if self.device_map is None:
            self.device_map = hf_load.needed_device_map(self.files, self.dtype)
        return self.device_map


class ServerModel:
    """A server's model under evaluation; its weights cannot be fingerprinted."""

    sha256: str | None = None

    def __init__(self, model: str, connection: Connection, **known: Any) -> None:
        """Look the model up.

        Args:
            known: of a server of ours, as :class:`OpenAIServer` takes it.

        Raises:
            UsageError, PrerequisiteError: as :class:`OpenAIServer`.
        """
        self._connection = connection
        self._known = known
        self._last = self.text = OpenAIServer(model, connection, **known)

    def vision(self, pixels: PixelRange) -> OpenAIServer:
        """Completes prompts with pictures. vLLM alone is told the pixel range."""
        extra = {}
        if self.text.owner == "vllm":
            extra = {"mm_processor_kwargs": asdict(pixels)}
        self._last = OpenAIServer(self.text.model, self._connection, extra, **self._known)
        return self._last

    def record(self) -> dict[str, Any]:
        """How the backend that was asked for last was run."""
        return self._last.record()


class ServedModel(ServerModel):
    """A model of this machine or the hub behind a server that this process started."""

    def __init__(self, running: Running) -> None:
        """Look it up.

        Raises:
            UsageError: the server knows it by another name.
        """
        served = running.served
        known = {"listed": served.listed, "weights": running.identity}
        try:
            super().__init__(served.name, running.connection, **known)
        except UsageError as error:
            raise UsageError(
                f"{error} A server of --serve-command must serve the model by the name that "
                "{model} stands for (llama.cpp: --alias {model})."
            ) from error
        self.sha256 = running.sha256
        self._record = running.record

    def record(self) -> dict[str, Any]:
        """How it was served, and how the server was asked."""
        return {**super().record(), **self._record}


def open_subject(request: Request, servers: Servers) -> Subject:
    """The model that ``request`` asks for, behind its backend.

    Args:
        servers: where it is, if this process starts its server.

    Raises:
        UsageError, PrerequisiteError: it is not there, or the options do not fit together.
    """
    if request.starts_server:
        return ServedModel(servers.open(request))
    if request.backend == "hf":
        if request.base_url is not None:
            raise UsageError(f"--base-url {request.base_url} is for --backend openai.")
        return LocalModel(request.model, request.dtype or DEFAULT_DTYPE, request.device_map)
    if request.dtype is not None:
        raise UsageError(f"--dtype {request.dtype} is for --backend hf: a server has its own.")
    if request.base_url is None:
        raise UsageError(
            "--backend openai: give --base-url, such as http://localhost:8000/v1, or "
            "--serve-command, which starts a server."
        )
    return ServerModel(request.model, Connection(request.base_url, os.environ.get(KEY_VARIABLE)))
