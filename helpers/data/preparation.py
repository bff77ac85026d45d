"""Preparation: what notebooks 01 and 02 show step by step, in two calls.

For whoever wants the tables and not the tour: tests, the torchrun commands, your own scripts.
"""

import pandas as pd

from helpers.data import inspection, splits
from helpers.data.copies import find_copies, group_copies
from helpers.data.findings import find_faults, set_aside
from helpers.data.table import load_table, restore_images
from helpers.files import SuiteError, resolve_path
from helpers.run import Run


def inspect_run(run: Run) -> None:
    """Write all that 01 leaves: images, findings, near copies, quarantine, normalisation."""
    settings = run.recipe.data
    images = inspection.inspect_images(load_table(run.recipe), run)
    pairs = find_copies(images, run)
    images["group"] = group_copies(len(images), pairs)
    findings = find_faults(images, pairs, settings)
    used, quarantine = set_aside(images, findings)
    mean, std = inspection.measure_normalisation(used)
    run.save("images", images)
    run.save("inspection", findings)
    run.save("near_copies", pairs)
    run.save("quarantine", quarantine)
    run.save("normalisation", {"mean": mean, "std": std})
    inspection.forget_inspection(run)


def load_used(run: Run) -> pd.DataFrame:
    """Return the inspected images without those set aside; SuiteError if some are gone."""
    images, quarantine = run.load_table("images"), run.load_table("quarantine")
    used = images[~images.image_id.isin(quarantine.image_id)]
    restore_images(run.recipe, used)
    gone = used.path[~used.path.map(lambda path: resolve_path(path).is_file())]
    if len(gone):
        raise SuiteError(f"{len(gone)} of {len(used)} images are gone since 01_eda, e.g. "
                         f"{gone.iloc[0]}: put them back, or run 01_eda again.")
    return used


def split_run(run: Run) -> None:
    """Write what 02 leaves for later steps: label mapping, class weights, table, folds."""
    settings = run.recipe.splits
    table = splits.join_groups(load_used(run), settings.group_column)
    table = splits.exclude_leaks(table, settings.leaks)
    table = splits.settle_small_classes(table, settings.holdout, settings.folds,
                                        settings.small_classes)
    mapping = splits.encode_labels(table, run.recipe.data.class_names.values())
    table = splits.assign_splits(table, settings.holdout, settings.folds, settings.seed)
    splits.check_splits(table, settings.leaks)
    run.save("label_mapping", mapping)
    run.save("class_weights", splits.weigh_classes(table, mapping))
    run.save("table", table)
    with run.write("folds") as folder:
        splits.save_folds(table, folder)


def prepare_run(run: Run) -> None:
    """Write all that later steps read of 01 and 02."""
    inspect_run(run)
    split_run(run)
