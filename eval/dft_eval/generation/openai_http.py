"""JSON over HTTP to an OpenAI-compatible server, with retries; the key is in no message."""

from __future__ import annotations

import json
import random
import time
from typing import Any
from urllib.parse import urlsplit

from dft_eval.errors import EvaluationError, UsageError

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
READ_SECONDS = 900.0
"""For the whole answer of one request: nothing is streamed."""

RETRIED = (408, 425, 429)
"""Beside every 5xx."""


class RequestFailedError(EvaluationError):
    """A request that failed for good. ``status``: of the last answer; None where none came."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


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
        first_wait: float = FIRST_WAIT_SECONDS,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        """``key`` goes into the ``Authorization`` header and nowhere else."""
        import httpx

        self.base_url = check_base_url(base_url)
        self._key = (key or "").strip()
        if not self._key.isascii():
            raise UsageError("The API key holds characters that no HTTP header can carry.")
        self._first_wait = first_wait
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(read_seconds, connect=15.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )

    def get(self, path: str) -> dict[str, Any]:
        """The answer to a GET of ``path``, below the base URL."""
        return self._request("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a POST of ``body``.

        Raises:
            RequestFailedError: the server refused it, or :data:`ATTEMPTS` attempts failed.
        """
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        for attempt in range(1, ATTEMPTS + 1):
            answer, status, wait = self._once(method, path, body)
            if isinstance(answer, dict):
                return answer
            again = status is None or status == 200 or status in RETRIED or status >= 500
            if not again or attempt == ATTEMPTS:
                tries = f" ({attempt} attempts)" if attempt > 1 else ""
                message = f"{self.base_url}{path}: {answer}{tries}"
                raise RequestFailedError(self._without_key(message), status)
            backoff = self._first_wait * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
            time.sleep(min(max(backoff, wait), LONGEST_WAIT_SECONDS))
        raise AssertionError("unreachable")

    def _once(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[dict[str, Any] | str, int | None, float]:
        """The answer, or what went wrong; the status; the seconds the server asks us to wait."""
        import httpx

        try:
            reply = self._client.request(method, f"{self.base_url}{path}", json=body)
        except httpx.TransportError as error:
            return f"{type(error).__name__}: {error}", None, 0.0
        if reply.status_code != 200:
            return (
                f"status {reply.status_code}: {_said(reply.text)}",
                reply.status_code,
                _wait(reply.headers.get("retry-after", "")),
            )
        try:
            answer = reply.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            return "an answer that is no JSON", 200, 0.0
        if not isinstance(answer, dict):
            return "an answer that is no JSON object", 200, 0.0
        return answer, 200, 0.0

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _said(text: str) -> str:
    """The message in an OpenAI-style error, or the beginning of whatever the server sent."""
    try:
        error = json.loads(text)
        error = error.get("error", error)
        return str(error["message"] if isinstance(error, dict) else error)[:500]
    except (ValueError, KeyError, AttributeError):
        return text.strip()[:500]


def _wait(header: str) -> float:
    try:
        return float(header)
    except ValueError:
        return 0.0
