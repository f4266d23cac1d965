"""``generate --shard K/N`` and ``score`` of the shards."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft_eval.benchmark import JudgeChoice, Request
from dft_eval.benchmarks import evaluate, score
from dft_eval.errors import UsageError
from dft_eval.generation.run import Decoding, Prompt, samples_of
from dft_eval.generation.shard import Shard, parse_shard
from tests.conftest import Bench
from tests.support import tasks
from tests.support.cli import clean_environment, executable
from tests.support.openai_server import FakeServer, serve
from tests.support.vlm_tables import mathvision_row, write_table

SAMPLED = Decoding(max_new_tokens=6, batch_size=3, samples=2, temperature=1.0)


def write_task(folder: Path, n: int = 10) -> Path:
    rows = [{"question": f"{'count ' * (i % 4)}{i}", "answer": i} for i in range(n)]
    return tasks.write_task(folder, rows)


def scored(folder: Path) -> dict[str, str]:
    names = ("results.json", "*.items.jsonl", "*.completions.jsonl", "*.data.json")
    return {path.name: path.read_text() for name in names for path in folder.glob(name)}


def assert_same(parts: Path, whole: Path) -> None:
    """All files; entropies but for what another batch and another number of threads round."""

    def entropies(text: str) -> list[float]:
        return [float(value) for value in re.findall(r'"mean_entropy": ?([0-9.]+)', text)]

    files, expected = scored(parts), scored(whole)
    assert files.keys() == expected.keys()
    assert any(name.endswith(".completions.jsonl") for name in files)
    for name, text in files.items():
        without = [re.sub(r'"mean_entropy": ?[0-9.]+', "", each) for each in (text, expected[name])]
        assert without[0] == without[1]
        assert entropies(text) == pytest.approx(entropies(expected[name]), abs=1e-5)


@given(
    ids=st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=30),
    total=st.integers(1, 9),
    samples=st.integers(1, 3),
)
def test_samples_of_a_prompt_are_in_one_shard(ids: list[str], total: int, samples: int) -> None:
    decoding = Decoding(samples=samples, temperature=1.0)
    prompts = samples_of([Prompt(id, "x") for id in ids], decoding)
    shards = [Shard(number, total).select(prompts, samples) for number in range(1, total + 1)]
    assert sorted(prompt.id for shard in shards for prompt in shard) == sorted(
        prompt.id for prompt in prompts
    )
    assert all(shard == [prompt for prompt in prompts if prompt in shard] for shard in shards)
    assert max(map(len, shards)) - min(map(len, shards)) <= samples
    backwards = [Shard(k, total).select(prompts[::-1], samples) for k in range(1, total + 1)]
    assert [shard[::-1] for shard in backwards] == shards


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5", ""])
def test_invalid_shards(text: str) -> None:
    with pytest.raises(UsageError, match=r"give K/N with K from 1 to N, such as 1/4"):
        parse_shard(text)
    assert parse_shard("2/3") == Shard(2, 3)


@pytest.mark.parametrize("decoding", [replace(SAMPLED, samples=1, temperature=0.0), SAMPLED])
def test_shards_equal_one_process(text_bench: Bench, tmp_path: Path, decoding: Decoding) -> None:
    task = str(write_task(tmp_path))

    request = Request(str(text_bench.model), tmp_path / "whole", "base", decoding=decoding)
    evaluate([task], request)
    for number in (3, 1, 2):
        part = replace(request, out=tmp_path / "parts", shard=Shard(number, 3))
        evaluate([task], part, scored=False)
    for _ in range(2):
        score(tmp_path / "parts")
        assert_same(tmp_path / "parts", tmp_path / "whole")


def test_a_killed_shard_is_named_and_repeated(tmp_path: Path) -> None:
    """By the real command; the completions of the killed one are not requested again."""
    task, requests = str(write_task(tmp_path)), list[str]()
    running: list[subprocess.Popen[str]] = []

    def answer(prompt: str) -> str:
        if running and len(requests) == 3:  # the first checks the server
            os.kill(running.pop().pid, signal.SIGKILL)
            return ""
        requests.append(prompt)
        return prompt.split()[-1]

    def generate(shard: str, out: str = "parts", command: str = "generate") -> tuple[int, str]:
        args = [command, task, "--model", "tiny", "--backend", "openai", "--base-url", server.url]
        args += ["--out", str(tmp_path / out), "--batch-size", "1", *shard.split()]
        process = subprocess.Popen(
            [executable("dft-factory"), *args],
            env=clean_environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        if shard == "--shard 2/3" and not requests:
            running.append(process)
        return process.wait(), process.communicate()[1]

    with serve(FakeServer(answer, talks=False)) as server:
        assert generate("--shard 2/3")[0] == -signal.SIGKILL
        completed = requests[1:]
        assert generate("--shard 1/3")[0] == 0
        with pytest.raises(UsageError, match=r"shard 2/3, 3/3\. Run its .*--shard 2/3"):
            score(tmp_path / "parts")
        assert generate("--shard 2/3")[0] == 0
        assert generate("--shard 3/3")[0] == 0
        bodies = [body for body in server.seen if body["max_tokens"] > 1]
        prompts = [body["messages"][-1]["content"] for body in bodies]
        assert len(set(prompts)) == 10
        # The last one may not have been written yet.
        assert prompts.count(completed[0]) == 1
        assert prompts.count(completed[1]) <= 2
        score(tmp_path / "parts")
        assert generate("", "whole", "eval")[0] == 0
        assert_same(tmp_path / "parts", tmp_path / "whole")
        status, stderr = generate("--shard 1/3", "other", "eval")
        assert (status, "--shard 1/3 is for dft-factory generate" in stderr) == (2, True)
        status, stderr = generate("")
        assert (status, "holds shards, which `dft-factory score" in stderr) == (2, True)


def test_shards_of_different_settings_are_refused(tmp_path: Path) -> None:
    task = write_task(tmp_path / "task")

    def make(server: FakeServer, number: int, total: int = 2, **changes: Any) -> None:
        options = {"backend": "openai", "base_url": server.url, "shard": Shard(number, total)}
        request = Request("tiny", tmp_path / "out", "base", **options, **changes)
        evaluate([str(task)], request, scored=False)

    with serve(FakeServer(lambda prompt: prompt, talks=False)) as server:
        make(server, 1)
        for changes, message in (
            ({"limit": 9}, r"limit of shard 2/2 is 9, of shard 1/2 None"),
            ({"decoding": Decoding(max_new_tokens=3)}, r"\.max_new_tokens of shard 2/2 is 3"),
            ({"prompt_style": "completion"}, r"not finished: shard 2/2 of task \(chat\)"),
        ):
            shutil.rmtree(tmp_path / "out/shards/2-of-2", ignore_errors=True)
            make(server, 2, **changes)
            with pytest.raises(UsageError, match=message):
                score(tmp_path / "out")
        shutil.rmtree(tmp_path / "out/shards/2-of-2")
        write_task(tmp_path / "task", 1)
        make(server, 2)
        with pytest.raises(UsageError, match="data of shard 2/2 is "):
            score(tmp_path / "out")
        make(server, 1, 3)
        with pytest.raises(UsageError, match="holds parts of 2 and of 3"):
            score(tmp_path / "out")
        shutil.rmtree(tmp_path / "out/shards/1-of-3")
        write_task(tmp_path / "task")
        make(server, 2)
        score(tmp_path / "out")


def test_pictures_of_shards_are_merged(tmp_path: Path) -> None:
    """Shards from folders of several machines, copied into one."""
    write_table(tmp_path / "data/MathVision.tsv", [mathvision_row(i, "8") for i in range(4)])
    with serve(FakeServer(lambda _: "It is 8", talks=False)) as server:
        options = {"backend": "openai", "base_url": server.url, "judge": JudgeChoice("rules")}
        request = Request(
            "tiny", tmp_path / "whole", "base", data=tmp_path / "data", limit=4, **options
        )
        evaluate(["mathvision"], request)
        for number in (1, 2):
            out = tmp_path / f"machine{number}"
            evaluate(
                ["mathvision"], replace(request, out=out, shard=Shard(number, 2)), scored=False
            )
            shutil.copytree(out, tmp_path / "parts", dirs_exist_ok=True)
    score(tmp_path / "parts")
    whole_files, parts = scored(tmp_path / "whole"), scored(tmp_path / "parts")
    del whole_files["mathvision.chat.data.json"], parts["mathvision.chat.data.json"]
    assert parts == whole_files
