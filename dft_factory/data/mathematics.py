"""Mathematics -> alpaca: a problem without an instruction, answered by its worked solution.

The authors of DFT train on the plain problem (yongliang-wu/DFT @e153181f,
``verl/examples/data_preprocess/numina_cot.py``: ``extra_info.question``) and ask in evaluation with
"Please reason step by step, and put your final answer within \\boxed{}." The converters keep that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dft_factory.data.checks import is_unicode
from dft_factory.data.records import ALPACA_ENTRY, AlpacaRecord, Converter, Dropped

_CALCULATOR = re.compile(r"<<[^<>\n]*>>")


def convert_problem(record: object) -> AlpacaRecord | Dropped:
    """``problem`` and ``solution`` as published (AI-MO/NuminaMath-CoT, or a file of one's own).

    Returns:
        the alpaca record with an empty ``input``, or why there is none.
    """
    if not isinstance(record, Mapping):
        return Dropped("record is not an object")
    return _pair(record.get("problem"), record.get("solution"))


def convert_openr1(record: object) -> AlpacaRecord | Dropped:
    """``problem`` with the first of its ``generations`` that math-verify found correct.

    A record of open-r1/OpenR1-Math-220k has one to four reasoning traces (``<think>...</think>``
    and the answer) with a verdict each in ``correctness_math_verify``, and says in
    ``is_reasoning_complete`` which of them ended. The paper's set (LUFFY's) is limited to 8,192
    tokens as well; here length is left to the recipe's ``cutoff_len``, since it depends on the
    tokenizer.
    """
    if not isinstance(record, Mapping):
        return Dropped("record is not an object")
    generations = record.get("generations")
    verdicts = record.get("correctness_math_verify")
    complete = record.get("is_reasoning_complete")
    if not isinstance(generations, list) or not isinstance(verdicts, list):
        return Dropped("missing generations or their verdicts")
    if len(generations) != len(verdicts):
        return Dropped("generations and verdicts differ in number")
    for number, (generation, correct) in enumerate(zip(generations, verdicts, strict=True)):
        ended = complete[number] if isinstance(complete, list) and number < len(complete) else True
        if correct is True and ended is not False:
            return _pair(record.get("problem"), generation)
    return Dropped("no correct generation")


def convert_gsm8k(record: object) -> AlpacaRecord | Dropped:
    r"""The question with its solution, which ends in ``The answer is $\boxed{72}$.``

    Published rows (openai/gsm8k) have ``question`` and ``answer``, which ends in ``#### 72``; rows
    with ``problem``, ``solution`` and ``answer`` are taken too. Calculator marks (``<<48/2=24>>``)
    are removed, and the box is ours: it is what the evaluation prompt asks for.
    """
    if not isinstance(record, Mapping):
        return Dropped("record is not an object")
    if "question" in record:
        question, solution, answer = record["question"], record.get("answer"), None
        if isinstance(solution, str):
            solution, mark, answer = solution.rpartition("####")
            if not mark or "\n" in answer.strip():
                return Dropped("no final answer")
    else:
        question, solution = record.get("problem"), record.get("solution")
        answer = record.get("answer")
    pair = _pair(question, solution)
    if isinstance(pair, Dropped):
        return pair
    if not isinstance(answer, str) or not answer.strip() or not is_unicode(answer):
        return Dropped("no final answer")
    worked = _CALCULATOR.sub("", pair["output"]).rstrip()
    pair["output"] = f"{worked}\nThe answer is $\\boxed{{{answer.strip().replace(',', '')}}}$."
    return pair


def _pair(problem: object, solution: object) -> AlpacaRecord | Dropped:
    for name, text in (("problem", problem), ("solution", solution)):
        if not isinstance(text, str):
            return Dropped(f"missing {name}")
        if not text.strip():
            return Dropped(f"empty {name}")
        if not is_unicode(text):
            return Dropped("invalid Unicode")
    return AlpacaRecord(instruction=str(problem), input="", output=str(solution))


NUMINAMATH = Converter(
    convert_problem, ALPACA_ENTRY, hub_id="AI-MO/NuminaMath-CoT", decontaminate=True
)
OPENR1_MATH = Converter(
    convert_openr1, ALPACA_ENTRY, hub_id="open-r1/OpenR1-Math-220k", decontaminate=True
)
GSM8K = Converter(
    convert_gsm8k, ALPACA_ENTRY, hub_id="openai/gsm8k", hub_config="main", decontaminate=True
)
MATH_PROBLEMS = Converter(
    convert_problem,
    ALPACA_ENTRY,
    hub_id='{"problem": "...", "solution": "..."}',
    decontaminate=True,
)
