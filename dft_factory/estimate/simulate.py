"""Two steps of LLaMA-Factory's trainer on tensors that are never allocated.

Everything that decides memory is LLaMA-Factory's, transformers' and peft's own code: dtypes, frozen
parts, adapters, gradient checkpointing, autocast, the loss head, the optimizer. What is replaced:
the weights (``from_config``), the data (one full row, repeated) and the loss head's softmax, whose
loop over rows has no meaning without values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dft_factory.estimate.tracker import (
    ACTIVATIONS,
    GRADIENTS,
    LOGITS,
    OPTIMIZER,
    PICTURES,
    WEIGHTS,
    MemoryTracker,
)
from dft_factory.losses import linear, softmax

CUDA_BLOCK = 512
"""Bytes to a multiple of which torch's CUDA allocator rounds (c10 kMinBlockSize)."""


@dataclass(frozen=True)
class Simulated:
    """What one step needs, in bytes, when the optimizer's state exists.

    Attributes:
        at_peak: parts of the largest sum over time, by kind; without states where ``sharded``.
        largest: largest value of each kind, at whatever time.
        frozen: parameters that are not trained; ``trained`` those that are.
        root: parameters outside the repeated layers; ``layer`` those of the largest layer.
    """

    at_peak: dict[str, int]
    largest: dict[str, int]
    frozen: int
    trained: int
    root: int
    layer: int
    hidden: int


