"""Heads compared: which classifier and which remedy, on the same folds, beside one baseline (08).

What is finished is kept in the run's `heads/`, so that an interrupted comparison continues.
"""

import json
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.data.splits import sample_rows, select_rows
from helpers.evaluation.compare import COMPARED, correct_table, subtract_scores
from helpers.evaluation.intervals import find_interval, resample_scores
from helpers.features.store import load_codes, load_features
from helpers.files import hash_files, load_json, write_whole
from helpers.head_settings import REMEDIES, TITLES, HeadSettings
from helpers.run import Run
from helpers.training.crossvalidation import cross_validate, tabulate_probabilities
from helpers.training.fusion import PhotoAndText
from helpers.training.heads import create_model
from helpers.training.imbalance import describe_small_classes
from helpers.training.text import count_terms, load_texts
from helpers.versions import describe_versions


def list_candidates(run: Run) -> dict[str, HeadSettings]:
    """Return the settings of each head that is to be compared, the baseline first, by title."""
    own, found = run.recipe.head.model_dump(), {}
    names = run.recipe.evaluation.compare_heads
    for name in names:
        head, _, remedy = name.partition("+")
        title = TITLES[remedy or head]
        if remedy and head != names[0].partition("+")[0]:
            title = f"{title} ({TITLES[head]})"
        remedy = remedy or REMEDIES[0]
        found[title] = HeadSettings(**own | {"classifier": head, "imbalance": remedy,
                                             "inputs": "photo"})
    if run.recipe.head.text_columns:
        baseline = next(iter(found.values())).model_dump()
        found |= {TITLES[part]: HeadSettings(**baseline | {"inputs": part})
                  for part in ("text", "both")}
    return found


def answer_heads(run: Run) -> dict[str, pd.DataFrame]:
    """Return the out-of-fold answers of every candidate for the same images.

    At most `compare_heads_images` training images take part.

    Returns:
        Title -> rows of `tabulate_probabilities`, the baseline first; `attrs["seconds"]` says how
        long all folds took, the search for settings included.
    """
    rows = select_rows(run.load_table(), "train")
    limit, seed = run.recipe.evaluation.compare_heads_images, run.recipe.splits.seed
    chosen = sample_rows(rows, limit, seed)
    rows, codes = rows.iloc[chosen].reset_index(drop=True), load_codes(run)[chosen]
    classes = list(load_json(run.need("label_mapping")))
    candidates, inputs, answers = list_candidates(run), {}, {}
    if any(settings.imbalance == "smote" for settings in candidates.values()):
        print(describe_small_classes(rows) or "every class has enough images for SMOTE")
    made_from = {name: hash_files(run.need(name))[0]
                 for name in ("table", "train_features")}
    for title, settings in (bar := tqdm(candidates.items(), unit="head")):
        bar.set_postfix_str(title)
        note = {"made_from": made_from, "images": len(rows), "seed": seed,
                "settings": describe_candidate(settings), "versions": describe_versions()}
        path = run.folder / "heads" / f"{title.replace(' ', '_')}.npz"
        probabilities, seconds = _load_answers(path, note)
        if probabilities is None:
            for part in ("photo", "text"):
                if settings.inputs in (part, "both") and part not in inputs:
                    inputs[part] = _load_part(run, part, chosen)
            given = (PhotoAndText(inputs["photo"], inputs["text"])
                     if settings.inputs == "both" else inputs[settings.inputs])
            start = time.perf_counter()
            probabilities, _ = cross_validate(
                lambda s=settings: create_model(s, len(classes), seed), given, codes,
                rows.fold.to_numpy(), progress=False, keep=False)
            seconds = time.perf_counter() - start
            with write_whole(path) as temporary, temporary.open("wb") as stream:
                np.savez(stream, probabilities=probabilities, seconds=seconds,
                         note=np.array(json.dumps(note)))
        answers[title] = tabulate_probabilities(rows, probabilities, classes)
        answers[title].attrs["seconds"] = round(float(seconds), 1)
    return answers


def describe_candidate(settings: HeadSettings) -> dict:
    """Return the settings that a candidate heeds, as plain values."""
    heeded = {"classifier", "imbalance", "inputs"}
    heeded |= {"c_grid"} if settings.classifier == "logistic" else set()
    heeded |= {"text_columns"} if settings.inputs != "photo" else set()
    return settings.model_dump(mode="json", include=heeded)


def _load_part(run: Run, part: str, chosen: np.ndarray):
    """Return features, or counted terms, of the training images at some positions."""
    if part == "photo":
        return np.asarray(load_features(run, "train"))[chosen]
    return count_terms(load_texts(run, "train").iloc[chosen])


def _load_answers(path: Path, note: dict) -> tuple[np.ndarray | None, float]:
    """Return what an earlier comparison has kept, if it was made in the same way."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if json.loads(str(stored["note"])) == note:
                return stored["probabilities"], float(stored["seconds"])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        pass
    return None, 0.0


def tabulate_heads(run: Run,
                   answers: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return every candidate's scores, and its F1 of each class, beside the baseline's.

    Returns:
        A row a candidate and score: `seconds`, `value`, the paired `difference` from the baseline
        with `low` and `high`, `p`, and `p_holm`, corrected for the number of candidates. Then a
        row a candidate and class: `images`, `F1`, `difference`, `low`, `high`.
    """
    classes = list(load_json(run.need("label_mapping")))
    # With fewer draws even a difference in all of them would not pass Holm's correction.
    draws = max(run.recipe.evaluation.bootstrap, 50 * len(answers))
    drawn = resample_scores(answers, classes, draws, run.recipe.splits.seed, COMPARED,
                            by_class=True)
    baseline = next(iter(drawn))
    images = answers[baseline].label.value_counts().reindex(classes, fill_value=0)
    overall, by_class = [], []
    for name, scores in drawn.items():
        ahead = subtract_scores(scores, drawn[baseline])
        values = {score: float(scores[score][0]) for score in ahead.index}
        overall.append(ahead.rename_axis("score").reset_index().assign(
            candidate=name, seconds=answers[name].attrs["seconds"],
            value=list(values.values())))
        difference, *draws = scores["classes"] - drawn[baseline]["classes"]
        low, high = find_interval(np.array(draws))
        by_class.append(pd.DataFrame({
            "candidate": name, "class": classes, "images": images.to_numpy(),
            "F1": np.nan_to_num(scores["classes"][0]), "low": low, "high": high,
            "difference": np.nan_to_num(difference)}))
    table = correct_table(pd.concat(overall, ignore_index=True), baseline)
    columns = ["candidate", "score", "value", "difference", "low", "high", "p", "p_holm"]
    return table[[*columns, "seconds"]], pd.concat(by_class, ignore_index=True)
