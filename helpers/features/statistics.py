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
    counts = {"nan": 0, "inf": 0}
    total = squares = finite = 0.0
    low = np.full(features.shape[1], np.inf)
    high = -low
    for start in range(0, len(features), rows_at_once):
        block = np.asarray(features[start : start + rows_at_once], dtype=np.float64)
        counts["nan"] += int(np.isnan(block).sum())
        counts["inf"] += int(np.isinf(block).sum())
        good = np.isfinite(block)
        finite += good.sum()
        total += block[good].sum()
        squares += (block[good] ** 2).sum()
        low = np.minimum(low, np.where(good, block, np.inf).min(axis=0))
        high = np.maximum(high, np.where(good, block, -np.inf).max(axis=0))
    mean = total / finite if finite else np.nan
    variance = max(squares / finite - mean**2, 0.0) if finite else np.nan
    return {"images": features.shape[0], "features": features.shape[1], **counts,
            "mean": float(mean), "std": float(np.sqrt(variance)), "min": float(low.min()),
            "max": float(high.max()), "constant": int((low == high).sum())}


def compare_features(run: Run) -> pd.DataFrame:
    """Return the statistics of train and test features side by side.

    Raises:
        SuiteError: a feature is NaN or infinite, which no model could learn from.
    """
    arrays = {part: load_features(run, part) for part in ("train", "test")}
    statistics = pd.DataFrame({part: check_features(array)
                               for part, array in arrays.items() if len(array)})
    bad = statistics.loc[["nan", "inf"]].to_numpy().sum()
    if bad:
        raise SuiteError(
            f"{int(bad)} feature values are NaN or infinite. Look at the images with "
            "01_eda, try other `weights`, and run 03_extraction again."
        )
    return statistics
