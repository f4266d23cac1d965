"""A small Qwen2.5-VL on drawn pictures: a competence stage, twins, and VLMEvalKit's benchmarks.

DFT cannot learn from random weights, where every token is improbable. So a checkpoint made on the
spot first learns to see and to answer, with stock full fine-tuning; that is ``base``. SFT and DFT
go on from it, on new pictures in WeThink's record shape. All three answer questions on held-out
pictures in the table shapes of MathVerse, MathVision and WeMath, and the same questions on white
pictures, which tell what can be answered without looking.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dft_eval.results import BenchmarkResult, ResultFile, atomic_write
from dft_factory.demo import CONFIGS
from dft_factory.stages import STAMP, percent, say, train

ROOT = Path("runs/demo/vl")
LABELS = ("base", "sft", "dft")
BENCHMARKS = ("mathverse", "mathvision", "wemath")
BASE_PICTURES = 4_000
TWIN_PICTURES = 1_920
ITEMS = 240
"""Held-out rows of each table."""

PIXELS = (3_136, 200_704)
"""As in the recipes: the pictures have 12,544."""

MAX_NEW_TOKENS = 48
OPTIONS = 4


@dataclass(frozen=True)
class Score:
    """One cell: a fraction with its standard error."""

    value: float | None
    stderr: float | None


def chance(benchmark: str, n: int) -> Score:
    """What ``n`` answers (of WeMath: problems) guessed at random score, with its standard error.

    Each of the four options is right equally often. WeMath's strict score counts a problem 1 where
    all steps and the whole are right, 1/2 where only the whole is wrong; half of its problems have
    two steps, half three.
    """
    p = 1 / OPTIONS
    if benchmark != "wemath":
        return Score(p, math.sqrt(p * (1 - p) / n))
    mean = second = 0.0
    for steps in (2, 3):
        mastered, general = p ** (steps + 1), p**steps * (1 - p)
        mean += (mastered + general / 2) / 2
        second += (mastered + general / 4) / 2
    return Score(mean, math.sqrt((second - mean**2) / n))


def make_random(folder: Path) -> Path:
    """A Qwen2.5-VL with random weights whose tokenizer knows the words of the drawn questions."""
    from dft_factory.data.drawn import texts
    from dft_factory.tiny import make_tiny

    if not folder.is_dir():
        say(f"a Qwen2.5-VL with random weights to {folder}")
        make_tiny("qwen2.5-vl", folder, size="small", corpus=texts() * 3)
    return folder


def make_set(name: str, count: int, seed: int) -> Path:
    """Drawn records through ``dft-factory data prepare wethink``; gives the data set's folder."""
    from dft_factory.data.drawn import write_records
    from dft_factory.data.prepare import prepare

    out = ROOT / f"{name}-data"
    made = out / "made.json"
    settings = json.dumps({"count": count, "seed": seed})
    if made.is_file() and made.read_text(encoding="utf-8") == settings:
        say(f"{out} is there already")
        return out
    say(f"{count} drawn pictures with questions to {out}")
    drawn = ROOT / "drawn" / name
    for folder in (out, drawn):
        shutil.rmtree(folder, ignore_errors=True)
    source = write_records(drawn, count, seed)
    prepare("wethink", str(source), out)
    shutil.rmtree(drawn)
    atomic_write(made, settings)
    return out


def without_system_prompt(folder: Path) -> None:
    """Registers the prepared set a second time, its system prompt left out.

    VLMEvalKit asks without one; so the base model learns to answer both ways.
    """
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    entry = dict(info["wethink"])
    entry["columns"] = {key: value for key, value in entry["columns"].items() if key != "system"}
    atomic_write(path, json.dumps({**info, "wethink_plain": entry}, indent=2) + "\n")


def make_tables(items: int) -> tuple[Path, Path]:
    """Tables with pictures, and the same with white ones."""
    from dft_factory.data.drawn_tables import write_tables

    folders = ROOT / "tables", ROOT / "tables-blank"
    for folder, blank in zip(folders, (False, True), strict=True):
        write_tables(folder, items, seed=3, blank=blank)
    return folders


def evaluate(label: str, model: Path, tables: Path, out: Path) -> ResultFile:
    """The three benchmarks, options extracted by rules."""
    from dft_eval import benchmarks
    from dft_eval.benchmark import JudgeChoice
    from dft_eval.generation.run import Decoding

    say(f"{label}: {', '.join(BENCHMARKS)} on {tables}")
    return benchmarks.evaluate(
        list(BENCHMARKS),
        benchmarks.Request(
            model=str(model),
            out=out,
            label=label,
            data=tables,
            judge=JudgeChoice("rules"),
            min_pixels=PIXELS[0],
            max_pixels=PIXELS[1],
            decoding=Decoding(max_new_tokens=MAX_NEW_TOKENS, batch_size=64),
        ),
    )


def cells(results: Sequence[BenchmarkResult]) -> dict[str, Score]:
    """The three scores, and WeMath's accuracy on single steps."""
    found = {row.benchmark: Score(row.score, row.stderr) for row in results}
    (wemath,) = [row for row in results if row.benchmark == "wemath"]
    return {**found, "wemath steps": Score(wemath.breakdown["one_step"], None)}


def table(rows: Mapping[str, Mapping[str, Score]]) -> str:
    """The comparison as lines of text; a score with its standard error in each cell."""
    columns = (*BENCHMARKS, "wemath steps")
    lines = [f"{'':22}" + "".join(f"{name:>18}" for name in columns)]
    for title, row in rows.items():
        texts = [percent(row[name].value, row[name].stderr) for name in columns]
        lines.append(f"{title:22}" + "".join(f"{text:>18}" for text in texts))
    return "\n".join(lines) + "\n"


def run(items: int = ITEMS) -> Path:
    """The whole way; prints the table and gives the report."""
    from dft_eval.report import build_report

    started = time.monotonic()
    random = make_random(ROOT / "random")
    base_data = make_set("base", BASE_PICTURES, seed=1)
    without_system_prompt(base_data)
    base = train(
        "base",
        CONFIGS / "vl_base.yaml",
        (),
        ROOT / "base",
        [random / "config.json", base_data / "made.json"],
    )
    twins_data = make_set("twins", TWIN_PICTURES, seed=2)
    models = {"base": base}
    for label in LABELS[1:]:
        models[label] = train(
            label,
            CONFIGS / f"vl_{label}.yaml",
            (),
            ROOT / label,
            [ROOT / "base" / STAMP, twins_data / "made.json"],
        )
    pictures, blank = make_tables(items)
    rows: dict[str, Mapping[str, Score]] = {}
    for label, model in models.items():
        for where, title in ((pictures, label), (blank, f"{label}, white pictures")):
            out = ROOT / label if where == pictures else ROOT / label / "blank"
            rows[title] = cells(evaluate(title, model, where, out).results)
    n_problems = 2 * items // 7
    guessed = {name: chance(name, n_problems if name == "wemath" else items) for name in BENCHMARKS}
    text = table({"chance": {**guessed, "wemath steps": chance("steps", items)}, **rows})
    atomic_write(ROOT / "table.txt", text)
    paths = build_report(
        [ROOT / label for label in LABELS], ROOT, title="A small Qwen2.5-VL: base, SFT and DFT"
    )
    sys.stdout.write(text)
    say(f"done in {(time.monotonic() - started) / 60:.1f} minutes: {paths.html}")
    return paths.html
