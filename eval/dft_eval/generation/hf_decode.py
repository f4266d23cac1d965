"""The decoding loop on transformers: prompts to token ids, a batch that is refilled as rows end."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Any

from dft_eval.generation.hf_cache import can_join, copy_rows, join, new_cache, select
from dft_eval.generation.hf_load import first_device
from dft_eval.generation.hf_sampling import Chooser
from dft_eval.generation.run import Decoding

KEEP = 0.75
"""Share of rows still going on below which those that have ended make room for others."""
PADDED = 0.25
"""Share of blanks that a prompt may get; a shorter one is run with others of its length."""


@dataclass
class State:
    """What a model has read of B rows.

    Attributes:
        mask: (B, T), 1 where a column of the cache holds a token of the row.
        positions: of each row's last column: (B, 1), or (3, B, 1) where they have three axes.
        cache: keys and values.
    """

    mask: Any
    positions: Any
    cache: Any

    def select(self, places: list[int]) -> None:
        """Keep these rows alone; they may repeat."""
        self.mask = select(self.cache, self.mask, places)
        self.positions = self.positions[..., places, :]

    def copy(self, places: list[int]) -> State:
        """These rows, with a cache of their own."""
        mask, cache = copy_rows(self.cache, self.mask, places)
        return State(mask, self.positions[..., places, :], cache)

    def join(self, other: State) -> None:
        """Put the rows of another state after those of this one."""
        import torch

        self.mask = join(self.cache, self.mask, other.cache, other.mask)
        self.positions = torch.cat([self.positions, other.positions], dim=-2)


@dataclass
class _Batch:
    """Rows that run together. ``rows``: the prompt of each; ``tokens``: its last, not yet run."""

    rows: list[int]
    tokens: list[int]
    state: State


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    seeds: Sequence[int],
    ended: Callable[[int, list[int]], bool],
    row_ended: Callable[[int, list[int], float], None] = lambda row, ids, mean_entropy: None,
    prefill: Prefill | None = None,
) -> list[list[int]]:
    """New token ids of every prompt, up to ``decoding.max_new_tokens`` or the end of each.

    ``decoding.batch_size`` rows run together; those that have ended are replaced by the next
    prompts, whose prefix is run by itself and joined to the others' cache. Equal prompts that
    follow one another (the samples of one) are run once. A cache that cannot be joined
    (:func:`~dft_eval.generation.hf_cache.can_join`) is not refilled: the next rows wait for the
    end of all, which is said on stderr.

    Args:
        prompts: token ids, in the order in which they are to be begun.
        seeds: of each row's sampling, which does not depend on the other rows.
        ended: whether row i ends with the token that was just added to its new ids.
        row_ended: called with a row that has ended, for whatever reason, its new ids and the mean
            of their entropies (:class:`~dft_eval.generation.hf_sampling.Chooser`).
        prefill: runs the prompts where they are more than text.
    """
    import torch

    choose = Chooser(model, prompts, decoding, seeds)
    prefill = prefill or Prefill(model, prompts)
    if len(prompts) > decoding.batch_size and not can_join(new_cache(model.config)):
        _say_not_refilled(model.config.model_type)
    waiting = deque(range(len(prompts)))
    new_ids: list[list[int]] = [[] for _ in prompts]
    batch: _Batch | None = None
    alive: list[bool] = []

    def goes_on(row: int, token: int) -> bool:
        new_ids[row].append(token)
        if not ended(row, new_ids[row]) and len(new_ids[row]) < decoding.max_new_tokens:
            return True
        row_ended(row, new_ids[row], choose.entropies[row] / len(new_ids[row]))
        return False

    # Not inference_mode: training could not use buffers that a model renews in it.
    with torch.no_grad():
        while True:
            room = decoding.batch_size - (len(batch.rows) if batch else 0)
            if waiting and (batch is None or (room and can_join(batch.state.cache))):
                rows = [waiting.popleft() for _ in range(min(room, len(waiting)))]
                new = _begin(prefill, rows, choose)
                batch = _joined(batch, new)
                going = [goes_on(row, token) for row, token in zip(rows, new.tokens, strict=True)]
                alive = [True] * (len(batch.rows) - len(rows)) + going
            elif batch is None:
                return new_ids
            else:
                batch.tokens = choose(_step(model, batch), batch.rows)
                alive = [
                    was_alive and goes_on(row, token)
                    for was_alive, row, token in zip(alive, batch.rows, batch.tokens, strict=True)
                ]
            if sum(alive) <= KEEP * len(alive):
                places = [place for place, each in enumerate(alive) if each]
                batch = _kept(batch, places)
                alive = [True] * len(places)


@lru_cache(maxsize=1)
def _say_not_refilled(model_type: str) -> None:
    sys.stderr.write(
        f"dft-factory: the cache of this {model_type} model cannot be joined (sliding windows or "
        "recurrent layers): rows that end early are not replaced until their batch is done.\n"
    )


def _begin(prefill: Prefill, rows: list[int], choose: Chooser) -> _Batch:
    """Run these prompts and choose the first token of each."""
    batch: _Batch | None = None
    for part in prefill.parts(rows):
        logits, state = prefill(part)
        batch = _joined(batch, _Batch(part, choose(logits, part), state))
    assert batch is not None
    return batch


class Prefill:
    """Runs prompts, each once for all of its samples.

    While samples of the last prompt wait for room in the batch, its state and logits are kept.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.prompts = prompts
        self._kept: tuple[Hashable, Any, State] | None = None

    def key(self, row: int) -> Hashable:
        """What is equal of equal prompts alone."""
        return tuple(self.prompts[row])

    def run(self, rows: list[int]) -> tuple[Any, State]:
        """Run these prompts together, padded on the left: logits (B, V) of the first new token."""
        return _run_padded(self.model, [self.prompts[row] for row in rows])

    def parts(self, rows: list[int]) -> list[list[int]]:
        """Rows that are begun together: samples of a kept prompt, then those of like length."""
        if not can_join(new_cache(self.model.config)):
            return [rows]
        key = self._kept[0] if self._kept else None
        samples = list(takewhile(lambda row: self.key(row) == key, rows))
        others = rows[len(samples) :]
        parts = alike(others, [len(self.prompts[row]) for row in others])
        return [samples, *parts] if samples else parts

    def __call__(self, rows: list[int]) -> tuple[Any, State]:
        """Logits (B, V) of the first new token, and the state, of one of the parts."""
        distinct: dict[Hashable, int] = {}
        places = [distinct.setdefault(self.key(row), len(distinct)) for row in rows]
        if self._kept is not None and self.key(rows[0]) == self._kept[0]:
            _, logits, state = self._kept
        else:
            logits, state = self.run([rows[places.index(place)] for place in range(len(distinct))])
        self._kept = None
        last, following = rows[-1], rows[-1] + 1
        if (
            following < len(self.prompts)
            and self.key(following) == self.key(last)
            and can_join(state.cache)  # else nothing joins this batch
        ):
            self._kept = (self.key(last), logits[places[-1:]], state.copy(places[-1:]))
        if len(distinct) < len(rows):
            logits = logits[places]
            state.select(places)
        return logits, state


