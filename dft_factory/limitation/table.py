"""Scores of several methods over several seeds, compared with the first trained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dft_eval.report.comparison import compare
from dft_eval.report.formats import p_value, points
from dft_eval.report.formats import percent as percent_of
from dft_eval.seed_statistics import mean_interval
from dft_eval.statistics import mean_and_stderr

RULE = (
    "A score is the share of right answers over the questions of all seeds. Its 95 % interval "
    "(Wilson), p (exact sign-flip permutation test, paired by question and seed) and the interval "
    "of a difference (of the same test) count a question as one draw, however many seeds ask it, "
    "and take each seed's training as it came: how far trainings differ is what the scores by "
    "seed show."
)


def percent(score: float | None) -> str:
    """As a reader sees it, or that there is none."""
    return "unscored" if score is None else percent_of(score)


class Experiment:
    """The answers of one experiment.

    Args:
        title: what was trained and asked.
        rule: key of the answers that is the score.
        labels: the models in the order of the table: the base, the reference, the others.
    """

    def __init__(self, title: str, rule: str, labels: Sequence[str]) -> None:
        self.title = title
        self.rule = rule
        self.labels = tuple(labels)
        self.notes: list[str] = []
        self._answers: dict[str, dict[int, Mapping[str, Mapping[str, float | None]]]] = {}

    def add(self, label: str, seed: int, answers: Mapping[str, Mapping[str, float | None]]) -> None:
        """The answers (question -> rule -> score) of one model."""
        self._answers.setdefault(label, {})[seed] = answers

    def note(self, text: str) -> None:
        """One line below the table."""
        self.notes.append(text)

    def scores(self, label: str, rule: str | None = None) -> dict[str, float | None]:
        """By seed and question."""
        rule = rule or self.rule
        return {
            f"{seed} {question}": by_rule[rule]
            for seed, answers in self._answers[label].items()
            for question, by_rule in answers.items()
        }

    def by_seed(self, label: str) -> list[float | None]:
        """The score of each seed."""
        found = []
        for answers in self._answers[label].values():
            values = [row[self.rule] for row in answers.values()]
            found.append(mean_and_stderr([each for each in values if each is not None])[0])
        return found

    def rows(self) -> list[tuple[str, ...]]:
        """The table's head and lines."""
        reference = self.labels[1]
        second = "exact match" if self.rule != "exact match" else "contains"
        head = ("model", f"{self.rule}, 95 % interval", "by seed", f"against {reference} (points)")
        found: list[tuple[str, ...]] = [(*head, "p", second)]
        for label in self.labels:
            scores = self.scores(label)
            questions = {name: name.partition(" ")[2] for name in scores}
            known = [each for each in scores.values() if each is not None]
            mean, _ = mean_and_stderr(known)
            interval = ""
            asked = [questions[name] for name, each in scores.items() if each is not None]
            if span := mean_interval(known, asked):
                interval = f" ({' to '.join(map(percent, span))})"
            against, p = "", ""
            if label != reference:
                effect = compare([(self.scores(reference), scores)], questions).effect
                if effect is not None:
                    between = " to ".join(map(points, effect.interval))
                    against, p = f"{points(effect.difference)} ({between})", p_value(effect.p)
            others = [each for each in self.scores(label, second).values() if each is not None]
            found.append(
                (
                    label,
                    f"{percent(mean)}{interval}",
                    " / ".join(percent(each) for each in self.by_seed(label)),
                    against,
                    p,
                    percent(mean_and_stderr(others)[0]),
                )
            )
        return found


def render(experiments: Sequence[Experiment]) -> str:
    """All experiments as Markdown."""
    lines = ["# Where DFT fails, and where it should not", ""]
    for each in experiments:
        head, *rows = each.rows()
        lines += [f"## {each.title[0].upper()}{each.title[1:]}", ""]
        lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += ["", *(f"- {note}" for note in each.notes), ""]
    return "\n".join([*lines, RULE, ""])
