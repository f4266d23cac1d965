"""The servers of one command: one at a time, a base model with its LoRA adapters beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from dft_eval.benchmark import Request
from dft_eval.generation.openai_http import Connection
from dft_eval.model_files import ModelFiles, find_model, model_sha256, settings_sha256
from dft_eval.serving.engines import (
    DEFAULT_DTYPE,
    ENGINES,
    Served,
    check_engine,
    served_name,
    server_words,
)
from dft_eval.serving.gpus import parallel_sizes, visible_gpus
from dft_eval.serving.server import Server
from dft_eval.serving.tokenizers import tokenizer_key

LOG_NAME = "server.log"
ATTEMPTS = 3
"""At one request: a server of this machine that refuses connections has ended."""


@dataclass(frozen=True)
class Running:
    """A model behind a server that runs.

    Attributes:
        sha256: over the weight files.
        identity: what completions depend on: not the port, nor the number of GPUs.
        record: how it is served, for ``results.json``.
    """

    sha256: str
    served: Served
    connection: Connection
    identity: str
    record: dict[str, Any]


class Servers:
    """Context manager: starts a server when a model of it is first asked for.

    Models of one base, tokenizer and chat template share a server. It ends before the next one
    starts, since each takes the memory of the GPUs.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        """Find the models of those ``requests`` that need a server.

        Raises:
            UsageError, PrerequisiteError: as :func:`find_model`; the engine is not there.
        """
        self._server: Server | None = None
        self._group: tuple[str, ...] = ()
        self._sizes = (1, 1)
        self._models: dict[str, ModelFiles] = {}
        self._groups: dict[str, tuple[str, ...]] = {}
        for request in requests:
            if request.starts_server:
                check_engine(request.backend, request.serve)
                alone = request.serve.command is not None
                files = find_model(request.model, single_file=alone)
                self._models[request.model] = files
                self._groups[request.model] = (request.model,) if alone else _group(files)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server, if one runs."""
        server, self._server, self._group = self._server, None, ()
        if server is not None:
            server.stop()

    def open(self, request: Request) -> Running:
        """The model of ``request`` behind its server, which is started if it does not run.

        Raises:
            UsageError, PrerequisiteError: it does not start.
        """
        files, group = self._models[request.model], self._groups[request.model]
        members = [f for name, f in self._models.items() if self._groups[name] == group]
        adapters = [member for member in members if member.base is not None]
        sha256, settings = model_sha256(files), settings_sha256(files)
        if self._server is None or self._group != group:
            self.close()
            self._server, self._group = self._start(request, files, adapters), group
        server = self._server
        how: dict[str, Any] = {"backend": request.backend}
        if request.backend in ENGINES:
            how["dtype"] = request.dtype or DEFAULT_DTYPE
            how |= {"serve_args": request.serve.args} if request.serve.args else {}
        else:
            how["serve_command"] = request.serve.command
        connection = Connection(
            f"{server.url}/v1",
            None,
            attempts=ATTEMPTS,
            direct=True,
            check=server.check,
            fix=f"It was started by this command; see its log, {server.log}.",
        )
        sizes = dict(zip(("tensor_parallel", "data_parallel"), self._sizes, strict=True))
        return Running(
            sha256=sha256,
            served=served_name(request.backend, files, adapters),
            connection=connection,
            identity=json.dumps([sha256, settings, how]),
            record=how if request.backend not in ENGINES else {**how, **sizes},
        )

    def _start(self, request: Request, files: ModelFiles, adapters: Sequence[ModelFiles]) -> Server:
        options, dtype = request.serve, request.dtype or DEFAULT_DTYPE
        name: str = request.backend
        if options.command is not None:
            name = "the server of --serve-command"
        else:
            self._sizes = parallel_sizes(
                files, dtype, visible_gpus(), options.tensor_parallel, options.data_parallel
            )
        server = Server(name, request.out / LOG_NAME)
        words = server_words(
            request.backend,
            options,
            files=files,
            adapters=adapters,
            dtype=dtype,
            sizes=self._sizes,
            port=server.port,
        )
        try:
            server.start(words, options.timeout)
        except BaseException:
            server.stop()
            raise
        return server


def _group(files: ModelFiles) -> tuple[str, ...]:
    """What models have in common that can share a server."""
    base = files.base or files.folder
    return str(base.resolve()), tokenizer_key(files.tokenizer_folder())
