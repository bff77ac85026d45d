# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,cellView,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,accelerator,colab,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 09 · A lab for fine-tuning
#
# Guides to fine-tuning list a dozen techniques: unfreeze step by step, let the learning rate
# fall, smooth the labels, mix images, average weights, learn from a teacher. What is each of
# them worth on *your* images? Here every one is added to the same plain baseline, alone, on
# the same folds, and trained twice with different seeds, so that the luck of training shows.
#
# **You will be able to** write the core of each technique in a few lines of PyTorch, and say
# which of them made a difference that is more than luck.
#
# **You need** labels and folds from 02. You should have read 04 and 08.
# **You get** scores of every technique beside the baseline, with paired intervals.
# **It takes** about a quarter of an hour on two cores for the demo. Whatever is finished is
# kept.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | the baseline: a network whose upper layers are trained | `lab/` |
# | 2 | one training loop by hand | |
# | 3 | the techniques in a few lines each | `figures/09_mixed.jpg` |
# | 4 | all of them on the same folds and seeds | `lab/experiments/` |
# | 5 | scores, paired differences, luck | `experiments.csv`, `figures/09_experiments.png` |
# | 6 | learning curves | `experiment_log.csv`, `figures/09_curves.png` |

# %% [markdown]
# ## Setup
#
# Run this cell first, here and in Colab; running it again does no harm.

# %% cellView="form"
# @title Setup { display-mode: "form" }
# @markdown Colab only: the address of the suite, and a folder in My Drive for results.
repository = ""  # @param {type:"string"}
drive_folder = ""  # @param {type:"string"}
import os
import subprocess
import sys
from pathlib import Path

places = [Path.cwd(), *Path.cwd().parents, Path.cwd() / "suite"]
home = next((p for p in places if (p / "helpers" / "colab.py").exists()), None)
if home is None:
    home = Path.cwd() / "suite"
    clone = ["git", "clone", "--quiet", "--depth", "1", repository, str(home)]
    if not repository or subprocess.run(clone).returncode:
        raise FileNotFoundError("No suite here: set `repository` above to its address.")
os.chdir(home)
sys.path[:] = [str(home), *(path for path in sys.path if path != str(home))]
from helpers.colab import prepare

prepare(drive_folder)

# %% [markdown]
# ## Parameters
#
# `recipe` names a folder under `data/`; `overrides` replaces some of its settings, for
# example `{"folds": 10}`.

# %% tags=["parameters"]
recipe = "demo"
overrides = {}

# %% [markdown]
# ## Open the run
#
# This notebook is optional: `make run` leaves it out, and
# `python -m helpers.batch --from 09` runs it.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)

# %% [markdown]
# ## 1 · The baseline
#
# So that many trainings fit into minutes, the lab uses small inputs (`experiment_size`), few
# epochs (`experiment_epochs`) and at most `experiment_images` photos. Raise them for more
# certain answers. A *plan* holds what all trainings share: images, folds, frozen features.

# %%
from helpers.evaluation.experiments import open_lab

plan = open_lab(run)
settings, classes = plan.settings, plan.classes
print(f"{len(plan.rows)} photos of {plan.data_config['input_size'][1:]} pixels, "
      f"{len(classes)} classes, {len(set(plan.folds))} folds, {settings.epochs} epochs")

# %% [markdown]
# A network is a stack of layers. The lower ones see edges and textures, which are much the
# same in all photos; the upper ones respond to patterns that separate ImageNet's 1,000
# classes. With few photos it is wise to train the upper ones only. The baseline trains a
# share of the layers (`experiment_layers`) and the classifier on top.

# %%
from helpers.network.layers import group_layers, unfreeze_top
from helpers.training.fold import begin_network

network = begin_network(plan, fold=0)
count = unfreeze_top(network, settings.unfreeze[0])
trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
print(f"{count} of {len(group_layers(network))} layers are trained, {trained:,} of "
      f"{sum(p.numel() for p in network.parameters()):,} parameters")

# %% [markdown]
# The upper layers are the widest, so that few layers hold many parameters. All other
# parameters have `requires_grad` off, and stay as they are. The classifier begins as the
# logistic regression of 04, fitted on the frozen features of the same training part: a new
# one would begin at random, and its first, large gradients would disturb the layers below
# it.
#
# ## 2 · One training loop by hand
#
# This is all that training is: a batch of photos, the loss, its gradients, a step. First the
# data of fold 0 and the optimiser.

