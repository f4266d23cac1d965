"""Record the inputs on which a problem's tests call its function; runs in the sandbox as source.

``problems.json``: a list of ``[prompt and canonical solution, tests, entry point]``, no model's
code. Standard output has one line per problem: ``repr`` of the list of calls' argument lists. The
tests' random numbers come from seed 0.
"""

import copy
import json
import random
from typing import Any


def record(solution: str, test: str, entry_point: str) -> list[list[Any]]:
    """The arguments of every call that ``check`` makes of the canonical solution."""
    names: dict[str, Any] = {"__name__": "problem"}
    exec(solution, names)
    exec(test, names)
    function, calls = names[entry_point], []

    def candidate(*arguments: Any) -> Any:
        calls.append(list(copy.deepcopy(arguments)))
        return function(*arguments)

    random.seed(0)
    names["check"](candidate)
    return calls


if __name__ == "__main__":
    with open("problems.json", encoding="utf-8") as stream:
        for problem in json.load(stream):
            print(repr(record(*problem)), flush=True)
