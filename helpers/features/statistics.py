"""Statistics: what is in an array of features, and whether train and test look alike."""

import numpy as np
import pandas as pd

from helpers.features.store import load_features
from helpers.files import SuiteError
from helpers.run import Run


def check_features(features: np.ndarray, rows_at_once: int = 8192) -> dict[str, float]:
    """Return statistics of an array of features, read in blocks so that memory stays flat.

    Keys: images, features, nan, inf (counts of values), mean, std, min, max (of the finite
    values), constant (features with one value for all images).
    """
    nan = inf = total = squares = 0
    low, high = np.full(features.shape[1], np.inf), np.full(features.shape[1], -np.inf)
    for start in range(0, len(features), rows_at_once):
        block = np.asarray(features[start : start + rows_at_once], dtype=np.float64)
        good = np.isfinite(block)
        nan += int(np.isnan(block).sum())
        inf += int(np.isinf(block).sum())
        total += block.sum(where=good)
        squares += np.square(block).sum(where=good)
        low = np.minimum(low, block.min(axis=0, where=good, initial=np.inf))
        high = np.maximum(high, block.max(axis=0, where=good, initial=-np.inf))
    finite = features.size - nan - inf
    mean = total / finite if finite else np.nan
    variance = max(squares / finite - mean**2, 0.0) if finite else np.nan
    return {"images": features.shape[0], "features": features.shape[1], "nan": nan, "inf": inf,
            "mean": float(mean), "std": float(np.sqrt(variance)), "min": float(low.min()),
            "max": float(high.max()), "constant": int((low == high).sum())}


def compare_features(run: Run) -> pd.DataFrame:
    """Return the statistics of train and test features side by side.

    Raises:
        SuiteError: a feature is NaN or infinite, which no model could learn from.
    """
    arrays = {part: load_features(run, part) for part in ("train", "test")}
    statistics = pd.DataFrame(
        {part: check_features(array) for part, array in arrays.items() if len(array)})
    bad = statistics.loc[["nan", "inf"]].to_numpy().sum()
    if bad:
        raise SuiteError(f"{int(bad)} feature values are NaN or infinite. Look at the images "
                         "with 01_eda, try other `weights`, and run 03_extraction again.")
    return statistics