@contextmanager
def _softmax_without_values(on_gpu: bool) -> Iterator[None]:
    """The loss head's softmax as the allocations that it makes."""

    def allocate(
        logits: Tensor, targets: Tensor, transform: Any, weigh: softmax.Weigh | None
    ) -> tuple[Tensor, Tensor]:
        rows, vocabulary = logits.shape
        logps = logits.new_empty(rows, dtype=torch.promote_types(logits.dtype, torch.float32))
        if not on_gpu:  # the Triton kernels need no scratch
            tile = min(rows, max(1, softmax.TILE_BYTES // (2 * 4 * vocabulary)))
            logps.new_empty((2, tile, vocabulary))
        if weigh is not None:
            weigh(logps, slice(0, rows))
        return logps, torch.empty_like(logps)

    head: Any = linear  # which imports the function by name
    original = head.softmax_rows_
    head.softmax_rows_ = allocate
    try:
        yield
    finally:
        head.softmax_rows_ = original


@contextmanager
def _movable_modules() -> Iterator[None]:
    """``Module.to`` assigns ``data``: torch swaps fake tensors, which nothing may reference."""

    def assign(target: Tensor, source: Tensor) -> None:
        target.data = source.data

    original = torch.utils.swap_tensors
    torch.utils.swap_tensors = assign
    try:
        yield
    finally:
        torch.utils.swap_tensors = original


class _Scope:
    """Whether a module of the vision tower or the projector runs, forward or recomputed."""

    def __init__(self) -> None:
        self.vocabulary = -1
        self._depth = 0

    def watch(self, module: nn.Module) -> None:
        def enter(*_: Any) -> None:
            self._depth += 1

        def leave(*_: Any) -> None:
            self._depth -= 1

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave, always_call=True)

    def kind_of(self, tensor: Tensor) -> str:
        if self._depth:
            return PICTURES
        is_logits = tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary
        return LOGITS if is_logits else ACTIVATIONS


def _picture_modules(model: Any) -> list[nn.Module]:
    from llamafactory.model.model_utils.visual import COMPOSITE_MODELS

    known = COMPOSITE_MODELS.get(getattr(model.config, "model_type", None))
    if known is None:
        return []
    keys = (*known.vision_model_keys, *known.projector_keys)
    return [module for name, module in model.named_modules() if any(k in name for k in keys)]


def _layers(model: Any) -> tuple[int, int]:
    """Parameters outside every ``ModuleList``, and of the largest member of one."""
    members = {
        name: sum(p.numel() for p in member.parameters())
        for listed, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        for name, member in module.named_children()
        for name in [f"{listed}.{name}"]
    }
    outermost = {
        name: n
        for name, n in members.items()
        if not any(name != other and name.startswith(f"{other}.") for other in members)
    }
    total = sum(p.numel() for p in model.parameters())
    return total - sum(outermost.values()), max(outermost.values(), default=0)


def simulate(
    arguments: tuple[Any, ...],
    rows: list[dict[str, Any]],
    tokenizer_module: Mapping[str, Any],
    template: Any,
    *,
    on_gpu: bool,
    sharded: bool,
) -> Simulated:
    """Optimizer steps with these parsed arguments; the second is reported, sharded the first.

    Args:
        arguments: of LLaMA-Factory's ``get_train_args``, with ``use_cpu``.
        rows: the tokenized examples of one batch.
        on_gpu: count as torch does on a GPU, not on a CPU.
        sharded: under ZeRO or FSDP. The weights are cast to the compute dtype, the states left out.
    """
    from llamafactory.model import load_model

    model_args, _, training_args, finetuning_args, _ = arguments
    scope = _Scope()
    states = (WEIGHTS, GRADIENTS, OPTIMIZER) if sharded else ()
    tracker = MemoryTracker(scope.kind_of, without=states, block=CUDA_BLOCK if on_gpu else 1)
    with tracker, _movable_modules():
        model = load_model(tokenizer_module["tokenizer"], model_args, finetuning_args, True)
        if sharded:
            for parameter in model.parameters():
                parameter.data = parameter.data.to(model_args.compute_dtype)
        tracker.label(WEIGHTS, [*model.parameters(), *model.buffers()])
        trainer = _trainer(arguments, model, tokenizer_module, template)
        trainer.create_optimizer()
        optimizer = trainer.optimizer
        if on_gpu:
            for group in optimizer.param_groups:
                group["foreach"] = not group.get("fused")  # torch's default there
        wrapped, trainer.optimizer = trainer.accelerator.prepare(model, optimizer)
    trainer.model_wrapped = wrapped
    scope.vocabulary = model.get_output_embeddings().weight.shape[0]
    for module in _picture_modules(model):
        scope.watch(module)
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(lambda p: tracker.label(GRADIENTS, [p.grad]))
    batch = trainer.data_collator([dict(row) for row in rows])
    n_labelled = trainer._get_num_items_in_batch([batch], training_args.device)
    # The second micro-batch meets the gradients of the first; further ones need no more.
    n_micro = trainer.current_gradient_accumulation_steps = min(
        2, training_args.gradient_accumulation_steps
    )
    with tracker, _softmax_without_values(on_gpu):
        for _ in range(1 if sharded else 2):
            tracker.start()
            for _ in range(n_micro):
                inputs = {key: _copy(value) for key, value in batch.items()}
                if "pixel_values" in inputs:
                    tracker.label(PICTURES, [inputs["pixel_values"]])
                trainer.training_step(wrapped, inputs, n_labelled)
                del inputs
            if sharded:
                break
            if training_args.max_grad_norm:
                trainer.accelerator.clip_grad_norm_(trained, training_args.max_grad_norm)
            trainer.optimizer.step()
            moments = (x for state in optimizer.state.values() for x in state.values())
            tracker.label(OPTIMIZER, moments)
            model.zero_grad()
    root, layer = _layers(model)
    n_trained = sum(p.numel() for p in trained)
    return Simulated(
        at_peak=tracker.at_peak,
        largest=dict(tracker.largest),
        frozen=sum(p.numel() for p in model.parameters()) - n_trained,
        trained=n_trained,
        root=root,
        layer=layer,
        hidden=model.get_input_embeddings().weight.shape[1],
    )


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _trainer(
    arguments: tuple[Any, ...], model: Any, tokenizer_module: Mapping[str, Any], template: Any
) -> Any:
    from llamafactory.data import SFTDataCollatorWith4DAttentionMask
    from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer

    model_args, data_args, training_args, finetuning_args, _ = arguments
    return CustomSeq2SeqTrainer(
        model=model,
        args=training_args,
        finetuning_args=finetuning_args,
        data_collator=SFTDataCollatorWith4DAttentionMask(
            template=template,
            model=model,
            pad_to_multiple_of=8,
            block_diag_attn=model_args.block_diag_attn,
            neat_packing=data_args.neat_packing,
            attn_implementation=getattr(model.config, "_attn_implementation", None),
            compute_dtype=model_args.compute_dtype,
            **tokenizer_module,
        ),
        train_dataset=[{}],
        model_args=model_args,
        **tokenizer_module,
    )
