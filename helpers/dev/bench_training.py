"""Bench of training: steps a second beside timm's own loop, and what each shortcut saves.

    python -m helpers.dev.bench_training                    tables, some minutes
    python -m helpers.dev.bench_training --only compile

The baseline is the loop of timm's train.py (`train_one_epoch`), written out: same network, start,
batches, optimiser and clipping, pixels decoded in memory for both, and none of the suite's
trainer around it. Every round measures all variants in this process, and ratios are taken within
a round: machines are noisy. An epoch before each measured one warms up.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter, dispatch_clip_grad

from helpers.data.demo import PHOTOS
from helpers.data.preparation import prepare_run
from helpers.features.extraction import extract_run
from helpers.processes import count_cores
from helpers.run import Run
from helpers.settings import Recipe
from helpers.training.fold import begin_network, create_phase, train_fold
from helpers.training.loaders import TrainingBatches
from helpers.training.phases import fit_phase
from helpers.training.plan import Plan, create_plan

ROUNDS, SIDE, BATCH, STEPS = 3, 128, 32, 6  # full batches: steps an epoch
RATE, CLIP, DECAY = 1e-4, 1.0, 0.01
WHOLE = {"unfreeze": [1.0], "head_start": "new", "layer_decay": 1.0, "dropout": 0.0, "epochs": 2,
         "schedule": "constant", "weighted_loss": False, "keep_activations": False}
VARIANTS = {"timm": "timm's loop", "ours": "the suite, float32",
            "bf16": "the suite, bf16 mixed precision", "compile": "the suite, torch.compile"}


def open_plan(place: Path) -> Plan:
    """Return a plan on the demo's photos, which lie decoded in memory; 01 to 03 are done."""
    recipe = Recipe(name="bench", data={"source": "folders", "path": PHOTOS}).change(
        backbone="tf_efficientnet_lite0", weights="packaged", image_size=SIDE,
        strategy="finetune", augmentation="none", train_batch=BATCH, clip=CLIP,
        weight_decay=DECAY, learning_rate=RATE, mixed_precision="none", compile="off")
    run = Run(recipe, place)
    prepare_run(run)
    extract_run(run)
    plan = replace(create_plan(run, unseen=False), quiet=True)
    plan.images.keep(count_cores(), progress=False)
    return plan


def time_timm(plan: Plan, epochs: int = 2) -> dict:
    """Train as timm's train.py does; return steps a second of the last epoch, and its loss."""
    network = begin_network(plan, 0).requires_grad_(True)
    network = network.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(network, opt="adamw", lr=RATE, weight_decay=DECAY)
    measure = torch.nn.CrossEntropyLoss()
    mean, spread = (255 * torch.tensor(plan.data_config[key]).view(1, 3, 1, 1)
                    for key in ("mean", "std"))
    pixels = torch.from_numpy(plan.images.read(np.arange(len(plan.rows))))
    pixels, codes = pixels.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(plan.codes)
    batches = TrainingBatches(plan.part(0)[0][: STEPS * BATCH], BATCH, plan.seed)
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        network.train()
        losses, start = AverageMeter(), time.perf_counter()
        for positions, _ in batches:
            inputs = pixels[positions].float().sub_(mean).div_(spread)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            loss = measure(network(inputs), codes[positions])
            losses.update(loss.item(), len(inputs))
            optimizer.zero_grad()
            loss.backward()
            dispatch_clip_grad(network.parameters(), value=CLIP, mode="norm")
            optimizer.step()
        rate = len(batches) / (time.perf_counter() - start)
    return {"rate": rate, "loss": losses.avg}


