"""Backbone costs: what other backbones would cost, and score, on the run's own images.

Each backbone has a small run of its own below `backbones/`, worked on by a process of its own, so
that its peak memory is its own and one that is too large for the machine takes nobody along.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from helpers.colab import DRIVE_FOLDER
from helpers.command import report_errors
from helpers.data.splits import sample_rows, select_rows
from helpers.evaluation.baselines import open_part
from helpers.evaluation.compare import compare_scores
from helpers.evaluation.intervals import score_sets
from helpers.features.extraction import extract_run
from helpers.files import ROOT, SuiteError, load_json, save_json
from helpers.network.weights import PACKAGED, DownloadError
from helpers.run import Run
from helpers.settings import WEIGHT_FILES, Recipe
from helpers.steps import STEPS
from helpers.training.strategies import train_run

WEIGHTS = ROOT / "data" / "weights"  # where downloaded files are looked for
LAST_LINES = 1500  # characters of a failed process's output
NO_WEIGHTS = 3  # exit status of a process that could not download


def compare_backbones(run: Run) -> pd.DataFrame:
    """Measure the recipe's backbone and those of `compare` on the run's training images.

    What is already measured is kept, so an interrupted comparison continues.

    Returns:
        A row a backbone, best score first: `weights` (what was loaded), `parameters`,
        `features`, `images_per_second` (decoding included), `peak_memory_mb`, `file_mb`,
        out-of-fold `macro F1` with `low` and `high`, how far it is `behind` the best on the same
        images with `behind_low` and `behind_high`, and `note`, why one has no score.

    Raises:
        SuiteError: none could be measured.
    """
    rows = select_rows(run.load_table(), "train")
    rows = rows.iloc[sample_rows(rows, run.recipe.evaluation.compare_images,
                                 run.recipe.splits.seed)].reset_index(drop=True)
    own = run.recipe.network.backbone
    names = list(dict.fromkeys([own, *run.recipe.evaluation.compare]))
    found, offline = [], False
    for name in (bar := tqdm(names, unit="backbone")):
        bar.set_postfix_str(name)
        weights = find_weights(run.recipe, name)
        facts, error, status = _measure(run, name, weights, rows, offline)
        if status == NO_WEIGHTS:
            # The hub client tries for long; from now on it looks only at what is cached.
            weights, offline = "random", True
            facts, error, status = _measure(run, name, weights, rows, offline)
        found.append({"backbone": name, "weights": weights, "note": error} | facts)
    answers = {facts["backbone"]: facts.pop("oof") for facts in found if "oof" in facts}
    table = pd.DataFrame(found).set_index("backbone")
    if not answers:
        raise SuiteError(f"no backbone could be measured; {names[0]}: {table.note.iloc[0]}")
    table = table.sort_values("macro F1", ascending=False)
    best, classes = table.index[0], list(load_json(run.need("label_mapping")))
    for name, oof in answers.items():
        behind = compare_scores(answers[best], oof, classes, run.recipe.evaluation.bootstrap,
                                run.recipe.splits.seed).loc["macro F1"]
        table.loc[name, ["behind", "behind_low", "behind_high"]] = [
            behind.difference, behind.low, behind.high]
    return table


def find_weights(recipe: Recipe, backbone: str) -> str:
    """Return what to compare a backbone with: the recipe's, packaged, a file's, or pretrained."""
    if backbone == recipe.network.backbone or recipe.network.weights == "random":
        return recipe.network.weights
    if recipe.network.weights == "packaged" and backbone in PACKAGED:
        return "packaged"
    files = [path for path in sorted(WEIGHTS.glob(f"{backbone}.*"))
             if path.suffix in WEIGHT_FILES]
    return str(files[0].relative_to(ROOT)) if files else "pretrained"


def _measure(run: Run, backbone: str, weights: str, rows: pd.DataFrame,
             offline: bool) -> tuple[dict, str, int]:
    """Return a backbone's facts and scores, or none and the reason, and the exit status."""
    own = open_part(run, f"backbones/{backbone.replace('/', '_')}", rows, backbone=backbone,
                    weights=weights)
    folder = own.folder
    if not all(own.is_done(step) for step in STEPS[2:4]):
        save_json(own.recipe.model_dump(mode="json"), folder / "recipe.json")
        # Its shards would go to a folder of the backbone's name beside the runs on Drive.
        environment = {key: value for key, value in os.environ.items() if key != DRIVE_FOLDER}
        done = subprocess.run(
            [sys.executable, "-m", "helpers.evaluation.backbone_costs", str(folder)], cwd=ROOT,
            env=environment | ({"HF_HUB_OFFLINE": "1"} if offline else {}),
            capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip()[-LAST_LINES:].splitlines()
            reason = lines[-1].removeprefix("error: ") if done.returncode > 0 and lines else (
                f"ended by signal {-done.returncode}; memory may have run out")
            return {}, reason, done.returncode
    metadata = load_json(own.need("metadata"))
    facts = {name: metadata[name] for name in ("parameters", "images_per_second",
                                               "peak_memory_mb", "file_mb")}
    oof = own.load_table("oof_probabilities")
    macro = score_sets({"oof": oof}, list(load_json(own.need("label_mapping"))), own,
                       ["macro F1"])["oof"]
    macro = macro.loc["macro F1"]
    return facts | {"features": metadata["feature_dim"], "macro F1": macro.value,
                    "low": macro.low, "high": macro.high, "oof": oof}, "", 0


@report_errors
def main(folder: Path) -> int:
    """Extract and train in one backbone's folder, in this process; return the exit status."""
    try:
        own = Run(Recipe(**load_json(folder / "recipe.json")), folder)
        extract_run(own)
        train_run(own, progress=False)
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
        return NO_WEIGHTS
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
