"""Saving: what a run has trained as one folder that answers anywhere.

    python -m helpers.serving.saving --run outputs/vehicles --set reference_photos=0

does what notebook 11 does first. Before it is kept, the folder is loaded and has to answer for
photos of the run as notebook 04 did.
"""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from helpers.colab import copy_results
from helpers.command import report_errors
from helpers.data.images import UnreadableImageError
from helpers.data.splits import select_rows
from helpers.data.table import restore_images
from helpers.evaluation.calibration import LEAST
from helpers.evaluation_settings import ServingSettings
from helpers.features.engines import TOLERANCE
from helpers.features.store import describe_network, load_codes
from helpers.files import (
    SuiteError,
    hash_file,
    load_json,
    resolve_path,
    show_path,
    write_folder,
    write_whole,
)
from helpers.network.backbones import create_backbone
from helpers.recipe import change_recipe, parse_settings
from helpers.run import Run, reopen_run
from helpers.serving.export import DESCRIPTION
from helpers.serving.layers import StackedNetworks
from helpers.serving.model_folder import (
    BACKBONE,
    CARD,
    HEADS,
    NETWORK,
    NETWORKS,
    SUMS,
    seal_folder,
)
from helpers.serving.note import describe_model, describe_saved
from helpers.serving.predictor import load_predictor
from helpers.serving.probe import save_probe
from helpers.serving.references import save_photos
from helpers.training.crossvalidation import (
    create_run_model,
    describe_inputs,
    load_inputs,
    load_models,
)
from helpers.training.networks import REFIT, save_network
from helpers.training.selection import fit_temperature
from helpers.training.text import load_texts

COMPARED = 64  # photos of the run that the saved model has to answer for
EXACT = 1e-4  # by which a probability may differ then


def save_model(run: Run) -> Path:
    """Write `model/` of a run: networks, heads, and all that is to be known of them.

    Raises:
        SuiteError: the model reads text alone, a notebook before 11 has not been run, or the
            saved model does not answer as the run did.
    """
    if run.recipe.head.inputs == "text":
        raise SuiteError("`inputs: text` answers for texts, not for photos: there is no model "
                         "of photos to save. Set `inputs` to `photo` or `both`.")
    note = describe_model(run)
    with run.write("model") as target, write_folder(target) as folder:
        trunk = _write_networks(run, note, folder)
        outputs = save_probe(trunk, note["preprocessing"], folder)
        members = len(note["temperatures"]) if note["kind"] == NETWORKS else 0
        note["features"] = outputs - members * len(note["classes"])
        save_photos(run, note, trunk, folder)
        card = run.need("card").read_text("utf-8") + "\n" + describe_saved(note)
        with write_whole(folder / CARD) as temporary:
            temporary.write_text(card, "utf-8")
        seal_folder(folder, note)
        compare_answers(run, folder)
    shutil.rmtree(run.folder / REFIT, ignore_errors=True)
    _remove_stale_export(run)
    return target


def _write_networks(run: Run, note: dict, folder: Path):
    """Write backbone and heads, or the trained networks; return what computes, as a module."""
    if run.recipe.network.strategy == "frozen":
        backbone, _ = create_backbone(run.recipe, run.measured)
        save_network(backbone, describe_network(run.recipe, run.measured), folder / BACKBONE)
        models, _ = load_models(run.need("head"), describe_inputs(run))
        if run.recipe.serving.serve == "refit":
            models = [_refit_head(run, note)]
        arrays = {f"{number}/{name}": np.array(array, order="C")
                  for number, model in enumerate(models) for name, array in model.arrays.items()}
        with write_whole(folder / HEADS) as temporary:
            save_file(arrays, temporary)
        return backbone
    from helpers.training.finetuning import load_fold, refit_network  # Lightning takes seconds

    if run.recipe.serving.serve == "refit":
        networks = [refit_network(run, folder / NETWORK.format(0))]
    else:
        folds = sorted(run.load_table("oof_probabilities").fold.unique())
        networks = [load_fold(run, int(fold)) for fold in folds]
        for number, fold in enumerate(folds):
            shutil.copyfile(run.need("networks") / f"fold_{int(fold):02d}.safetensors",
                            folder / NETWORK.format(number))
    return StackedNetworks(networks).eval()


