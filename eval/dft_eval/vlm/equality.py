"""Whether an answer equals the right one. Nothing that a model wrote is ever evaluated as Python.

Two rules: :meth:`Equality.vlmevalkit`, that of VLMEvalKit 0.0.20 (``utils/mathv.py``, ``is_equal``)
without its ``eval()``: equal texts, or arithmetic of equal value within 1e-6, written plainly or in
LaTeX; and :meth:`Equality.math_verify`, which also knows units, intervals, sets and roots.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from dft_eval.vlm import quantities
from dft_eval.worker import Worker, WorkerEndedError

TOLERANCE = 1e-6
LONGEST = 2000
"""Characters above which two texts that are not the same are not read as formulas."""

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


@dataclass(frozen=True)
class Verdict:
    """Whether two answers are equal, and how that was found."""

    equal: bool
    reason: str


def arithmetic(text: str) -> complex | None:
    """The value of a Python expression of numbers and operators alone; None for anything else."""
    try:
        value: complex = _value(ast.parse(text.strip(), mode="eval").body)
        return value
    except (ValueError, SyntaxError, ArithmeticError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, complex):
        return node.value
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _value(node.left), _value(node.right)
        whole = isinstance(left, int) and isinstance(right, int)
        if isinstance(node.op, ast.Pow) and whole and left.bit_length() * abs(right) > 10_000:
            raise OverflowError("a power above 10,000 bits")
        return _BINARY[type(node.op)](left, right)
    raise ValueError("not arithmetic")


class _BoundsError(Exception):
    """A formula met the worker's bounds of memory or depth; it is not shown to be right."""


class Equality:
    """Compares answers; holds the worker that reads formulas."""

    def __init__(self) -> None:
        self._worker = Worker("dft_eval.formula_worker")
        self._printed: dict[str, str | None] = {}

    def __enter__(self) -> Equality:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()

    def vlmevalkit(self, answer: str, gold: str) -> Verdict:
        """VLMEvalKit's rule.

        Raises:
            WorkerEndedError: the worker failed over something else than the formula.
        """
        answer, gold = answer.lower().strip(), gold.lower().strip()
        if answer == gold:
            return Verdict(True, "same text")
        if max(len(answer), len(gold)) > LONGEST:
            return Verdict(False, f"another text (more than {LONGEST} characters)")
        if _close(arithmetic(answer), arithmetic(gold)):
            return Verdict(True, "same value")
        if not _may_be_number(answer) or not _may_be_number(gold):
            return Verdict(False, "another text")
        try:
            sides = [self._latex(text) for text in (gold, answer)]
        except (WorkerEndedError, _BoundsError) as error:
            return _not_read(error)
        values = [None if text is None else arithmetic(text) for text in sides]
        if _close(*values):
            return Verdict(True, "same value in LaTeX")
        return Verdict(False, "another value or text")

    def math_verify(self, answer: str, gold: str, *, sentence: bool = False) -> Verdict:
        """math-verify's rule, after equal texts; units that both have must agree.

        Args:
            sentence: ``answer`` has words around the answer; math-verify looks for it.

        Raises:
            WorkerEndedError: the worker failed over something else than the formula.
        """
        if answer.strip() == gold.strip():
            return Verdict(True, "same text")
        if max(len(answer), len(gold)) > LONGEST:
            return Verdict(False, f"another text (more than {LONGEST} characters)")
        gold, gold_unit = quantities.split(gold)
        quantity = quantities.last(answer) if sentence and gold_unit else None
        number, unit = quantities.split(quantity or answer)
        if unit is not None and gold_unit is not None:
            if not unit.comparable(gold_unit):
                return Verdict(False, "another unit")
            number = _times(number, unit.size / gold_unit.size)
        if quantity is not None or not sentence:
            answer, sentence = number, False
        try:
            answer, gold = (text.replace("°", "^\\circ") for text in (answer, gold))
            reply = self._ask({"gold": gold, "answer": answer, "sentence": sentence})
        except (WorkerEndedError, _BoundsError) as error:
            return _not_read(error)
        return Verdict(reply["equal"], "equal" if reply["equal"] else "not equal")

    def _latex(self, text: str) -> str | None:
        if text not in self._printed:
            self._printed[text] = self._ask({"latex": text})["text"]
        return self._printed[text]

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        reply: dict[str, Any] = self._worker.ask(question)
        if "error" in reply:
            raise _BoundsError(f"a formula too large to read ({reply['error']})")
        return reply


def _may_be_number(text: str) -> bool:
    """Without a digit no arithmetic comes of it; VLMEvalKit knows no named constant."""
    return any(character.isdigit() for character in text)


def _close(left: complex | None, right: complex | None) -> bool:
    if left is None or right is None:
        return False
    try:
        return abs(left - right) < TOLERANCE
    except OverflowError:
        return False


def _times(number: str, ratio: Fraction) -> str:
    """A formula times a ratio of units; exact for a plain number, which decimals are not."""
    if ratio == 1:
        return number
    try:
        product = Fraction(number) * ratio
    except ValueError:
        return f"\\frac{{{ratio.numerator}}}{{{ratio.denominator}}} \\cdot ({number})"
    return f"\\frac{{{product.numerator}}}{{{product.denominator}}}"


def _not_read(error: WorkerEndedError | _BoundsError) -> Verdict:
    """A formula too large or too slow to read is not shown to be right; other ends of the worker
    are not its fault."""
    if isinstance(error, _BoundsError):
        return Verdict(False, str(error))
    if error.signal_name == "SIGPROF":
        return Verdict(False, "a formula that takes too long to read")
    raise error
