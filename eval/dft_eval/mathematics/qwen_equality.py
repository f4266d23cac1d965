r"""Equality of normalised answers by the rules of Qwen2.5-Math's pipeline, as released with DFT.

Behaviour of ``math_evaluation/grader.py`` at ``yongliang-wu/DFT`` e153181f, written anew, quirks
included: x100 and /100 of the right number are right, ``(1,2)`` equals ``[1,2]``, a relative
difference of 1e-4 is none. Two departures, both for safety: text that is no LaTeX is read by a
parser of arithmetic instead of sympy's ``parse_expr``, which evaluates Python, and text that
nothing can read is never handed to ``sympy.N``, which does too. Runs in
:mod:`dft_eval.formula_worker` alone.
"""

from __future__ import annotations

import ast
import contextlib
import operator
import re
from collections.abc import Callable
from math import isclose
from typing import Any

from dft_eval.mathematics.qwen_text import LETTERS

RELATIVE = 1e-4
_BRACKETED = re.compile(r"[(\[].+[)\]]")
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS = ("sqrt", "sin", "cos", "tan", "log", "ln", "exp", "Abs")
_CONSTANTS = ("pi", "E", "I", "oo")


def equal(answer: str, gold: str) -> bool:
    """Whether two normalised answers are equal."""
    if answer.strip().lower() == gold.strip().lower():
        return True
    if gold in LETTERS and _letter(answer) == gold:
        return True
    numbers = (_number(answer), _number(gold))
    if numbers[0] is not None and numbers[1] is not None:
        value, right = numbers[0], numbers[1]
        rights = (right / 100, right, right * 100)
        return any(isclose(value, number, rel_tol=RELATIVE) for number in rights)
    if not answer:
        return False
    answer, gold = answer.strip(), gold.strip()
    if "pmatrix" in answer and "pmatrix" not in gold:
        gold = _row_as_matrix(gold)
    return (
        _same_without_brackets(answer, gold)
        or _same_elements(answer, gold)
        or _same_matrix(answer, gold)
        or _same_equation(answer, gold)
        or _same_formula(answer, gold)
    )


def _letter(text: str) -> str:
    letters = re.findall(r"\b([A-E])\b", text.upper())
    return letters[-1] if letters else ""


def _number(text: str) -> float | None:
    plain = text.replace(",", "")
    for digits, divisor in ((plain, 1), (plain.removesuffix("%").removesuffix("\\"), 100)):
        with contextlib.suppress(ValueError):
            return float(digits) / divisor
        if not plain.endswith("%"):
            break
    return None


def _row_as_matrix(gold: str) -> str:
    rows = (row.strip("{}").replace(",", "\\") for row in re.findall(r"\{.*,.*\}", gold))
    return ", ".join(f"\\begin{{pmatrix}}{row}\\end{{pmatrix}}" for row in rows)


def _same_without_brackets(answer: str, gold: str) -> bool:
    square = answer.startswith("[") and answer.endswith("]") and not gold.startswith("(")
    round_ = answer.startswith("(") and answer.endswith(")") and not gold.startswith("[")
    sides = [side.strip("[]()") if square or round_ else side for side in (answer, gold)]
    bare = [side.translate(str.maketrans("", "", "{}()")).lower() for side in sides]
    return bare[0] == bare[1]


def _same_elements(answer: str, gold: str) -> bool:
    """Tuples and intervals alike, whatever their brackets, comma by comma."""
    if not (_BRACKETED.match(answer) and _BRACKETED.match(gold)):
        return False
    return _all_equal(answer[1:-1].split(","), gold[1:-1].split(","))


def _all_equal(answers: list[str], golds: list[str]) -> bool:
    return len(answers) == len(golds) and all(map(equal, answers, golds))


def _same_matrix(answer: str, gold: str) -> bool:
    begins = ("\\begin{pmatrix}", "\\begin{bmatrix}")
    ends = ("\\end{pmatrix}", "\\end{bmatrix}")
    if not all(side.startswith(begins) and side.endswith(ends) for side in (answer, gold)):
        return False
    sides = [side[len(begins[0]) : -len(ends[0])].split("\\\\") for side in (answer, gold)]
    rows = [[row.strip().split("&") for row in side if row.strip()] for side in sides]
    return len(rows[0]) == len(rows[1]) and all(map(_all_equal, *rows))


def _same_equation(answer: str, gold: str) -> bool:
    """Equations up to sign, or the right side alone where the left has one or two characters."""
    sides = [side.split("=") for side in (answer, gold)]
    is_equation = [len(side) == 2 for side in sides]
    if all(is_equation):
        left, right = (f"{side[0].strip()} - ({side[1].strip()})" for side in sides)
        return _same_formula(left, right) or _same_formula(f"-({left})", right)
    for place, other in ((0, gold), (1, answer)):
        side = sides[place]
        if is_equation[place] and len(side[0].strip()) <= 2 and "=" not in other:
            return equal(side[1], gold) if place == 0 else equal(answer, side[1])
    return False


def _same_formula(left: str, right: str) -> bool:
    import sympy

    a, b = _read(left), _read(right)
    if isinstance(a, str) or isinstance(b, str):
        return str(a) == str(b)
    tests: tuple[Callable[[], Any], ...] = (
        lambda: str(a) == str(b) or a == b,
        lambda: a.equals(b) or sympy.simplify(a - b) == 0,
        lambda: abs(a.lhs - a.rhs).equals(abs(b.lhs - b.rhs)),
        lambda: isclose(float(sympy.N(b)), float(sympy.N(a)), rel_tol=RELATIVE),
        lambda: a.shape == b.shape and _rounded(a).equals(_rounded(b)),
    )
    return any(_holds(test) for test in tests)


def _rounded(matrix: Any) -> Any:
    return matrix.applyfunc(lambda value: round(value, 3))


def _holds(test: Callable[[], Any]) -> bool:
    try:
        return bool(test())
    except (MemoryError, RecursionError):
        raise  # our bounds
    except Exception:  # sympy raises anything for objects that cannot be compared in this way
        return False


def _read(text: str) -> Any:
    """A formula of sympy by the first parser that takes it, else the text."""
    from latex2sympy2_extended import latex2sympy  # type: ignore[import-untyped]
    from sympy import Set
    from sympy.parsing.latex import parse_latex

    for parser in (parse_latex, _plain, latex2sympy):
        for spelling in (text.replace("\\\\", "\\"), text):
            try:
                formula = parser(spelling)
                if not isinstance(formula, Set):  # the pipeline's parser knows none
                    return formula
            except (MemoryError, RecursionError, ImportError):
                raise
            except Exception:  # each parser has errors of its own, bare Exception among them
                continue
    return text


def _plain(text: str) -> Any:
    """Python's notation: numbers, names, + - * / **, a few functions, tuples and sets of them."""
    return _node(ast.parse(text.strip().replace("^", "**"), mode="eval").body)


def _node(node: ast.expr) -> Any:
    import sympy

    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return sympy.Number(node.value)
    if isinstance(node, ast.Tuple | ast.Set):
        kind = tuple if isinstance(node, ast.Tuple) else frozenset
        return kind(map(_node, node.elts))
    if isinstance(node, ast.Name):
        return getattr(sympy, node.id) if node.id in _CONSTANTS else sympy.Symbol(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_node(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](_node(node.left), _node(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        (argument,) = node.args
        if node.func.id in _FUNCTIONS:
            return getattr(sympy, node.func.id)(_node(argument))
    raise ValueError("not arithmetic")
