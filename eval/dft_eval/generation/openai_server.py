"""Completions by an OpenAI-compatible server: vLLM, SGLang, llama.cpp, OpenAI and others.

Raw prompts go to ``/completions``, chats to ``/chat/completions``. Before the first request of a
kind, a call of one token shows that the server takes it.

A *begun answer* (``Prompt.answer_begins``) is sent as a last assistant message with vLLM's
``continue_final_message`` where the server goes on from it. Whether it does is measured, since
many servers ignore fields that they do not know: going on, it counts fewer prompt tokens than for
the same messages with a new turn opened after them. Any other server gets the question alone, and
what precedes the answer's first code block is dropped if the begun answer ends by opening one.
``record`` says which of the two it was.

A base model's end of sequence is often another token than the one that ends a turn in its chat
template, and a server stops at the first alone. Where it has vLLM's ``/tokenize``, the second is
asked for and sent as ``stop_token_ids``; ``record`` says whether.

The samples of a prompt are asked for in one request (``n``) where the server makes samples that
differ in this way, else one by one; ``record`` says which. One by one, each has a seed of its own.
A request of several has the first one's, and what becomes of it is the server's: vLLM adds the
sample's number, so that the same samples, asked for together, are made again, and others where some
were cached before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from threading import Lock
from typing import Any

from dft_eval.errors import UsageError
from dft_eval.generation.chat import REPLY
from dft_eval.generation.openai_http import Connection, RequestFailedError, refusal
from dft_eval.generation.openai_messages import Way, choice_text, content, read_answers
from dft_eval.generation.run import Completion, Decoding, Failure, Prompt
from dft_eval.system_prompts import NONE

PROBES = (
    "The three largest cities of Australia are",
    "def fibonacci(n):",
    "Once upon a time, in a village by the sea,",
    "17 * 23 =",
)
"""Their greedy completions tell apart what lies behind one name and address."""
PROBE_TOKENS = 24
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
SAMPLER = ("top_k", "min_p", "repetition_penalty")
"""Sent in every request: vLLM and SGLang otherwise take them from the model's
generation_config.json (1.05 to 1.1 for Qwen2.5 instruct). OpenAI's own server refuses them."""
UNREACHABLE_AFTER = 4
"""Requests in a row without any answer after which the rest is not tried."""
MOST_SAMPLES = 128
"""In one request: the bound of OpenAI's own server."""


