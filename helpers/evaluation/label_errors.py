"""Label errors: images whose label the model doubts, by confident learning.

What is found goes to a CSV. Its column `correction` is for a person to fill in; the setting
`corrections` reads it back (`helpers.data.corrections`). No label is ever changed by itself.
"""

import numpy as np
import pandas as pd

from helpers.evaluation.scores import create_sample

COLUMNS = ["image_id", "path", "label", "suggestion", "label_probability", "correction"]


def find_label_errors(table: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return the images whose label is probably wrong, the least probable label first.

    Confident learning on out-of-fold probabilities (Northcutt et al. 2021, Confident Learning:
    Estimating Uncertainty in Dataset Labels), by cleanlab.

    Args:
        table: rows of `tabulate_probabilities`.

    Returns:
        `image_id`, `path`, `label`, `suggestion` (the most probable class), `label_probability`,
        and `correction`, empty.

    Raises:
        SuiteError: as `create_sample`.
    """
    from cleanlab.filter import find_label_issues

    sample = create_sample(table, classes)
    # cleanlab knows no class without an image.
    known, codes = np.unique(sample.labels, return_inverse=True)
    chosen = np.array([], int)
    if len(known) > 1:
        probabilities = np.maximum(sample.probabilities[:, known], 1e-12)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        chosen = find_label_issues(codes, probabilities, n_jobs=1,
                                   return_indices_ranked_by="self_confidence")
    found = table.iloc[chosen]
    return pd.DataFrame({"image_id": found.image_id, "path": found.path, "label": found.label,
                         "suggestion": found.prediction, "label_probability": sample.own[chosen],
                         "correction": ""}, columns=COLUMNS).reset_index(drop=True)
