"""Summary: all that notebook 06 leaves but pictures and report, from the tables of answers."""

import numpy as np
import pandas as pd

from helpers.data.archives import unpack_archive
from helpers.data.splits import select_rows
from helpers.data.table import find_data
from helpers.evaluation.calibration import abstain, calibrate_answers
from helpers.evaluation.holdout import select_judged
from helpers.evaluation.intervals import score_classes, score_sets, score_with_intervals
from helpers.evaluation.label_errors import find_label_errors
from helpers.evaluation.mistakes import find_mistakes
from helpers.evaluation.scores import tabulate_confusion
from helpers.evaluation.shortcuts import describe_cues, find_shortcuts, score_parts
from helpers.files import load_json, save_csv, show_path
from helpers.run import Run

CALIBRATION = ["log loss", "Brier score", "calibration error"]
SUBMISSION = "submission.csv"


def save_scores(run: Run, scores: dict[str, pd.DataFrame]) -> None:
    """Write `metrics.json`: set -> score -> value, low, high."""
    run.save("metrics", {name: table.to_dict("index") for name, table in scores.items()})


def score_folds(run: Run, oof: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return each fold's accuracy and macro F1 with their intervals, a row a fold."""
    rows = {}
    for fold, part in oof.groupby("fold"):
        found = score_with_intervals(part, classes, run.recipe.evaluation.bootstrap,
                                     run.recipe.splits.seed, ["accuracy", "macro F1"])
        rows[fold] = {"images": len(part)} | {
            f"{name} {key}".removesuffix(" value"): value
            for name, row in found.iterrows() for key, value in row.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("fold")


def measure_calibration_gain(run: Run, oof: pd.DataFrame,
                             classes: list[str]) -> tuple[pd.DataFrame, dict]:
    """Return the answers with their temperature corrected, and what `calibration.json` holds."""
    resampling = run.recipe.evaluation.bootstrap, run.recipe.splits.seed
    corrected, temperatures = calibrate_answers(oof, classes, run.recipe.splits.seed)
    scores = {when: score_with_intervals(rows, classes, *resampling, CALIBRATION).to_dict("index")
              for when, rows in (("before", oof), ("after", corrected))}
    wished = run.recipe.evaluation.wished_accuracy
    return corrected, {"temperatures": temperatures, **scores,
                       "abstention": abstain(corrected, classes, wished, *resampling)}


def measure_shortcuts(run: Run, oof: pd.DataFrame,
                      classes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `find_shortcuts` and `score_parts` of the training images."""
    rows = select_rows(run.load_table(), "train").set_index("image_id").loc[oof.image_id]
    cues = describe_cues(rows.reset_index(drop=True))
    given = oof, cues, classes, run.recipe.evaluation.bootstrap, run.recipe.splits.seed
    return find_shortcuts(*given), score_parts(*given)


def list_predictions(run: Run, answered: pd.DataFrame) -> pd.DataFrame:
    """Return a prediction for every image outside the folds; for the hold-out only at the end.

    With `class_names` (code -> name) a column `code` gives the data set's own code back.
    """
    shown = answered if run.recipe.evaluation.final else answered[answered.split != "holdout"]
    result = shown[["image_id", "path", "split", "prediction"]].assign(
        confidence=shown.filter(regex="^p_").max(axis=1))
    if class_names := run.recipe.data.class_names:
        codes = {name: code for code, name in class_names.items()}
        result.insert(4, "code", result.prediction.map(lambda name: codes.get(name, name)))
    return result


def write_submission(run: Run, predictions: pd.DataFrame) -> None:
    """Write the Rakuten challenge's own CSV: the row numbers of X_test, and `prdtypecode`.

    An image that was set aside has no prediction: it gets the most frequent code.
    """
    place = find_data(run.recipe)
    folder = unpack_archive(place) if place.is_file() else place
    rows = pd.read_csv(folder / "X_test_update.csv", index_col=0, dtype=str).imageid
    column = "code" if "code" in predictions else "prediction"
    tested = predictions[predictions.split == "test"].set_index("image_id")[column]
    codes = rows.map(tested)
    if codes.isna().any() and len(tested):
        print(f"{codes.isna().sum()} test images were set aside and have no prediction: they get "
              f"the most frequent code, {tested.mode()[0]}")
    path = run.folder / SUBMISSION
    save_csv(codes.fillna(tested.mode()[0] if len(tested) else np.nan).rename("prdtypecode"),
             path, index=True)
    print(f"{show_path(path)}: {len(codes)} rows in the challenge's format")


def evaluate_run(run: Run) -> None:
    """Write all that 06 leaves but pictures, report and model card."""
    oof, answered = run.load_table("oof_probabilities"), run.load_table("test_probabilities")
    classes = list(load_json(run.need("label_mapping")))
    save_scores(run, score_sets({"out-of-fold": oof} | select_judged(run, answered, classes),
                                classes, run))
    run.save("confusion", tabulate_confusion(oof, classes), index=True)
    run.save("classes", score_classes(oof, classes, run.recipe.evaluation.bootstrap,
                                      run.recipe.splits.seed), index=True)
    run.save("fold_scores", score_folds(run, oof, classes), index=True)
    corrected, calibration = measure_calibration_gain(run, oof, classes)
    run.save("calibration", calibration)
    run.save("mistakes", find_mistakes(corrected))
    run.save("label_suspects", find_label_errors(corrected, classes))
    cues, parts = measure_shortcuts(run, oof, classes)
    run.save("shortcuts", cues)
    run.save("parts", parts)
    run.save("predictions", list_predictions(run, answered))
