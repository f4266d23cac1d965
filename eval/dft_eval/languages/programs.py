"""Programs from problems and completions, assembled as each harness does.

Raw completions: ``official`` as nuprl/MultiPL-E (``evaluation/src/main.py``), ``qwen`` as
Qwen2.5-Coder at d5ead97 (``multiple-eval``: ``utils/utils.py``, ``human_eval/evaluation.py``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator

from dft_eval.generation.run import cut
from dft_eval.languages.answers import extract
from dft_eval.languages.judge import Program
from dft_eval.languages.recipes import LANGUAGES, Harness, Language

OFFICIAL_PYTHON_STOP = ("\ndef", "\n#", "\nif", "\nclass")
QWEN_PYTHON_STOP = ("\ndef", "\nclass", "\nif", "\n#", "\nprint")
QWEN_TYPESCRIPT_STOP = (
    *("\nexport", "\nimport", "\nexport default", "\nimport default", "\nconsole.log"),
)
INSTRUCTION = (
    "Please continue to complete the function and return all completed code in a codeblock. "
    "Here is the given code to do completion:\n```{language}\n{prompt}\n```"
)
"""Of Qwen2.5-Coder's ``instruct/multipl_e/chat/convert_data.py``. nuprl prompts chat models through
DSPy, whose wording changes with every release."""

# Qwen's, without numpy, which the sandbox's Python does not have.
_PYTHON_IMPORTS = """\
import math
import re
import sys
import copy
import datetime
import itertools
import collections
import heapq
import functools
import hashlib
import string
from typing import *
from collections import *
"""
_CPP_HEADERS = (
    *("stdlib.h", "algorithm", "math.h", "stdio.h", "vector", "string"),
    *("climits", "cstring", "iostream", "cassert"),
)
_CS_USINGS = (
    *("Numerics", "Diagnostics", "Collections.Generic", "Linq", "Text"),
    *("Security.Cryptography", "Collections.Generic"),
)


@dataclass(frozen=True)
class Problem:
    """One problem. ``tests`` follow the function and in some languages begin with its ``}``."""

    id: str
    language: Annotated[
        Language,
        PlainSerializer(lambda language: language.code),
        PlainValidator(lambda value: value if isinstance(value, Language) else LANGUAGES[value]),
    ]
    prompt: str
    tests: str
    stop_tokens: tuple[str, ...]


def stop_texts(problem: Problem, harness: Harness) -> tuple[str, ...]:
    """Stop texts of a raw completion."""
    if problem.language.code == "python":
        return QWEN_PYTHON_STOP if harness == "qwen" else OFFICIAL_PYTHON_STOP
    if problem.language.code == "ts" and harness == "qwen":
        return (*problem.stop_tokens, *QWEN_TYPESCRIPT_STOP)
    return problem.stop_tokens


def prompt_text(problem: Problem, harness: Harness) -> str:
    """The raw prompt; Qwen's harness ends it with a line break."""
    return problem.prompt.strip() + ("\n" if harness == "qwen" else "")


def question(problem: Problem) -> str:
    """The user turn of a chat."""
    return INSTRUCTION.format(language=problem.language.code, prompt=problem.prompt.strip())


def from_completion(problem: Problem, completion: str, harness: Harness) -> Program:
    """The program of a raw completion."""
    body, _ = cut(completion, stop_texts(problem, harness))
    if harness == "official":
        return _with_tests(problem, problem.prompt + body, problem.tests)
    code = problem.prompt + "\n" + body
    language = problem.language.code
    if language == "python":
        code = _PYTHON_IMPORTS + code
    elif language == "cpp":
        headers = [f"#include<{name}>" for name in _CPP_HEADERS]
        code = "".join(f"{line}\n" for line in headers if line not in problem.prompt) + "\n" + code
    elif language == "cs":
        code = "".join(f"using System.{name};\n" for name in _CS_USINGS) + "\n" + code
    closing = "?>" if language == "php" else ""
    return _with_tests(problem, code, problem.tests + closing)


def from_answer(problem: Problem, answer: str, harness: Harness) -> Program:
    """The program of a chat answer.

    The answer closes the function itself, so the ``}`` at the start of the tests is removed. Code
    that does not define the problem's function is taken as a raw completion.
    """
    extracted = extract(problem.prompt, problem.language.code, answer)
    if extracted is None:
        block = re.search(r"```[^\n]*\n(.*?)(?:```|\Z)", answer, re.DOTALL)
        return from_completion(problem, block[1] if block else answer, harness)
    code, rest = extracted
    tests = problem.tests
    if problem.language.code in ("cpp", "java", "cs", "sh"):
        tests = re.sub(r"\A\s*\}", "", tests)
    return _with_tests(problem, code, tests + rest)


def _with_tests(problem: Problem, code: str, tests: str) -> Program:
    if problem.language.code == "python":
        return Program(code + "\n", tests + "\n")
    return Program(code + "\n" + tests)
