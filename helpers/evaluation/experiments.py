"""Experiments: techniques of training, one at a time, beside one baseline on the same folds (09).

Each is trained with several seeds, so that the luck of training shows beside that of the images.
What is finished is kept in the run's `lab/`, so that an interrupted lab continues.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.data.splits import sample_rows, select_rows
from helpers.evaluation.backbone_costs import find_weights
from helpers.evaluation.baselines import open_part
from helpers.evaluation.compare import COMPARED, correct_table, subtract_scores
from helpers.evaluation.intervals import resample_scores
from helpers.features.extraction import extract_run
from helpers.files import load_json, make_folder
from helpers.run import Run
from helpers.training.crossvalidation import (
    cross_validate,
    tabulate_probabilities,
    train_heads,
)
from helpers.training.distillation import Teacher, load_teacher
from helpers.training.finetuning import answer_training_images, cross_validate_networks
from helpers.training.heads import create_head
from helpers.training.plan import Plan, create_plan

BASELINE = "baseline"
PLAIN = {  # the baseline: nothing but a few layers and a rate
    "strategy": "finetune", "augmentation": "none", "schedule": "constant", "dropout": 0.0,
    "layer_decay": 1.0, "learning_rate": 3e-4, "weight_decay": 0.01, "optimizer": "adamw",
    "head_start": "logistic", "loss": "cross_entropy", "weighted_loss": True,
    "sampler": "shuffle", "label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0,
    "averaging": "none", "teacher": None, "hard_examples": 1.0, "patience": None,
    "keep_epoch": "last", "minutes": None, "accumulate": 1, "train_batch": 32,
    "phase_decay": 0.3, "keep_activations": True}
FROZEN, DISTILLATION = "frozen head", "distillation"
CHANGES = {  # name -> what it changes; `layers` stands for the baseline's share of layers
    FROZEN: {},
    "classifier only": {"unfreeze": [0.0]},
    "more layers": {"unfreeze": ["3 x layers"]},
    "head first, then more": {"unfreeze": [0.0, "layers"], "head_start": "new",
                              "learning_rate": 1e-3},  # the layers follow at the baseline's
    "new head": {"head_start": "new"},
    "dropout": {"dropout": 0.5},
    "layer decay": {"layer_decay": 0.7},
    "SGD": {"optimizer": "sgd", "learning_rate": 0.01},
    "cosine": {"schedule": "cosine"},
    "step": {"schedule": "step"},
    "plateau": {"schedule": "plateau"},
    "label smoothing": {"label_smoothing": 0.1},
    "focal loss": {"loss": "focal"},
    "balanced softmax": {"loss": "balanced_softmax", "weighted_loss": False},
    "no class weights": {"weighted_loss": False},
    "balanced sampler": {"sampler": "balanced", "weighted_loss": False},
    "hard examples": {"hard_examples": 2.0},
    "LIGHT": {"augmentation": "LIGHT"},
    "MEDIUM": {"augmentation": "MEDIUM"},
    "HEAVY": {"augmentation": "HEAVY"},
    "Mixup": {"mixup": 0.2},
    "CutMix": {"cutmix": 1.0},
    "SWA": {"averaging": "swa"},
    "EMA": {"averaging": "ema", "ema_decay": 0.9},
    DISTILLATION: {},
}


@dataclass(frozen=True)
class Experiment:
    """What one technique has answered, with each seed."""

    answers: list[pd.DataFrame]  # rows of `tabulate_probabilities`, a table a seed
    log: pd.DataFrame  # a row a seed, fold and epoch; none for the frozen head
    seconds: float  # in the training of all folds and seeds


def open_lab(run: Run) -> Plan:
    """Return the baseline's plan, with the features that its classifier begins on."""
    settings = run.recipe.evaluation
    rows = select_rows(run.load_table(), "train")
    chosen = sample_rows(rows, settings.experiment_images, run.recipe.splits.seed)
    rows = rows.iloc[chosen].reset_index(drop=True)
    size = settings.experiment_size or run.recipe.network.image_size
    part = open_part(run, "lab", rows, image_size=size, epochs=settings.experiment_epochs,
                     unfreeze=[settings.experiment_layers], **PLAIN)
    if not part.is_current("metadata"):
        extract_run(part, progress=False)
    return replace(create_plan(part, unseen=False), watched=True, quiet=True)


def find_changes(plan: Plan, name: str) -> dict:
    """Return the settings that an experiment changes."""
    share = plan.settings.unfreeze[0]
    meant = {"layers": share, "3 x layers": min(1.0, round(3 * share, 6))}
    changes = dict(CHANGES.get(name, {}))
    if "unfreeze" in changes:
        changes["unfreeze"] = [meant.get(value, value) for value in changes["unfreeze"]]
    return changes