# %%
import torch

from helpers.training.fold import create_phase

torch.manual_seed(run.recipe.splits.seed)
module, data, trunk = create_phase(plan.change(keep_activations=False), network, 0, 0)
optimizer = torch.optim.AdamW(
    [p for p in network.parameters() if p.requires_grad], lr=settings.learning_rate)
print(f"learns from {len(data.learnt)} photos, judged on {len(data.judged)} others")

# %% [markdown]
# Unlike PyTorch's own, this module's `train()` keeps frozen layers in evaluation mode.
# Otherwise their BatchNorm would normalise by the batch and overwrite its ImageNet
# statistics, although its weights are frozen. Each class counts the same, as in 04
# (`weighted_loss`).

# %%
loader = data.train_dataloader()
for epoch in range(2):
    module.train()
    loader.sampler.set_epoch(epoch)  # another order
    for images, codes, _ in loader:
        loss = torch.nn.functional.cross_entropy(
            module(images), codes, module.loss.weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    module.eval()
    with torch.inference_mode():
        right = sum((module(images).argmax(dim=1) == codes).sum().item()
                    for images, codes, _ in data.test_dataloader())
    print(f"epoch {epoch + 1}: last loss {loss:.3f}, "
          f"{right / len(data.judged):.1%} right in fold 0")

# %% [markdown]
# Looking at fold 0 after every epoch is fine as long as nothing is chosen by it. If you
# stop at the epoch that scores best on fold 0, fold 0 is no longer unseen;
# `keep_epoch: best` in a recipe chooses on a separate, inner fold.
#
# ## 3 · The techniques, a few lines each
#
# **Progressive unfreezing** trains the classifier first, then more layers with a lower
# rate, because lower layers know more that is worth keeping. *Layer decay* has a similar
# aim in a single phase: each layer's rate is that of the layer above it times a factor
# below 1.

# %%
for share, rate in ((0.0, 3e-4), (settings.unfreeze[0], 1e-4)):
    count = unfreeze_top(network, share)
    optimizer = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], lr=rate)
    print(f"phase with {count} layers, rate {rate}")

# %% [markdown]
# **Schedules** let the rate fall as training goes on: along a cosine, in steps, or when the
# loss stops falling. Here are three of PyTorch's, over 9 steps.

# %%
from torch.optim import lr_scheduler

schedules = {
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=9),
    "step": lambda o: lr_scheduler.StepLR(o, step_size=3, gamma=0.1),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.3, patience=1)}
for name, create in schedules.items():
    optimizer, rates = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), []
    schedule = create(optimizer)
    for _ in range(9):
        rates.append(f"{optimizer.param_groups[0]['lr']:.2g}")
        optimizer.step()
        schedule.step(*([1.0] if name == "plateau" else []))  # a loss that never falls
    print(f"{name}: {', '.join(rates)}")

# %% [markdown]
# **Label smoothing** spreads a tenth of each label evenly over all classes, which
# discourages overconfidence. **Dropout** hides features from the classifier at random. The
# **focal loss** gives less weight to photos that are classified well already.

# %%
images, codes, positions = next(iter(loader))
with torch.inference_mode():
    logits = module(images)
right = torch.softmax(logits, dim=1)[range(len(codes)), codes]
smooth = torch.nn.functional.cross_entropy(logits, codes, label_smoothing=0.1)
focal = ((1 - right) ** 2 * -right.log()).mean()
print(f"cross-entropy {-right.log().mean():.3f}, smoothed {smooth:.3f}, "
      f"focal {focal:.3f}")

# %% [markdown]
# All three are means over photos that the network has learnt from. Label smoothing keeps a
# loss from reaching zero; the focal loss gives well-classified photos almost no weight.
#
# **Augmentation** changes each photo at random every time it is used (02 shows the three
# levels LIGHT, MEDIUM and HEAVY). **Mixup** blends two photos and their labels; **CutMix**
# puts a part of one into the other and shares the label by area.

# %%
from torchvision.transforms import v2

