"""Fine-tuning: the networks of a run's folds, trained, killed and continued.

    python -m helpers.training.finetuning --recipe vehicles --set strategy=finetune
    torchrun --nproc-per-node=4 -m helpers.training.finetuning --recipe vehicles --set ...

do what 04 does under `strategy: finetune` or `scratch`, but for its pictures. What is finished is
kept: folds whole, phases as weights, epochs as checkpoints, all below `models/` of the run.
"""

import gc
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from helpers.colab import remove_parts
from helpers.command import run_command
from helpers.files import SuiteError, hash_files, load_json, make_folder, save_json
from helpers.processes import gather, rank, run_processes, wait_for_all, world
from helpers.resuming import Shards
from helpers.run import Run
from helpers.training.budget import forecast_training
from helpers.training.crossvalidation import save_answers, train_heads
from helpers.training.distillation import load_teacher, open_teacher
from helpers.training.fold import begin_network, create_phase, train_fold
from helpers.training.loaders import ImageBatches, JudgedBatches
from helpers.training.module import ClassifierModule, explain_failures
from helpers.training.networks import (
    REFIT,
    answer_images,
    describe_classifier,
    load_network,
    save_network,
)
from helpers.training.plan import Plan, create_plan, require_photos

BUDGET = "budget.json"


@dataclass(frozen=True)
class Trained:
    """What the folds' networks leave."""

    probabilities: np.ndarray  # out-of-fold, (training images, classes) float32
    unseen: np.ndarray  # the mean of the folds' answers, (unseen images, classes) float32
    log: pd.DataFrame  # a row a fold, phase and epoch


def finetune_run(run: Run, progress: bool = True) -> None:
    """Write all that 04 leaves when networks are trained.

    The folds' heads on the frozen features as well: what training adds is measured against them.
    """
    require_photos(run)  # before hours go by
    if rank() == 0 and not run.is_current("head"):
        train_heads(run, progress)
    wait_for_all()
    trained = train_networks(run, progress)
    if rank() == 0:
        save_answers(run, trained.probabilities, trained.unseen)


def train_networks(run: Run, progress: bool = True) -> Trained:
    """Train the networks of all folds, or go on with them, and write what they leave.

    With several GPUs, or `processes`, torchrun starts a process for each.

    Raises:
        SuiteError: see `create_plan`, `create_phase`, `fit_phase` and `load_teacher`.
    """
    count = run.recipe.finetune.processes or torch.cuda.device_count() or 1
    if world() == 1 and count > 1:
        run_processes(count, "helpers.training.finetuning", run.options)
    plan, place = _plan_training(run, progress), run.path("networks")
    trained = cross_validate_networks(plan, place, forecast=True)
    if rank() == 0:
        with run.write("networks"):
            pass  # they are there
        run.save("training_log", trained.log)
    return trained


def _plan_training(run: Run, progress: bool) -> Plan:
    """Return the run's plan, with its teacher if it has one."""
    plan = replace(create_plan(run), quiet=not progress)
    name = plan.settings.teacher
    if name == run.folder.name:
        raise SuiteError(f"{name} cannot be its own teacher: training would replace it. Give "
                         "this run another name (`run`).")
    if name:
        teacher = open_teacher(name)
        models = "head" if teacher.recipe.network.strategy == "frozen" else "networks"
        answers = load_teacher(teacher, plan.rows, plan.classes, answer_training_images)
        plan = replace(plan, teacher=answers, origin=plan.origin | {
            "teacher": hash_files(teacher.need(models))[0]})
    return plan


def refit_network(run: Run, target: Path, progress: bool = True):
    """Train one more network, on all training images, and write it to `target`.

    As the folds' networks, but that no fold is left out; an inner fold still chooses the epoch
    under `keep_epoch: best`. What is finished is kept in `.refit/` of the run.

    Returns:
        The network, in evaluation mode, on the CPU.
    """
    plan = _plan_training(run, progress)
    every = int(plan.folds.max()) + 1  # a fold that no image is in
    if plan.teacher:
        folds, answers = range(every), plan.teacher
        plan = replace(plan, teacher=lambda _: np.mean([answers(f) for f in folds], axis=0))
    if (run.path("networks") / BUDGET).exists():  # as many epochs as the folds' networks had
        plan = _fit_budget(plan, run.path("networks"))
    origin = hashlib.sha256(json.dumps(plan.origin, sort_keys=True).encode()).hexdigest()[:16]
    place = run.folder / REFIT / origin
    _, network, _ = train_fold(plan, every, make_folder(place))
    description = describe_classifier(plan.recipe, plan.measured, plan.classes)
    save_network(network, description, target)
    return network.eval()


