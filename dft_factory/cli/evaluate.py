"""``dft-factory eval`` and ``dft-factory generate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dft_factory.cli.app import app
from dft_factory.cli.options import (
    JudgeWorkers,
    SandboxOption,
    Track,
    Unsafe,
    words_of,
)
from dft_factory.cli.requests import requests_from

if TYPE_CHECKING:
    from dft_eval.benchmark import Benchmark
    from dft_eval.results import ResultFile


@app.command("eval", help="Score a model on benchmarks: generate, then score in a sandbox.")
@app.command("generate", help="Completions only: needs the model, no sandbox and no judge.")
def eval_command(
    context: typer.Context,
    benchmarks: Annotated[
        list[str],
        typer.Argument(
            help="humaneval, mathvision, ... (dft-factory doctor lists them), lm-eval:TASK of "
            "lm-evaluation-harness, vlmeval:DATASET of VLMEvalKit, or the path of your own task "
            "file (docs/own-tasks.md)"
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results.json and the items files.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Hub id, model folder, LoRA adapter folder, or a server's model. Several: "
            "LABEL=MODEL, repeated, each into OUT/LABEL.",
        ),
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN_DIR",
            help="Instead of --model: a training's output_dir. Each checkpoint goes into "
            "OUT/checkpoint-STEP, the final weights into OUT.",
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            help="With --checkpoints: those whose step is a multiple of N, and the last one."
        ),
    ] = None,
    label: Annotated[str, typer.Option(help="base, sft, dft, ...")] = "model",
    base_model: Annotated[
        str | None, typer.Option(help="The row of the paper that this model belongs to.")
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="hf|openai|vllm|sglang",
            help="transformers here; a server that runs (--base-url); or one that is started, in "
            "an environment of its own, and stopped.",
        ),
    ] = "hf",
    serve_python: Annotated[
        Path | None,
        typer.Option(help="For vllm, sglang: Python of an environment with it (default: uv's)."),
    ] = None,
    serve_args: Annotated[
        str | None,
        typer.Option(help="For vllm, sglang: more options of theirs, '--max-model-len 4096'."),
    ] = None,
    serve_command: Annotated[
        str | None,
        typer.Option(
            help="For openai: start any other server, '... {model} --port {port}', and stop it."
        ),
    ] = None,
    serve_timeout: Annotated[
        float, typer.Option(help="Seconds until a started server has to answer.")
    ] = 1800.0,
    tensor_parallel: Annotated[
        int | None,
        typer.Option(help="For vllm, sglang: GPUs a model (default: what its weights need)."),
    ] = None,
    data_parallel: Annotated[
        int | None,
        typer.Option(help="For vllm, sglang: replicas (default: what the visible GPUs allow)."),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(help="OpenAI-compatible server, http://host:port/v1; key: OPENAI_API_KEY."),
    ] = None,
    prompt_style: Annotated[
        str | None,
        typer.Option(
            help="completion or chat (default: completion for humaneval* and multipl-e, else chat)."
        ),
    ] = None,
    system_prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|none|wethink",
            help="System message of chats: a text, none, or WeThink's (default: the chat "
            "template's own). Give it to a model that was trained with it.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Score only the first N items (N per language for multipl-e). The result is "
            "marked partial."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of sampling; recorded with the result.")] = 0,
    data: Annotated[
        Path | None,
        typer.Option(
            help="The published file (multipl-e, pictures: folder; default: its usual place)."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens a completion may have (default: the benchmark's own)."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Prompts run together; requests at once, with a server.")
    ] = 32,
    samples: Annotated[
        int,
        typer.Option(
            help="Completions a prompt, with a temperature: pass@k for code (multipl-e: in every "
            "language); avg@N, maj@N and pass@N for mathematics."
        ),
    ] = 1,
    temperature: Annotated[
        float | None, typer.Option(help="0, the default, is greedy decoding.")
    ] = None,
    match_entropy: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of results, may be repeated: choose the temperature at which the mean "
            "token entropy is theirs."
        ),
    ] = None,
    top_p: Annotated[float, typer.Option(help="With a temperature: nucleus sampling.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="With a temperature: the K likeliest; -1: all.")] = -1,
    min_p: Annotated[
        float, typer.Option(help="With a temperature: least share of the likeliest token's p.")
    ] = 0.0,
    repetition_penalty: Annotated[
        float, typer.Option(help="1 is none; the model's generation_config is not used.")
    ] = 1.0,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16 or float16, whatever the weights' dtype (default: float32; "
            "vllm, sglang: bfloat16)."
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="For mathverse and mathvision: openai (a server) or rules (math-verify); openai "
            "for own tasks with metric judge."
        ),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="With --judge openai: the server's model.")
    ] = None,
    judge_base_url: Annotated[
        str | None,
        typer.Option(
            help="With --judge openai: the server (default: OpenAI's); key: JUDGE_API_KEY."
        ),
    ] = None,
    min_pixels: Annotated[
        int | None, typer.Option(help="Least pixels of a picture (default: VLMEvalKit's).")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(help="Most pixels of a picture (default: VLMEvalKit's).")
    ] = None,
    harness: Annotated[
        str | None,
        typer.Option(
            help="multipl-e: whose recipes, official (default) or qwen. Mathematics: whose rules "
            "of equality, math-verify (default) or qwen; the other's score is in the breakdown."
        ),
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option(help="lm-eval:TASK: examples before each question (default: the task's)."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="For generate: the K-th of N parts, on any machine, into one --out; score puts "
            "them together.",
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="With --backend hf: a process on each of N GPUs of this machine (auto: of all), "
            "each with a part of the items; their logs are in --out.",
        ),
    ] = None,
    device_map: Annotated[
        str | None,
        typer.Option(
            metavar="auto|balanced|balanced_low_0|sequential",
            help="With --backend hf: spread the model over the visible GPUs, as accelerate does "
            "(default: auto for weights that do not fit one).",
        ),
    ] = None,
    sandbox: SandboxOption = "auto",
    judge_workers: JudgeWorkers = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do not use completions of earlier calls.")
    ] = False,
    track: Track = False,
    unsafe_no_sandbox: Unsafe = False,
) -> None:
    """``eval``, and ``generate``, which takes the same options."""
    from dft_eval.per_gpu import evaluate_per_gpu, parse_gpus
    from dft_eval.several_models import evaluate_all

    scored = context.info_name != "generate"
    requests = requests_from(context.params, scored=scored)
    if gpus is None:
        done = evaluate_all(benchmarks, requests, scored=scored)
    else:
        command = words_of(context, "generate", without=("gpus", "track", "unsafe_no_sandbox"))
        number = parse_gpus(gpus)
        done = evaluate_per_gpu(benchmarks, requests, number, command, out, scored=scored)
    for request, results in done:
        if not scored:
            typer.echo(f"completions are in {request.out}: dft-factory score {request.out}")
        print_scores(results)
        if track:
            track_scores(results)


def check_evaluation(words: Sequence[str]) -> list[Benchmark]:
    """Check the words after ``dft-factory generate`` as that command does before it starts.

    Returns:
        The benchmarks that they name.

    Raises:
        UsageError: an unknown option, benchmark or value.
    """
    from dft_eval.benchmarks import check
    from dft_eval.errors import UsageError

    group: Any = typer.main.get_command(app)
    # typer has click inside or beside it, by its version; BadParameter is one of its usage errors.
    usage_error: Any = typer.BadParameter.__base__
    try:
        context = group.commands["generate"].make_context("generate", list(words))
    except usage_error as error:
        raise UsageError(error.format_message()) from error
    benchmarks: list[Benchmark] = []
    for request in requests_from(context.params, scored=False):
        benchmarks = check(context.params["benchmarks"], request)
    return benchmarks


def track_scores(results: ResultFile) -> None:
    from dft_eval.tracking import track

    typer.echo(f"scores logged to {', '.join(track(results.model, results))}")


def print_scores(results: ResultFile) -> None:
    for row in results.results:
        score = "unscored" if row.score is None else f"{100 * row.score:.1f} %"
        error = "" if row.stderr is None else f" ± {100 * row.stderr:.1f}"
        typer.echo(
            f"{results.label}  {row.benchmark} ({row.prompt_style})  {row.metric} {score}{error}  "
            f"{row.n_scored}/{row.n_total} items"
        )
