"""Greedy and sampled scores of one benchmark: how much of a difference is one of decoding.

Sampling at a temperature pays for a model's uncertainty, greedy decoding does not. A training that
makes the model surer of what it would answer anyway gains under sampling alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dft_eval.report.comparison import Effect, outcome
from dft_eval.report.formats import percent, points, points_between, size
from dft_eval.report.lengths import look
from dft_eval.report.pairs import Comparison, Pair, compare_pooled
from dft_eval.report.runs import (
    Evaluation,
    Key,
    Pooled,
    Seed,
    Variant,
    benchmarks,
    key_name,
    paired_seeds,
    short_names,
)
from dft_eval.report.scores import Table, score_text
from dft_eval.results import GREEDY
from dft_eval.seed_statistics import PairedDifference, Scored, paired_difference


def sampled_keys(keys: Sequence[Key]) -> list[tuple[Key, Key]]:
    """(greedy, sampled) for each sampled evaluation that has a greedy counterpart."""
    pairs = [(key._replace(decoding=GREEDY), key) for key in keys if key.decoding]
    return [(greedy, key) for greedy, key in pairs if greedy in keys and greedy != key]


def decoding_table(variants: Sequence[Variant]) -> Table | None:
    """Scores of each run side by side, sampled minus greedy; None where there is one decoding."""
    keys = sampled_keys(benchmarks(variants))
    rows = []
    for greedy in dict.fromkeys(greedy for greedy, _ in keys):
        for variant in variants:
            cells = [_score(variant, greedy)]
            for decoding in dict.fromkeys(key.decoding for _, key in keys):
                key = greedy._replace(decoding=decoding)
                cells += [_score(variant, key), _change(variant, greedy, key)]
            rows.append((f"{greedy.benchmark} ({greedy.style})", variant.label, *cells))
    columns = [
        title
        for decoding in dict.fromkeys(key.decoding for _, key in keys)
        for title in (decoding, f"{decoding} minus greedy (points)")
    ]
    return Table(("benchmark", "run", GREEDY, *columns), tuple(rows)) if rows else None


def _score(variant: Variant, key: Key) -> str:
    pooled = variant.evaluations.get(key)
    return score_text(pooled) if pooled else "not run"


def _change(variant: Variant, greedy: Key, sampled: Key) -> str:
    if not {greedy, sampled} <= variant.evaluations.keys():
        return ""
    effect = compare_pooled(variant.evaluations[greedy], variant.evaluations[sampled]).effect
    return change_text(effect)


def change_text(effect: Effect | None) -> str:
    """A paired difference with its interval, in points."""
    if effect is None:
        return "no item in both"
    return f"{points(effect.difference)} ({points_between(effect.interval)})"


@dataclass(frozen=True)
class Gain:
    """What one model gains on another when sampled and when decoded greedily.

    Attributes:
        temperature: of the sampling.
        lost: sampled minus greedy, over the items that all four evaluations have scored; half of
            it, so that it lies within [-1, 1]. None without such an item.
    """

    name: str
    temperature: float
    sampled: Comparison
    greedy: Comparison
    lost: PairedDifference | None


def gains(pair: Pair, variants: Sequence[Variant]) -> list[Gain]:
    """Of a pair, for each sampled benchmark that both have run greedily too."""
    by_label = {variant.label: variant for variant in variants}
    first, second = (by_label[label].evaluations for label in (pair.first, pair.second))
    rows = {row.key: row for row in pair.comparisons if row.name == key_name(row.key)}
    of_pair = []
    for greedy, sampled in sampled_keys(list(rows)):
        seeds = paired_seeds(
            _both(first[greedy], first[sampled]), _both(second[greedy], second[sampled])
        )
        changes = [change for a, b in seeds if (change := _lost(a, b))]
        name = short_names([key._replace(decoding="") for key in rows])[
            greedy._replace(decoding="")
        ]
        temperature = float(first[sampled].row.decoding.get("temperature") or 0)
        lost = paired_difference(changes)
        of_pair.append(Gain(name, temperature, rows[sampled], rows[greedy], lost))
    return of_pair


def _both(greedy: Pooled, sampled: Pooled) -> dict[Seed, tuple[Evaluation, Evaluation]]:
    """Greedy and sampled, of the training seeds that have both."""
    return {
        seed: (evaluation, sampled.by_seed[seed])
        for seed, evaluation in greedy.by_seed.items()
        if seed in sampled.by_seed
    }


def _lost(
    first: tuple[Evaluation, Evaluation], second: tuple[Evaluation, Evaluation]
) -> list[Scored]:
    """By item, half of how much more the second gains on the first sampled than greedily."""
    a, b, c, d = four = [
        {id: unit.score for id, unit in evaluation.units.items() if unit.score is not None}
        for evaluation in (*first, *second)
    ]
    units = first[0].units
    return [
        (units[id].cluster or id, (d[id] - b[id] - c[id] + a[id]) / 2)
        for id in a
        if all(id in scores for scores in four)
    ]


def sentence(gain: Gain) -> str:
    """What is left of a difference under greedy decoding, in plain words; empty without one."""
    sampled, greedy = gain.sampled.result.effect, gain.greedy.result.effect
    if sampled is None or greedy is None:
        return ""
    seeds = gain.sampled.result.n_seeds
    on = f"On {gain.name} over {seeds} seeds" if seeds > 1 else f"On {gain.name}"
    first, second = gain.sampled.first, gain.sampled.second
    decoding = gain.sampled.key.decoding
    kind = _kind(gain.sampled)
    under = (
        f"under greedy decoding the difference is {_numbers(greedy)}{_SUFFIX[_kind(gain.greedy)]}"
    )
    if kind in ("open", "same"):
        apart = f"cannot be told apart at {decoding}: {_numbers(sampled)}"
        return f"{on} {second} and {first} {apart}; {under}."
    by = size(sampled.difference)
    side = "above" if sampled.difference > 0 else "below"
    scores = f"{percent(sampled.mean_second)} against {percent(sampled.mean_first)}"
    return (
        f"{on} {second} scores {by} points {side} {first} at {decoding} ({scores}, 95 % interval "
        f"of the difference {points_between(sampled.interval)}){_SUFFIX[kind]}; {under}. "
        f"{_reading(gain, sampled)}"
    ).rstrip()


_SUFFIX = {
    "higher": "",
    "lower": "",
    "weak": ", which does not hold after the correction for all comparisons here",
    "open": ", which cannot be told apart from chance",
    "same": ", the same score on every item",
}


def _kind(comparison: Comparison) -> str:
    return outcome(comparison.result, comparison.adjusted)


def _numbers(effect: Effect) -> str:
    return f"{points(effect.difference)} points (95 % interval {points_between(effect.interval)})"


def _reading(gain: Gain, sampled: Effect) -> str:
    """Whether decoding makes part of the difference."""
    if gain.lost is None:
        return ""
    low, high = (2 * end for end in gain.lost.interval)
    mean = 2 * gain.lost.estimate.mean
    span = f"{points(mean)} points (95 % interval {points_between((low, high))})"
    if low <= 0 <= high:
        return f"How much sampling alone accounts for cannot be told: {span}."
    if mean * sampled.difference < 0:
        return f"Greedy decoding makes the difference larger, not smaller: {span}."
    return f"Sampling alone accounts for {span}."


def sentences(pairs: Sequence[Pair], variants: Sequence[Variant]) -> tuple[str, ...]:
    """Those of every pair."""
    texts = (sentence(gain) for pair in pairs for gain in gains(pair, variants))
    return tuple(filter(None, texts))


def entropies(variants: Sequence[Variant], keys: Mapping[Key, str]) -> tuple[str, ...]:
    """Mean entropy of each run's tokens, a sentence for each sampled benchmark."""
    sentences = []
    for _, key in sampled_keys(list(keys)):
        values = {
            variant.label: look(variant.evaluations[key]).entropy
            for variant in variants
            if key in variant.evaluations
        }
        listed = [f"{label} {value:.2f}" for label, value in values.items() if value is not None]
        if listed:
            sentences.append(
                f"Mean entropy of a token on {keys[key]}, in nats: {', '.join(listed)}."
            )
    return tuple(sentences)