def alike(rows: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """The rows cut, in their order, where the next would be padded by more than :data:`PADDED`."""
    parts: list[list[int]] = []
    low = high = 0
    for row, length in zip(rows, lengths, strict=True):
        low, high = min(low, length), max(high, length)
        if not parts or low < (1 - PADDED) * high:
            parts.append([])
            low = high = length
        parts[-1].append(row)
    return parts


def _run_padded(model: Any, prompts: Sequence[Sequence[int]]) -> tuple[Any, State]:
    """Run prompts together, padded on the left: logits (B, V) and state."""
    import torch

    width = max(map(len, prompts))
    blanks = [width - len(ids) for ids in prompts]
    padded = [[0] * blank + list(ids) for blank, ids in zip(blanks, prompts, strict=True)]
    held = [[0] * blank + [1] * (width - blank) for blank in blanks]
    device = first_device(model)
    mask = torch.tensor(held, device=device)
    cache = new_cache(model.config)
    logits = model(
        input_ids=torch.tensor(padded, device=device),
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return logits, State(mask, mask.sum(1, keepdim=True) - 1, cache)


def _step(model: Any, batch: _Batch) -> Any:
    """Run the last token of every row; logits (B, V)."""
    import torch

    state = batch.state
    state.mask = torch.cat([state.mask, state.mask.new_ones(len(batch.rows), 1)], dim=1)
    state.positions = state.positions + 1
    return model(
        input_ids=torch.tensor(batch.tokens, device=state.mask.device)[:, None],
        attention_mask=state.mask,
        position_ids=state.positions,
        past_key_values=state.cache,
        use_cache=True,
    ).logits[:, -1]


def _joined(batch: _Batch | None, new: _Batch) -> _Batch:
    if batch is None:
        return new
    batch.state.join(new.state)
    return _Batch(batch.rows + new.rows, batch.tokens + new.tokens, batch.state)


def _kept(batch: _Batch, places: list[int]) -> _Batch | None:
    if not places:
        return None
    batch.state.select(places)
    rows, tokens = ([values[place] for place in places] for values in (batch.rows, batch.tokens))
    return _Batch(rows, tokens, batch.state)
