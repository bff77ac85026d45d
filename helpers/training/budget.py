"""Budget: what a training will take, tried on a few steps before it starts."""

import contextlib
import copy
import math
import time

import numpy as np
import torch

from helpers.features.forecast import format_minutes, measure_peak
from helpers.processes import gather, world
from helpers.training.loaders import ImageData
from helpers.training.module import ClassifierModule
from helpers.training.phases import choose_precision

WARM, TRIED = 1, 3  # steps


def measure_step(module: ClassifierModule, data: ImageData, precision: str,
                 compiled: bool = False) -> tuple[float, float]:
    """Return seconds of one training step and of loading its batch, medians of a few.

    A copy of the network learns; the module stays as it is.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trial = copy.deepcopy(module.network).to(device)
    trial.train()
    if compiled:  # a copy is not, even if the network is
        trial.compile()
    trained = [parameter for parameter in trial.parameters() if parameter.requires_grad]
    optimizer, batches = torch.optim.AdamW(trained, 1e-6), iter(data.train_dataloader())
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    stepping, loading = [], []
    for number in range(WARM + TRIED):
        start = time.perf_counter()
        try:
            inputs, codes, _ = next(batches)
        except StopIteration:  # very few images
            batches = iter(data.train_dataloader())
            inputs, codes, _ = next(batches)
        loading.append(time.perf_counter() - start)
        start = time.perf_counter()
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits = trial(module.prepare(inputs.to(device))).float()
            module.loss.measure(logits.cpu(), codes).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= WARM:
            stepping.append(time.perf_counter() - start)
    return float(np.median(stepping)), float(np.median(loading[-TRIED:]))


def forecast_training(plan, create_phase) -> tuple[int, str]:
    """Try the steps of each phase; return the epochs to train for, and what they will take.

    Args:
        plan: the `Plan`.
        create_phase: makes module and data of a phase, as `finetuning` does.

    Returns:
        Epochs, fewer than the recipe's where `minutes` allows no more, and a line to print.
    """
    precision, seconds, images, rates = choose_precision(plan.settings), [], 0, []
    for phase in range(len(plan.settings.unfreeze)):
        module, data, trunk = create_phase(phase)
        with trunk.passed() if trunk else contextlib.nullcontext():
            step, load = measure_step(module, data, precision)
        # Beside a GPU workers load while it computes.
        together = max(step, load / max(1, data.workers)) if data.workers else step + load
        images = len(data.learnt)
        seconds.append(together * module.steps)
        rates.append(plan.settings.train_batch / together)
    # All processes are to come to the same number of epochs.
    seconds = np.max(gather(seconds), axis=0)
    folds, epochs = int(plan.folds.max()) + 1, plan.split_epochs()
    whole = folds * float(np.dot(epochs, seconds)) / 60
    wanted, budget = plan.settings.epochs, plan.settings.minutes
    fitting = wanted
    if budget and whole > budget:
        fitting = max(len(epochs), math.floor(wanted * budget / whole))
    size = sum(tensor.numel() * tensor.element_size()
               for tensor in module.network.state_dict().values()) / 2**20
    line = (f"training {'/'.join(f'{rate:,.0f}' for rate in rates)} images/s in "
            f"{'float32' if precision == 'none' else precision}, {world()} "
            f"process{'es' if world() > 1 else ''}: {folds} folds x {wanted} epochs x "
            f"{images:,} images, about {format_minutes(whole)}; {measure_peak():,.0f} MiB of "
            f"memory, {folds * size:,.0f} MiB on the disk, {3 * size:,.0f} more for checkpoints")
    if fitting < wanted:
        line += (f"\n`minutes: {budget:g}`: {fitting} epochs in place of {wanted}, about "
                 f"{format_minutes(whole * fitting / wanted)}")
    return fitting, line


def pays_to_compile(step: float, compiled: float, spent: float, steps: int) -> bool:
    """Return whether compiling saves more seconds in the `steps` to come than it has taken."""
    return (step - compiled) * steps > spent