def time_ours(plan: Plan, place: Path, compiled: bool = False) -> dict:
    """Train a phase as the suite does; return the same, and its seconds before and after.

    The epoch before the last one bears the compilation and whatever else is done once.
    """
    network = begin_network(plan, 0)
    module, data, _ = create_phase(plan, network, 0, 0)
    data.learnt, module.steps = data.learnt[: STEPS * BATCH], STEPS
    if compiled:
        module.network.compile()
    start = time.perf_counter()
    fit_phase(module, data, Path(tempfile.mkdtemp(dir=place)), plan.folder, "", "none",
              quiet=True)
    spent = time.perf_counter() - start
    log = pd.DataFrame(module.log_rows)
    return {"rate": STEPS / log.seconds.iloc[-1], "loss": log.train_loss.iloc[-1],
            "first": log.seconds.iloc[0], "around": spent - log.seconds.sum()}


def bench_loop(plan: Plan, rounds: int, place: Path, variants: tuple[str, ...]) -> None:
    """Print steps a second of some variants; the first one is the baseline."""
    whole = plan.change(**WHOLE)
    ways = {"timm": lambda: time_timm(whole), "ours": lambda: time_ours(whole, place),
            "bf16": lambda: time_ours(whole.change(mixed_precision="bf16"), place),
            "compile": lambda: time_ours(whole, place, compiled=True)}
    found = [{name: ways[name]() for name in variants} for _ in range(rounds)]
    print(f"\n| all layers trained | steps/s | times {VARIANTS[variants[0]]} | loss of epoch 2 | "
          "seconds of epoch 1 | around the epochs |\n" + "|---" * 6 + "|")
    for name in variants:
        middle = pd.DataFrame([r[name] for r in found]).median()
        ratio = np.median([r[name]["rate"] / r[variants[0]]["rate"] for r in found])
        seconds = f"{middle['first']:.1f} | {middle.around:.1f}" if "first" in middle else " | "
        print(f"| {VARIANTS[name]} | {middle.rate:.2f} | {ratio:.2f} | {middle.loss:.4f} | "
              f"{seconds} |", flush=True)


def bench_activations(plan: Plan, rounds: int, place: Path) -> None:
    """Print training of the top layers with what is below computed once, and at each step."""
    plan = plan.change(unfreeze=[0.1], epochs=2)
    began = time.perf_counter()
    create_phase(plan, begin_network(plan, 0), 0, 0)  # computes the activations, and the start
    once = time.perf_counter() - began
    found, answers = [], {}
    for _ in range(rounds):
        found.append({})
        for kept in (False, True):
            folder = Path(tempfile.mkdtemp(dir=place))
            answers[kept], _, log = train_fold(plan.change(keep_activations=kept), 0, folder)
            found[-1][kept] = 60 / np.mean([row["seconds"] for row in log])
    print("\n| top 0.1 of the layers trained | epochs a minute | times the baseline |\n"
          "|---|---|---|")
    for kept, title in ((False, "all computed at each step"), (True, "activations kept")):
        ratio = np.median([r[kept] / r[False] for r in found])
        print(f"| {title} | {np.median([r[kept] for r in found]):.1f} | {ratio:.1f} |")
    difference = np.abs(answers[True] - answers[False]).max()
    print(f"\nActivations of {len(plan.rows)} images, computed once for all folds, and the "
          f"classifier's start: {once:.1f} s. Largest difference of the fold's probabilities "
          f"after 2 epochs: {difference:.1e} (at most 1e-4 is wanted).", flush=True)


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m helpers.dev.bench_training")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=("loop", "activations", "compile"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        plan = open_plan(place)
        print(f"\ntraining: tf_efficientnet_lite0, the demo's photos at {SIDE} x {SIDE}, batches "
              f"of {BATCH}, {torch.get_num_threads()} threads on {count_cores()} cores, medians "
              f"of {options.rounds} rounds", flush=True)
        if options.only in (None, "loop"):
            bench_loop(plan, options.rounds, place, ("timm", "ours", "bf16"))
        if options.only in (None, "activations"):
            bench_activations(plan, options.rounds, place)
        if options.only in (None, "compile"):
            bench_loop(plan, options.rounds, place, ("ours", "compile"))


if __name__ == "__main__":
    main()
