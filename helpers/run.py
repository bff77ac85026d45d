"""Run: a recipe and its folder under outputs/, with every artefact that the notebooks make."""

import contextlib
import json
import os
import shlex
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from helpers.colab import copy_results, fetch_results
from helpers.errors import SuiteError
from helpers.files import (
    ROOT,
    load_json,
    make_folder,
    resolve_path,
    save_json,
    show_path,
    write_whole,
)
from helpers.recipe import Recipe, load_recipe

# SUITE_OUTPUTS sends all runs to another disk.
OUTPUTS = resolve_path(os.environ.get("SUITE_OUTPUTS", ROOT / "outputs"))

NOTEBOOKS = ("01_eda", "02_preprocessing", "03_extraction", "04_training", "05_tsne",
             "06_evaluation", "07_backbones")
MAIN_LINE = NOTEBOOKS[:6]  # what `make run` runs; the others are asked for by number

# Artefact -> (file, the notebook that makes it). File names are the ones of the mission.
ARTEFACTS = {
    "images": ("images.csv", "01_eda"),
    "inspection": ("inspection.csv", "01_eda"),
    "quarantine": ("quarantine.csv", "01_eda"),
    "near_copies": ("near_copies.csv", "01_eda"),
    "normalisation": ("normalisation.json", "01_eda"),
    "label_mapping": ("label_mapping.json", "02_preprocessing"),
    "table": ("table.csv", "02_preprocessing"),
    "folds": ("folds", "02_preprocessing"),
    "checklist": ("checklist.json", "02_preprocessing"),
    "train_features": ("train_features_{backbone}.npy", "03_extraction"),
    "test_features": ("test_features_{backbone}.npy", "03_extraction"),
    "train_labels": ("train_labels.npy", "03_extraction"),
    "metadata": ("metadata.json", "03_extraction"),
    "head": ("head_{backbone}.npz", "04_training"),
    "oof_probabilities": ("oof_probabilities.csv", "04_training"),
    "test_probabilities": ("test_probabilities.csv", "04_training"),
    "tsne": ("tsne.csv", "05_tsne"),
    "metrics": ("metrics.json", "06_evaluation"),
    "confusion": ("confusion_matrix.csv", "06_evaluation"),
    "classes": ("per_class.csv", "06_evaluation"),
    "mistakes": ("mistakes.csv", "06_evaluation"),
    "predictions": ("predictions.csv", "06_evaluation"),
    "report": ("report.html", "06_evaluation"),
    "backbones": ("backbones.csv", "07_backbones"),
}

# Columns in which an empty field means that there is nothing; elsewhere it is an empty text.
NUMBERS_OR_LABELS = (
    "label", "width", "height", "grey", "brightness", "entropy", "blurriness",
    "blurriness_grayscale_std", *(f"brightness_perc_{p}" for p in (1, 5, 10, 15, 90, 95, 99)),
    *(f"{what}_{channel}" for what in ("mean", "square") for channel in "rgb"),
    "parameters", "features", "file_mb", "images_per_second", "peak_memory_mb", "macro F1",
    "low", "high")

_PACKAGES = ("torch", "torchvision", "timm", "openvino", "numpy", "pandas", "scikit-learn",
             "pillow", "simplejpeg")


