"""Heads: classifiers on frozen features, and the out-of-fold probabilities they give.

Out-of-fold: every training image gets its probabilities from a model that never saw it, so
they stand for new images and can feed metrics, calibration and the search for label errors.
"""

import os
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from helpers.files import write_whole

MAX_ITERATIONS = 1000
NEVER = -1e9  # a logit whose probability is 0


def train_folds(features: np.ndarray, codes: np.ndarray, folds: np.ndarray,
                class_weights: list[float], c_grid: list[float], progress: bool = True):
    """Train one logistic regression a fold and predict the fold that it never saw.

    Features are standardised and C is chosen inside each fold's training part: every
    candidate is trained on all but the next fold and judged there by macro F1; the best is
    then trained on the whole part. No image is judged by a model that it helped to choose.

    Args:
        features: (images, features) float32.
        codes: (images,) class codes 0..n-1, every class in every fold.
        folds: (images,) fold numbers 0..k-1.
        class_weights: weight of each class's images in the loss.
        c_grid: candidates for C.
        progress: whether to show a progress bar.

    Returns:
        Out-of-fold probabilities (images, classes) float32; the heads, a dictionary of
        `weights` (k, features, classes) and `biases` (k, classes) float32, with the
        standardisation folded in; a DataFrame of every fold, candidate C and score.
    """
    count, classes = folds.max() + 1, len(class_weights)
    probabilities = np.full((len(codes), classes), np.nan, np.float32)
    heads, scores = [], []
    for fold in tqdm(range(count), desc="folds", unit="fold", disable=not progress):
        train = folds != fold
        search = _search(features[train], codes[train], folds[train] == (fold + 1) % count,
                         dict(enumerate(class_weights)), c_grid)
        heads.append(_fold_scaler(search.best_estimator_, classes))
        probabilities[~train] = predict_head(*heads[-1], features[~train])
        best = search.best_params_["logisticregression__C"]
        scores += [{"fold": fold, "C": c, "macro F1": score, "chosen": c == best}
                   for c, score in zip(c_grid, search.cv_results_["mean_test_score"],
                                       strict=True)]
    weights, biases = (np.stack(part) for part in zip(*heads, strict=True))
    return probabilities, {"weights": weights, "biases": biases}, pd.DataFrame(scores)


def _search(features, codes, inner, weights, c_grid) -> GridSearchCV:
    """Choose C on the images marked `inner`, then train on all."""
    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(class_weight={c: weights[c] for c in np.unique(codes)},
                           max_iter=MAX_ITERATIONS))
    search = GridSearchCV(
        model, {"logisticregression__C": c_grid},
        scoring=make_scorer(f1_score, average="macro", zero_division=0),
        cv=PredefinedSplit(np.where(inner, 0, -1)))
    # A thread a candidate, one core each: sharing a core's small products costs more.
    jobs = min(os.cpu_count() or 1, len(c_grid))
    with joblib.parallel_config("threading", n_jobs=jobs), threadpool_limits(1):
        return search.fit(features, codes)


def _fold_scaler(model, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (features, classes) weights and (classes,) biases for raw features.

    A class that the training part lacked, because its groups lie in one fold, is never
    answered.
    """
    scaler, regression = model[0], model[-1]
    coefficients, intercept = regression.coef_, regression.intercept_
    if len(coefficients) == 1:  # two classes share one row: its logit against zero
        coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
        intercept = np.array([0.0, intercept[0]])
    weights = np.zeros((coefficients.shape[1], classes))
    biases = np.full(classes, NEVER)
    weights[:, regression.classes_] = (coefficients / scaler.scale_).T
    biases[regression.classes_] = intercept - scaler.mean_ @ weights[:, regression.classes_]
    return weights.astype(np.float32), biases.astype(np.float32)


def predict_head(weights: np.ndarray, biases: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return the probabilities (images, classes) float32 of one head."""
    logits = np.asarray(features, np.float64) @ weights.astype(np.float64) + biases
    return softmax(logits, axis=1).astype(np.float32)


def predict_ensemble(heads: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Return the mean of the folds' probabilities, (images, classes) float32."""
    pairs = zip(heads["weights"], heads["biases"], strict=True)
    return np.mean([predict_head(w, b, features) for w, b in pairs], axis=0)


def save_heads(heads: dict[str, np.ndarray], path: Path, preprocessing: str) -> None:
    """Write the heads as `.npz`, arrays only, with the fingerprint of their preprocessing."""
    with write_whole(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **heads, preprocessing=np.array(preprocessing))


def tabulate_probabilities(rows: pd.DataFrame, probabilities: np.ndarray,
                           classes: list[str]) -> pd.DataFrame:
    """Return image_id, path, split, fold, label, prediction, and `p_<class>` columns."""
    table = rows[["image_id", "path", "split", "fold", "label"]].copy()
    table["prediction"] = [classes[code] for code in probabilities.argmax(axis=1)]
    columns = pd.DataFrame(probabilities, columns=[f"p_{name}" for name in classes],
                           index=table.index)
    return pd.concat([table, columns], axis=1)
