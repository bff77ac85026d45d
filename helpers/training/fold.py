"""Fold: one network trained phase by phase, and what it answers."""

import contextlib
import copy
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from helpers.files import SuiteError, write_whole
from helpers.network.layers import Trunk, find_trunk, has_trained_norm, unfreeze_top
from helpers.processes import count_cores, gather, rank, wait_for_all, world
from helpers.training.activations import load_activations
from helpers.training.budget import measure_step, pays_to_compile
from helpers.training.loaders import ImageData, TrainingBatches, create_seed
from helpers.training.losses import FOCUS, Loss
from helpers.training.module import ClassifierModule, explain_failures
from helpers.training.networks import (
    answer_images,
    create_classifier,
    fit_start,
    start_classifier,
)
from helpers.training.phases import (
    choose_precision,
    find_rate,
    fit_phase,
    load_finished,
    read_tensors,
)
from helpers.training.plan import Plan

WORTH_A_TRIAL = 120  # seconds of training left: compiling, tried and done, takes about as long


def train_fold(plan: Plan, fold: int, place: Path) -> tuple[np.ndarray, object, list[dict]]:
    """Train the network of one fold, all phases, from where it was left.

    Args:
        place: a folder for its phases' weights and checkpoints.

    Returns:
        Probabilities of the fold's images and then of the unseen ones, float32; the network, on
        the CPU; and its log, a row an epoch.
    """
    network, log = begin_network(plan, fold), []
    taught = plan.teacher(fold) if plan.teacher else None
    shares, rate = plan.settings.unfreeze, plan.settings.learning_rate
    with torch.random.fork_rng():
        for phase in range(len(shares)):
            last, saved = phase == len(shares) - 1, place / f"phase_{phase}.pt"
            module, data, trunk = create_phase(plan, network, fold, phase, taught)
            with trunk.passed() if trunk else contextlib.nullcontext():
                if saved.exists():
                    kept = read_tensors(saved, "network", "log", "rate")
                    network.load_state_dict(kept["network"])
                    log, rate = kept["log"], kept["rate"]
                else:
                    rate = rate or find_rate(module, data, place)
                    module.rate = rate * plan.settings.phase_decay**phase
                    own = place / f"phase_{phase}"
                    averaging = plan.settings.averaging if last else "none"
                    if not load_finished(module, own, averaging):
                        with explain_failures(plan.settings):
                            _compile_if_it_pays(module, data)
                        title = f"fold {fold}" + (f", phase {phase}" if len(shares) > 1 else "")
                        fit_phase(module, data, own, plan.folder, title, averaging,
                                  plan.watched, plan.quiet)
                    log = log + [{"phase": phase, **row} for row in module.log_rows]
                    if rank() == 0:
                        with write_whole(saved) as temporary:
                            torch.save({"network": network.state_dict(), "log": log,
                                        "rate": rate}, temporary)
                    wait_for_all()
                if last:
                    answers = _answer(module, data)
    return answers, network.cpu(), log


def begin_network(plan: Plan, fold: int):
    """Return a fold's network as it is before the first step."""
    network = create_classifier(plan.recipe, len(plan.classes), plan.settings.dropout)
    if plan.settings.head_start == "logistic":
        key = fold, plan.settings.weighted_loss, plan.settings.keep_epoch
        if key not in plan.kept:
            part, inner, _ = plan.part(fold)
            plan.kept[key] = fit_start(plan.recipe, plan.features, plan.codes, part, inner,
                                       len(plan.classes))
        start_classifier(network, plan.kept[key])
    if plan.settings.checkpointing:
        try:
            network.set_grad_checkpointing(True)
        except (AssertionError, AttributeError) as error:
            raise SuiteError(f"{plan.recipe.network.backbone} has no gradient checkpointing: set "
                             "`checkpointing: false`.") from error
    return network


