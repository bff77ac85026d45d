"""Note: what a saved model says of itself, in `model.json` and at the end of its model card."""

from datetime import UTC, datetime

import numpy as np

from helpers.evaluation.mistakes import list_confusions
from helpers.evaluation.summary import CALIBRATION
from helpers.features.store import describe_network
from helpers.files import load_json
from helpers.network.preprocessing import fingerprint_preprocessing, resolve_data_config
from helpers.network.weights import find_licence, name_weights
from helpers.pictures.facts import describe_method
from helpers.run import Run
from helpers.serving.model_folder import NETWORKS
from helpers.training.heads import name_kind
from helpers.versions import describe_versions


def describe_model(run: Run) -> dict:
    """Return what `model.json` says, as plain values; `features` is still to come."""
    recipe, metadata = run.recipe, load_json(run.need("metadata"))
    calibration, oof = load_json(run.need("calibration")), run.load_table("oof_probabilities")
    config = resolve_data_config(recipe, run.measured)
    temperatures = [calibration["temperatures"][str(fold)] for fold in sorted(oof.fold.unique())]
    if recipe.serving.serve == "refit":
        temperatures = [float(np.exp(np.mean(np.log(temperatures))))]
    frozen, table = recipe.network.strategy == "frozen", run.load_table()
    classes = run.load_table("classes")
    return {
        "name": recipe.run_name, "method": describe_method(recipe, metadata["feature_dim"]),
        "serve": recipe.serving.serve, "kind": name_kind(recipe.head) if frozen else NETWORKS,
        "classes": list(load_json(run.need("label_mapping"))),
        "temperatures": temperatures, "abstention": calibration["abstention"],
        "backbone": recipe.network.backbone, "image_size": recipe.network.image_size,
        "inputs": recipe.head.inputs, "text_columns": recipe.head.text_columns,
        "preprocessing": config, "fingerprint": fingerprint_preprocessing(config),
        "trained_on": describe_network(recipe, run.measured) | {
            "images": int((table.split == "train").sum()), "folds": recipe.splits.folds},
        "trained": load_json(run.folder / "artefacts.json")[
            run.path("oof_probabilities").name]["written"],
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        "scores": gather_scores(run),
        "by_class": classes[["class", "images", "F1", "low", "high"]].astype(object).where(
            classes[["class", "images", "F1", "low", "high"]].notna(), None).to_dict("records"),
        "confusions": list_confusions(oof).to_dict("records"),
        "notes": {"data": recipe.serving.notes,
                  "weights": {"name": name_weights(recipe), "licence": find_licence(recipe)}},
        "versions": describe_versions(), "references": recipe.serving.reference_photos,
        "samples": []}


def gather_scores(run: Run) -> dict:
    """Return the run's scores as they are true of calibrated answers: set -> score -> value.

    Probabilities of other sets were scored as the plain mean of the folds' models, so that only
    the scores of their predictions are kept.
    """
    metrics = load_json(run.need("metrics"))
    found = {name: {score: value for score, value in scores.items() if score not in CALIBRATION}
             for name, scores in metrics.items()}
    found["out-of-fold"] |= load_json(run.need("calibration"))["after"]
    return found


def describe_saved(note: dict) -> str:
    """Return the model card's section on the saved model."""
    count, found, origin = len(note["temperatures"]), note["abstention"], note["notes"]
    models = (f"the models of {count} folds; their calibrated answers are averaged"
              if note["serve"] == "ensemble" else "one model, trained on all training images; "
              "the scores above are those of the folds' models")
    said = ("no confidence reaches it, so the model is never sure"
            if found["threshold"] is None else
            f"answers with at least {found['threshold']:.1%} confidence count as sure. That was "
            "measured on single models, each on the photos of its own fold")
    photos = ("thumbnails of training photos and sample photos are in it; `reference_photos: 0` "
              "leaves them out" if note["references"] else "no photo is in it")
    data = (origin["data"] or "origin not recorded").rstrip(".")
    weights = origin["weights"]
    return f"""## Saved model

This folder holds {models}. With a target accuracy of {found["wished"]:.0%}, {said}. The log loss,
Brier score and calibration error of `model.json` are those of calibrated answers.

    from helpers.serving.predictor import load_predictor
    load_predictor("path/of/this/folder").predict(["photo.jpg"])

Preprocessing fingerprint `{note["fingerprint"]}`. `SHA256SUMS` holds the hash of every file, to
tell a whole copy from a damaged one; it does not protect against somebody who means harm. Data:
{data}; {photos}. Weights: {weights["name"]}, licence {weights["licence"] or "unknown"}.
"""