def cross_validate_networks(plan: Plan, place: Path, folds: Iterable[int] | None = None,
                            keep_networks: bool = True, forecast: bool = False) -> Trained:
    """Train one network a fold, and let it answer for the fold it never saw.

    Args:
        place: a folder of this training alone; what it holds of the same plan is kept.
        folds: train these alone; the images of all others get NaN.
        keep_networks: write each fold's network there as `fold_<n>.safetensors`.
        forecast: say what all of it will take before it starts; heed `minutes`.
    """
    count = int(plan.folds.max()) + 1
    wanted = list(range(count) if folds is None else folds)
    shards = Shards(place, plan.folder, count, json.loads(json.dumps(plan.origin)))
    shards.open()
    missing = sorted(set(wanted) - set(gather(shards.list_done())[0]))
    wait_for_all()  # all have looked
    if missing and forecast:
        with explain_failures(plan.settings):
            plan = _fit_budget(plan, place)
    for fold in sorted(set(wanted) - set(missing)):  # a kill may have left what it was saved from
        _remove_checkpoints(plan, place, fold)
    for fold in missing:
        answers, network, log = train_fold(plan, fold, make_folder(place / f"fold_{fold:02d}"))
        if rank() == 0:
            if keep_networks:
                description = describe_classifier(plan.recipe, plan.measured, plan.classes)
                save_network(network, description, _find_network(place, fold))
            judged = len(plan.part(fold)[2])
            shards.save(fold, judged=answers[:judged], unseen=answers[judged:],
                        log=np.array(json.dumps(log)))
            _remove_checkpoints(plan, place, fold)
        del network
        free_memory()
        wait_for_all()
    return _collect(plan, shards, wanted)


def _remove_checkpoints(plan: Plan, place: Path, fold: int) -> None:
    own = place / f"fold_{fold:02d}"
    if rank() == 0 and own.exists():
        shutil.rmtree(own)
        remove_parts(own, plan.folder)


def _fit_budget(plan: Plan, place: Path) -> Plan:
    """Say what the training will take; cut its epochs, once, if `minutes` says so."""
    record = place / BUDGET
    if not record.exists():
        network = begin_network(plan, 0)
        epochs, line = forecast_training(
            plan, lambda phase: create_phase(plan, network, 0, phase))
        if not plan.quiet:
            print(line)
        if rank() == 0:
            save_json({"epochs": epochs}, record)
        wait_for_all()
    epochs = load_json(record)["epochs"]
    if epochs == plan.settings.epochs:
        return plan
    return replace(plan, recipe=plan.recipe.change(epochs=epochs))


def _collect(plan: Plan, shards: Shards, folds: list[int]) -> Trained:
    probabilities = np.full((len(plan.rows), len(plan.classes)), np.nan, np.float32)
    unseen, logs = [], []
    for fold in folds:
        found = shards.load(fold)
        probabilities[plan.part(fold)[2]] = found["judged"]
        unseen.append(found["unseen"])
        logs.append(pd.DataFrame(json.loads(str(found["log"]))).assign(fold=fold))
    log = pd.concat(logs, ignore_index=True)
    return Trained(probabilities, np.mean(unseen, axis=0),
                   log[["fold", *(name for name in log if name != "fold")]])


def load_fold(run: Run, fold: int):
    """Return the trained network of one fold of a run, in evaluation mode."""
    classes = list(load_json(run.need("label_mapping")))
    description = describe_classifier(run.recipe, run.measured, classes)
    return load_network(_find_network(run.need("networks"), fold), run.recipe, description)


def answer_training_images(run: Run, fold: int) -> np.ndarray:
    """Return what one fold's network says of all training images, (images, classes) float32.

    Most of them it has learnt from: for a student of the same fold, not for a score.
    """
    plan = create_plan(run, unseen=False)
    network = load_fold(run, fold).to("cuda" if torch.cuda.is_available() else "cpu")
    module = ClassifierModule(network, plan.data_config, None, plan.settings, 0, 0, 0)
    batches = JudgedBatches(np.arange(len(plan.rows)))
    data = ImageBatches(plan.images, plan.codes)
    return answer_images(network, module.prepare, (data[request] for request in batches),
                         len(plan.rows))


def free_memory() -> None:
    """Give the memory of a finished fold back, that of a GPU as well."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _find_network(place: Path, fold: int) -> Path:
    return place / f"fold_{fold:02d}.safetensors"


def _train_and_finish(run: Run) -> None:
    if run.recipe.network.strategy == "frozen":
        raise SuiteError("`strategy: frozen` trains no network: add `--set strategy=finetune`.")
    finetune_run(run)
    if rank() == 0:
        run.finish("04_training")


if __name__ == "__main__":
    sys.exit(run_command("helpers.training.finetuning", "Train a recipe's networks.",
                         _train_and_finish))
