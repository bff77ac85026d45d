"""Report: one self-contained HTML page of a run, pictures inside, nothing to download."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from helpers.files import load_json, write_whole
from helpers.run import Run


def write_report(run: Run) -> Path:
    """Write `report.html` from what the six notebooks left in the run's folder.

    Raises:
        SuiteError: a notebook before the evaluation has not been run.
    """
    metadata, metrics = load_json(run.need("metadata")), load_json(run.need("metrics"))
    quarantine = run.load_table("quarantine")
    counts = {
        "training images, in the folds": metadata["train_samples"],
        "hold-out images, scored once": metadata["holdout_samples"],
        "test images of the data set": metadata["test_samples"],
        "left out: copies of test images, small classes": metadata["excluded_samples"],
        "images set aside": len(quarantine),
        "classes": metadata["num_classes"],
    }
    # Results first, then the way to them.
    paths = sorted((run.folder / "figures").glob("[0-9][0-9]_*.png"),
                   key=lambda path: (path.stem[:2] != "06", path.stem))
    figures = {path.stem: base64.b64encode(path.read_bytes()).decode() for path in paths}
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                            undefined=StrictUndefined, trim_blocks=True)
    page = templates.get_template("report.html.j2").render(
        name=run.recipe.run_name, command=run.command, backbone=metadata["model"],
        weights=run.recipe.weights.rsplit("/", 1)[-1],
        timestamp=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        configuration=run.recipe.model_dump(mode="json"),
        folds=run.recipe.folds, counts=counts, figures=figures,
        quarantine=quarantine.to_dict("records"),
        classes=pd.read_csv(run.need("classes"), keep_default_na=False).to_dict("records"),
        scores=metrics, **{key: metadata[key] for key in ("feature_dim", "versions", "device")})
    with write_whole(run.path("report")) as temporary:
        temporary.write_text(page, "utf-8")
    return run.path("report")
