"""Worker: the judge prompts of the installed VLMEvalKit, whose import takes seconds and changes the
process that does it (no TLS verification, a ``.env`` file read).

Questions: ``{"kind": "mathvision" | "mathverse_extract" | "mathverse_score", "line": {...}}`` ->
``{"prompt": str}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys


def main() -> None:
    """Answer questions until there are no more."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what VLMEvalKit prints is no reply
    with contextlib.redirect_stdout(sys.stderr):
        from vlmeval.dataset.utils.mathv import build_mathv_gpt4_prompt
        from vlmeval.dataset.utils.mathverse import (
            build_mathverse_gpt4_extract_prompt,
            build_mathverse_gpt4_score_prompt,
        )

        make = {
            "mathvision": build_mathv_gpt4_prompt,
            "mathverse_extract": build_mathverse_gpt4_extract_prompt,
            "mathverse_score": build_mathverse_gpt4_score_prompt,
        }
        for line in sys.stdin:
            question = json.loads(line)
            prompt = make[question["kind"]](question["line"])
            replies.write(json.dumps({"prompt": prompt}) + "\n")
            replies.flush()


if __name__ == "__main__":
    main()
