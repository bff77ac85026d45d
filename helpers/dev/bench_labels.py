"""Bench of the label errors: how many of the labels that were turned on purpose are found.

    python -m helpers.dev.bench_labels --recipe demo --set run=demo

The run needs its features (01 to 03). A share of the training labels is turned to another class,
the head of the recipe is cross-validated on them, and the suspects are compared with what was
turned. The data's own errors count as false alarms, so precision is a lower bound.
"""

import sys

import numpy as np

from helpers.command import run_command
from helpers.data.splits import select_rows
from helpers.evaluation.calibration import calibrate_answers
from helpers.evaluation.label_errors import find_label_errors
from helpers.features.store import load_codes
from helpers.files import load_json
from helpers.run import Run
from helpers.training.crossvalidation import (
    create_run_model,
    cross_validate,
    load_inputs,
    tabulate_probabilities,
)

SHARE, SEEDS, FIRST = 0.02, 3, 50


def measure_found(run: Run) -> None:
    """Print precision and recall of the suspects, and of the first 50, for three seeds."""
    rows, codes = select_rows(run.load_table(), "train"), load_codes(run)
    classes = list(load_json(run.need("label_mapping")))
    inputs = load_inputs(run, "train", run.recipe.head.inputs)
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        turned = rng.choice(len(codes), round(SHARE * len(codes)), replace=False)
        given = codes.copy()
        given[turned] += rng.integers(1, len(classes), len(turned))
        given %= len(classes)
        probabilities, _ = cross_validate(lambda: create_run_model(run), inputs, given,
                                          rows.fold.to_numpy(), progress=False, keep=False)
        table = tabulate_probabilities(rows.assign(label=np.array(classes, object)[given]),
                                       probabilities, classes)
        suspects = find_label_errors(calibrate_answers(table, classes)[0], classes)
        found = suspects.image_id.isin(rows.image_id.iloc[turned])
        right = (table.prediction == table.label).mean()
        print(f"seed {seed}: {len(turned)} of {len(codes)} labels turned, {right:.1%} right; "
              f"{len(suspects)} suspects: precision {found.mean():.2f}, recall "
              f"{found.sum() / len(turned):.2f}; of the first {FIRST} "
              f"{found.head(FIRST).sum()} were turned")


if __name__ == "__main__":
    sys.exit(run_command("helpers.dev.bench_labels", "Find labels turned on purpose.",
                         measure_found))
