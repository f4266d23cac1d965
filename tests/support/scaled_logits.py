"""``llamafactory-cli`` with a Qwen2 that multiplies its logits by 1.25, on rank 1 alone."""

import functools
import os

from llamafactory.cli import main
from transformers import Qwen2ForCausalLM

original = Qwen2ForCausalLM.forward


@functools.wraps(original)
def forward(self, *args, **kwargs):
    output = original(self, *args, **kwargs)
    output.logits = output.logits * 1.25
    return output


if os.environ["RANK"] == "1":
    Qwen2ForCausalLM.forward = forward

if __name__ == "__main__":
    main()
