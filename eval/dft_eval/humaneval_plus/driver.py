"""Calls one function on many inputs and tells what it returned; sent into the sandbox as source.

Standard library only. Everything that judges stays outside: this process never holds an expected
output, so the program that it runs can neither read nor change one, and what an object of the
program's own claims to equal does not matter.

``job.pickle``: ``entry_point``, ``inputs`` (argument lists), ``seconds`` (processor time a call).
``program.py``: the program. Standard output brings one JSON line a call, in order:

* ``{"value": text, "kind": type's name, "floats": bool, "seconds": s}``: what the call returned, as
  :func:`encode` writes it; where that is longer than :data:`WHOLE`, ``"sha256"`` for ``"value"``;
* ``{"error": text}``, once: what ended the program; nothing follows.
"""

import hashlib
import json
import math
import os
import pickle
import signal
import sys
import time
import types
from typing import Any, NoReturn

WHOLE = 16_384
"""Characters of an output that are told as they are."""
_INT64 = 2**63


class OutOfTimeError(BaseException):
    """No Exception: a program that retries after every Exception would swallow it."""


def number(value: Any) -> Any:
    """Equal numbers of any type give the same JSON: an int64, a double, or an exact fraction."""
    if isinstance(value, float) and not math.isfinite(value):
        return float(value)
    over, under = value.as_integer_ratio()
    if under == 1 and -_INT64 <= over < _INT64:
        return int(over)
    try:
        near = over / under
        if near.as_integer_ratio() == (over, under):
            return near
    except OverflowError:
        pass
    return {"q": [hex(over), hex(under)]}


def plain(value: Any) -> Any:
    """``value`` as JSON in which equal values, and no others, look the same.

    Raises:
        TypeError: something that is not made of the built-in types.
    """
    if value is None or type(value) is str:
        return value
    if isinstance(value, (int, float)) or type(value).__module__ in ("fractions", "decimal"):
        return number(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        kinds = set(map(type, value))
        if kinds <= {str}:
            return value
        if kinds <= {int} and -_INT64 <= min(value, default=0) <= max(value, default=0) < _INT64:
            return value
        if kinds <= {int, float}:  # millions of them in HumanEval/130
            near = 2.0**53
            return [int(x) if -near < x < near and x % 1 == 0 else number(x) for x in value]
        return [plain(each) for each in value]
    if isinstance(value, tuple):
        return {"t": [plain(each) for each in value]}
    if isinstance(value, dict):
        pairs = [[plain(key), plain(each)] for key, each in value.items()]
        return {"d": sorted(pairs, key=json.dumps)}
    if isinstance(value, (set, frozenset)):
        return {"s": sorted((plain(each) for each in value), key=json.dumps)}
    if isinstance(value, complex):
        return {"c": [value.real, value.imag]} if value.imag else number(value.real)
    if isinstance(value, (bytes, bytearray)):
        return {"b": value.hex()}
    raise TypeError(f"returned an object of type {type(value).__name__}")


def is_floats(value: Any) -> bool:
    """EvalPlus' rule for which outputs are compared with a tolerance."""
    if isinstance(value, (list, tuple)) and value:
        return all(isinstance(each, float) for each in value)
    return isinstance(value, float)


def encode(value: Any) -> dict[str, Any]:
    """One line of the report, without the time."""
    text = json.dumps(plain(value), separators=(",", ":"))
    line = {"kind": type(value).__name__, "floats": is_floats(value)}
    if len(text) <= WHOLE:
        return {"value": text, **line}
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), **line}


def out_of_time(number: int, frame: Any) -> NoReturn:
    """SIGPROF: the call's processor time is up."""
    raise OutOfTimeError("the call's processor time was up")


def main() -> None:
    """Run the program, call its function, report."""
    with open("job.pickle", "rb") as packed:
        job = pickle.load(packed)
    with open("program.py", encoding="utf-8") as stream:
        source = stream.read()
    report = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    write, set_timer, clock, leave = os.write, signal.setitimer, time.process_time, os._exit
    signal.signal(signal.SIGPROF, out_of_time)

    def tell(line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        while data:
            data = data[write(report, data) :]

    module = types.ModuleType("candidate")  # not "__main__": guarded blocks rest
    sys.modules["candidate"] = module
    try:
        set_timer(signal.ITIMER_PROF, max(job["seconds"], default=1.0))
        exec(compile(source, "<program>", "exec", dont_inherit=True), module.__dict__)
        function = module.__dict__[job["entry_point"]]
        for arguments, seconds in zip(job["inputs"], job["seconds"], strict=True):
            set_timer(signal.ITIMER_PROF, seconds)
            begun = clock()
            value = function(*arguments)
            spent = clock() - begun
            set_timer(signal.ITIMER_PROF, 0.0)
            tell({**encode(value), "seconds": spent})
            del value
    except BaseException as error:  # whatever it was, it ended the program
        set_timer(signal.ITIMER_PROF, 0.0)
        tell({"error": f"{type(error).__name__}: {error}"[:300]})
    leave(0)


if __name__ == "__main__":
    main()
