"""Keys and values of a batch that changes, and attention over them, without needless copies.

On a CPU most of a batched step of transformers is copying: ``DynamicCache`` copies all keys and
values to append a column, and ``sdpa`` under a padding mask copies them once more for each group of
query heads. Here columns are appended in place, and grouped heads are queries of one product.
"""

from __future__ import annotations

from copy import copy
from functools import lru_cache
from typing import Any

GROUPED = "dft_grouped_sdpa"
GROWTH = 128
"""Columns by which the cache grows at once."""


@lru_cache(maxsize=1)
def register_grouped() -> None:
    """Tell transformers of :data:`GROUPED`, once."""
    from torch.nn.functional import scaled_dot_product_attention
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    def attend(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any
    ) -> tuple[Any, None]:
        """``sdpa``, but one query token of grouped heads without copies of keys and values."""
        rows, heads, length, size = query.shape
        kv_heads = key.shape[1]
        masked = attention_mask is not None and attention_mask.shape[1] != 1
        if length > 1 or masked or heads == kv_heads or kwargs.get("dropout"):
            output: tuple[Any, None] = sdpa_attention_forward(
                module, query, key, value, attention_mask, **kwargs
            )
            return output
        grouped = query.reshape(rows, kv_heads, heads // kv_heads, size)
        attended = scaled_dot_product_attention(
            grouped, key, value, attn_mask=attention_mask, scale=kwargs.get("scaling")
        )
        return attended.reshape(rows, 1, heads, size), None

    AttentionInterface.register(GROUPED, attend)
    AttentionMaskInterface.register(GROUPED, sdpa_mask)


@lru_cache(maxsize=1)
def _growing_layer() -> Any:
    from transformers.cache_utils import DynamicLayer

    class GrowingLayer(DynamicLayer):  # type: ignore[misc]
        """Keys and values, (B, heads, T, size), as views of the beginning of larger buffers."""

        def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> Any:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                self.room = (key_states[..., :0, :], value_states[..., :0, :])
            held = self.get_seq_length()
            length = held + key_states.shape[-2]
            if length > self.room[0].shape[-2]:
                self.room = tuple(_grown(old, held, length) for old in self.room)
            for room, new in zip(self.room, (key_states, value_states), strict=True):
                room[..., held:length, :] = new
            self.keys, self.values = (room[..., :length, :] for room in self.room)
            return self.keys, self.values

        def hold(self, keys: Any, values: Any) -> None:
            """Replace everything that is held."""
            self.keys, self.values = self.room = (keys, values)

        def batch_select_indices(self, indices: Any) -> None:
            self.hold(self.keys[indices], self.values[indices])

    return GrowingLayer


def _grown(old: Any, held: int, length: int) -> Any:
    room = old.new_empty(*old.shape[:2], length + GROWTH, old.shape[3])
    room[..., :held, :] = old[..., :held, :]
    return room


def new_cache(config: Any) -> Any:
    """A ``DynamicCache`` whose plain layers grow in place."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    cache = DynamicCache(config=config)
    cache.layers = [
        _growing_layer()() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def can_join(cache: Any) -> bool:
    """Whether other rows can be put into this cache: all layers hold all columns."""
    return all(type(layer) is _growing_layer() for layer in cache.layers)


def select(cache: Any, mask: Any, places: list[int]) -> Any:
    """Keep these rows alone, without the columns that all of them mask; returns their mask.

    Args:
        mask: (B, T), 1 where a column holds a token of the row.
        places: of the rows, which may repeat.
    """
    import torch

    index = torch.tensor(places, device=mask.device)
    mask = mask[index]
    if not can_join(cache):
        cache.batch_select_indices(index)
        return mask
    first = int(mask.any(0).int().argmax())
    for layer in cache.layers:
        own = index.to(layer.keys.device)  # a model may be spread over devices
        layer.hold(layer.keys[own, :, first:], layer.values[own, :, first:])
    return mask[:, first:]


def copy_rows(cache: Any, mask: Any, places: list[int]) -> tuple[Any, Any]:
    """The mask and a cache of these rows; ``cache`` stays as it is."""
    rows = copy(cache)
    rows.layers = [copy(layer) for layer in cache.layers]
    return select(rows, mask, places), rows


def join(cache: Any, mask: Any, other: Any, other_mask: Any) -> Any:
    """Put the rows of another cache after those of this one, ends aligned; returns the mask."""
    import torch

    for layer, added in zip(cache.layers, other.layers, strict=True):
        pairs = ((layer.keys, added.keys), (layer.values, added.values))
        layer.hold(*(torch.cat(_aligned(*pair, dim=-2)) for pair in pairs))
    return torch.cat(_aligned(mask, other_mask, dim=-1))


def _aligned(one: Any, other: Any, dim: int) -> list[Any]:
    """Both with as many columns (``dim``) as the wider one, zeros first."""
    from torch.nn.functional import pad

    width = max(one.shape[dim], other.shape[dim])
    later = (0, 0) * (-dim - 1)  # pad() counts dimensions from the last
    return [pad(each, (*later, width - each.shape[dim], 0)) for each in (one, other)]
