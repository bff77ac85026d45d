"""Cross-validation: models fitted on some rows answer for others, are saved, are loaded again.

Out-of-fold: every training image gets its probabilities from a model that never saw it, so they
stand for new images and can feed metrics, calibration and the search for label errors. Nothing
here knows what a model is made of: a head on features today, a fine-tuned network tomorrow.
"""

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.data.splits import select_rows
from helpers.features.store import describe_network, load_codes, load_features, warn_of_versions
from helpers.files import SuiteError, load_json, show_path, write_whole
from helpers.run import Run
from helpers.training.fusion import PhotoAndText
from helpers.training.heads import create_model, name_kind, restore_model
from helpers.training.text import count_terms, load_texts
from helpers.versions import describe_changes, describe_versions


class Model(Protocol):
    """What every strategy gives. `inputs` is indexed by rows: features, or a table of images."""

    arrays: dict[str, np.ndarray]  # all that `predict` needs, to be saved
    choices: pd.DataFrame  # what was tried inside the training part, a row a candidate

    def fit(self, inputs, codes: np.ndarray, inner: np.ndarray) -> "Model":
        """Learn the class codes of `inputs`; what is to be chosen is judged on `inner` rows."""

    def predict(self, inputs) -> np.ndarray:
        """Return probabilities, (rows, classes) float32."""


def cross_validate(create: Callable[[], Model], inputs, codes: np.ndarray, folds: np.ndarray,
                   progress: bool = True, learnt: np.ndarray | None = None, keep: bool = True
                   ) -> tuple[np.ndarray, list[Model]]:
    """Fit one model a fold on the other folds, and let it answer for the fold it never saw.

    Settings are chosen inside each training part, on the fold after the one left out. No image
    is judged by a model that it helped to fit or to choose.

    Args:
        create: makes a model that is not fitted yet.
        inputs: what the models take, indexed by rows.
        codes: (images,) class codes 0..n-1.
        folds: (images,) fold numbers 0..k-1.
        learnt: (images,) bool, those that may be learnt from; all are judged.
        keep: return the models; a forest's take gigabytes.

    Returns:
        Out-of-fold probabilities (images, classes) float32, and the folds' models if kept.
    """
    count, models, parts = folds.max() + 1, [], []
    for fold in tqdm(range(count), desc="folds", unit="fold", disable=not progress):
        train = (folds != fold) & (learnt if learnt is not None else True)
        inner = folds[train] == (fold + 1) % count
        model = create().fit(inputs[train], codes[train], inner)
        parts.append(model.predict(inputs[folds == fold]))
        models += [model] if keep else []
    probabilities = np.empty((len(codes), parts[0].shape[1]), np.float32)
    for fold, part in enumerate(parts):
        probabilities[folds == fold] = part
    return probabilities, models


def predict_ensemble(models: list[Model], inputs) -> np.ndarray:
    """Return the mean of the models' probabilities, (rows, classes) float32."""
    return np.mean([model.predict(inputs) for model in models], axis=0)


def tabulate_choices(models: list[Model]) -> pd.DataFrame:
    """Return the candidates that each fold's model has tried, with `fold`."""
    return pd.concat([model.choices.assign(fold=fold) for fold, model in enumerate(models)],
                     ignore_index=True)


def describe_choices(choices: pd.DataFrame) -> list[str]:
    """Say what each fold chose, from `tabulate_choices`: "C 0.1"."""
    settings = choices[choices.chosen].drop(
        columns=["macro F1", "log loss", "chosen", "fold"], errors="ignore")
    return [", ".join(f"{name} {value:g}" for name, value in row.dropna().items())
            for _, row in settings.iterrows()]


def save_models(models: list[Model], kind: str, classes: list[str], description: dict,
                path: Path) -> None:
    """Write the folds' models as `.npz`, arrays only, with what their inputs have to mean.

    Args:
        kind: of the models, as from `name_kind`.
        description: of the inputs, as from `describe_inputs`.
    """
    arrays = {f"{fold}/{name}": array for fold, model in enumerate(models)
              for name, array in model.arrays.items()}
    note = {"kind": kind, "classes": classes, "inputs": description,
            "versions": describe_versions()}
    with write_whole(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, note=np.array(json.dumps(note)), **arrays)


