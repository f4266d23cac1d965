"""A judge model on loopback: OpenAI's chat completions by ``http.server``, with faults."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.openai_server import http_server


@dataclass(frozen=True)
class Answer:
    """What the server does with one request: an HTTP status and body, after a pause."""

    content: str = ""
    status: int = 200
    raw: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class JudgeServer:
    """A running judge. ``prompts``: all so far; ``headers``: of the last request."""

    url: str
    behave: Callable[[str, int], Answer]
    prompts: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def judged(self) -> list[str]:
        """The prompts without the greeting of the check before a run."""
        return [prompt for prompt in self.prompts if prompt != "hello"]


def good_judge(prompt: str, number: int) -> Answer:
    """A judge that follows VLMEvalKit's prompts: extracts an answer, compares two, or matches an
    option (B for sixty-five, Z for anything else)."""
    if prompt.rstrip().endswith("Judgement:"):
        gold = re.findall(r"\[Standard Answer\]: (.*)\n", prompt)[-1].strip()
        answer = re.findall(r"\[Model_answer\] : (.*)\n", prompt)[-1].strip()
        same = {gold, answer} == {"0.5m", "50cm"} or gold == answer
        return Answer(str(int(same)))
    if prompt.rstrip().endswith("Your output:"):
        answer = re.findall(r"Answer: <start>\n(.*?)\n<end>", prompt, re.DOTALL)[-1]
        return Answer("B" if "sixty-five" in answer else "Z")
    response = re.split(r"Model respon[cs]?e:", prompt)[-1]
    response = re.sub(r"'?\s*Extracted [aA]nswer:\s*$", "", response).strip().strip("'")
    words = response.split()
    return Answer(words[-1].strip(".") if words else "null")


@contextmanager
def judge_server(behave: Callable[[str, int], Answer] = good_judge) -> Iterator[JudgeServer]:
    """A judge at a free port of 127.0.0.1. ``behave`` gets the prompt and its number, from 1."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][-1]["content"]
            with lock:
                server.prompts.append(prompt)
                server.bodies.append(body)
                server.headers = {name.title(): value for name, value in self.headers.items()}
                number = len(server.prompts)
            answer = server.behave(prompt, number)
            time.sleep(answer.seconds)
            message = {"role": "assistant", "content": answer.content}
            reply = {"object": "chat.completion", "choices": [{"index": 0, "message": message}]}
            payload = (json.dumps(reply) if answer.raw is None else answer.raw).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http_server(Handler) as url:
        server = JudgeServer(url, behave)
        yield server
