"""When an answer counts as right: three rules, each under its own name.

=================== ==============================================================================
``exact_match``     prediction and an alias are equal after :func:`normalised`
``lm-eval``         the same question by the rule of another harness, see :func:`lm_eval_match`
``contains``        the normalised alias is a run of whole words of the normalised prediction
=================== ==============================================================================

A prediction of which nothing is left is wrong under each of them, whatever the aliases.
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
    """What the three rules say of one prediction."""

    exact_match: bool
    lm_eval: bool
    contains: bool


def normalised(text: str) -> str:
    """The text as DPR compares it (``dpr/data/qa_validation.py``, ``_normalize_answer``).

    Lower case; ASCII punctuation deleted, which joins what it parted (``twenty-one`` ->
    ``twentyone``); ``a``, ``an`` and ``the`` deleted as words; white space collapsed.

    Two mends. Unicode is composed first (NFC), so that two spellings of one accented letter are
    equal. Where DPR would leave nothing, articles are kept (``The The``, ``A+`` -> ``a``), and
    where that leaves nothing either, punctuation too (``#``): otherwise every such answer would
    equal every other. Empty for blank text alone.
    """
    lowered = unicodedata.normalize("NFC", text).lower()
    bare = lowered.translate(_NO_PUNCTUATION)
    for candidate in (_ARTICLE.sub(" ", bare), bare, lowered):
        if words := candidate.split():
            return " ".join(words)
    return ""


def exact_match(prediction: str, aliases: Sequence[str]) -> bool:
    """Whether prediction and one of the aliases are equal once :func:`normalised`."""
    found = normalised(prediction)
    return bool(found) and any(found == normalised(alias) for alias in aliases)


def contains(prediction: str, aliases: Sequence[str]) -> bool:
    """Whether an alias is a run of whole words of the prediction, both :func:`normalised`.

    Words are what white space parts: nothing is found inside a word, so neither ``art`` in
    ``party`` nor a Chinese name within a sentence.
    """
    words = f" {normalised(prediction)} "
    return any(f" {found} " in words for alias in aliases if (found := normalised(alias)))


def lm_eval_prediction(prediction: str) -> str:
    """What lm-evaluation-harness would have generated: up to the first line break, ``.`` or ``,``,
    without white space around it."""
    return _LM_EVAL_STOP.split(prediction, maxsplit=1)[0].strip()


def lm_eval_normalised(text: str) -> str:
    """``exact_match`` of lm-evaluation-harness with the settings of its ``nq_open``, version 4.0.

    Articles with the space after them are deleted (``THE`` is none), then case and ASCII
    punctuation; white space stays as it is.
    """
    return _LM_EVAL_IGNORED.sub("", text).lower().translate(_NO_PUNCTUATION)


def lm_eval_match(prediction: str, aliases: Sequence[str]) -> bool:
    """Whether lm-evaluation-harness' ``nq_open`` 4.0 calls the prediction right.

    The prediction is cut by :func:`lm_eval_prediction`, the aliases are not: an alias with a full
    stop or a comma can never be matched. One departure: there a prediction of which nothing is
    left is right where nothing is left of an alias either (``---``); here it is wrong.
    """
    found = lm_eval_normalised(lm_eval_prediction(prediction))
    return bool(found.strip()) and any(found == lm_eval_normalised(alias) for alias in aliases)


def judge(prediction: str, aliases: Sequence[str]) -> Verdict:
    """All three rules, over all aliases."""
    return Verdict(
        exact_match=exact_match(prediction, aliases),
        lm_eval=lm_eval_match(prediction, aliases),
        contains=contains(prediction, aliases),
    )
