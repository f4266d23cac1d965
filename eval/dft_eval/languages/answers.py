"""The code of a chat answer, ready for tests to be appended. Text only, nothing is run."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
# A function's definition; NAME is replaced by its name.
_DEFINITIONS = {
    "python": r"^[ \t]*(?:async[ ]+)?def[ ]+NAME\b",
    "cpp": r"^[ \t]*[\w:<>,&*\[\] \t]+?[\s&*]NAME\s*\([^;{]*\)\s*(?:const\s*)?\{",
    "java": r"\bstatic\b[^;={}()]*\bNAME\s*\([^;{]*\)[^;{]*\{",
    "cs": r"\bstatic\b[^;={}()]*\bNAME\s*\([^;{]*\)[^;{]*(?:\{|=>)",
    "php": r"\bfunction\s+&?NAME\s*\(",
    "js": r"\bfunction\s*\*?\s*NAME\s*\(|\b(?:const|let|var)\s+NAME\b[^=;]*=",
    "ts": r"\bfunction\s*\*?\s*NAME\s*[(<]|\b(?:const|let|var)\s+NAME\b[^;]*=",
    "sh": r"^[ \t]*(?:function\s+NAME\b|NAME[ \t]*\([ \t]*\))",
}
_MAINS = {
    "cpp": re.compile(r"^[ \t]*(?:signed|int|auto|void)\s+main\s*\([^{;]*\{", re.MULTILINE),
    "java": re.compile(r"^[^\n;{}]*\bstatic\b[^;={}()]*\bmain\s*\([^{;]*\{", re.MULTILINE),
    "cs": re.compile(r"^[^\n;{}]*\bstatic\b[^;={}()]*\bMain\s*\([^{;]*\{", re.MULTILINE),
}
_CLASS = re.compile(r"\bclass\s+Problem\b[^{;]*\{")


def extract(prompt: str, language: str, answer: str) -> tuple[str, str] | None:
    """The first block that defines the problem's function, as (code before, code after the tests).

    An example ``main`` is removed, since the tests have their own. Java's and C#'s class is left
    open: the tests close it. The prompt's imports and classes go first. None if no block defines
    the function.
    """
    name = function_name(prompt, language)
    definition = re.compile(_DEFINITIONS[language].replace("NAME", re.escape(name)), re.MULTILINE)
    blocks = [block.group(1) for block in _BLOCK.finditer(answer)] or [answer]
    code = next((block for block in blocks if definition.search(block)), None)
    if code is None:
        return None
    code = _without_main(code, language)
    before = preamble(prompt, language)
    if language in ("java", "cs"):
        return _open_class(code, before)
    if language == "php":
        code = re.sub(r"<\?php|<\?(?!=)|\?>\s*\Z", "", code)
    return before + code, ""


def function_name(prompt: str, language: str) -> str:
    """The function whose body a problem asks for: the last one in its prompt."""
    if language == "python":
        return str(re.findall(r"^def[ ]+(\w+)", prompt, re.MULTILINE)[-1])
    header = prompt.rstrip().splitlines()[-1]
    match = re.search(r"([\w$]+)\s*\(", header)
    return match.group(1) if match else header


def preamble(prompt: str, language: str) -> str:
    """The prompt before its last function, without comments."""
    if language == "python":
        start = [match.start() for match in re.finditer(r"^def ", prompt, re.MULTILINE)][-1]
        return prompt[:start]
    lines = prompt.rstrip().splitlines()[:-1]
    marks = ("#",) if language == "sh" else ("//",)
    return "".join(f"{line}\n" for line in lines if not line.lstrip().startswith(marks))


def _without_main(code: str, language: str) -> str:
    pattern = _MAINS.get(language)
    match = pattern.search(code) if pattern else None
    if match is None:
        return code
    end = closing_brace(code, match.end() - 1)
    return code[: match.start()] + ("" if end is None else code[end + 1 :])


def _open_class(code: str, before: str) -> tuple[str, str]:
    """``code`` split at the end of its class Problem; without one, inside the prompt's class."""
    match = _CLASS.search(code)
    if match is None:
        return before + code, ""
    imports = "".join(
        f"{line}\n" for line in before.splitlines() if line.startswith(("import ", "using "))
    )
    end = closing_brace(code, match.end() - 1)
    return (imports + code[:end], code[end + 1 :]) if end is not None else (imports + code, "")


def closing_brace(code: str, opening: int) -> int | None:
    """Index of the ``}`` that closes the ``{`` at ``opening``, ignoring strings and comments."""
    depth = 0
    for token in _TOKEN.finditer(code, opening):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0 and token[0] == "}":
            return token.start()
    return None


_TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|[{}]', re.DOTALL
)
