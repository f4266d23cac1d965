"""The ``openai`` client as this package asks servers: JSON in and out, the key in no message."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from dft_eval.errors import EvaluationError, PrerequisiteError, UsageError

ATTEMPTS = 25
"""At one request. The client waits 0.5 s, doubling to 8 s, or as long as the server asks: a restart
of two minutes is survived."""
FIRST_CONTACT_ATTEMPTS = 3
"""At the look-up before a run, where a server that is not there is the user's to start."""
READ_SECONDS = 900.0
"""For the whole answer of one request, and of each sample in it: nothing is streamed."""

NO_ANSWER_SECONDS = 10.0
"""That a server of ours which does not answer is given to end, so that its log says why."""
ERROR_SECONDS = 2.0
"""The same after an answer of status 500 and above."""


class RequestFailedError(EvaluationError):
    """A request that failed for good.

    Attributes:
        status: of the last answer; None where none came.
        fix: what to do about a server that does not answer.
    """

    def __init__(self, message: str, status: int | None, fix: str) -> None:
        super().__init__(message)
        self.status = status
        self.fix = fix


def check_base_url(
    url: str, option: str = "--base-url", key_variable: str = "OPENAI_API_KEY"
) -> str:
    """``url``, which ``option`` gave, without its final slash.

    Raises:
        UsageError: no ``http(s)://host...``, or one that holds a password (results name the URL).
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise UsageError(f"{option} holds a user or password: give the key in {key_variable}.")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise UsageError(f"{option} {url!r}: give one like http://host:port/v1.")
    return url.rstrip("/")


class Connection:
    """One server. Safe to use from several threads at once."""

    def __init__(
        self,
        base_url: str,
        key: str | None,
        *,
        attempts: int = ATTEMPTS,
        read_seconds: float = READ_SECONDS,
        direct: bool = False,
        check: Callable[[float], None] | None = None,
        fix: str = "Start the server, or correct --base-url.",
    ) -> None:
        """``key`` goes into the ``Authorization`` header and nowhere else.

        Args:
            direct: past the proxies of the environment.
            check: called with seconds after a request that failed for good at the server's end; it
                raises where the server ended, or does so in this time.
            fix: what to do where it does not answer.
        """
        self.base_url = check_base_url(base_url)
        try:
            import openai
        except ImportError as error:
            raise PrerequisiteError(
                "The Python package openai is missing: uv pip install 'dft-factory[eval]'."
            ) from error
        self._key = (key or "").strip()
        if not self._key.isascii():
            raise UsageError("The API key holds characters that no HTTP header can carry.")
        self._client = openai.OpenAI(
            base_url=self.base_url,
            api_key=self._key or "EMPTY",  # the client insists on one
            max_retries=attempts - 1,
            http_client=openai.DefaultHttpxClient(trust_env=False) if direct else None,
        )
        retries = min(attempts, FIRST_CONTACT_ATTEMPTS) - 1
        self._impatient = self._client.with_options(max_retries=retries)
        self._check = check
        self._fix = fix
        self._read_seconds = read_seconds

    def get(self, path: str) -> dict[str, Any]:
        """The answer to a GET of ``path``, below the base URL."""
        return self._request("GET", path, None, self._impatient)

    def post(
        self, path: str, body: dict[str, Any], *, first_contact: bool = False
    ) -> dict[str, Any]:
        """The answer to a POST of ``body``.

        Args:
            first_contact: before a run: a server that does not answer is not waited for, one that
                is busy (status 429) is.

        Raises:
            RequestFailedError: the server refused it, or all attempts failed.
        """
        if first_contact:
            try:
                return self._request("POST", path, body, self._impatient)
            except RequestFailedError as error:
                if error.status != 429:
                    raise
        return self._request("POST", path, body, self._client)

    def _request(
        self, method: str, path: str, body: dict[str, Any] | None, client: Any
    ) -> dict[str, Any]:
        import openai

        timeout = openai.Timeout(self._read_seconds * (body or {}).get("n", 1), connect=15.0)
        client = client.with_options(timeout=timeout)
        status: int | None
        for _ in range(FIRST_CONTACT_ATTEMPTS):
            try:
                if method == "GET":
                    text = client.get(path, cast_to=str)
                else:
                    text = client.post(path, body=body, cast_to=str)
                answer = json.loads(text)
            except openai.APIStatusError as error:
                status, message = (
                    error.status_code,
                    f"status {error.status_code}: {_message(error)}",
                )
                break
            except openai.APIConnectionError as error:
                status, message = None, f"{type(error).__name__}: {error.__cause__ or error}"
                break
            except ValueError:
                answer = None
            if isinstance(answer, dict):
                return answer
            status, message = 200, "an answer that is no JSON object"
        if self._check is not None and (status is None or status >= 500):
            self._check(NO_ANSWER_SECONDS if status is None else ERROR_SECONDS)
        message = self._without_key(f"{self.base_url}{path}: {message}")
        raise RequestFailedError(message, status, self._fix)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _message(error: Any) -> str:
    """The message in an OpenAI-style error, or the beginning of whatever the server sent."""
    body = error.body
    inner = body.get("error", body) if isinstance(body, dict) else body
    return str(inner["message"] if isinstance(inner, dict) and "message" in inner else inner)[:500]


def refusal(error: RequestFailedError) -> EvaluationError:
    """What to tell the user of a request that failed before the run."""
    if error.status in (401, 403):
        return PrerequisiteError(f"{error} Give the server's key in OPENAI_API_KEY.")
    if error.status is None or error.status >= 500 or error.status == 429:
        return PrerequisiteError(f"{error} {error.fix}")
    if error.status in (404, 405):
        return UsageError(
            f"{error} Does --base-url end in /v1? A server may also lack /completions: try "
            "--prompt-style chat."
        )
    return UsageError(f"The server refuses the first request: {error}")
