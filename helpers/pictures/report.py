"""Report: one self-contained HTML page of a run, pictures inside, nothing to download."""

import base64
import mimetypes
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from helpers.evaluation.holdout import describe_looks
from helpers.files import SuiteError, load_json, write_whole
from helpers.head_settings import TITLES
from helpers.run import Run
from helpers.settings import SECTIONS, Recipe

TEMPLATES = Path(__file__).parent / "templates"


def write_report(run: Run) -> Path:
    """Write `report.html` from what the six notebooks left in the run's folder.

    Raises:
        SuiteError: a notebook before the evaluation has not been run.
    """
    metadata, metrics = load_json(run.need("metadata")), load_json(run.need("metrics"))
    table, quarantine = run.load_table(), run.load_table("quarantine")
    names = {"train": "training images, in the folds", "holdout": "hold-out images",
             "test": "test images of the data set",
             "excluded": "left out: copies of test images, small classes"}
    counts = {text: int((table.split == split).sum()) for split, text in names.items()}
    counts |= {"images set aside": len(quarantine),
               "classes": len(load_json(run.need("label_mapping")))}
    # Results first, then the way to them.
    paths = sorted((run.folder / "figures").glob("[0-9][0-9]_*.*g"),
                   key=lambda path: (path.stem[:2] != "06", path.stem))
    figures = {path.name: f"data:{mimetypes.guess_type(path)[0]};base64,"
                          f"{base64.b64encode(path.read_bytes()).decode()}" for path in paths}
    recipe = run.recipe.model_dump(mode="json")
    templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True,
                            undefined=StrictUndefined, trim_blocks=True)
    page = templates.get_template("report.html.j2").render(
        name=run.recipe.run_name, command=run.command,
        method=describe_method(run.recipe, metadata["feature_dim"]),
        timestamp=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        sections={section: recipe[section] for section in SECTIONS},
        folds=run.recipe.splits.folds, counts=counts, looks=describe_looks(run),
        figures=figures, quarantine=quarantine.to_dict("records"),
        classes=run.load_table("classes").to_dict("records"),
        scores=metrics, **{key: metadata[key] for key in ("versions", "device")})
    with run.write("report") as path, write_whole(path) as temporary:
        temporary.write_text(page, "utf-8")
    return run.path("report")


def describe_method(recipe: Recipe, features: int) -> str:
    """Say what answered: the network, how it was trained, and the classifier if it was not."""
    network, settings = recipe.network, recipe.finetune
    weights = f"{network.backbone} with {network.weights.rsplit('/', 1)[-1]} weights"
    if network.strategy == "frozen":
        given = {"photo": "", "text": " on text", "both": " beside one on text"}
        return (f"{weights}, frozen; {TITLES[recipe.head.classifier]} on {features:,} features"
                f"{given[recipe.head.inputs]}")
    if network.strategy == "scratch":
        return f"{network.backbone} trained from random weights for {settings.epochs} epochs"
    return (f"{weights}, the upper {settings.unfreeze[-1]:.0%} of its layers fine-tuned for "
            f"{settings.epochs} epochs")


def refresh_report(run: Run) -> None:
    """Write the report again if there is one that fits: a picture in it has changed."""
    with suppress(SuiteError):  # 06 is to be run anyway
        run.need("report")
        write_report(run)
