"""Distillation: what the models of a saved run answer, for a student to learn from.

A student of one fold learns from the teacher of the same fold, which has not seen the images
that the student will be judged on either.
"""

from collections.abc import Callable

import numpy as np

from helpers.data.splits import select_rows
from helpers.features.store import load_features
from helpers.files import SuiteError, load_json, show_path
from helpers.run import OUTPUTS, Run, reopen_run
from helpers.training.crossvalidation import describe_inputs, load_models

Teacher = Callable[[int], np.ndarray]  # fold -> (images, classes) probabilities float32


def open_teacher(name: str) -> Run:
    """Open a saved run by the name of its folder under outputs/.

    Raises:
        SuiteError: there is none, or it has not come as far as 03.
    """
    folder = OUTPUTS / name
    if not (folder / "metadata.json").is_file():
        raise SuiteError(f"the teacher {show_path(folder)} is no finished run: `teacher` names "
                         "a folder under outputs/ in which 01 to 04 have been run.")
    return reopen_run(folder)


def load_teacher(teacher: Run, rows, classes: list[str], answer_networks) -> Teacher:
    """Return what the teacher's models answer for the student's training images.

    Args:
        rows: the student's training images, with `image_id` and `fold`.
        answer_networks: answers for a run whose networks were trained, see `finetuning`.

    Raises:
        SuiteError: it knows other classes, other images or other folds, or its models do not fit
            its features.
    """
    own = select_rows(teacher.load_table(), "train")
    others = list(load_json(teacher.need("label_mapping")))
    if others != classes:
        strange = sorted(set(others) ^ set(classes))
        raise SuiteError(f"the teacher {teacher.folder.name} knows other classes: "
                         f"{', '.join(strange[:5]) or 'the same ones in another order'}. Train "
                         "it on the same data.")
    folds = dict(zip(own.image_id, own.fold, strict=True))
    moved = sum(folds.get(name) != fold
                for name, fold in zip(rows.image_id, rows.fold, strict=True))
    if moved:
        raise SuiteError(f"{moved} of {len(rows)} images are in another fold of the teacher "
                         f"{teacher.folder.name}, or not in it: it may have seen what the "
                         "student is judged on. Train it with the same `data`, `folds`, "
                         "`holdout` and `seed`.")
    places = {name: place for place, name in enumerate(own.image_id)}
    order = [places[name] for name in rows.image_id]
    if teacher.recipe.network.strategy != "frozen":
        return lambda fold: answer_networks(teacher, fold)[order]
    models, _ = load_models(teacher.need("head"), describe_inputs(teacher))
    features = load_features(teacher, "train")
    return lambda fold: models[fold].predict(np.asarray(features[order]))