def _refit_head(run: Run, note: dict):
    """Return a head fitted on all training images; its temperature goes into the note.

    Folds that chose other settings have other temperatures, so this one is fitted on the inner
    fold, which the trial of the chosen settings had not learnt from.
    """
    inner = select_rows(run.load_table(), "train").fold.to_numpy() == 0
    codes = load_codes(run)
    model = create_run_model(run).fit(load_inputs(run, "train", run.recipe.head.inputs), codes,
                                      inner)
    logits = np.log(np.maximum(model.judged, LEAST))
    note["temperatures"] = [1 / fit_temperature(logits, codes[inner])]
    return model


def compare_answers(run: Run, folder: Path) -> float:
    """See that a saved model gives the probabilities that 04 gave for the run's own photos.

    Returns:
        The largest difference of a probability, before calibration; NaN if there is nothing to
        compare with: a refitted model, or no photo outside the folds that can be read now.

    Raises:
        SuiteError: it does not.
    """
    predictor, both = load_predictor(folder, engine=run.recipe.features.engine,
                                     workers=run.recipe.features.workers
                                     ), run.recipe.head.inputs == "both"
    if run.recipe.serving.serve == "refit":
        return np.nan
    answered = run.load_table("test_probabilities").head(COMPARED)
    restore_images(run.recipe, answered)
    texts = load_texts(run, "test").tolist() if both else [""] * len(answered)
    differences = []
    for row, text in zip(answered.itertuples(), texts, strict=False):
        try:
            outputs = predictor.compute(resolve_path(row.path))
        except UnreadableImageError:  # gone, or beyond the limits of photos from outside
            continue
        own = answered.loc[row.Index, [f"p_{name}" for name in predictor.classes]]
        found = predictor.answer_members(outputs, [text]).mean(axis=0)[0]
        differences.append(float(np.abs(found - own.to_numpy(float)).max()))
    if not differences:
        print("no photo outside the folds could be read: the saved model was compared with none")
        return np.nan
    precision = run.recipe.features.precision
    if not max(differences) <= (EXACT if precision == "float32" else TOLERANCE[precision]):
        raise SuiteError(f"the saved model answers differently from 04 (probabilities differ by "
                         f"up to {max(differences):.2g}): run 03 and 04 again with this "
                         "machine's library versions.")
    return max(differences)


def _remove_stale_export(run: Run) -> None:
    """Remove what was exported of an earlier model: it would pass for this one."""
    place, model = run.folder / "onnx", hash_file(run.path("model") / SUMS)
    described = place / DESCRIPTION
    if described.exists() and load_json(described)["model"]["sha256sums"] != model:
        shutil.rmtree(place)
        print(f"{show_path(place)} was exported from an earlier model and is removed")


@report_errors
def main() -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.serving.saving",
                                     description="Save the model of a finished run.")
    parser.add_argument("--run", default="outputs/demo", metavar="outputs/RUN")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="serve, reference_photos, notes")
    options = parser.parse_args()
    run, settings = reopen_run(resolve_path(options.run)), parse_settings(options.set)
    strange = set(settings) - set(ServingSettings.model_fields)
    if strange:
        raise SuiteError(f"--set {min(strange)}: only "
                         f"{', '.join(ServingSettings.model_fields)} can be changed here; "
                         "the run fixed the rest.")
    run = replace(run, recipe=change_recipe(run.recipe, settings))
    if run.is_current("model"):
        print(f"{show_path(run.path('model'))} is there already")
        return 0
    print(f"saved {show_path(save_model(run))}")
    copy_results(run.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