pixels = images.permute(0, 3, 1, 2).float() / 255
one_hot = torch.nn.functional.one_hot(codes, len(classes)).float()
torch.manual_seed(run.recipe.splits.seed)
mixed = {name: mix(pixels, one_hot) for name, mix in (
    ("photos", lambda *pair: pair), ("Mixup", v2.MixUp(alpha=1.0)),
    ("CutMix", v2.CutMix(alpha=1.0)))}

# %% [markdown]
# Above each picture stand the classes and their shares, which are the target of the loss.
# Each photo is mixed with the one on its left, the first with the last of the batch. The
# lab mixes less: with `mixup: 0.2` most photos keep nearly all of themselves.

# %%
from helpers.pictures.charts import save_figure
from helpers.pictures.training import show_mixed

save_figure(run, show_mixed(mixed, classes), "09_mixed")

# %% [markdown]
# **Stochastic weight averaging** (SWA) keeps the mean of the weights after each of the last
# epochs, an **exponential moving average** (EMA) a mean in which recent steps count more.
# BatchNorm's statistics belong to the weights that they were measured with: the suite
# averages them, too.

# %%
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

swa = AveragedModel(network)
ema = AveragedModel(network, avg_fn=get_ema_avg_fn(decay=0.9))
for average in (swa, ema):
    average.update_parameters(network)  # after an epoch (SWA) or a step (EMA)

# %% [markdown]
# **Distillation** lets the network learn from a teacher: a larger network, whose
# probabilities say more than a label, for instance that this can looks a little like glass.
# The probabilities of teacher and student are softened by a temperature. **Hard example
# mining** gives photos with a large loss more weight, up to a cap, because mislabelled
# photos have a large loss, too.

# %%
from helpers.evaluation.experiments import open_lab_teacher

teacher = open_lab_teacher(run, plan)
taught = torch.from_numpy(teacher(0))[positions]
wanted = torch.softmax(taught.clamp_min(1e-8).log() / 2.0, dim=1)
distance = torch.nn.functional.kl_div(
    torch.log_softmax(logits / 2.0, dim=1), wanted, reduction="batchmean")
losses = torch.nn.functional.cross_entropy(logits, codes, reduction="none")
weights = (losses / losses.mean()).clamp(1.0, 2.0)
print(f"distance from the teacher {distance:.3f}, weights {weights.min():.1f} to "
      f"{weights.max():.1f}")

# %% [markdown]
# The teacher's model of a fold has not seen that fold's photos either. Otherwise knowledge
# of the photos that the student is judged on would leak to it.
#
# ## 4 · All of them
#
# Each experiment changes one technique, with the settings that go with it, and is trained
# on every fold with each seed. Unless photos are augmented or mixed, the outputs of the
# frozen layers are computed once, with the engine of 03, and shared. The seed changes the
# order of the photos, dropout and augmentation; the logistic regression that the classifier
# begins as is the same.

# %%
from helpers.evaluation.experiments import run_experiments

found = run_experiments(run, plan)

# %% [markdown]
# What does each of them change?

# %%
from helpers.evaluation.experiments import find_changes

for name in list(found)[1:]:
    changes = find_changes(plan, name)
    print(f"{name}: " + (", ".join(f"{key} {value}" for key, value in changes.items())
                         or "see the text"))

# %% [markdown]
# `frozen head` trains no layer at all: it is the classifier of 04 on the features of this
# size. `classifier only` trains that classifier's weights further, `new head` begins at
# random, and in `head first, then more` a new classifier has an epoch of its own at a
# higher rate before the layers below it follow. In `distillation` the teacher is the
# backbone `experiment_teacher`, at its own size.
#
# ## 5 · What is a difference worth?
#
# As in 08, photos are resampled with replacement, keeping groups together, and all
# experiments are scored on each resample. Differences are taken between runs with the same
# seed, then averaged over seeds.

# %%
from helpers.evaluation.experiments import tabulate_experiments

table = tabulate_experiments(run, found)
run.save("experiments", table)
scores = table.pivot(index="candidate", columns="score", values="value")
scores = scores.loc[list(found)]
scores.assign(seconds=table.groupby("candidate").seconds.first()).round(3)

# %% [markdown]
# `seconds` is what the training of all folds and seeds took. Before any conclusion, look at
# the luck: the same experiment, the same photos, another seed.

# %%
from helpers.evaluation.experiments import measure_luck

