"""Calibration: does 90 % sure mean right nine times out of ten, and when to say nothing.

All of it is cross-fitted: what is applied to an image was chosen without it.
"""

from itertools import product

import numpy as np
import pandas as pd

from helpers.evaluation.intervals import describe_groups, score_with_intervals
from helpers.evaluation.scores import create_sample
from helpers.training.selection import fit_temperature

LEAST = 1e-12  # probability under which a logarithm says nothing more
PARTS = 5  # of a fold, to fit its temperature on the others
BINS = 10  # of the reliability diagram, alike in images


def calibrate_answers(table: pd.DataFrame, classes: list[str],
                      seed: int = 0) -> tuple[pd.DataFrame, dict[int, float]]:
    """Return the answers with their temperature corrected, and the temperature of each fold.

    Temperature scaling (Guo et al. 2017, On Calibration of Modern Neural Networks): one number
    sharpens or flattens all probabilities of a model; no prediction changes. Each fold has a
    model, and so a temperature, of its own, unless one for all of them does better, as it may
    where images are few. What an image gets was fitted without it and its copies.

    Args:
        table: rows of `tabulate_probabilities`, with `fold`.

    Returns:
        The table with other `p_<class>`, and fold -> temperature of all its images, over 1 where
        the model is too sure of itself.
    """
    sample = create_sample(table, classes)
    logits = np.log(np.maximum(sample.probabilities, LEAST))
    groups, _ = describe_groups(table)
    parts = np.random.default_rng(seed).integers(0, PARTS, groups.max() + 1)[groups]
    folds, rows = table.fold.to_numpy(), np.arange(len(table))
    tried = []
    for owners in (np.zeros(len(table), int), folds):
        powers = np.ones(len(table))
        for owner, part in product(np.unique(owners), range(PARTS)):
            others = (owners == owner) & (parts != part)
            if others.any():
                powers[(owners == owner) & (parts == part)] = fit_temperature(
                    logits[others], sample.labels[others])
        scaled = apply_temperature(sample.probabilities, powers)
        loss = -np.log(np.maximum(scaled[rows, sample.labels], LEAST)).mean()
        tried.append((loss, scaled, owners))
    _, scaled, owners = min(tried, key=lambda one: one[0])
    temperatures = {owner: 1 / fit_temperature(logits[owners == owner],
                                               sample.labels[owners == owner])
                    for owner in np.unique(owners)}
    columns = pd.DataFrame(scaled, table.index, [f"p_{name}" for name in classes])
    return table.drop(columns=columns.columns).join(columns), {
        int(fold): float(temperatures[owners[folds == fold][0]]) for fold in np.unique(folds)}


def apply_temperature(probabilities: np.ndarray, powers) -> np.ndarray:
    """Return (images, classes) probabilities raised to a power, one or one an image."""
    logits = np.log(np.maximum(probabilities, LEAST)) * np.reshape(powers, (-1, 1))
    found = np.exp(logits - logits.max(axis=1, keepdims=True))
    return found / found.sum(axis=1, keepdims=True)


def measure_reliability(table: pd.DataFrame, classes: list[str], resamples: int,
                        seed: int) -> pd.DataFrame:
    """Return how often the model is right by how sure it is.

    Returns:
        A row a bin of equally many images: `images`, `confidence` (mean), `accuracy`, `low` and
        `high` of its interval.
    """
    confidence = create_sample(table, classes).confidence
    rows = []
    for places in np.array_split(np.argsort(confidence, kind="stable"), min(BINS, len(table))):
        part = table.iloc[places]
        score = score_with_intervals(part, classes, resamples, seed, ["accuracy"])
        rows.append({"images": len(part), "confidence": confidence[places].mean(),
                     "accuracy": score.value.accuracy, "low": score.low.accuracy,
                     "high": score.high.accuracy})
    return pd.DataFrame(rows)


def trace_risk(table: pd.DataFrame) -> pd.DataFrame:
    """Return the risk-coverage curve: `coverage`, the share answered, `risk`, that wrong of it.

    The most certain images are answered first (El-Yaniv and Wiener 2010, On the Foundations of
    Noise-free Selective Classification).
    """
    confidence = table.filter(regex="^p_").max(axis=1)
    wrong = (table.prediction != table.label).to_numpy()[np.argsort(-confidence.to_numpy(),
                                                                    kind="stable")]
    answered = np.arange(1, len(wrong) + 1)
    return pd.DataFrame({"coverage": answered / len(wrong), "risk": wrong.cumsum() / answered})


def choose_threshold(confidence: np.ndarray, right: np.ndarray, accuracy: float) -> float:
    """Return the lowest confidence from which on so large a share is right; inf for none."""
    order = np.argsort(-confidence, kind="stable")
    shares = right[order].cumsum() / np.arange(1, len(order) + 1)
    ranked = confidence[order]
    last = np.r_[ranked[1:] != ranked[:-1], True]  # images of one confidence go together
    met = np.flatnonzero((shares >= accuracy) & last)
    return float(ranked[met[-1]]) if len(met) else np.inf


def abstain(table: pd.DataFrame, classes: list[str], accuracy: float, resamples: int,
            seed: int) -> dict:
    """Say how many images can be answered at a wished accuracy, and how accurate that really is.

    Each fold's threshold is chosen on the other folds.

    Args:
        table: from `calibrate_answers`; else confidences of several folds are no one scale.

    Returns:
        `wished`, `threshold` (from all folds; None if it is out of reach), `answered` (share of
        the images), and `accuracy`, `low`, `high` of those answered (None if there are none).
    """
    sample = create_sample(table, classes)
    right, folds = sample.labels == sample.predictions, table.fold.to_numpy()
    answered = np.zeros(len(table), bool)
    for fold in np.unique(folds):
        others = folds != fold
        answered[~others] = sample.confidence[~others] >= choose_threshold(
            sample.confidence[others], right[others], accuracy)
    threshold = choose_threshold(sample.confidence, right, accuracy)
    found = {"wished": accuracy, "threshold": threshold if np.isfinite(threshold) else None,
             "answered": float(answered.mean()), "accuracy": None, "low": None, "high": None}
    if answered.any():
        score = score_with_intervals(table[answered], classes, resamples, seed, ["accuracy"])
        found |= dict(zip(("accuracy", "low", "high"), score.loc["accuracy"], strict=True))
    return found


def describe_calibration(found: dict) -> str:
    """Say what temperature scaling and abstention do, from `calibration.json`."""
    before, after = (found[when]["log loss"]["value"] for when in ("before", "after"))
    values = found["temperatures"].values()
    change = "improves" if after < before else "worsens"
    return (f"the folds' temperatures lie between {min(values):.2f} and {max(values):.2f}; "
            f"scaling {change} the log loss from {before:.3f} to {after:.3f}\n"
            f"{describe_abstention(found['abstention'])}")


def describe_abstention(found: dict) -> str:
    """Say `abstain` in words: "answers 82 % of the photos at 95 %"."""
    if found["accuracy"] is None:
        return f"no confidence threshold reaches an accuracy of {100 * found['wished']:g}%"
    return (f"with a target accuracy of {100 * found['wished']:g}%, the model answers "
            f"{found['answered']:.0%} of the photos; {found['accuracy']:.1%} of these answers "
            f"are correct ({found['low']:.1%} to {found['high']:.1%})")
