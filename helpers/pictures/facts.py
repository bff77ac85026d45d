"""Facts: what a run was and what it found, as plain values for the report and the model card."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from helpers.data.table import name_path
from helpers.evaluation.calibration import describe_abstention
from helpers.evaluation.holdout import describe_looks
from helpers.evaluation.shortcuts import describe_shortcut
from helpers.files import ROOT, load_json, resolve_path
from helpers.head_settings import TITLES
from helpers.run import Run
from helpers.settings import SECTIONS, Recipe
from helpers.steps import NOTEBOOKS

SPLITS = {"train": "training images, in the folds", "holdout": "hold-out images",
          "test": "test images of the data set",
          "excluded": "left out: copies of test images, small classes, by hand"}
HASHED = ("table", "oof_probabilities", "test_probabilities")
SHOWN = 50  # rows of a long table


def gather_facts(run: Run) -> dict:
    """Return everything that the pages say.

    Raises:
        SuiteError: a notebook before the evaluation has not been run.
    """
    metadata, metrics = load_json(run.need("metadata")), load_json(run.need("metrics"))
    tables = {name: run.load_table(name) for name in (
        "table", "quarantine", "classes", "fold_scores", "label_suspects", "shortcuts",
        "mistakes", "oof_probabilities")}
    calibration, table = load_json(run.need("calibration")), tables["table"]
    counts = {text: int((table.split == split).sum()) for split, text in SPLITS.items()}
    counts |= {"images set aside": len(tables["quarantine"]), "classes": len(tables["classes"])}
    recipe = run.recipe.model_dump(mode="json")
    facts = {
        "name": run.recipe.run_name, "command": hide_folders(run, run.command),
        "method": describe_method(run.recipe, metadata["feature_dim"]),
        "timestamp": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        "folds": run.recipe.splits.folds, "counts": counts, "scores": metrics,
        "looks": describe_looks(run), "calibration": calibration,
        "checklist": (load_json(run.path("checklist"), list) if run.is_current("checklist")
                      else []),
        "settings": {section: {key: hide_folders(run, str(value)) if value is not None else "null"
                               for key, value in recipe[section].items()}
                     for section in SECTIONS},
        "timings": list_timings(run), "hashes": list_hashes(run),
        "missing_images": list_missing(run, table),
        **{key: metadata[key] for key in ("versions", "device")}}
    for name in ("quarantine", "label_suspects"):
        rows = tables[name].head(SHOWN)
        facts[name] = rows.assign(path=[name_path(run.recipe, p) for p in rows.path]).to_dict(
            "records")
        facts[f"{name}_count"] = len(tables[name])
    for name in ("classes", "fold_scores", "shortcuts"):
        facts[name] = tables[name].to_dict("records")
    facts["findings"] = describe_findings(tables, metrics, calibration)
    return facts


def describe_method(recipe: Recipe, features: int) -> str:
    """Say what answered: the network, how it was trained, and the classifier if it was not."""
    network, settings = recipe.network, recipe.finetune
    weights = f"{network.backbone} with {network.weights.rsplit('/', 1)[-1]} weights"
    if network.strategy == "frozen" and recipe.head.inputs == "text":
        return f"a linear classifier on the text of {', '.join(recipe.head.text_columns)}"
    if network.strategy == "frozen":
        given = {"photo": "", "text": " on text", "both": " beside one on text"}
        return (f"{weights}, frozen; {TITLES[recipe.head.classifier]} on {features:,} features"
                f"{given[recipe.head.inputs]}")
    if network.strategy == "scratch":
        return f"{network.backbone} trained from random weights for {settings.epochs} epochs"
    return (f"{weights}, the upper {settings.unfreeze[-1]:.0%} of its layers fine-tuned for "
            f"{settings.epochs} epochs")


def describe_findings(tables: dict[str, pd.DataFrame], metrics: dict,
                      calibration: dict) -> list[str]:
    """Return what the run found, a sentence each."""
    oof, classes, mistakes = (tables[n] for n in ("oof_probabilities", "classes", "mistakes"))
    groups = oof.group.nunique() if "group" in oof else len(oof)
    score = metrics["out-of-fold"]["macro F1"]
    weakest = classes[classes.images > 0].sort_values("F1").iloc[0]
    said = [f"Out-of-fold macro F1 is {score['value']:.3f} ({score['low']:.3f} to "
            f"{score['high']:.3f}), on {len(oof):,} images in {groups:,} independent groups.",
            f"The weakest class is {weakest['class']}: F1 {weakest.F1:.3f} ({weakest.low:.3f} to "
            f"{weakest.high:.3f}) on {weakest.images} images.",
            f"Misclassified images: {len(mistakes):,}, of which "
            f"{(mistakes.confidence > 0.9).sum():,} with more than 90% confidence.",
            f"Labels in doubt: {len(tables['label_suspects']):,}."]
    flagged = tables["shortcuts"][tables["shortcuts"].verdict != "no"]
    said += [f"Possible shortcut: {describe_shortcut(row)}." for _, row in flagged.iterrows()]
    if flagged.empty:
        said.append("No shortcut was found among the cues that were looked at.")
    said.append(f"Abstention: {describe_abstention(calibration['abstention'])}.")
    return said


def hide_folders(run: Run, text: str) -> str:
    """Return a text without this machine's folders above recipe, data, weights, corrections."""
    named = [run.options[1] if len(run.options) > 1 else "", run.recipe.data.place,
             run.recipe.network.weights, run.recipe.data.corrections or ""]
    for path in sorted({Path(name) for name in named}, key=lambda path: -len(str(path))):
        if path.is_absolute() and not path.is_relative_to(ROOT):
            own = path.parent.name if path.name == "recipe.yaml" else ""
            text = text.replace(str(path), "/".join(filter(None, ("…", own, path.name))))
    return text


def list_timings(run: Run) -> dict[str, float]:
    """Return the seconds that each executed notebook of the run has taken."""
    found = {}
    for name in NOTEBOOKS:
        path = run.folder / "notebooks" / f"{name}.ipynb"
        if path.exists():
            taken = json.loads(path.read_text("utf-8"))["metadata"].get("papermill", {})
            if taken.get("duration"):
                found[name] = round(float(taken["duration"]), 1)
    return found


def list_hashes(run: Run) -> dict[str, str]:
    """Return the first half of the SHA-256 of the table and of both tables of answers."""
    notes = load_json(run.folder / "artefacts.json")
    return {run.path(name).name: notes[run.path(name).name]["hash"][:32] for name in HASHED}


def list_missing(run: Run, table: pd.DataFrame) -> list[str]:
    """Return the images that the run was made from and that are not on this machine now."""
    return [name_path(run.recipe, path) for path in table.path
            if not resolve_path(path).is_file()]
