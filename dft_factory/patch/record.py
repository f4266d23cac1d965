"""What a training leaves beside LLaMA-Factory's own log.

``token_probabilities.jsonl`` in ``output_dir``, one line a log, from numbers that its pass made
anyway: the histogram of token probabilities (the paper's figure, over time), its polarisation, the
end-of-turn probability and the entropy. ``evaluations.jsonl``, one line an evaluation during
training: its means and greedy answers to a few held-out prompts. Both name the warnings given.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dft_factory.losses.histogram import N_BINS, bin_edges, histogram, polarisation
from dft_factory.losses.token import STATISTICS, TokenLoss
from dft_factory.patch.lines import JsonLines
from dft_factory.trainer_base import LOGGED
from dft_factory.watch import Answers, Evaluation, Row, Warned, Watch

FILE_NAME = "token_probabilities.jsonl"
EVALUATIONS_FILE = "evaluations.jsonl"
COLUMNS = (*STATISTICS, *(f"bin {i}" for i in range(N_BINS)), "end_of_turn_prob", "end_of_turn")
"""What :func:`sums_of` adds up: the statistics, tokens in each bin, the probabilities of the
end-of-turn tokens and their number."""

# A child of LLaMA-Factory's logger: same format, same level, same files.
logger = logging.getLogger("llamafactory.dft_factory")


def end_of_turn_ids(template: Any, tokenizer: Any) -> list[int]:
    """Token ids that end a turn: the template's stop words and the tokenizer's end token.

    Args:
        template: LLaMA-Factory's; None where there is none.
    """
    words = [*getattr(template, "stop_words", ()), getattr(tokenizer, "eos_token", None)]
    unknown = getattr(tokenizer, "unk_token_id", None)
    ids = {tokenizer.convert_tokens_to_ids(word): word for word in words if isinstance(word, str)}
    return sorted(
        number
        for number, word in ids.items()
        if number is not None and (number != unknown or word == tokenizer.unk_token)
    )


def system_prompt_of(template: Any, tokenizer: Any, dataset: Any) -> str | None:
    """The system message that the first training examples share; None for the template's own.

    Args:
        template: LLaMA-Factory's.
        dataset: tokenized; one without a length, a stream, is not read.
    """
    slots: list[Any] = getattr(getattr(template, "format_system", None), "slots", None) or []
    if len(slots) != 1 or not isinstance(slots[0], str) or not hasattr(dataset, "__len__"):
        return None
    before, _, after = slots[0].partition("{{content}}")
    if not before:  # nothing marks where the system message is
        return None
    prompts = set()
    for row in itertools.islice(dataset, 8):
        text = tokenizer.decode(row["input_ids"], clean_up_tokenization_spaces=False)
        prompts.add(text.partition(before)[2].partition(after)[0])
    if len(prompts) != 1 or prompts == {template.default_system}:
        return None
    return prompts.pop() or None


@torch.no_grad()
def sums_of(loss: TokenLoss, end_of_turn: Tensor) -> Tensor:
    """The :data:`COLUMNS` of one micro-batch.

    Args:
        end_of_turn: (k,) token ids, on the device of the loss.

    Returns:
        (N_BINS + 8,), fp64 where the device has it.
    """
    rows = loss.rows
    exact = torch.float64 if rows.device.type in ("cpu", "cuda") else rows.dtype
    ends = torch.isin(loss.targets, end_of_turn).to(exact)
    return torch.cat(
        [
            rows.to(exact).sum(dim=0),
            histogram(loss.logps).to(exact),
            torch.stack([(loss.logps.to(exact).exp() * ends).sum(), ends.sum()]),
        ]
    )


def evaluation_of(line: Mapping[str, Any]) -> Evaluation:
    """What the watch sees of a line of ``evaluations.jsonl``."""
    nll, entropy = (
        math.nan if line[key] is None else line[key] for key in ("nll", "mean_token_entropy")
    )
    answers = line["answers"]
    return Evaluation(nll, entropy, None if answers is None else Answers(**answers))


class Recorder:
    """Writes the lines of one run and logs its warnings; for rank 0 alone.

    Args:
        folder: the run's ``output_dir``; a resumed run goes on with the files in it.
        resumed_at: optimizer step at which this run began; lines after it are of a run before.
        warns: whether the warnings of :mod:`dft_factory.watch` apply.
    """

    def __init__(self, folder: Path, resumed_at: int, *, warns: bool) -> None:
        self._logs = JsonLines(folder / FILE_NAME, resumed_at)
        self._evaluations = JsonLines(folder / EVALUATIONS_FILE, resumed_at)
        self._watch = Watch() if warns else None
        self._ends: list[Mapping[str, Any]] = []  # the first log and the last
        for line in self._logs.before:
            self._see_log(line)
        for line in self._evaluations.before:
            self._see_evaluation(line)

    def record(
        self, sums: Sequence[float], *, step: int, max_steps: int, epoch: float | None, ranks: int
    ) -> None:
        """One log.

        Args:
            sums: of :data:`COLUMNS`, over all ranks, since the log before.
        """
        named = dict(zip(COLUMNS, sums, strict=True))
        tokens, ends = named["tokens"], named["end_of_turn"]
        if not tokens:
            return
        counts = [round(named[f"bin {i}"]) for i in range(N_BINS)]
        line = {
            "step": step,
            "progress": step / max_steps if max_steps > 0 else 0.0,
            "epoch": epoch,
            "ranks": ranks,
            "n_tokens": round(tokens),
            "bin_edges": bin_edges(),
            "counts": counts,
            "polarisation": polarisation(counts),
            "objective": named["objective"] / tokens,
            "nll": named["nll"] / tokens,
            "mean_token_prob": named["token_prob"] / tokens,
            "token_weight_mean": named["token_weight"] / tokens,
            "mean_token_entropy": named["token_entropy"] / tokens,
            "n_end_of_turn": round(ends),
            "end_of_turn_prob": named["end_of_turn_prob"] / ends if ends else None,
        }
        self._logs.append({**line, "warnings": self._say(step, self._see_log(line))})

    def record_evaluation(
        self,
        means: Mapping[str, float],
        answers: Answers | None,
        texts: Sequence[str],
        *,
        step: int,
        max_steps: int,
    ) -> None:
        """One evaluation during training.

        Args:
            means: of :data:`STATISTICS`, over the labelled tokens.
            answers: to a few held-out prompts, None without any; ``texts`` are these answers.
        """
        line = {
            "step": step,
            "progress": step / max_steps if max_steps > 0 else 0.0,
            **{logged: means[name] for name, logged in LOGGED.items()},
            "answers": None if answers is None else asdict(answers),
            "texts": list(texts),
        }
        rules = self._say(step, self._see_evaluation(line))
        self._evaluations.append({**line, "warnings": rules})

    def summarise(self) -> None:
        """One line: NLL and end-of-turn probability, at the first log and at the last."""
        if not self._ends:
            return
        nll, entropy, end_of_turn = (
            " -> ".join(
                "none" if line.get(key) is None else f"{line[key]:.3g}" for line in self._ends
            )
            for key in ("nll", "mean_token_entropy", "end_of_turn_prob")
        )
        logger.info(
            "dft-factory: NLL %s nats a token, entropy %s, end-of-turn probability %s (first log "
            "-> last; all in %s)",
            nll,
            entropy,
            end_of_turn,
            self._logs.path,
        )

    def _see_log(self, line: Mapping[str, Any]) -> list[Warned]:
        self._ends[1:] = [line]
        if self._watch is None:
            return []
        names = ("objective", "nll", "token_weight_mean")
        objective, nll, weight = (math.nan if line[x] is None else line[x] for x in names)
        row = Row(line["step"], objective, nll, weight, line["end_of_turn_prob"])
        return self._watch.see(row, line["progress"])

    def _see_evaluation(self, line: Mapping[str, Any]) -> list[Warned]:
        if self._watch is None:
            return []
        return self._watch.see_evaluation(evaluation_of(line), line["progress"])

    def _say(self, step: int, warnings: Sequence[Warned]) -> list[str]:
        for warned in warnings:
            logger.warning("dft-factory: step %d: %s", step, warned.message)
        return [warned.rule for warned in warnings]
