"""Logit scaling and soft-capping of models that apply them between head and softmax."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LogitTransform:
    """Element-wise function of the head's output: scale, then softcap.

    Attributes:
        scale: factor of the logits (Cohere's logit_scale, 1 / Granite's logits_scaling).
        softcap: z becomes softcap·tanh(z / softcap) (Gemma 2); None leaves z unchanged.
    """

    scale: float = 1.0
    softcap: float | None = None

    @property
    def is_identity(self) -> bool:
        """Whether the logits pass unchanged."""
        return self.scale == 1.0 and self.softcap is None

    def apply_(self, z: Tensor) -> Tensor:
        """Transform in place."""
        if self.scale != 1.0:
            z.mul_(self.scale)
        if self.softcap is not None:
            z.div_(self.softcap).tanh_().mul_(self.softcap)
        return z

    def derivative_(self, gradient: Tensor, transformed: Tensor) -> Tensor:
        """Multiply ``gradient`` in place by d transformed / d head output."""
        if self.softcap is not None:
            gradient.mul_(1 - (transformed / self.softcap).square_())
        return gradient.mul_(self.scale) if self.scale != 1.0 else gradient


IDENTITY = LogitTransform()
