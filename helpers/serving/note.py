"""Note: what a saved model says of itself, in `model.json` and at the end of its model card."""

from datetime import UTC, datetime

import numpy as np

from helpers.evaluation.mistakes import list_confusions
from helpers.features.store import describe_network
from helpers.files import load_json
from helpers.network.preprocessing import fingerprint_preprocessing, resolve_data_config
from helpers.network.weights import find_licence
from helpers.pictures.facts import describe_method, hide_folders
from helpers.run import Run
from helpers.training.heads import name_kind
from helpers.versions import describe_versions

NETWORKS = "networks"  # the kind of a model that has no heads


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
        "scores": load_json(run.need("metrics")),
        "by_class": classes[["class", "images", "F1", "low", "high"]].astype(object).where(
            classes[["class", "images", "F1", "low", "high"]].notna(), None).to_dict("records"),
        "confusions": list_confusions(oof).to_dict("records"),
        "notes": {"data": recipe.serving.notes, "command": hide_folders(run, run.command),
                  "weights": {"name": recipe.network.weights.rsplit("/", 1)[-1],
                              "licence": find_licence(recipe)}},
        "versions": describe_versions(), "samples": []}


def describe_saved(note: dict) -> str:
    """Return the model card's section on the saved model."""
    count, found = len(note["temperatures"]), note["abstention"]
    models = (f"the models of {count} folds, whose calibrated answers are averaged"
              if note["serve"] == "ensemble" else "one model, trained on all training images; "
              "the scores above are those of the folds' models")
    said = ("no confidence reached it, so no answer counts as sure"
            if found["threshold"] is None else
            f"answers of at least {found['threshold']:.1%} confidence count as sure")
    origin = note["notes"]
    return f"""## Saved model

This folder holds {models}. For the accuracy that was wished for, {found["wished"]:g}, {said}.

    from helpers.serving.predictor import load_predictor
    load_predictor("path/of/this/folder").predict(["photo.jpg"])

Preprocessing `{note["fingerprint"]}`; `SHA256SUMS` holds the hash of every file. Data:
{origin["data"] or "nothing was noted on where the images come from"}. Weights:
{origin["weights"]["name"]}, licence {origin["weights"]["licence"] or "unknown"}.
"""