@dataclass(frozen=True)
class Run:
    """A checked recipe and the folder that holds all it makes."""

    recipe: Recipe
    folder: Path
    command: str = ""  # what makes the run headless, to be shown
    _made: set[str] = field(default_factory=set, repr=False, compare=False)

    def path(self, artefact: str) -> Path:
        """Return where to write `artefact`, a key of ARTEFACTS."""
        self._made.add(artefact)
        return self._locate(artefact)

    def need(self, artefact: str) -> Path:
        """Return where to read `artefact`.

        Raises:
            SuiteError: it is missing, or was made with other settings; names its notebook.
        """
        path, notebook = self._locate(artefact), ARTEFACTS[artefact][1]
        if not path.exists():
            raise SuiteError(
                f"{show_path(path)} is missing: run {notebook} first (notebooks/{notebook}.ipynb"
                f", or `{self.command}`)."
            )
        changed = [] if artefact in self._made else self._compare_settings(notebook)
        if changed:
            raise SuiteError(
                f"{show_path(path)} was made with {', '.join(changed)}: run {notebook} again, "
                "or set `run` to keep both."
            )
        return path

    def _locate(self, artefact: str) -> Path:
        name, _ = ARTEFACTS[artefact]
        return self.folder / name.format(backbone=self.recipe.backbone.replace("/", "_"))

    @property
    def _settings(self) -> Path:
        return self.folder / "settings.json"

    def _compare_settings(self, notebook: str) -> list[str]:
        """Say which settings differ from those that `notebook` was last finished with."""
        made = load_json(self._settings) if self._settings.exists() else {}
        now, then = self.recipe.settings_until(notebook[:2]), made.get(notebook, {})
        return [f"{key}={then[key]} (now {now[key]})" for key in now
                if key in then and then[key] != now[key]]

    def load_table(self, artefact: str = "table"):
        """Return one of the run's CSV files as a DataFrame, ids and labels as text."""
        import pandas as pd

        text = dict.fromkeys(("image_id", "path", "label", "prediction", "reason",
                              "note", "productid"), str)
        # Only an empty field is missing: a class may well be called "NA" or "None".
        if self.recipe.group_column:
            text[self.recipe.group_column] = str
        empty = {name: [""] for name in NUMBERS_OR_LABELS}
        return pd.read_csv(self.need(artefact), dtype=text, keep_default_na=False,
                           na_values=empty, low_memory=False)

    @property
    def measured(self) -> dict | None:
        """Mean and deviation of the data set's own pixels, if 01 has measured them."""
        path = self._locate("normalisation")
        return load_json(path) if path.exists() else None

    def artefacts_of(self, notebook: str) -> list[Path]:
        """Return the paths of all that `notebook` makes."""
        return [self._locate(name) for name, (_, maker) in ARTEFACTS.items()
                if maker == notebook]

    def save_figure(self, figure, name: str):
        """Write a matplotlib figure to figures/`name`.png and return that picture to show."""
        from IPython.display import Image

        path = self.folder / "figures" / f"{name}.png"
        with write_whole(path) as temporary:
            figure.savefig(temporary)
        return Image(filename=str(path))

    def finish(self, notebook: str) -> None:
        """Say what `notebook` has made, note its settings, and copy it to Drive if one is set.

        Raises:
            SuiteError: one of its artefacts is missing.
        """
        missing = [path for path in self.artefacts_of(notebook) if not path.exists()]
        if missing:
            raise SuiteError(f"{notebook} has not made {show_path(missing[0])}: run all its "
                             "cells in order.")
        for path in self.artefacts_of(notebook):
            files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
            size = sum(f.stat().st_size for f in files) / 1024
            many = f" ({len(files)} files)" if path.is_dir() else ""
            print(f"{show_path(path)}{many}  {size:,.0f} KiB")
        made = load_json(self._settings) if self._settings.exists() else {}
        made[notebook] = self.recipe.settings_until(notebook[:2])
        save_json(made, self._settings)
        copy_results(self.folder)


def open_run(recipe: str, overrides: dict | None = None) -> Run:
    """Check a recipe, make its folder under outputs/ and say what is about to happen.

    Args:
        recipe: the name of a recipe under data/, or the path of a YAML file.
        overrides: settings that replace the recipe's; a JSON text is read as a dictionary,
            because that is how the command line of papermill hands one over.
    """
    if isinstance(overrides, str):
        try:
            overrides = json.loads(overrides)
        except ValueError:
            raise SuiteError(f"overrides is not a dictionary: {overrides!r}") from None
    checked = load_recipe(recipe, overrides)
    if checked.generate == "digits":
        from helpers.demo import write_demo

        write_demo(checked.data_folder)
    pairs = [f"{key}={value}" for key, value in (overrides or {}).items()]
    command = f"python -m helpers.batch --recipe {shlex.quote(show_path(recipe))}"
    command += f" --set {shlex.join(pairs)}" if pairs else ""
    run = Run(checked, make_folder(OUTPUTS / checked.run_name), command)
    if not any(run.folder.iterdir()):
        fetch_results(run.folder)
    changed = "".join(f", {pair}" for pair in pairs)
    print(f"recipe {checked.name}{changed}: {checked.source} in "
          f"{show_path(checked.data_folder)}, {checked.backbone} ({checked.weights} weights), "
          f"{checked.folds} folds")
    print(f"results go to {show_path(run.folder)}")
    return run


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and the packages that decide the numbers."""
    versions = {"python": python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):  # a GPU needs no OpenVINO
            versions[name] = version(name)
    return versions
