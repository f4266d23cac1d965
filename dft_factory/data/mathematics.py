"""Mathematics -> alpaca: a problem without an instruction, answered by its worked solution.

The authors of DFT train on the plain problem (yongliang-wu/DFT @e153181f,
``verl/examples/data_preprocess/numina_cot.py``: ``extra_info.question``) and add "Please reason
step by step, and put your final answer within \\boxed{}." only in evaluation, as here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dft_factory.data.checks import check_text
from dft_factory.data.records import ALPACA_ENTRY, AlpacaRecord, Converter, Dropped

_CALCULATOR = re.compile(r"<<[^<>\n]*>>")


def convert_problem(record: Mapping[str, object]) -> AlpacaRecord | Dropped:
    """``problem`` and ``solution`` as published (AI-MO/NuminaMath-CoT, or your own file)."""
    return _pair(record.get("problem"), record.get("solution"))


def convert_openr1(record: Mapping[str, object]) -> AlpacaRecord | Dropped:
    """``problem`` with the first of its ``generations`` that math-verify marks as correct.

    A record of open-r1/OpenR1-Math-220k has one to four reasoning traces (``<think>...</think>``
    and the answer), their verdicts in ``correctness_math_verify``, and in ``is_reasoning_complete``
    which of them ended. The paper's set (LUFFY's) is also limited to 8,192 tokens; here the
    recipe's ``cutoff_len`` limits the length, which depends on the tokenizer.
    """
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


def convert_gsm8k(record: Mapping[str, object]) -> AlpacaRecord | Dropped:
    r"""The question with its solution, which ends in ``The answer is $\boxed{72}$.``

    Published rows (openai/gsm8k) have ``question`` and ``answer``, which ends in ``#### 72``; rows
    with ``problem``, ``solution`` and ``answer`` are accepted too. Calculator marks
    (``<<48/2=24>>``) are removed. The box is added, since the evaluation prompt asks for it.
    """
    if "question" in record:
        question, solution = record["question"], record.get("answer")
        answer: object = None
        if isinstance(solution, str):
            solution, mark, last = solution.rpartition("####")
            if not mark or "\n" in last.strip():
                return Dropped("no final answer")
            answer = last
    else:
        question, solution = record.get("problem"), record.get("solution")
        answer = record.get("answer")
    pair = _pair(question, solution)
    if isinstance(pair, Dropped):
        return pair
    final = check_text(answer, "final answer")
    if isinstance(final, Dropped):
        return Dropped("no final answer")
    worked = _CALCULATOR.sub("", pair["output"]).rstrip()
    pair["output"] = f"{worked}\nThe answer is $\\boxed{{{final.strip().replace(',', '')}}}$."
    return pair


def _pair(problem: object, solution: object) -> AlpacaRecord | Dropped:
    instruction, output = check_text(problem, "problem"), check_text(solution, "solution")
    if isinstance(instruction, Dropped):
        return instruction
    if isinstance(output, Dropped):
        return output
    return AlpacaRecord(instruction=instruction, input="", output=output)


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