luck = measure_luck(found)
spread = (luck.max(axis=1) - luck.min(axis=1)).drop("frozen head", errors="ignore")
print(f"accuracy differs between seeds by {100 * spread.mean():.1f} points on average, "
      f"by up to {100 * spread.max():.1f} points ({spread.idxmax()})")

# %% [markdown]
# A lead smaller than this in a single run is no evidence, and two seeds show only roughly
# how far chance reaches. In the figure, short vertical ticks mark the seeds; ticks on both
# sides of the line mean that even the sign depends on the seed.

# %%
from helpers.pictures.comparisons import plot_differences

save_figure(run, plot_differences(table), "09_experiments")

# %% [markdown]
# Points to the right of the line are better than the baseline, except for log loss, where
# left is better. Grey means that the interval contains 0; filled points have passed Holm's
# correction for the number of experiments (08 explains it).

# %%
from helpers.evaluation.compare import describe_difference

macro = table[(table.score == "macro F1") & (table.candidate != "baseline")]
for _, row in macro.sort_values("difference", ascending=False).iterrows():
    print(describe_difference(row.candidate, row.score, row))

# %% [markdown]
# This list is before Holm's correction. With few epochs the baseline's loss is still
# falling, so whatever slows learning down (a falling rate, dropout, mixed photos) looks
# worse than it would with thirty; `plateau` waits for two epochs without progress, so in
# three it does nothing.
#
# The intervals reflect the choice of photos scored, the ticks the choice of seed. Neither
# reflects other photos to learn from, or other settings: with more epochs, a larger input
# or another rate, the order may well change.
#
# ## 6 · Learning curves
#
# Each panel shows the log loss of the fold that is left out, epoch by epoch. If it rises
# while the training loss still falls, the network is probably *overfitting*: it memorises
# the training photos. With a very small rate, drifting BatchNorm statistics can look the
# same.

# %%
from helpers.evaluation.experiments import join_logs
from helpers.pictures.training import plot_learning_curves

log = join_logs(found)
run.save("experiment_log", log)
save_figure(run, plot_learning_curves(log), "09_curves")

# %% [markdown]
# Dashed lines of smoothed, focal, balanced-softmax and mixed losses are on scales of their
# own, and may leave their panel; solid lines always show the same log loss. The training
# loss is a mean over the epoch, with dropout and augmentation; the solid one is measured
# after it. That is why the dashed line often begins above the solid one.
#
# ## What we saw

# %%
passed = table[table.p_holm < 0.05]
print(f"- baseline: macro F1 {scores['macro F1']['baseline']:.3f}, log loss "
      f"{scores['log loss']['baseline']:.3f}")
for score in ("macro F1", "accuracy", "log loss"):
    left = passed[passed.score == score]
    sign = -1 if score == "log loss" else 1
    better, worse = left[sign * left.difference > 0], left[sign * left.difference < 0]
    print(f"- {score}, after Holm: better {', '.join(better.candidate) or 'none'}; "
          f"worse {', '.join(worse.candidate) or 'none'}")

# %% [markdown]
# If you see no difference, leave the technique out: it costs time and adds a setting. To
# use one that helped, put it into the recipe. This command only shows how; 04 does the rest:
# `make run SET="strategy=finetune hard_examples=2.0 run=demo-tuned"`.

# %%
run.finish("09_fine_tuning_lab")

# %% [markdown]
# ## Try it
#
# Fill in the blanks (`___`), remove the `#` and run. Solutions are in
# [solutions.ipynb](solutions.ipynb).
#
# **1.** Is the frozen head worse than the network in log loss? Report the difference with
# its interval.

# %%
# row = table[(table.candidate == "___") & (table.score == "log loss")].iloc[0]
# print(describe_difference(row.candidate, row.score, row))

# %% [markdown]
# **2.** Average the predictions of both seeds, then those of three experiments. How much
# does an ensemble gain?

# %%
# import numpy as np
#
# tables = [answer for name in ("baseline", "dropout", "cosine") if name in found
#           for answer in found[name].answers]
# for count in (1, 2, len(tables)):
#     mean = sum(t.filter(regex="^p_").to_numpy() for t in tables[:___]) / count
#     right = np.array(classes)[mean.argmax(axis=1)] == tables[0].label
#     print(f"{count} networks: {right.mean():.1%} right")

# %% [markdown]
# Next: [10 · How large should images be?](10_resize_curve.ipynb).
