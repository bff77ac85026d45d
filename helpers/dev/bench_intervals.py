"""Bench of the intervals: how often a 95 % interval holds the score it should, by simulation.

    python -m helpers.dev.bench_intervals --sizes 60 600 --rounds 1000

Three classes of 5 : 3 : 2 are drawn from a population whose true scores are known (from 400,000
images), alone or in groups of four that resemble each other; each draw gets its intervals.
"""

import argparse
import time

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.evaluation.intervals import find_interval, resample_scores, score_with_intervals
from helpers.evaluation.scores import create_sample, list_scores

SHARES = np.array([0.5, 0.3, 0.2])
CLASSES = ["a", "b", "c"]
POPULATION, GROUP = 400_000, 4
ALIKE = 0.7  # share of the variance that the images of a group have in common
SHARPNESS = 2.2  # of the probabilities; 1.7 would be calibrated
EASE = {"83 % right": 1.7, "98 % right": 3.2}


def simulate_answers(images: int, group: int, ease: float,
                     rng: np.random.Generator) -> pd.DataFrame:
    """Return answers of a classifier for images drawn from the population."""
    labels = np.repeat(np.arange(3), np.round(SHARES * images / group).astype(int))
    shared = rng.normal(size=(len(labels), 3)).repeat(group, axis=0)
    labels, groups = labels.repeat(group), np.arange(len(labels)).repeat(group)
    alike = ALIKE if group > 1 else 0.0
    noise = np.sqrt(alike) * shared + np.sqrt(1 - alike) * rng.normal(size=(len(labels), 3))
    logits = SHARPNESS * (np.eye(3)[labels] * ease * np.array([1.2, 1, 0.8]) + noise)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    names = np.array(CLASSES)
    table = pd.DataFrame({"label": names[labels], "group": groups,
                          "prediction": names[probabilities.argmax(axis=1)]})
    return table.join(pd.DataFrame(probabilities, columns=[f"p_{name}" for name in CLASSES]))


def measure_coverage(images: int, group: int, ease: float, rounds: int,
                     resamples: int = 400) -> pd.DataFrame:
    """Return a row a score: in how many of 100 rounds ours, and the percentile's, hold it."""
    rng = np.random.default_rng(0)
    sample = create_sample(simulate_answers(POPULATION, group, ease, rng), CLASSES)
    truth = {name: score(sample)[0] for name, score in list_scores(sample).items()}
    held = {name: np.zeros(3) for name in truth}
    for seed in tqdm(range(rounds), f"{images} images", leave=False):
        table = simulate_answers(images, group, ease, rng)
        ours = score_with_intervals(table, CLASSES, resamples, seed)
        alone = resample_scores({"": table.drop(columns="group")}, CLASSES, resamples, seed)[""]
        for name, value in truth.items():
            low, high = find_interval(alone[name][1:])
            row = ours.loc[name]
            held[name] += row.low <= value <= row.high, low <= value <= high, 1
    return pd.DataFrame({"value": truth, "ours": {n: 100 * h[0] / h[2] for n, h in held.items()},
                         "percentile, groups ignored": {n: 100 * h[1] / h[2]
                                                        for n, h in held.items()}}).round(3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=[60, 600])
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    for name, ease in EASE.items():
        for images in options.sizes:
            for group in (1, GROUP):
                start = time.perf_counter()
                found = measure_coverage(images, group, ease, options.rounds)
                print(f"\n{name}, {images} images in groups of {group}, {options.rounds} rounds, "
                      f"{time.perf_counter() - start:.0f} s\n{found.to_string()}", flush=True)


if __name__ == "__main__":
    main()
