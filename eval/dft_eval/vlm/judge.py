"""The judge ``openai``: a model behind an OpenAI-compatible server that reads answers.

Checked by one real call before anything is generated. Every reply is kept by content, so that a
second run asks nothing twice. A reply that does not come leaves its item unscored; nothing else
ever takes the judge's place. The key (``JUDGE_API_KEY``) stands in no message, log or file.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_eval.benchmark import JudgeChoice, Request
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.generation.openai_http import (
    ATTEMPTS,
    Connection,
    RequestFailedError,
    check_base_url,
)

KEY_VARIABLE = "JUDGE_API_KEY"
OPENAI_URL = "https://api.openai.com/v1"
MAX_TOKENS = 128
REASONING_MAX_TOKENS = 2048
"""For models that refuse ``max_tokens`` and a temperature: their thoughts count too."""
CHARACTERS_A_TOKEN = 4
PROMPT_TOKENS = 600
"""Of VLMEvalKit's judge prompts with their examples and a question, without the answer."""
REPLY_TRIES = 5
"""Times that a reply which makes no sense is asked for again, at rising temperature, as
VLMEvalKit 0.0.20 does."""
REPLY_SECONDS = 120.0
WORKERS = 8
"""Requests under way at once."""
OUTAGE_AFTER = 8
"""Requests in a row that failed after all attempts, after which no more are made."""


@dataclass(frozen=True)
class Reply:
    """What the judge said; None, and why, where it said nothing of use."""

    text: str | None
    reason: str = ""


