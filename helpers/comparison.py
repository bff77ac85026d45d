"""Comparison: what other backbones would cost, and score, on the run's own images.

Each backbone is built and run in a process of its own, so that its peak memory is its own and
one that is too large for the machine takes nobody along:

    python -m helpers.comparison outputs/demo/backbones/resnet18.task.json
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils.class_weight import compute_class_weight
from tqdm import tqdm

from helpers.backbones import WEIGHT_FILES, create_backbone
from helpers.batches import ImageRows
from helpers.engines import create_engine
from helpers.errors import SuiteError
from helpers.evaluation import count_confusion, score_with_intervals
from helpers.features import fingerprint_features, select_rows
from helpers.files import ROOT, load_json, make_folder, save_csv, save_json
from helpers.heads import tabulate_probabilities, train_folds
from helpers.progress import is_complete, load_progress
from helpers.recipe import Recipe
from helpers.run import Run
from helpers.streaming import stream_features

WEIGHTS = ROOT / "data" / "weights"  # where downloaded files are looked for
LAST_LINES = 1500  # characters of a failed process's output


def compare_backbones(run: Run) -> pd.DataFrame:
    """Measure the recipe's backbone and those of `compare` on the run's training images.

    What is already measured is kept, so an interrupted comparison continues.

    Returns:
        A row a backbone, best score first: `weights` (what was loaded), `parameters`,
        `features`, `images_per_second` (decoding included), `peak_memory_mb`, `file_mb`,
        out-of-fold `macro F1` with `low` and `high`, and `note`, why one has no score.

    Raises:
        SuiteError: none could be measured.
    """
    rows = sample_rows(select_rows(run.load_table(), "train"), run.recipe.compare_images)
    save_csv(rows, make_folder(run.folder / "backbones") / "rows.csv")
    names = list(dict.fromkeys([run.recipe.backbone, *run.recipe.compare]))
    found, hub = [], True
    for name in (bar := tqdm(names, unit="backbone")):
        bar.set_postfix_str(name)
        weights = find_weights(run.recipe, name)
        if weights == "pretrained" and not hub:
            weights = "random"
        facts, error = _measure(run, name, weights, rows)
        if weights == "pretrained" and "could not be downloaded" in error:
            hub, weights = False, "random"
            facts, error = _measure(run, name, weights, rows)
        found.append({"backbone": name, "weights": weights, "note": error} | facts)
    table = pd.DataFrame(found).set_index("backbone")
    if "macro F1" not in table:
        raise SuiteError(f"no backbone could be measured; {names[0]}: {table.note.iloc[0]}")
    return table.sort_values("macro F1", ascending=False)


def sample_rows(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return at most about `count` rows, every class and fold in its share and order."""
    if len(rows) <= count:
        return rows
    share = count / len(rows)
    chosen = [members.sample(max(1, round(share * len(members))), random_state=0)
              for _, members in rows.groupby(["label", "fold"])]
    return pd.concat(chosen).sort_index().reset_index(drop=True)


def find_weights(recipe: Recipe, backbone: str) -> str:
    """Return the weights to compare a backbone with: the recipe's, a file's, or pretrained."""
    if backbone == recipe.backbone or recipe.weights == "random":
        return recipe.weights
    files = [path for path in sorted(WEIGHTS.glob(f"{backbone}.*"))
             if path.suffix in WEIGHT_FILES]
    return str(files[0].relative_to(ROOT)) if files else "pretrained"


def _measure(run: Run, backbone: str, weights: str, rows: pd.DataFrame) -> tuple[dict, str]:
    """Return a backbone's facts and scores, or none and the reason."""
    folder = run.folder / "backbones"
    recipe = run.recipe.model_copy(update={"backbone": backbone, "weights": weights})
    task, target = folder / f"{backbone}.task.json", folder / f"{backbone}.npy"
    save_json({"recipe": recipe.model_dump(mode="json"), "measured": run.measured}, task)
    done = subprocess.run([sys.executable, "-m", "helpers.comparison", str(task)], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip()[-LAST_LINES:].splitlines() or [
            f"ended by signal {-done.returncode}; memory may have run out"]
        return {}, lines[-1].removeprefix("error: ")
    record = load_progress(target)
    facts = load_json(folder / f"{backbone}.facts.json") | {
        "images_per_second": round(record["computed"] / max(record["seconds"], 0.01), 1),
        "peak_memory_mb": record["peak_memory_mb"]}
    return facts | _score(run, rows, np.load(target, allow_pickle=False)), ""


def _score(run: Run, rows: pd.DataFrame, features: np.ndarray) -> dict:
    classes = list(load_json(run.need("label_mapping")))
    codes = rows.label.map(classes.index).to_numpy()
    weights = compute_class_weight("balanced", classes=np.arange(len(classes)), y=codes)
    probabilities, _, _ = train_folds(features, codes, rows.fold.to_numpy(), weights.tolist(),
                                      run.recipe.c_grid, progress=False)
    confusion = count_confusion(tabulate_probabilities(rows, probabilities, classes), classes)
    score = score_with_intervals(confusion, run.recipe.bootstrap, run.recipe.seed)
    macro = score.loc["macro F1"]
    return {"macro F1": macro.value, "low": macro.low, "high": macro.high}


def run_task(path: Path) -> None:
    """Extract the features of one backbone, as its task file says, and note its facts."""
    task = json.loads(path.read_text("utf-8"))
    recipe, name = Recipe(**task["recipe"]), path.name.removesuffix(".task.json")
    rows = pd.read_csv(path.with_name("rows.csv"), dtype=str, keep_default_na=False)
    target, facts = path.with_name(f"{name}.npy"), path.with_name(f"{name}.facts.json")
    model, data_config = create_backbone(recipe, task["measured"])
    fingerprint = fingerprint_features(Run(recipe, path.parent), rows, data_config)
    images = ImageRows(rows, data_config)
    if is_complete(target, fingerprint) and facts.exists():
        images.check(range(len(images.places)))
        return
    state = model.state_dict().values()
    engine = create_engine(model, data_config, recipe, rows.path.tolist())
    save_json({"parameters": sum(p.numel() for p in model.parameters()),
               "features": engine.width,
               "file_mb": round(sum(t.numel() * t.element_size() for t in state) / 1e6, 1)},
              facts)
    stream_features(engine, images, target, fingerprint)


if __name__ == "__main__":
    try:
        run_task(Path(sys.argv[1]))
    except SuiteError as error:
        sys.exit(f"error: {error}")
