"""Baselines: what the features are worth beside raw pixels, an untrained network and no model.

Each goes through the head and the folds of 04, so that only what is put in differs.
"""

import numpy as np
import pandas as pd
from PIL import Image

from helpers.data.images import decode_image
from helpers.data.splits import sample_rows, select_rows, weigh_classes
from helpers.evaluation.compare import compare_scores
from helpers.evaluation.intervals import score_sets
from helpers.features.extraction import extract_run
from helpers.features.store import load_codes, load_features
from helpers.files import load_json, make_folder
from helpers.run import Run
from helpers.training.crossvalidation import cross_validate, tabulate_probabilities
from helpers.training.heads import create_head

SIDE = 16  # pixels; 16 x 16 x 3 = 768 numbers, about as many as a backbone gives


def open_part(run: Run, name: str, rows: pd.DataFrame, **settings) -> Run:
    """Open a small run below `run`, on some of its training images, with other settings."""
    recipe = run.recipe.change(**{"inputs": "photo", "strategy": "frozen"} | settings)
    part = Run(recipe, make_folder(run.folder / name))
    mapping = load_json(run.need("label_mapping"))
    part.save("normalisation", run.measured or {})
    part.save("label_mapping", mapping)
    part.save("class_weights", weigh_classes(rows, mapping))
    part.save("table", rows)
    return part


def answer_baselines(run: Run) -> dict[str, pd.DataFrame]:
    """Return out-of-fold answers on the same images: majority class, raw pixels, random weights.

    The last one holds the run's own features. At most `compare_images` training images take part.

    Returns:
        Name -> rows of `tabulate_probabilities`.
    """
    rows = select_rows(run.load_table(), "train")
    chosen = sample_rows(rows, run.recipe.evaluation.compare_images, run.recipe.splits.seed)
    rows, codes = rows.iloc[chosen].reset_index(drop=True), load_codes(run)[chosen]
    classes = list(load_json(run.need("label_mapping")))
    own, inputs, answers = run.recipe.network.weights, {"raw pixels": shrink_images(rows)}, {}
    if own != "random":
        random = open_part(run, "baselines/random_weights", rows, weights="random")
        extract_run(random)
        inputs["random weights"] = np.asarray(load_features(random, "train"))
    inputs[f"{own.rsplit('/', 1)[-1]} weights"] = np.asarray(load_features(run, "train"))[chosen]
    for name, values in inputs.items():
        print(f"{name}: {values.shape[1]} numbers an image")
        probabilities, _ = cross_validate(
            lambda: create_head(run.recipe.head, len(classes), run.recipe.splits.seed), values,
            codes, rows.fold.to_numpy(), keep=False)
        answers[name] = tabulate_probabilities(rows, probabilities, classes)
    largest = rows.label.value_counts().idxmax()
    return {f"always '{largest}'": answer_always(rows, largest)} | answers


def answer_always(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows with one class as the prediction of all: it has learnt nothing."""
    return rows[["image_id", "path", "label", "group"]].assign(prediction=name)


def shrink_images(rows: pd.DataFrame) -> np.ndarray:
    """Return each image's pixels at 16 x 16, (images, 768) float32 from 0 to 1."""
    small = [decode_image(path).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
             for path in rows.path]
    return np.stack([np.asarray(image, np.float32).ravel() for image in small]) / 255


def tabulate_baselines(run: Run, answers: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return macro F1 and accuracy of each with intervals, and how far the last one is ahead.

    `ahead` is the difference in macro F1 on the same resampled images, with its own interval.
    """
    classes, seed = list(load_json(run.need("label_mapping"))), run.recipe.splits.seed
    scores = score_sets(answers, classes, run, ["accuracy", "macro F1"])
    *_, last = answers
    rows = {}
    for name, table in scores.items():
        ahead = compare_scores(answers[last], answers[name], classes,
                               run.recipe.evaluation.bootstrap, seed).loc["macro F1"]
        rows[name] = {**{f"accuracy {key}": table.loc["accuracy", key] for key in table},
                      **{f"macro F1 {key}": table.loc["macro F1", key] for key in table},
                      "ahead value": ahead.difference, "ahead low": ahead.low,
                      "ahead high": ahead.high}
    return pd.DataFrame.from_dict(rows, orient="index")