def create_phase(plan: Plan, network, fold: int, phase: int, taught: np.ndarray | None = None
                 ) -> tuple[ClassifierModule, ImageData, Trunk | None]:
    """Freeze and unfreeze a network for one phase, and make what trains it.

    Returns:
        The module, its data, and the trunk if its activations are what the data holds.

    Raises:
        SuiteError: a batch of one for a BatchNorm, or fewer images than processes.
    """
    settings = plan.settings
    unfreeze_top(network, settings.unfreeze[phase])
    part, inner, judged = plan.part(fold)
    learnt = np.setdiff1d(part, inner) if settings.keep_epoch == "best" else part
    if settings.train_batch < 2 * world() and has_trained_norm(network):
        raise SuiteError(
            f"`train_batch: {settings.train_batch}` leaves each of {world()} processes a single "
            "image a step, and BatchNorm cannot be trained on one: raise it.")
    if plan.watched and settings.keep_epoch == "last":
        inner = judged  # in its place in the log; nothing is chosen
    trunk, activations = _keep_activations(plan, network)
    if not trunk:
        plan.images.keep(count_cores(), progress=not plan.quiet)
    seed = create_seed(plan.seed, fold, phase)
    data = ImageData(plan.images, plan.codes, learnt, inner, judged,
                     np.arange(len(plan.rows), len(plan.codes)), settings.train_batch,
                     settings.sampler, seed, plan.levels, activations, plan.workers)
    steps = len(TrainingBatches(learnt, settings.train_batch, seed))
    module = ClassifierModule(
        network, plan.data_config, create_loss(plan, learnt), settings,
        settings.learning_rate or 0.0, plan.split_epochs()[phase], steps, seed, taught,
        len(plan.codes), trunk)
    return module, data, trunk


def _keep_activations(plan: Plan, network) -> tuple[Trunk | None, np.ndarray | None]:
    """Return the frozen lower part of a network and its activations, if they can be kept."""
    mixed = plan.settings.mixup or plan.settings.cutmix
    if plan.levels is not None or mixed or not plan.settings.keep_activations:
        return None, None
    trunk = find_trunk(network, tuple(plan.data_config["input_size"]))
    if not trunk:
        return None, None
    if trunk.boundary not in plan.kept:
        every = pd.concat([plan.rows, plan.unseen], ignore_index=True)
        plan.kept[trunk.boundary] = load_activations(  # the engine owns what it is given
            copy.deepcopy(trunk), plan.images, every, plan.recipe, plan.measured, plan.folder,
            not plan.quiet)
    activations = plan.kept[trunk.boundary]
    return (None, None) if activations is None else (trunk, activations)


def create_loss(plan: Plan, learnt: np.ndarray) -> Loss:
    """Return the loss that the settings ask for; its weights are those of what is learnt from.

    A class that is not among them weighs nothing.
    """
    counts = np.bincount(plan.codes[learnt], minlength=len(plan.classes))
    met, weights, offset = counts > 0, np.ones(len(counts)), np.zeros(len(counts))
    if plan.settings.weighted_loss:
        weights = np.where(met, len(learnt) / (met.sum() * np.maximum(counts, 1)), 0.0)
    if plan.settings.loss == "balanced_softmax":
        offset = np.log(np.maximum(counts, 1) / len(learnt))
    values = [torch.tensor(value, dtype=torch.float32) for value in (weights, offset)]
    return Loss(*values, FOCUS if plan.settings.loss == "focal" else 0.0,
                plan.settings.label_smoothing)


def _compile_if_it_pays(module: ClassifierModule, data: ImageData) -> None:
    """Compile the network if the recipe says so, or a trial on this GPU does."""
    wanted = module.settings.compile
    if wanted == "on":
        module.network.compile()
    if wanted != "auto" or not torch.cuda.is_available():
        return
    precision, start = choose_precision(module.settings), time.perf_counter()
    step, _ = measure_step(module, data, precision)
    between = time.perf_counter()
    if gather(step)[0] * module.epochs * module.steps < WORTH_A_TRIAL:
        return
    compiled, _ = measure_step(module, data, precision, compiled=True)
    spent = time.perf_counter() - between - (between - start)
    pays = pays_to_compile(step, compiled, spent, module.epochs * module.steps)
    if gather(pays)[0]:  # all processes do the same
        module.network.compile()


def _answer(module: ClassifierModule, data: ImageData) -> np.ndarray:
    """Return what the network answers for the fold's images and then the unseen ones."""
    gpu = torch.cuda.is_available()
    module.to(torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if gpu else "cpu")
    if not len(data.judged) + len(data.asked):  # trained on all there is
        return np.empty((0, 0), np.float32)
    # In the order of positions: the table holds training images first.
    return answer_images(module.network, module.prepare, data.predict_dataloader(),
                         len(data.judged) + len(data.asked))