def load_models(path: Path, description: dict) -> tuple[list[Model], list[str]]:
    """Read the folds' models and their class names, for inputs that mean `description`.

    Raises:
        SuiteError: it is no such file, or its models were fitted on inputs that mean something
            else; says what differs.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = dict(stored)
        note = json.loads(str(found.pop("note")))
        classes, kind = note["classes"], note["kind"]
        folds = {}
        for name, array in found.items():
            fold, _, key = name.partition("/")
            folds.setdefault(int(fold), {})[key] = array
        models = [restore_model(kind, arrays) for _, arrays in sorted(folds.items())]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SuiteError(f"{show_path(path)} holds no models of this suite ({error}). Run "
                         "04_training again.") from error
    changed = describe_changes(note["inputs"], description)
    if changed:
        raise SuiteError(f"the models in {show_path(path)} were fitted on other inputs: "
                         f"{changed}. Use them with what they were fitted on, or run "
                         "04_training again.")
    warn_of_versions(note["versions"], show_path(path))
    return models, classes


def tabulate_probabilities(rows: pd.DataFrame, probabilities: np.ndarray,
                           classes: list[str]) -> pd.DataFrame:
    """Return image_id, path, split, fold, group, label, prediction, and `p_<class>` columns."""
    table = rows.filter(["image_id", "path", "split", "fold", "group", "label"]).assign(
        prediction=[classes[code] for code in probabilities.argmax(axis=1)])
    columns = pd.DataFrame(probabilities, rows.index, [f"p_{name}" for name in classes])
    return pd.concat([table, columns], axis=1)


def create_run_model(run: Run) -> Model:
    """Make the model that a run's recipe asks for, not fitted yet."""
    count = len(load_json(run.need("label_mapping")))
    return create_model(run.recipe.head, count, run.recipe.splits.seed)


def load_inputs(run: Run, part: str, wanted: str):
    """Return what a model is given of the `train` or `test` images, indexed by rows.

    Args:
        wanted: `photo`, `text` or `both`, as the recipe's `inputs`.
    """
    features = None if wanted == "text" else np.asarray(load_features(run, part))
    return form_inputs(wanted, features, load_texts(run, part) if wanted != "photo" else ())


def form_inputs(wanted: str, features: np.ndarray | None, texts: Sequence[str]):
    """Return what a model is given of images with these features and texts."""
    if wanted == "photo":
        return features
    terms = count_terms(texts)
    return terms if wanted == "text" else PhotoAndText(features, terms)


def describe_inputs(run: Run) -> dict:
    """Return what `load_inputs` means, as plain values, to be kept with a model."""
    network, text = describe_network(run.recipe, run.measured), run.recipe.head.text_columns
    return {"photo": network, "text": {"columns": text},
            "both": network | {"columns": text}}[run.recipe.head.inputs]


def train_heads(run: Run, progress: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Train the heads of all folds and save them.

    Returns:
        Out-of-fold probabilities, and the ensemble's of the hold-out and the test images.
    """
    table, classes = run.load_table(), list(load_json(run.need("label_mapping")))
    rows, given = select_rows(table, "train"), run.recipe.head.inputs
    probabilities, models = cross_validate(
        lambda: create_run_model(run), load_inputs(run, "train", given), load_codes(run),
        rows.fold.to_numpy(), progress)
    answers = predict_ensemble(models, load_inputs(run, "test", given))
    with run.write("head") as path:
        save_models(models, name_kind(run.recipe.head), classes, describe_inputs(run), path)
    return probabilities, answers


def save_answers(run: Run, probabilities: np.ndarray, unseen: np.ndarray) -> None:
    """Write both tables of probabilities: out-of-fold, and of the hold-out and test images."""
    table, classes = run.load_table(), list(load_json(run.need("label_mapping")))
    for name, part, values in (("oof_probabilities", "train", probabilities),
                               ("test_probabilities", "test", unseen)):
        run.save(name, tabulate_probabilities(select_rows(table, part), values, classes))
