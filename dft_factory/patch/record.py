"""What a training leaves beside LLaMA-Factory's own log, from numbers that its pass made anyway.

``token_probabilities.jsonl`` in ``output_dir``, one line a log: the histogram of token
probabilities (the paper's figure, over time), its polarisation, and the end-of-turn probability.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dft_factory.losses.histogram import N_BINS, bin_edges, histogram, polarisation
from dft_factory.losses.token import STATISTICS, TokenLoss
from dft_factory.watch import Row, Watch

FILE_NAME = "token_probabilities.jsonl"
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
    found = {tokenizer.convert_tokens_to_ids(word): word for word in words if isinstance(word, str)}
    return sorted(
        number
        for number, word in found.items()
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
        (N_BINS + 7,), fp64 where the device has it.
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


class Recorder:
    """Writes the lines of one run and says its warnings; for rank 0 alone.

    Args:
        path: the file, which a resumed run goes on with.
        resumed_at: optimizer step at which this run began; lines after it are of a run before.
        warns: whether the warnings of :mod:`dft_factory.watch` apply.
    """

    def __init__(self, path: Path, resumed_at: int, *, warns: bool) -> None:
        self._path = path
        self._writes = True
        self._watch = Watch() if warns else None
        self._ends: list[dict[str, Any]] = []  # the first line and the last
        before = _lines_until(path, resumed_at) if resumed_at else []
        for line in before:
            self._see(line, say=False)
        # Another file first: a kill in the middle of a rewrite would lose the lines.
        self._write("".join(_text(line) for line in before), path.with_suffix(".tmp"), "w")
        if self._writes:
            path.with_suffix(".tmp").replace(path)

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
            "schema_version": 1,
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
            "n_end_of_turn": round(ends),
            "end_of_turn_prob": named["end_of_turn_prob"] / ends if ends else None,
        }
        self._write(_text(line), self._path, "a")
        self._see(line, say=True)

    def summarise(self) -> None:
        """One line: NLL and end-of-turn probability, at the first log and at the last."""
        if not self._ends:
            return
        nll, end_of_turn = (
            " -> ".join("none" if line[key] is None else f"{line[key]:.3g}" for line in self._ends)
            for key in ("nll", "end_of_turn_prob")
        )
        logger.info(
            "dft-factory: NLL %s nats a token, end-of-turn probability %s (first log -> last; all "
            "in %s)",
            nll,
            end_of_turn,
            self._path,
        )

    def _see(self, line: dict[str, Any], *, say: bool) -> None:
        self._ends[1:] = [line]
        if self._watch is None:
            return
        names = ("objective", "nll", "token_weight_mean")
        objective, nll, weight = (math.nan if line[x] is None else line[x] for x in names)
        row = Row(line["step"], objective, nll, weight, line["end_of_turn_prob"])
        for warned in self._watch.see(row, line["progress"]):
            if say:
                logger.warning("dft-factory: step %d: %s", line["step"], warned.message)

    def _write(self, text: str, path: Path, mode: str) -> None:
        """A full disk ends the record, not the training."""
        if not self._writes:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open(mode, encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            self._writes = False
            logger.warning("dft-factory: %s is written no further: %s", self._path, error)


def _text(line: dict[str, Any]) -> str:
    """One line of JSON, which knows no NaN: null stands for a number that is not finite."""
    return (
        json.dumps(
            {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in line.items()
            }
        )
        + "\n"
    )


def _lines_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The lines of an earlier part of the run, without any that a kill cut short."""
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        logger.warning("dft-factory: %s cannot be read and begins anew: %s", path, error)
        return []
    lines = []
    for text in texts:
        try:
            line = json.loads(text)
            if line["schema_version"] == 1 and line["step"] <= step:
                lines.append(line)
        except (ValueError, KeyError, TypeError):
            logger.warning("dft-factory: %s: a line cannot be read, left out: %.60s", path, text)
    return lines