class OpenAIServer:
    """A server's model as a :class:`~dft_eval.generation.run.Backend`; reads pictures if that does.

    Args:
        extra: fields added to every request.
        listed: the model's name under ``/models``; None for ``model``.
        weights: what is known of the weights and of how they are served; it stands for the server's
            address and :attr:`fingerprint` then.

    Raises:
        UsageError: the server does not have ``model``; the message names what it has.
        PrerequisiteError: it does not answer, or does not accept the key.
    """

    concurrent = True

    def __init__(
        self,
        model: str,
        connection: Connection,
        extra: dict[str, Any] | None = None,
        *,
        listed: str | None = None,
        weights: str | None = None,
    ) -> None:
        self.model = model
        self._listed = listed or model
        self._weights = weights
        self._connection = connection
        self._extra = extra or {}
        self._entry = self._look_up()
        self._ways: dict[tuple[Any, ...], Way] = {}
        self._lock = Lock()
        self._unanswered = 0

    @property
    def identity(self) -> str:
        """Server, model and :attr:`fingerprint`.

        Weights cannot be seen; a model that answers all :data:`PROBES` alike passes for the same.
        """
        if self._weights is not None:
            return json.dumps({"weights": self._weights, **self._extra})
        known = {key: self._entry.get(key) for key in ("id", "root", "parent", "max_model_len")}
        known["fingerprint"] = self.fingerprint
        return json.dumps({"server": self._connection.base_url, **known, **self._extra})

    @cached_property
    def fingerprint(self) -> str | None:
        """Hash of the greedy completions of :data:`PROBES`; None where the server refuses them."""
        decoding = Decoding(max_new_tokens=PROBE_TOKENS)
        for chat in (False, True):  # some servers have chats alone, some models no chat template
            digest = hashlib.sha256()
            try:
                for text in PROBES:
                    prompt = Prompt("probe", text, chat=chat)
                    # Fields of the sampler are neutral here, and some servers refuse them.
                    path, body = self._body(prompt, decoding, Way(sends_sampler=False))
                    choice = self._connection.post(path, body)["choices"][0]
                    answer = choice["message"]["content"] if chat else choice["text"]
                    digest.update(json.dumps(answer).encode())
                return digest.hexdigest()[:16]
            except RequestFailedError as error:
                if error.status not in (400, 404, 405, 422):
                    raise refusal(error) from None
            except (LookupError, TypeError):
                continue
        return None

    @cached_property
    def end_of_turn(self) -> tuple[str, int] | None:
        """Text and id of the token that ends a turn; None where the server does not tell."""
        url = f"{self._connection.base_url.removesuffix('/v1')}/tokenize"
        turns = [{"role": role, "content": REPLY} for role in ("user", "assistant")]
        body = {"model": self.model, "return_token_strs": True}
        try:
            turn = self._connection.post(
                url, {**body, "messages": turns, "add_generation_prompt": False}
            )
            texts = turn["token_strs"]
            after = len(texts) - texts[::-1].index(REPLY)
            text, token = str(texts[after]), int(turn["tokens"][after])
            alone = self._connection.post(
                url, {**body, "prompt": text, "add_special_tokens": False}
            )
        except (RequestFailedError, LookupError, TypeError, ValueError):
            return None
        # A special token is one token wherever it stands; a letter or a line's end tells nothing.
        return (text, token) if alone.get("tokens") == [token] and len(text) > 2 else None

    @property
    def owner(self) -> str | None:
        """Which server it is by its own account, such as ``vllm``."""
        return self._entry.get("owned_by")

    def record(self) -> dict[str, Any]:
        """How it was asked, for ``results.json``."""
        rows: dict[str, Any] = {
            "backend": "openai",
            "server": self.owner,
            **self._extra,
        }
        if self._weights is None:
            rows["server_fingerprint"] = self.fingerprint
        begun = {way.continues for key, way in self._ways.items() if key[1]}
        if begun:
            rows["begun_answer"] = "continued by the server" if True in begun else "not sent"
        if any(key[-1] and not way.sends_stop for key, way in self._ways.items()):
            rows["stop_texts"] = "applied after the answer"
        if any(key[0] for key in self._ways):
            ends = {way.end_of_turn for key, way in self._ways.items() if key[0]} - {None}
            rows["end_of_turn"] = (
                f"{self.end_of_turn[0]} (stop_token_ids, by the server's /tokenize)"
                if ends and self.end_of_turn
                else "the server's own"
            )
        sampled = {way.sends_n for key, way in self._ways.items() if key[3]}
        if sampled:
            rows["samples_of_a_prompt"] = (
                "in one request (n)" if sampled == {True} else "one request each"
            )
        if any(not way.sends_sampler for way in self._ways.values()):
            rows["refused_by_server"] = list(SAMPLER)
        return rows

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        """The samples of a prompt where the server takes ``n``, else one prompt each."""
        if decoding.samples == 1:
            return [[i] for i in range(len(prompts))]
        planned: list[list[int]] = []
        for _, same in groupby(range(len(prompts)), key=lambda i: replace(prompts[i], id="")):
            places = list(same)
            size = MOST_SAMPLES if self._way(prompts[places[0]], decoding).sends_n else 1
            planned += [places[i : i + size] for i in range(0, len(places), size)]
        return planned

    def complete(
        self, prompts: Sequence[Prompt], decoding: Decoding, _: Callable[[Completion], None]
    ) -> list[Completion | Failure]:
        """A completion each, or why there is none after all attempts.

        Samples that a request of several leaves out, or is refused for, are asked for one by one.
        """
        rows = self._ask(prompts, decoding) if len(prompts) > 1 else []
        for prompt in prompts[len(rows) :]:
            rows += self._ask([prompt], decoding)
        return rows

    def _ask(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Completion | Failure]:
        """One request for samples of a prompt. Empty if it is refused for asking for several."""
        way = self._way(prompts[0], decoding)
        reason = f"{self._connection.base_url} does not answer any more."
        if self._unanswered < UNREACHABLE_AFTER:
            path, body = self._body(prompts[0], decoding, way)
            if len(prompts) > 1:
                body["n"] = len(prompts)
            try:
                answer = self._connection.post(path, body)
            except RequestFailedError as error:
                self._unanswered = self._unanswered + 1 if error.status is None else 0
                if len(prompts) > 1 and error.status in (400, 422):
                    return []
                reason = f"No completion: {error}"
            else:
                self._unanswered = 0
                return read_answers(answer, prompts, decoding, way)
        return [Failure(prompt.id, reason) for prompt in prompts]

    def _body(self, prompt: Prompt, decoding: Decoding, way: Way) -> tuple[str, dict[str, Any]]:
        """Path and body of the request for one completion."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            **self._extra,
        }
        if way.sends_sampler:
            body.update({name: getattr(decoding, name) for name in SAMPLER})
        if decoding.temperature > 0:
            body["seed"] = decoding.row_seed(prompt.id)
        if decoding.stop and way.sends_stop:
            body["stop"] = list(decoding.stop)
        if not prompt.chat:
            return "/completions", {**body, "prompt": prompt.text}
        if way.end_of_turn is not None:
            body["stop_token_ids"] = [way.end_of_turn]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content(prompt)}]
        if decoding.system_prompt not in (None, NONE):
            messages.insert(0, {"role": "system", "content": decoding.system_prompt})
        if way.continues:
            messages.append({"role": "assistant", "content": prompt.answer_begins})
            body.update(CONTINUE)
        return "/chat/completions", {**body, "messages": messages}

    def _look_up(self) -> dict[str, Any]:
        """The server's own entry of the model, {} where it does not list models."""
        try:
            listed = self._connection.get("/models").get("data") or []
        except RequestFailedError as error:
            if error.status in (404, 405):
                return {}
            raise refusal(error) from None
        entries = {str(entry.get("id")): entry for entry in listed if isinstance(entry, dict)}
        if entries and self._listed not in entries:
            raise UsageError(
                f"--model {self._listed!r}: {self._connection.base_url} does not have it. It has "
                f"{', '.join(sorted(entries)[:20])}."
            )
        return entries.get(self._listed, {})

    def _way(self, prompt: Prompt, decoding: Decoding) -> Way:
        """How the server takes this kind of prompt, found out once, by real calls of one token."""
        begins, images = bool(prompt.answer_begins), bool(prompt.images)
        key = (prompt.chat, begins, images, decoding.samples > 1, decoding.stop)
        with self._lock:
            if key not in self._ways:
                self._ways[key] = self._find_way(prompt, decoding)
            return self._ways[key]

    def _find_way(self, prompt: Prompt, decoding: Decoding) -> Way:
        """The first way that the server accepts: all fields, else without those it may refuse.

        OpenAI's own takes four stop texts at most, and none of :data:`SAMPLER`.
        """
        continues = bool(prompt.answer_begins) and self._continues(prompt, decoding.system_prompt)
        # A stop text such as a closing fence would end an answer that opens one itself.
        stop = bool(decoding.stop) and (continues or not prompt.answer_begins)
        default = Decoding()
        required = [f for f in SAMPLER if getattr(decoding, f) != getattr(default, f)]
        end = self.end_of_turn if prompt.chat else None
        ways = [
            Way(sends_stop, end[1] if end else None, sends_sampler, continues)
            for sends_sampler in ((True,) if required else (True, False))
            for sends_stop in ((True, False) if stop else (False,))
        ]
        for way in ways:
            try:
                self._try(prompt, decoding, way)
            except RequestFailedError as error:
                failed = error
                if error.status not in (400, 422):
                    break
            else:
                several = decoding.samples > 1 and self._makes_samples(prompt, decoding, way)
                return replace(way, sends_n=several)
        raise refusal(failed) from None

    def _makes_samples(self, prompt: Prompt, decoding: Decoding, way: Way) -> bool:
        """Whether one request makes several samples, which differ at a high temperature.

        Some servers refuse or ignore ``n``, some give one seed to all (vLLM before its #11898).
        """
        hot = Decoding(PROBE_TOKENS, samples=4, temperature=2.0, seed=decoding.seed)
        path, body = self._body(prompt, hot, way)
        try:
            choices = self._connection.post(path, {**body, "n": 4})["choices"]
            texts = [choice_text(choice, prompt) for choice in choices]
        except (RequestFailedError, LookupError, TypeError):
            return False
        return len(texts) == 4 and len(set(texts)) > 1

    def _try(self, prompt: Prompt, decoding: Decoding, way: Way) -> dict[str, Any]:
        path, body = self._body(prompt, decoding, way)
        return self._connection.post(path, {**body, "max_tokens": 1})

    def _continues(self, prompt: Prompt, system_prompt: str | None) -> bool:
        """Whether the server goes on from a begun answer (see the module's text)."""
        decoding = Decoding(max_new_tokens=1, system_prompt=system_prompt)
        path, body = self._body(prompt, decoding, Way(continues=True))
        opened = {key: value for key, value in body.items() if key not in CONTINUE}
        try:
            counts = [
                int(self._connection.post(path, request)["usage"]["prompt_tokens"])
                for request in (body, opened)
            ]
        except RequestFailedError as error:
            if error.status is None or error.status in (401, 403):
                raise refusal(error) from None
            return False
        except (KeyError, TypeError, ValueError):
            return False
        return counts[0] < counts[1]
