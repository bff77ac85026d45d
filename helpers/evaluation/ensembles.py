"""Ensembles: the answers of several runs averaged, and scored on images nothing was fitted on.

    python -m helpers.evaluation.ensembles outputs/a outputs/b --to outputs/both

Each run's probabilities are calibrated first, then averaged with weights that make the log loss
smallest (stacking, Wolpert 1992). The weights for a fold were fitted on the other folds. The
folder gets oof_probabilities.csv, test_probabilities.csv and ensemble.json.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from helpers.command import report_errors
from helpers.evaluation.calibration import apply_temperature, calibrate_answers
from helpers.evaluation.compare import (
    ANSWERS,
    RESAMPLES,
    SEED,
    describe_difference,
    load_answers,
    read_answers,
    tabulate_differences,
)
from helpers.evaluation.scores import create_sample
from helpers.files import SuiteError, make_folder, resolve_path, save_csv, save_json, show_path
from helpers.training.selection import fit_temperature

LEAST = 1e-7  # of a probability, in the logarithm
UNSEEN = "test_probabilities.csv"


def fit_weights(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weight of each run, (runs,) of 0 or more that add up to one.

    Args:
        probabilities: (runs, images, classes), calibrated, of images that no run has learnt from.
        labels: (images,) class codes.
    """
    own, count = probabilities[:, np.arange(len(labels)), labels], len(probabilities)
    # The logarithm of a mean is concave: there is one best set of weights.
    found = minimize(lambda w: -np.log(np.maximum(w @ own, LEAST)).mean(),
                     np.full(count, 1 / count), bounds=[(0, 1)] * count, method="SLSQP",
                     constraints={"type": "eq", "fun": lambda w: w.sum() - 1})
    weights = np.clip(found.x, 0, None)
    return weights / weights.sum()


def combine_answers(answers: dict[str, pd.DataFrame],
                    classes: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the ensemble's out-of-fold answers, cross-fitted, and the weights from all folds.

    Args:
        answers: run -> rows of `tabulate_probabilities`, all in one order; the weights are fitted
            on the first run's folds, temperatures on each run's own.
    """
    first = next(iter(answers.values()))
    calibrated = [calibrate_answers(table, classes)[0] for table in answers.values()]
    samples = [create_sample(table, classes) for table in calibrated]
    given, labels = np.stack([s.probabilities for s in samples]), samples[0].labels
    folds, found = first.fold.to_numpy(), np.empty(given.shape[1:])
    for fold in np.unique(folds):
        others = folds != fold
        weights = fit_weights(given[:, others], labels[others])
        found[~others] = np.einsum("r,ric->ic", weights, given[:, ~others])
    return replace_probabilities(first, found, classes), fit_weights(given, labels)


def replace_probabilities(table: pd.DataFrame, probabilities: np.ndarray,
                          classes: list[str]) -> pd.DataFrame:
    """Return the rows with other probabilities, and the predictions that follow from them."""
    columns = pd.DataFrame(probabilities.astype(np.float32), table.index,
                           [f"p_{name}" for name in classes])
    return table.drop(columns=columns.columns).assign(
        prediction=np.array(classes, object)[probabilities.argmax(axis=1)]).join(columns)


def combine_runs(places: list[str], target: Path) -> pd.DataFrame:
    """Write the ensemble of several runs to `target`, and compare it with each of them.

    Returns:
        `tabulate_differences`, the ensemble first.

    Raises:
        SuiteError: as `load_answers`, or the runs answer for other test images.
    """
    answers, classes = load_answers(places)
    if len(answers) < 2:
        raise SuiteError("an ensemble needs two runs or more.")
    if (target / "artefacts.json").exists() or target in map(resolve_path, places):
        raise SuiteError(f"{show_path(target)} holds a run's own answers: name another folder.")
    together, weights = combine_answers(answers, classes)
    # A run's test answers are the mean of its folds' models: one power for all.
    powers = [_fit_power(table, classes) for table in answers.values()]
    unseen = [read_answers(resolve_path(place) / UNSEEN) for place in places]
    first = unseen[0].set_index("image_id", drop=False)
    for place, table in zip(places, unseen, strict=True):
        apart = first.index.symmetric_difference(pd.Index(table.image_id))
        if len(apart):
            raise SuiteError(f"{show_path(places[0])} and {show_path(place)} answer for other "
                             f"test images, e.g. {apart[0]}.")
    columns = [f"p_{name}" for name in classes]
    given = np.stack([table.set_index("image_id").loc[first.index, columns].to_numpy(float)
                      for table in unseen])
    make_folder(target)
    save_csv(together, target / ANSWERS)
    mean = sum(weight * apply_temperature(part, power)
               for part, power, weight in zip(given, powers, weights, strict=True))
    save_csv(replace_probabilities(first.reset_index(drop=True), mean, classes), target / UNSEEN)
    parts = {name: {"weight": float(weight), "power": float(power)}
             for name, weight, power in zip(answers, weights, powers, strict=True)}
    save_json({"runs": parts, "classes": classes}, target / "ensemble.json")
    name = "ensemble" if "ensemble" not in answers else f"ensemble in {target.name}"
    differences = tabulate_differences({name: together} | answers, classes, RESAMPLES, SEED)
    for name, part in parts.items():
        print(f"{name}: weight {part['weight']:.2f}, temperature {1 / part['power']:.2f}")
        for score in ("accuracy", "log loss"):
            row = differences[(differences.candidate == name) & (differences.score == score)]
            print("  " + describe_difference(f"{name} against the ensemble", score, row.iloc[0]))
    return differences


def _fit_power(table: pd.DataFrame, classes: list[str]) -> float:
    sample = create_sample(table, classes)
    return fit_temperature(np.log(np.maximum(sample.probabilities, LEAST)), sample.labels)


@report_errors
def main() -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.evaluation.ensembles",
                                     description="Average the answers of several runs.")
    parser.add_argument("runs", nargs="+", metavar="outputs/RUN")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="where the answers go")
    options = parser.parse_args()
    place = resolve_path(options.to)
    save_csv(combine_runs(options.runs, place), place / "comparison.csv")
    print(f"{show_path(place)}: {ANSWERS}, {UNSEEN}, ensemble.json, comparison.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
