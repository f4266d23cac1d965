"""An OpenAI-compatible server on loopback with the answers and faults of a test."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from dft_eval.generation.openai_server import PROBES


@dataclass
class FakeServer:
    """The server's behaviour and the requests that it got.

    Attributes:
        answer: the full continuation of a prompt (a chat's user text), before stop texts.
        fault: for the n-th POST (from 1) 'drop' (no answer), 'garbage', 'hang up' (half an answer)
            or an HTTP status; None: no fault.
        continues: it continues a partial answer, as vLLM does; else it ignores those fields.
        talks: a chat answer without a partial answer is a code block with prose around it.
        most_stops: the number of stop texts that it accepts.
        choices: for a request with ``n``: ``seeded`` (as vLLM: each with the next seed, which
            precedes its answer), ``equal``, ``one`` (it ignores ``n``) or ``refused`` above
            ``most_choices``.
        refusal: the message of a 400 answer to a body; empty: no refusal.
        edit: changes an answer (body, answer) before it is sent.
        weights: its answer to fingerprint probes, which are not counted and meet no fault.
        vocabulary: special tokens of its ``/tokenize``, which is not counted; empty: no such route.
        seen: bodies of the POSTs that were answered.
    """

    answer: Callable[[str], str]
    models: tuple[str, ...] = ("tiny",)
    fault: Callable[[int], str | int | None] = lambda n: None
    continues: bool = True
    talks: bool = True
    most_stops: int = 100
    choices: Literal["seeded", "equal", "one", "refused"] = "one"
    most_choices: int = 1
    refusal: Callable[[dict[str, Any]], str] = lambda body: ""
    edit: Callable[[dict[str, Any], dict[str, Any]], None] = lambda body, answer: None
    key: str | None = None
    completions: bool = True
    weights: str = "first"
    vocabulary: dict[str, int] = field(default_factory=dict)
    seen: list[dict[str, Any]] = field(default_factory=list)
    posts: int = 0
    under_way: int = 0
    most_under_way: int = 0
    url: str = ""
    lock: Any = field(default_factory=threading.Lock)

    def tokenize(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """As vLLM does; ChatML, one token a special token and a letter."""
        if not self.vocabulary:
            return 404, {"detail": "Not Found"}
        text = body.get("prompt", "")
        for message in body.get("messages", []):
            text += f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
        special = "|".join(map(re.escape, self.vocabulary))
        pieces = re.findall(f"{special}|.", text, re.DOTALL)
        tokens = [self.vocabulary.get(word, ord(word[0])) for word in pieces]
        return 200, {"tokens": tokens, "token_strs": pieces, "count": len(tokens)}

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        message, n = self.refusal(body), body.get("n", 1)
        if len(body.get("stop", [])) > self.most_stops:
            message = f"'stop': at most {self.most_stops} are supported"
        if self.choices == "refused" and n > self.most_choices:
            message = f"'n': at most {self.most_choices} are supported"
        if message:
            return 400, {"error": {"message": message}}
        if path.endswith("/chat/completions"):
            rendered, text = self._chat(body)
        elif path.endswith("/completions") and self.completions:
            rendered, text = body["prompt"], self.answer(body["prompt"])
        else:
            return 404, {"detail": "Not Found"}
        texts = [text] * (n if self.choices == "equal" else 1)
        if self.choices in ("seeded", "refused") and "seed" in body:
            texts = [f"{body['seed'] + i} {text}" for i in range(n)]
        choices = [self._choice(body, text) for text in texts]
        tokens = sum(count for _, count in choices)
        usage = {"prompt_tokens": len(rendered.split()), "completion_tokens": tokens}
        answer = {"choices": [choice for choice, _ in choices], "usage": usage}
        self.edit(body, answer)
        return 200, answer

    def _choice(self, body: dict[str, Any], text: str) -> tuple[dict[str, Any], int]:
        """One choice, and its length in words."""
        pieces, reason = text.split(" "), "stop"
        ends = [end for end in (text.find(s) for s in body.get("stop", [])) if end >= 0]
        if ends:
            text = text[: min(ends)]
        elif len(pieces) > body["max_tokens"]:
            text, reason = " ".join(pieces[: body["max_tokens"]]), "length"
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
        if "messages" in body:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        return choice, len(text.split(" "))

    def _chat(self, body: dict[str, Any]) -> tuple[str, str]:
        user, *partial = (row for row in body["messages"] if row["role"] != "system")
        content = user["content"]
        if not isinstance(content, str):
            content = content[-1]["text"]
        rendered = f"<user> {content} <end>"
        for message in partial:
            rendered += f" <assistant> {message['content']}"
        going_on = self.continues and body.get("continue_final_message", False)
        if not going_on:
            rendered += " <end> <assistant>"
        text = self.answer(content)
        if going_on or not self.talks:
            return rendered, text
        return rendered, f"Here it is:\n```python\n{text}\n```\nDone."


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FakeServer

    def log_message(self, *args: Any) -> None:
        pass

    def _send(self, status: int, payload: Any, declare: int = 0) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) + declare))
        self.end_headers()
        self.wfile.write(data)

    def _allowed(self) -> bool:
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.state.key in (None, key):
            return True
        self._send(401, {"error": {"message": f"Incorrect API key provided: {key}"}})
        return False

    def do_GET(self) -> None:
        if self._allowed():
            rows = [{"id": name, "object": "model"} for name in self.state.models]
            self._send(200, {"object": "list", "data": rows})

    def do_POST(self) -> None:
        state = self.state
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._allowed():
            return
        if self.path == "/tokenize":
            self._send(*state.tokenize(json.loads(raw)))
            return
        if (probe := json.loads(raw)).get("prompt") in PROBES:
            choice = {"text": state.weights, "finish_reason": "length"}
            status = 200 if state.completions else 404
            self._send(status, {"choices": [choice], "usage": {"completion_tokens": 1}})
            return
        if probe.get("messages", [{}])[-1].get("content") in PROBES:
            message = {"role": "assistant", "content": state.weights}
            self._send(200, {"choices": [{"message": message, "finish_reason": "length"}]})
            return
        with state.lock:
            state.posts += 1
            fault = state.fault(state.posts)
            state.under_way += 1
            state.most_under_way = max(state.most_under_way, state.under_way)
        try:
            if fault == "drop":
                self.close_connection = True
                self.connection.close()
            elif fault == "hang up":
                self._send(200, b'{"choices": [', declare=1000)
                self.close_connection = True
            elif fault == "garbage":
                self._send(200, b"<html>")
            elif fault is not None:
                self._send(int(fault), {"error": {"message": "try later"}})
            else:
                body = json.loads(raw)
                status, answer = state.reply(self.path, body)
                if status == 200:
                    with state.lock:
                        state.seen.append(body)
                self._send(status, answer)
        finally:
            with state.lock:
                state.under_way -= 1


@contextlib.contextmanager
def serve(state: FakeServer, port: int = 0) -> Iterator[FakeServer]:
    """Run it on a loopback port (0: a free one); ``state.url`` is its base URL."""
    with http_server(type("Handler", (_Handler,), {"state": state}), port) as state.url:
        yield state


@contextlib.contextmanager
def http_server(handler: Callable[..., BaseHTTPRequestHandler], port: int = 0) -> Iterator[str]:
    """Serve on a loopback port (0: a free one) in a thread; gives the base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
