"""``dft-factory score``, ``card`` and ``report``: what is made of completions and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dft_factory.cli.app import app
from dft_factory.cli.evaluate import print_scores, track_scores
from dft_factory.cli.options import (
    JudgeWorkers,
    SandboxOption,
    Track,
    Unsafe,
    choice_of,
    judge_choice,
)


@app.command("score")
def score_command(
    folders: Annotated[
        list[Path], typer.Argument(help="The --out of dft-factory generate, one or more.")
    ],
    judge: Annotated[
        str | None, typer.Option(help="openai or rules (default: the one named to generate).")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="As in eval.")] = None,
    judge_base_url: Annotated[str | None, typer.Option(help="As in eval.")] = None,
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
                sandbox_name=choice_of("--sandbox", sandbox, SANDBOXES),
                judge_workers=judge_workers,
                judge=judge_choice(judge, judge_model, judge_base_url),
                fresh=fresh,
            )
        except UnscoredError as error:
            unscored.append(f"{folder}: {error}")
            continue
        print_scores(results)
        if track:
            track_scores(results)
    if unscored:
        raise UnscoredError("\n".join(unscored))


@app.command("card")
def card_command(
    model: Annotated[Path, typer.Argument(help="Folder of the weights, or of a LoRA adapter.")],
    results: Annotated[
        list[Path] | None, typer.Argument(help="Folders with this model's results.json.")
    ] = None,
) -> None:
    """Write or update README.md beside the weights: training, scores, Hub metadata."""
    from dft_factory.model_card import write_model_card

    typer.echo(str(write_model_card(model, results or [])))


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
