"""Compare: models on the same images, by differences that both share the luck of.

    python -m helpers.evaluation.compare outputs/a outputs/b outputs/c

Groups (near copies, products) are drawn whole: their images are no independent evidence. Of the
runs named, the first is the baseline; table and picture go to its folder.
"""

import argparse
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from helpers.columns import read_table
from helpers.command import report_errors
from helpers.evaluation.intervals import find_interval, resample_scores
from helpers.evaluation.scores import LOWER_IS_BETTER, OF_PREDICTIONS, create_sample
from helpers.files import SuiteError, resolve_path, save_csv, show_path, write_whole

COMPARED = (*OF_PREDICTIONS, "log loss")
ANSWERS = "oof_probabilities.csv"  # in a run's folder
RESAMPLES, SEED = 2000, 42


def subtract_scores(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return a row a score that both have: how far `one` is above `other`.

    Columns: `difference`, `low` and `high` of its 95 % interval, and `p`, two-sided: how rarely
    so large a difference would come about if there were none.
    """
    rows = {}
    for score in (name for name in one.keys() & other.keys() if one[name].ndim == 1):
        value, *draws = (one[score] - other[score]).round(12)  # no difference is exactly none
        draws = np.array(draws)
        below = min(np.mean(draws <= 0), np.mean(draws >= 0))
        p = min(1.0, 2 * (below * len(draws) + 1) / (len(draws) + 1))
        rows[score] = (float(value), *find_interval(draws), p)
    found = pd.DataFrame.from_dict(rows, orient="index",
                                   columns=["difference", "low", "high", "p"])
    return found.reindex([score for score in one if score in rows])


def compare_scores(one: pd.DataFrame, other: pd.DataFrame, classes: list[str], resamples: int,
                   seed: int) -> pd.DataFrame:
    """Return `subtract_scores` of two tables of answers for the same images."""
    scores = resample_scores({"one": one, "other": other}, classes, resamples, seed, COMPARED)
    return subtract_scores(scores["one"], scores["other"])


def tabulate_differences(answers: dict[str, pd.DataFrame], classes: list[str],
                         resamples: int = RESAMPLES, seed: int = SEED) -> pd.DataFrame:
    """Return every score of every table beside those of the first, on the same draws of groups.

    Returns:
        A row a table and score: `candidate`, `score`, `value`, `difference` with `low`, `high`,
        `p`, and `p_holm`, corrected for the number of tables.
    """
    # With fewer draws even a difference in all of them would not pass Holm's correction.
    drawn = resample_scores(answers, classes, max(resamples, 50 * len(answers)), seed, COMPARED)
    baseline, rows = next(iter(drawn)), []
    for name, scores in drawn.items():
        for score, row in subtract_scores(scores, drawn[baseline]).iterrows():
            rows.append({"candidate": name, "score": score, "value": float(scores[score][0]),
                         **row})
    return correct_table(pd.DataFrame(rows), baseline)


def correct_table(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Add `p_holm` to a table of differences: the baseline itself has no p."""
    table = table.assign(p_holm=np.nan, p=table.p.where(table.candidate != baseline))
    for _, part in table[table.candidate != baseline].groupby("score"):
        table.loc[part.index, "p_holm"] = correct_for_many(part.p)
    return table


def correct_for_many(p: Iterable[float]) -> np.ndarray:
    """Return p values for many comparisons at once (Holm 1979).

    Among all whose corrected value is under 0.05, not even one is a false alarm in 95 % of cases.
    """
    p = np.asarray(list(p), float)
    order = np.argsort(p)
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(raised, 1)
    return corrected


def count_disagreements(one: pd.DataFrame, other: pd.DataFrame) -> tuple[int, int, float]:
    """Test whether one is right more often where they disagree (McNemar 1947, exact).

    A group of images counts once, for whoever is right about more of them.

    Returns:
        Groups that `one` alone is right about, those of `other`, and p, two-sided.
    """
    ahead = ((one.prediction == one.label).astype(int).to_numpy()
             - (other.prediction == other.label).astype(int).to_numpy())
    groups = pd.factorize(one.group)[0] if "group" in one else np.arange(len(one))
    balance = np.bincount(groups, ahead)
    wins, losses = int((balance > 0).sum()), int((balance < 0).sum())
    return wins, losses, float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def describe_difference(name: str, score: str, row: pd.Series) -> str:
    """Say a difference in words: "SMOTE: macro F1 -0.4 points (-1.6 to 0.9): no difference seen".

    Args:
        row: `difference`, `low` and `high`, as from `subtract_scores`.
    """
    scale, unit, digits = (1, "", 3) if score in LOWER_IS_BETTER else (100, " points", 1)
    value, low, high = (f"{scale * number:+.{digits}f}"
                        for number in (row.difference, row.low, row.high))
    better = row.low > 0 if score not in LOWER_IS_BETTER else row.high < 0
    worse = row.high < 0 if score not in LOWER_IS_BETTER else row.low > 0
    verdict = "better" if better else "worse" if worse else "no difference seen"
    return f"{name}: {score} {value}{unit} ({low} to {high}): {verdict}"


def describe_disagreements(name: str, baseline: str, tested: tuple[int, int, float]) -> str:
    """Say `count_disagreements` in words."""
    wins, losses, p = tested
    return (f"where they disagree, {name} is better on {wins} and {baseline} on {losses} "
            f"(groups of copies count once; McNemar's test: p "
            f"{'< 0.001' if p < 0.001 else f'= {p:.3f}'})")


def load_answers(places: Iterable[str | Path]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Read the out-of-fold answers of several runs, in one order, and their classes.

    Args:
        places: folders of runs.

    Raises:
        SuiteError: a run has no answers, or they are for other images, labels or classes than
            the first one's; names what differs.
    """
    found, first = {}, None
    for place in map(resolve_path, places):
        own = _load(place, first)
        first = first or own
        name = place.name if place.name not in found else show_path(place)
        if name in found:
            raise SuiteError(f"{name} stands twice: name each run once.")
        found[name] = own[1].loc[first[1].index].reset_index(drop=True)
    return found, first[2]


def _load(place: Path, first: tuple | None = None) -> tuple[str, pd.DataFrame, list[str]]:
    """Return a run's name, its answers by image and its classes; refuse others than `first`'s."""
    path = place / ANSWERS
    table = read_answers(path)
    classes = [name[2:] for name in table if name.startswith("p_")]
    if "image_id" not in table or "label" not in table or not classes:
        raise SuiteError(f"{show_path(path)} is no table of answers: it has the columns "
                         f"{', '.join(table.columns[:6])} ….")
    own = show_path(place), table.set_index("image_id", drop=False), classes
    if first:
        _refuse_others(first, own)
    try:
        create_sample(table, classes)
    except SuiteError as error:
        raise SuiteError(f"{show_path(path)}: {error}") from error
    return own


def read_answers(path: Path) -> pd.DataFrame:
    """Read a run's table of answers; SuiteError if it is missing or no CSV."""
    if not path.is_file():
        raise SuiteError(f"{show_path(path)} is missing: run 04_training of it first.")
    try:
        return read_table(path)
    except ValueError as error:
        raise SuiteError(f"{show_path(path)} is no table of answers: {error}") from error


def find_rivals(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the answers of other runs beside a run's folder that are for the same images."""
    found, own = {}, _load(folder)
    for path in sorted(folder.parent.glob(f"*/{ANSWERS}")):
        if path.parent != folder:
            with suppress(SuiteError):  # of other images
                _, table, _ = _load(path.parent, own)
                found[path.parent.name] = table.loc[own[1].index].reset_index(drop=True)
    return found


def _refuse_others(first, second) -> None:
    (one, table, classes), (other, rows, others) = first, second
    if strange := sorted(set(classes) ^ set(others)):
        raise SuiteError(f"{one} and {other} have other classes, e.g. {strange[0]!r}: they "
                         "cannot be compared.")
    apart = table.index.symmetric_difference(rows.index)
    if len(apart) or len(table) != len(rows):
        raise SuiteError(f"{one} and {other} answer for different images: {len(apart)} stand in "
                         f"only one of them, e.g. {', '.join(map(str, apart[:3]))}. Compare runs "
                         "of the same data, seed and hold-out.")
    unlike = table.index[table.label != rows.label.loc[table.index]]
    if len(unlike):
        raise SuiteError(f"{one} and {other} have other labels for {len(unlike)} images, e.g. "
                         f"{unlike[0]}: was one of them made with `corrections`?")


def compare_runs(places: list[str]) -> pd.DataFrame:
    """Compare runs with the first of them, and say the differences in words.

    Returns:
        `tabulate_differences`.
    """
    answers, classes = load_answers(places)
    if len(answers) < 2:
        raise SuiteError("name two runs or more.")
    return compare_answers(answers, classes)


def compare_answers(answers: dict[str, pd.DataFrame], classes: list[str]) -> pd.DataFrame:
    """Compare tables of answers with the first of them, and say the differences in words.

    Returns:
        `tabulate_differences`.
    """
    table = tabulate_differences(answers, classes)
    baseline, *others = answers
    for name in others:
        own = table[table.candidate == name].set_index("score")
        for score in own.index.intersection(["accuracy", "macro F1", "log loss"], sort=False):
            print(describe_difference(f"{name} against {baseline}", score, own.loc[score]))
        print(describe_disagreements(name, baseline, count_disagreements(answers[name],
                                                                        answers[baseline])))
    if len(others) > 1:
        print(f"for {len(others)} comparisons at once look at p_holm (Holm's correction)")
    return table


if __name__ == "__main__":
    from helpers.pictures.comparisons import plot_differences

    @report_errors
    def main() -> int:
        """Run the command line and return its exit status."""
        parser = argparse.ArgumentParser(prog="python -m helpers.evaluation.compare",
                                         description="Compare runs on the same images.")
        parser.add_argument("runs", nargs="+", metavar="outputs/RUN")
        places = parser.parse_args().runs
        differences = compare_runs(places)
        target = resolve_path(places[0])
        save_csv(differences, target / "comparison.csv")
        picture = target / "figures" / "comparison.png"
        with write_whole(picture) as temporary:
            plot_differences(differences).savefig(temporary)
        print(differences.round(4).to_string(index=False))
        print(f"{show_path(target / 'comparison.csv')}, {show_path(picture)}")
        return 0

    sys.exit(main())
