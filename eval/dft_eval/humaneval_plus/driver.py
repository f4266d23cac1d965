"""Call one function on many inputs and report what it returned; runs in the sandbox as source.

Standard library only. This process never has an expected output, so the program cannot read or
change one, and ``__eq__`` of the program's own classes does not matter.

``job.pickle``: ``entry_point``, ``inputs`` (argument lists), ``seconds`` (processor time per call).
``program.py``: the program. Standard output has one JSON line per call, in order:

* ``{"value": text, "kind": type's name, "floats": bool, "seconds": s}``, as :func:`encode` writes
  it; ``"sha256"`` instead of ``"value"`` if that is longer than :data:`WHOLE`;
* ``{"error": text}``, last: what ended the program.
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
"""Longest output, in characters, reported in full."""
_INT64 = 2**63


class OutOfTimeError(BaseException):
    """Not an Exception, which a program might catch and retry."""


def number(value: Any) -> Any:
    """JSON of a number, the same for equal numbers of any type: int64, double or exact fraction."""
    if isinstance(value, float) and not math.isfinite(value):
        return float(value)
    over, under = value.as_integer_ratio()
    if under == 1 and -_INT64 <= over < _INT64:
        return int(over)
    try:
        quotient = over / under
        if quotient.as_integer_ratio() == (over, under):
            return quotient
    except OverflowError:
        pass
    return {"q": [hex(over), hex(under)]}


def plain(value: Any) -> Any:
    """``value`` as JSON that is the same for equal values only.

    Raises:
        TypeError: it contains an object that is not of a built-in type.
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
            exact = 2.0**53
            return [int(x) if -exact < x < exact and x % 1 == 0 else number(x) for x in value]
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return {"t": [plain(item) for item in value]}
    if isinstance(value, dict):
        pairs = [[plain(key), plain(item)] for key, item in value.items()]
        return {"d": sorted(pairs, key=json.dumps)}
    if isinstance(value, (set, frozenset)):
        return {"s": sorted((plain(item) for item in value), key=json.dumps)}
    if isinstance(value, complex):
        return {"c": [value.real, value.imag]} if value.imag else number(value.real)
    if isinstance(value, (bytes, bytearray)):
        return {"b": value.hex()}
    raise TypeError(f"returned an object of type {type(value).__name__}")


def is_floats(value: Any) -> bool:
    """Whether EvalPlus compares this output with a tolerance."""
    if isinstance(value, (list, tuple)) and value:
        return all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def encode(value: Any) -> dict[str, Any]:
    """One line of the report, without the time."""
    text = json.dumps(plain(value), separators=(",", ":"))
    line = {"kind": type(value).__name__, "floats": is_floats(value)}
    if len(text) <= WHOLE:
        return {"value": text, **line}
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), **line}


def out_of_time(number: int, frame: Any) -> NoReturn:
    """Handler of SIGPROF."""
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

    def write_line(line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        while data:
            data = data[write(report, data) :]

    module = types.ModuleType("candidate")  # not "__main__": guarded blocks do not run
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
            write_line({**encode(value), "seconds": spent})
            del value
    except BaseException as error:  # anything that ends the program
        set_timer(signal.ITIMER_PROF, 0.0)
        write_line({"error": f"{type(error).__name__}: {error}"[:300]})
    leave(0)


if __name__ == "__main__":
    main()
