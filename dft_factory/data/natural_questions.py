"""Natural Questions -> alpaca, closed book: the question alone, answered by its first answer.

A record of NQ-open (arXiv 1906.00300) has a ``question`` and a list of accepted answers, ``answer``
(``answers`` in some of DPR's files, facebookresearch/DPR). The instruction is the prompt of
``dft-factory eval nq --prompt-style chat``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from dft_eval.natural_questions.prompts import chat_prompt
from dft_factory.data.checks import check_text
from dft_factory.data.records import ALPACA_ENTRY, AlpacaRecord, Converter, Dropped, Identity


def convert(record: Mapping[str, object]) -> AlpacaRecord | Dropped:
    """The question as the evaluation asks it, and its first answer.

    The other answers are left out. Texts are kept as published (``July 5 , 2018``) but stripped. A
    record with a blank first answer is dropped.
    """
    question = check_text(record.get("question"), "question")
    if isinstance(question, Dropped):
        return question
    if not question.strip(" \t\r\n?"):
        return Dropped("empty question")
    answers = record.get("answer")
    if answers is None:
        answers = record.get("answers")
    if not isinstance(answers, list):
        return Dropped("missing answer")
    if not answers:
        return Dropped("no answer")
    answer = check_text(answers[0], "first answer")
    if isinstance(answer, Dropped):
        return answer
    return AlpacaRecord(instruction=chat_prompt(question), input="", output=answer.strip())


def question_key(record: object) -> str | None:
    """The question without case, white space and a last ``?``; None without a question."""
    question = record.get("question") if isinstance(record, Mapping) else None
    if not isinstance(question, str):
        return None
    composed = unicodedata.normalize("NFC", question).casefold()
    return "".join(composed.split()).rstrip("?") or None


NATURAL_QUESTIONS = Converter(
    convert,
    ALPACA_ENTRY,
    hub_id="google-research-datasets/nq_open",
    identity=Identity("question", question_key),
)
