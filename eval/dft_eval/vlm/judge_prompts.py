"""The judge prompts of the installed VLMEvalKit.

``import vlmeval`` takes seconds, switches TLS verification off for the process and reads a ``.env``
file. The functions that make prompts only join strings, so they are compiled by themselves.
"""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dft_eval.errors import PrerequisiteError

PACKAGE = "ms-vlmeval"
FIX = "uv pip install 'dft-factory[vl]'"


def mathvision(line: Mapping[str, Any]) -> str:
    """To extract an answer: ``line`` has ``question`` and ``prediction``."""
    return _function("vlmeval/dataset/utils/mathv.py", "build_mathv_gpt4_prompt")(line)


def mathverse_extract(line: Mapping[str, Any]) -> str:
    """To extract an answer: ``line`` has ``prediction``."""
    file = "vlmeval/dataset/utils/mathverse.py"
    return _function(file, "build_mathverse_gpt4_extract_prompt")(line)


def mathverse_score(line: Mapping[str, Any]) -> str:
    """To compare answers: ``line`` has ``question_for_eval``, ``extract`` and ``answer``."""
    file = "vlmeval/dataset/utils/mathverse.py"
    return _function(file, "build_mathverse_gpt4_score_prompt")(line)


def wemath(line: Mapping[str, Any]) -> str:
    """To match an option: ``line`` has ``question``, ``options`` by letter and ``prediction``."""
    listed = _function("vlmeval/smp/vlm.py", "build_option_str")(line["options"])
    build = _function("vlmeval/dataset/utils/multiple_choice.py", "build_prompt_wemath")
    return build(line["question"], listed, line["prediction"])


@cache
def _function(file: str, name: str) -> Callable[..., str]:
    """A function of a file of VLMEvalKit, with the file's other functions and nothing else of it.

    Raises:
        PrerequisiteError: the package is not installed, or has no such function.
    """
    import pandas  # type: ignore[import-untyped]

    try:
        path = importlib.metadata.distribution(PACKAGE).locate_file(file)
        tree = ast.parse(Path(str(path)).read_text(encoding="utf-8"))
    except (importlib.metadata.PackageNotFoundError, OSError) as error:
        raise PrerequisiteError(f"{PACKAGE} has no readable {file}: {error}. {FIX}") from error
    tree.body = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.decorator_list
    ]
    names: dict[str, Any] = {"pd": pandas}
    exec(compile(tree, str(path), "exec"), names)
    if name not in names:
        raise PrerequisiteError(f"{PACKAGE}: {file} has no function {name}. {FIX}")
    function: Callable[..., str] = names[name]
    return function