def run_experiments(run: Run, plan: Plan) -> dict[str, Experiment]:
    """Train the baseline and every experiment of the recipe, on the same folds and seeds."""
    found, names = {}, [BASELINE, *run.recipe.evaluation.experiments]
    for name in (bar := tqdm(names, unit="experiment")):
        bar.set_postfix_str(name)
        found[name] = (answer_frozen(run, plan) if name == FROZEN
                       else run_experiment(run, plan, name))
    return found


def run_experiment(run: Run, plan: Plan, name: str) -> Experiment:
    """Train one of them with each seed, or read what it has left."""
    answers, logs = [], []
    teacher = open_lab_teacher(run, plan) if name == DISTILLATION else None
    for number in range(run.recipe.evaluation.experiment_seeds):
        own = plan.change(run.recipe.splits.seed + number, teacher, **find_changes(plan, name))
        if teacher:
            own.origin["teacher"] = run.recipe.evaluation.experiment_teacher or "own"
        place = make_folder(plan.folder / "experiments") / f"{name.replace(' ', '_')}-{number}"
        trained = cross_validate_networks(own, place, keep_networks=False)
        answers.append(tabulate_probabilities(own.rows, trained.probabilities, own.classes))
        logs.append(trained.log.assign(seed=number))
    log = pd.concat(logs, ignore_index=True)
    return Experiment(answers, log, float(log.seconds.sum()))


def answer_frozen(run: Run, plan: Plan) -> Experiment:
    """Return what the head of 04 answers on the frozen features, the same for every seed."""
    start = time.perf_counter()
    probabilities, _ = cross_validate(
        lambda: create_head(plan.recipe.head, len(plan.classes), run.recipe.splits.seed),
        plan.features, plan.codes[: len(plan.rows)], plan.folds, progress=False, keep=False)
    table = tabulate_probabilities(plan.rows, probabilities, plan.classes)
    count = run.recipe.evaluation.experiment_seeds
    return Experiment([table] * count, pd.DataFrame(), time.perf_counter() - start)


def open_lab_teacher(run: Run, plan: Plan) -> Teacher:
    """Train the teacher's head on its own frozen features, on the folds of the lab."""
    name = run.recipe.evaluation.experiment_teacher or run.recipe.network.backbone
    part = open_part(run, "lab/teacher", plan.rows, backbone=name, image_size=None,
                     weights=find_weights(run.recipe, name))
    if not part.is_current("head"):
        extract_run(part, progress=False)
        train_heads(part, progress=False)
    return load_teacher(part, plan.rows, plan.classes, answer_training_images)


def tabulate_experiments(run: Run, found: dict[str, Experiment]) -> pd.DataFrame:
    """Return every experiment's scores beside the baseline's, paired by image and seed.

    Each draw of groups scores all of them; a difference is the mean over seeds.

    Returns:
        A row an experiment and score: `value`, `difference` with `low`, `high`, `p` and `p_holm`
        (corrected for their number), the difference with each seed as `seed 0` and so on, and
        `seconds`.
    """
    _, first = next(iter(found.items()))
    classes = list(load_json(run.need("label_mapping")))
    # With fewer draws even a difference in all of them would not pass Holm's correction.
    draws = max(run.recipe.evaluation.bootstrap, 50 * len(found))
    tables = {(name, seed): answers for name, experiment in found.items()
              for seed, answers in enumerate(experiment.answers)}
    drawn = resample_scores(tables, classes, draws, run.recipe.splits.seed, COMPARED)
    seeds, rows = range(len(first.answers)), []
    for name, experiment in found.items():
        mean, base = ({score: np.mean([drawn[who, seed][score] for seed in seeds], axis=0)
                       for score in drawn[who, 0]} for who in (name, BASELINE))
        ahead = subtract_scores(mean, base)
        for score, row in ahead.iterrows():
            by_seed = {f"seed {seed}": float(drawn[name, seed][score][0]
                                             - drawn[BASELINE, seed][score][0]) for seed in seeds}
            rows.append({"candidate": name, "score": score, "value": float(mean[score][0]),
                         **row, **by_seed, "seconds": round(experiment.seconds, 1)})
    return correct_table(pd.DataFrame(rows), BASELINE)


def measure_luck(found: dict[str, Experiment]) -> pd.DataFrame:
    """Return accuracy of each experiment by seed: how far chance alone moves it.

    Returns:
        A row an experiment, a column a seed.
    """
    shares = {name: [float((table.prediction == table.label).mean())
                     for table in experiment.answers] for name, experiment in found.items()}
    return pd.DataFrame(shares).T.rename(columns="seed {}".format)


def join_logs(found: dict[str, Experiment]) -> pd.DataFrame:
    """Return the logs of all experiments that train a network, with `candidate`."""
    logs = [experiment.log.assign(candidate=name) for name, experiment in found.items()
            if len(experiment.log)]
    return pd.concat(logs, ignore_index=True)
