"""Natural Questions -> alpaca, closed book: the question alone, answered by its first answer.

A record of NQ-open (arXiv 1906.00300) has a ``question`` and ``answer``, a list of texts of which
each counts as right; DPR's files (facebookresearch/DPR) call the list ``answers`` in some. The
instruction is the prompt with which ``dft-factory eval nq --prompt-style chat`` asks.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from dft_eval.natural_questions.prompts import chat_prompt
from dft_factory.data.checks import is_unicode
from dft_factory.data.records import ALPACA_ENTRY, AlpacaRecord, Converter, Dropped, Identity


def convert(record: object) -> AlpacaRecord | Dropped:
    """The question in the words of the evaluation, and its first answer.

    The first answer is the target and the others are left out, whatever their length: the order is
    that of the published file, so one file always gives the same targets. Texts are kept as
    published (``July 5 , 2018``) but for white space at their ends. Nothing replaces a blank first
    answer: the record is dropped.

    Returns:
        the alpaca record with an empty ``input``, or why there is none.
    """
    if not isinstance(record, Mapping):
        return Dropped("record is not an object")
    question = record.get("question")
    if not isinstance(question, str):
        return Dropped("missing question")
    if not question.strip(" \t\r\n?"):
        return Dropped("empty question")
    answers = record.get("answer")
    if answers is None:
        answers = record.get("answers")
    if not isinstance(answers, list):
        return Dropped("missing answer")
    if not answers:
        return Dropped("no answer")
    first = answers[0]
    if not isinstance(first, str):
        return Dropped("malformed answer")
    if not first.strip():
        return Dropped("empty first answer")
    if not (is_unicode(question) and is_unicode(first)):
        return Dropped("invalid Unicode")
    return AlpacaRecord(instruction=chat_prompt(question), input="", output=first.strip())


def question_key(record: object) -> str | None:
    """What two spellings of one question share: case, white space and a last ``?`` do not count.

    ``None`` for a record without a question.
    """
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