class OpenAIJudge:
    """One model behind one server, with the replies that it has given."""

    def __init__(
        self,
        choice: JudgeChoice,
        cache: Path,
        *,
        attempts: int = ATTEMPTS,
        reply_seconds: float = REPLY_SECONDS,
    ) -> None:
        """Read the replies of earlier runs.

        Raises:
            UsageError: no model, or an address that is none or holds a password.
        """
        if not choice.model:
            raise UsageError(
                "--judge openai needs --judge-model NAME (VLMEvalKit takes gpt-4o-mini by default)."
            )
        self.model = choice.model
        self.base_url = check_base_url(
            choice.base_url or OPENAI_URL, "--judge-base-url", KEY_VARIABLE
        )
        self._connection = Connection(
            self.base_url,
            os.environ.get(KEY_VARIABLE),
            attempts=attempts,
            read_seconds=reply_seconds,
        )
        self._reasoning = False
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self._outage: str | None = None
        self._cache = cache
        self._known = _read_cache(cache)

    @property
    def described(self) -> str:
        """For the result: who judged, and how it was asked."""
        how = (
            f"max_completion_tokens {REASONING_MAX_TOKENS}"
            if self._reasoning
            else f"temperature 0, max_tokens {MAX_TOKENS}"
        )
        return f"openai: {self.model} at {self.base_url} ({how})"

    def check(self) -> None:
        """Make one real call.

        Raises:
            PrerequisiteError: the judge does not work, with the fix.
        """
        try:
            reply = self._request("hello", 0.0, first_contact=True)
            problem = "" if reply else "it answers 'hello' without a text."
        except RequestFailedError as error:
            problem = _failure_text(error)
        if problem:
            raise PrerequisiteError(
                f"The judge {self.model!r} at {self.base_url} does not work: {problem} Look at "
                f"--judge-model, --judge-base-url and {KEY_VARIABLE}, or use --judge rules."
            )

    def estimate(self, requests: int, answer_tokens: int, benchmark: str) -> None:
        """Say on stderr, before anything is generated, what the judge may be asked at most.

        Args:
            answer_tokens: that an answer may have; the judge reads it within a prompt of about
                :data:`PROMPT_TOKENS`.
        """
        tokens = requests * (PROMPT_TOKENS + answer_tokens)
        sys.stderr.write(
            f"judge {self.model} works; {benchmark} needs at most {requests:,} requests, "
            f"{tokens:,} tokens in and {requests * MAX_TOKENS:,} out\n"
        )

    def announce(self, prompts: Sequence[str]) -> None:
        """Say on stderr how many requests these prompts need, and how many tokens."""
        new = {prompt for prompt in prompts if self._digest(prompt) not in self._known}
        tokens = sum(len(prompt) for prompt in new) // CHARACTERS_A_TOKEN
        sys.stderr.write(
            f"judge {self.model}: {len(new)} requests to make, about {tokens:,} tokens in and at "
            f"most {len(new) * MAX_TOKENS:,} out; {len(prompts) - len(new)} answered already\n"
        )

    def ask(
        self,
        prompts: Sequence[str],
        accept: Callable[[str], bool],
        progress: Callable[[int, int], None],
    ) -> list[Reply]:
        """Replies to all prompts, in their order; every prompt is asked once, ever.

        Args:
            accept: whether a reply makes sense; others are asked for again, then given up.
        """
        unique = list(dict.fromkeys(prompts))
        replies: dict[str, Reply] = {}
        with ThreadPoolExecutor(WORKERS) as pool:
            asked = pool.map(lambda prompt: self._one(prompt, accept), unique)
            for prompt, reply in zip(unique, asked, strict=True):
                replies[prompt] = reply
                progress(len(replies), len(unique))
        return [replies[prompt] for prompt in prompts]

    def _one(self, prompt: str, accept: Callable[[str], bool]) -> Reply:
        digest = self._digest(prompt)
        known = self._known.get(digest)
        if known is not None and accept(known):
            return Reply(known)
        text = ""
        for attempt in range(REPLY_TRIES):
            if self._outage is not None:
                return Reply(None, f"judge: not asked, since it is out of reach ({self._outage})")
            try:
                text = self._request(prompt, 0.5 * attempt).strip()
            except RequestFailedError as error:
                self._count_failure(error)
                return Reply(None, f"judge: {_failure_text(error)}")
            with self._lock:
                self._failed_in_a_row = 0
            if accept(text):
                self._remember(digest, text)
                return Reply(text)
        return Reply(None, f"judge: {REPLY_TRIES} replies without sense, the last {text[:60]!r}")

    def _count_failure(self, error: RequestFailedError) -> None:
        if error.status in (400, 413, 422):
            return  # about this one prompt, such as one that is too long for the model
        with self._lock:
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= OUTAGE_AFTER:
                self._outage = _failure_text(error)

    def _request(self, prompt: str, temperature: float, *, first_contact: bool = False) -> str:
        """The content of one chat completion; empty where the server's answer holds none."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
        }
        if self._reasoning:
            body["max_completion_tokens"] = REASONING_MAX_TOKENS
        else:
            body |= {"max_tokens": MAX_TOKENS, "temperature": temperature}
        try:
            answer = self._connection.post("/chat/completions", body, first_contact=first_contact)
        except RequestFailedError as error:
            wants_other = error.status == 400 and "max_completion_tokens" in str(error)
            if not wants_other or self._reasoning:
                raise
            self._reasoning = True
            return self._request(prompt, temperature, first_contact=first_contact)
        try:
            content = answer["choices"][0]["message"]["content"]
        except (LookupError, TypeError):
            content = None
        return content if isinstance(content, str) else ""

    def _digest(self, prompt: str) -> str:
        content = json.dumps([self.base_url, self.model, prompt])
        return hashlib.sha256(content.encode()).hexdigest()

    def _remember(self, digest: str, text: str) -> None:
        with self._lock:
            self._known[digest] = text
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            with self._cache.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"asked": digest, "reply": text}) + "\n")


def open_judge(choice: JudgeChoice, request: Request, requests: int, name: str) -> OpenAIJudge:
    """The judge model, checked, with its replies in ``request.out``.

    Args:
        requests: that it may need at most, said on stderr.
        name: of the benchmark.

    Raises:
        UsageError, PrerequisiteError: as :class:`OpenAIJudge` and its ``check``.
    """
    replies = request.out / "judge.replies.jsonl"
    if request.fresh:
        replies.unlink(missing_ok=True)
    judge = OpenAIJudge(choice, replies)
    judge.check()
    judge.estimate(requests, request.decoding.max_new_tokens, name)
    return judge


def _read_cache(path: Path) -> dict[str, str]:
    """Replies by what was asked; the half line of a killed run is dropped."""
    known: dict[str, str] = {}
    if not path.exists():
        return known
    whole = path.read_bytes().rpartition(b"\n")[0]
    for line in whole.split(b"\n") if whole else []:
        row = json.loads(line)
        known[row["asked"]] = row["reply"]
    os.truncate(path, len(whole) + 1 if whole else 0)
    return known


def _failure_text(error: RequestFailedError) -> str:
    """What failed. Servers may repeat a part of the key where they refuse it: that is left out."""
    if error.status in (401, 403):
        return f"status {error.status}: it does not accept the key in {KEY_VARIABLE}."
    return f"{error}."
