"""When an answer is right: three rules.

=================== ==============================================================================
``exact_match``     prediction and an alias are equal after :func:`normalised`
``lm-eval``         the same question by the rule of another harness, see :func:`lm_eval_match`
``contains``        the normalised alias is a run of whole words of the normalised prediction
=================== ==============================================================================

A prediction that normalises to nothing is wrong under all of them.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_LM_EVAL_STOP = re.compile(r"[\n.,]")
_LM_EVAL_IGNORED = re.compile(r"\b(?:The |the |An |A |The |a |an )")


@dataclass(frozen=True)
class Verdict:
    """Verdicts of the three rules on one prediction."""

    exact_match: bool
    lm_eval: bool
    contains: bool


def normalised(text: str) -> str:
    """The text as DPR compares it (``dpr/data/qa_validation.py``, ``_normalize_answer``).

    Lower case; ASCII punctuation deleted, which joins the words around it (``twenty-one`` ->
    ``twentyone``); ``a``, ``an`` and ``the`` deleted as words; white space collapsed.

    Two departures from DPR. Unicode is composed first (NFC), so that two spellings of one accented
    letter are equal. Where DPR would leave nothing, articles are kept (``The The``, ``A+`` ->
    ``a``), then punctuation (``#``), so that such answers do not all equal each other. Only blank
    text normalises to nothing.
    """
    lowered = unicodedata.normalize("NFC", text).lower()
    bare = lowered.translate(_NO_PUNCTUATION)
    for candidate in (_ARTICLE.sub(" ", bare), bare, lowered):
        if words := candidate.split():
            return " ".join(words)
    return ""


def exact_match(prediction: str, aliases: Sequence[str]) -> bool:
    """Whether prediction and one of the aliases are equal once :func:`normalised`."""
    text = normalised(prediction)
    return bool(text) and any(text == normalised(alias) for alias in aliases)


def contains(prediction: str, aliases: Sequence[str]) -> bool:
    """Whether an alias is a run of whole words of the prediction, both :func:`normalised`.

    White space separates words, so ``party`` does not contain ``art``, nor does a Chinese sentence
    contain a name.
    """
    words = f" {normalised(prediction)} "
    return any(f" {text} " in words for alias in aliases if (text := normalised(alias)))


def lm_eval_prediction(prediction: str) -> str:
    """The prediction up to the first line break, ``.`` or ``,``, where lm-evaluation-harness
    stops generating; stripped."""
    return _LM_EVAL_STOP.split(prediction, maxsplit=1)[0].strip()


def lm_eval_normalised(text: str) -> str:
    """``exact_match`` of lm-evaluation-harness with the settings of its ``nq_open``, version 4.0.

    Articles with the space after them are deleted (``THE`` is kept), then case and ASCII
    punctuation; white space is kept.
    """
    return _LM_EVAL_IGNORED.sub("", text).lower().translate(_NO_PUNCTUATION)


def lm_eval_match(prediction: str, aliases: Sequence[str]) -> bool:
    """Whether lm-evaluation-harness' ``nq_open`` 4.0 scores the prediction as right.

    Only the prediction is cut by :func:`lm_eval_prediction`: an alias with a full stop or a comma
    never matches. One departure: there an empty normalised prediction matches an alias that
    normalises to nothing (``---``); here it is wrong.
    """
    text = lm_eval_normalised(lm_eval_prediction(prediction))
    return bool(text.strip()) and any(text == lm_eval_normalised(alias) for alias in aliases)


def judge(prediction: str, aliases: Sequence[str]) -> Verdict:
    """All three rules, over all aliases."""
    return Verdict(
        exact_match=exact_match(prediction, aliases),
        lm_eval=lm_eval_match(prediction, aliases),
        contains=contains(prediction, aliases),
    )
