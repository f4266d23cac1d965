"""``pass@1``: programs that a model wrote, judged by the tests of their rows in the sandbox.

Where a row has no solution, its tests run after the program in one process: a program that searches
its process for them can pass. With a solution they only tell the inputs, and outputs are compared
outside the sandbox, as for HumanEval.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dft_eval import sandbox
from dft_eval.benchmark import Request
from dft_eval.code_problems import CodeProblem
from dft_eval.generation.run import Completion
from dft_eval.humaneval_plus.data import EvalPlusProblem, from_human_eval
from dft_eval.humaneval_plus.judge import Tests, judge, make_tests
from dft_eval.own_tasks.grading import Answers, Grade, Grading
from dft_eval.own_tasks.items import Item

_CODE_BLOCK = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


def problems_of(items: Sequence[Item], source: str, request: Request) -> dict[str, EvalPlusProblem]:
    """Problems by id, with the inputs on which the tests call the solutions.

    Raises:
        UsageError: a solution that fails its tests.
        PrerequisiteError: there is no working sandbox here.
    """
    rows = [
        CodeProblem(
            task_id=item.id,
            prompt="",
            entry_point=item.entry_point,
            test=item.tests,
            canonical_solution=item.solution,
        )
        for item in items
    ]
    data = from_human_eval(rows, source, sandboxed=request.sandboxed)
    # HumanEval's tolerances go by the function's name.
    return {problem.task_id: problem.model_copy(update={"atol": 0.0}) for problem in data.problems}


def grade_programs(answers: Answers, grading: Grading) -> list[Grade]:
    """A grade of every program."""
    sandboxed, workers = grading.request.sandboxed, grading.request.judge_workers
    ids = list(dict.fromkeys(item.id for item, _ in answers)) if grading.problems else []

    def tests_of(id: str) -> Tests:
        return make_tests(grading.problems[id], "base", sandboxed=sandboxed)

    def run(answer: tuple[Item, Completion]) -> Grade:
        item, row = answer
        program = program_of(item, row, grading)
        if grading.problems:
            problem = grading.problems[item.id]
            score, reason = judge(program, problem, tests[item.id], sandboxed=sandboxed)
        else:
            protections = sandbox.ALL_PROTECTIONS if sandboxed else sandbox.NO_SANDBOX
            done = sandbox.check_program(program, item.tests, protections=protections)
            score, reason = done.score, done.reason
        return Grade(None if score is None else score == 1.0, reason)

    with grading.progress("programs run") as bar:
        tests = dict(zip(ids, sandbox.judge_each(tests_of, ids, workers), strict=True))
        return sandbox.judge_each(run, answers, workers, bar)


def program_of(item: Item, row: Completion, grading: Grading) -> str:
    """The longest code block of a chat's answer; a raw completion goes on from its prompt."""
    if grading.task.extract is not None:
        return row.completion
    if grading.request.prompt_style == "completion":
        return item.prompt + row.completion
    return max(_CODE_BLOCK.findall(row.completion), key=len, default=row.completion)
