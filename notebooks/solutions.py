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
# # Solutions
#
# Answers to the exercises of notebooks 01 to 07, in their order. They read what the
# notebooks left in the run's folder, so run those first.
#
# **You need** a finished run (`make run`).
# **You get** one way to answer each exercise; yours may be better.
#
# | part | exercises |
# |---|---|
# | 01 | quarantine by reason, file sizes, the threshold |
# | 02 | the promise, ten folds, the other resize |
# | 03 | another photo, the nearest pair, another backbone |
# | 04 | training score, no class weights, a broken split |
# | 05 | perplexity, odd neighbours |
# | 06 | resamples, a confidence threshold, label errors |
# | 07 | score per megabyte, minutes for 100,000 images |
# | 08 | before and after Holm, two candidates directly, SMOTE before the split |

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
# Everything below reads this run.

# %%
import numpy as np
import pandas as pd
from helpers.run import open_run

run = open_run(recipe, overrides)
table, settings = run.load_table(), run.recipe.splits

# %% [markdown]
# ## 01 · Look at the data first
#
# **1.** Reasons by split: a cross table of the quarantine.

# %%
quarantine = run.load_table("quarantine")
pd.crosstab(quarantine.reason, quarantine.split)

# %% [markdown]
# Empty and truncated files usually come from downloads that broke off.
#
# **2.** The median file size of each class, in KiB.

# %%
images = run.load_table("images")
(images.groupby("label").bytes.median() / 1024).round(1)

# %% [markdown]
# Pictures with more detail compress less. A model that sees pixels cannot read file sizes,
# but strong compression leaves marks that it can see.
#
# ## 02 · Prepare the data
#
# **1.** The two files of a fold must not share a group, and so no image either.

# %%
folder = run.need("folds")
for fold in range(settings.folds):
    train, test = (set(pd.read_csv(folder / f"fold_{fold:02d}_{part}.csv").group)
                   for part in ("train", "test"))
    print(f"fold {fold}: {len(train & test)} groups are in both")

# %% [markdown]
# None is shared, and each image is judged in exactly one fold.
#
# **2.** Ten folds, dealt from the same images.

# %%
from helpers.data.splits import assign_splits, count_folds

smallest = count_folds(table).sum(axis=1).idxmin()
back = table.assign(split=table.split.replace("holdout", "train"))
ten = assign_splits(back, settings.holdout, 10, settings.seed)
count_folds(ten).loc[smallest]

# %% [markdown]
# With one or two images in each fold, a score per fold would jump between 0 and 1 for this
# class; ours is computed over all folds together and does not. The choice of C, which is
# judged on one inner fold, is what gets shakier.
#
# **3.** `squash` keeps the whole photo and changes its shape; `center` keeps the shape
# and cuts off a border, and both ends of the longer side. These are the same photos as
# in 02.

# %%
from helpers.network.preprocessing import resolve_data_config
from helpers.pictures.charts import save_figure
from helpers.pictures.galleries import show_preprocessing

labelled = table[table.split == "train"]
other = resolve_data_config(run.recipe.change(resize="squash"))
pictures = show_preprocessing(labelled, other, seed=settings.seed)
save_figure(run, pictures, "solutions_resize")

# %% [markdown]
# Which is better is a question for the folds: run both and look at the paired difference.
#
# **4.** Twice the photos, each with an augmented copy of itself; the same classifier, with
# folds that know nothing of copies, and with folds that keep them together: accuracy.

# %%
import random

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (StratifiedGroupKFold, StratifiedKFold,
                                     cross_val_score)

from helpers.data.alterations import augment
from helpers.data.images import decode_image
from helpers.network.backbones import create_backbone
from helpers.network.preprocessing import create_preprocessing

some = labelled.groupby("label").head(25)
network, config = create_backbone(run.recipe)
photos = [decode_image(path) for path in some.path]
photos += [augment(photo, random.Random(seed)) for seed, photo in enumerate(photos)]
with torch.inference_mode():
    x = network(torch.stack(list(map(create_preprocessing(config), photos)))).numpy()
y, groups = np.tile(some.label, 2), np.tile(np.arange(len(some)), 2)
model = LogisticRegression(max_iter=1000)
how = {"shuffle": True, "random_state": 0}
torn = cross_val_score(model, x, y, cv=StratifiedKFold(5, **how))
kept = cross_val_score(model, x, y, groups=groups, cv=StratifiedGroupKFold(5, **how))
print(f"torn apart: {torn.mean():.3f}, kept together: {kept.mean():.3f}")

# %% [markdown]
# The higher number is not a better model. It knows the photos that it is asked about, and
# on new ones it will do no better than the lower number says.
#
# ## 03 · Extract features
#
# **1.** The three best ImageNet classes for another photo, and the photo.

# %%
from timm.data import ImageNetInfo

from helpers.data.splits import select_rows
from helpers.network.backbones import create_network
from helpers.pictures.galleries import show_photos

rows, names = select_rows(table, "train"), ImageNetInfo()
network = create_network(run.recipe)
data_config = resolve_data_config(run.recipe, run.measured)
batch = create_preprocessing(data_config)(decode_image(rows.path[7])).unsqueeze(0)
with torch.inference_mode():
    best = network(batch).softmax(dim=1)[0].topk(3)
print([names.index_to_description(number.item()) for number in best.indices])
save_figure(run, show_photos([rows.path[7]], [rows.label[7]]), "solutions_photo")

# %% [markdown]
# The names come close where ImageNet has a similar thing, and are off where it has not.
#
# **2.** The two nearest photos: standardise, then look for the smallest distance.

# %%
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from helpers.features.store import load_codes, load_features

features, codes = np.asarray(load_features(run, "train")), load_codes(run)
scaled = StandardScaler().fit_transform(features)
distances, nearest = NearestNeighbors(n_neighbors=1).fit(scaled).kneighbors()
first = distances[:, 0].argmin()
second = nearest[first, 0]
pair = rows.iloc[[first, second]]
picture = show_photos(pair.path.tolist(), pair.label.tolist())
print(f"distance {distances[first, 0]:.2f}, groups {pair.group.tolist()}")
save_figure(run, picture, "solutions_nearest")

# %% [markdown]
# At distance 0 the two are copies, and 01 has put them into one group. Otherwise, the
# model could be tested on a photo that it has learnt from.
#
# **3.** The number of features of another backbone.

# %%
import timm

timm.create_model("resnet18", num_classes=0).num_features

# %% [markdown]
# `make run SET="backbone=resnet18 weights=pretrained run=demo-resnet18"` would use it.
#
# ## 04 · Train a classifier
#
# **1.** The first fold's model on the images that it learnt from, and on those that it
# did not.

# %%
from helpers.training.crossvalidation import describe_inputs, load_inputs, load_models

models, classes = load_models(run.need("head"), describe_inputs(run))
inputs, folds = load_inputs(run, "train", run.recipe.head.inputs), rows.fold.to_numpy()
answers = models[0].predict(inputs).argmax(axis=1)
print(f"learnt from: {(answers == codes)[folds != 0].mean():.1%}")
print(f"never seen:  {(answers == codes)[folds == 0].mean():.1%}")

# %% [markdown]
# With more features than images, a linear model can learn every label by heart, wrong ones
# included. The first number measures memory, not skill.
#
# **2.** No class weights: each image counts the same.

# %%
from helpers.evaluation.scores import class_f1, count_confusion
from helpers.training.crossvalidation import cross_validate, tabulate_probabilities
from helpers.training.heads import create_head

oof = run.load_table("oof_probabilities")
unweighted = run.recipe.change(imbalance="none").head
equal, _ = cross_validate(
    lambda: create_head(unweighted, len(classes), 0),
    features, codes, folds)
without = tabulate_probabilities(rows, equal, classes)
pd.DataFrame({name: class_f1(count_confusion(answered, classes))
              for name, answered in (("weighted", oof), ("equal", without))}, classes)

# %% [markdown]
# Class weights are meant to help small classes. Look at the smallest class and its
# support first: with a dozen images, one more or less changes its F1 a lot. For all
# classes together, the paired difference answers.

# %%
from helpers.evaluation.compare import compare_scores

resamples, seed = run.recipe.evaluation.bootstrap, run.recipe.splits.seed
compare_scores(oof, without, classes, resamples, seed).round(3)

# %% [markdown]
# `difference` is how far weighting is ahead (in log loss, less is better). Where the
# interval excludes 0, weighting clearly helps or hurts that score; where it contains 0,
# this data does not say which is better. 08 does this for all remedies.
#
# **3.** A broken split: the same photos, once with their copies in the same fold, once dealt
# at random.

# %%
same_head = run.recipe.change(classifier="logistic", imbalance="class_weights").head
rng = np.random.default_rng(0)
twice = np.vstack([features, features + rng.normal(0, 0.02, features.shape)])
codes_twice = np.tile(codes, 2)
together, torn = np.tile(folds, 2), rng.integers(0, folds.max() + 1, 2 * len(folds))
for name, dealt in (("copies together", together), ("copies torn apart", torn)):
    found, _ = cross_validate(
        lambda: create_head(same_head, len(classes), 0),
        twice, codes_twice, dealt)
    print(f"{name}: {(found.argmax(axis=1) == codes_twice).mean():.1%} right")

# %% [markdown]
# Nothing about the model has improved. It now recognises photos that it has learnt by heart,
# and the score rises all the same. That is what 01 and 02 guard against.
#
# ## 05 · See the features
#
# **1.** The map with two other seeds.

# %%
from IPython.display import display

from helpers.evaluation.projection import project_features
from helpers.pictures.charts import plot_projection

for other in (1, 2):
    x, y = project_features(features, run.recipe.projection.perplexity, other).places.T
    figure = plot_projection(rows.assign(x=x, y=y))
    display(save_figure(run, figure, f"solutions_tsne_{other}"))

# %% [markdown]
# Islands turn, move and split. Which classes lie side by side, and which mix, stays the
# same in all three maps. Only that is worth saying.
#
# **2.** Images whose five nearest neighbours in the feature space all have another label.

# %%
from helpers.pictures.galleries import show_mistakes

labels = rows.label.to_numpy()
_, near = NearestNeighbors(n_neighbors=5).fit(scaled).kneighbors()
strange = (labels[near] != labels[:, None]).all(axis=1)
odd = rows[strange].assign(prediction=labels[near[strange, 0]])
odd = odd.sample(frac=1, random_state=0)
print(f"{len(odd)} of {len(rows)} images")
save_figure(run, show_mistakes(odd, answer="neighbour"), "solutions_odd")

# %% [markdown]
# The second line names the nearest neighbour's class. Neighbours make a list of suspects;
# your eyes decide.
#
# ## 06 · Evaluate honestly
#
# **1.** The interval with more and more resamples.

# %%
from helpers.evaluation.intervals import score_with_intervals

for count in (20, 200, 2000):
    rounds = [score_with_intervals(oof, classes, count, seed).loc["macro F1"]
              for seed in range(3)]
    print(count, ", ".join(f"[{r.low:.3f}, {r.high:.3f}]" for r in rounds))

# %% [markdown]
# The more resamples, the less the ends move from one seed to the next; with 2,000 they
# differ in the third decimal.
#
# **2.** Only predictions with a confidence of at least 0.8.

# %%
from helpers.evaluation.calibration import calibrate_answers

corrected, _ = calibrate_answers(oof, classes)
sure = corrected[corrected.filter(regex="^p_").max(axis=1) >= 0.8]
print(f"{len(sure) / len(oof):.0%} are left, "
      f"{(sure.prediction == sure.label).mean():.1%} of them right")

# %% [markdown]
# Compare the second number with the accuracy on all images: a model that may say "not sure"
# makes fewer mistakes on what is left.
#
# **3.** The manifest knows the planted label errors; no check ever reads it. Other data has
# no manifest, and then your eyes decide.

# %%
from helpers.files import resolve_path

suspects = run.load_table("label_suspects")
file = resolve_path(run.recipe.data.path) / "planted_faults.csv"
manifest = (pd.read_csv(file) if file.exists()
            else pd.DataFrame(columns=["image_id", "fault"]))
planted = manifest.image_id[manifest.fault == "wrong label"]
few = suspects.head(20).image_id.isin(planted).sum()
print(few, "of the first twenty were planted")
found = suspects.image_id.isin(planted).sum()
print(f"{found} of {len(planted)} are among all suspects")

# %% [markdown]
# The others are in the hold-out or the test set, or the model, which never saw them,
# happens to agree with the wrong label.
#
# ## 07 · Compare backbones
#
# **1.** Score for each megabyte of weights, and **2.** minutes for 100,000 images.

# %%
table = run.load_table("backbones").set_index("backbone")
worth = table["macro F1"] / table.file_mb
minutes = 100_000 / table.images_per_second / 60
table.assign(worth=worth, minutes=minutes)[["worth", "minutes"]].round(2).sort_values(
    "worth", ascending=False)

# %% [markdown]
# Score by megabyte rewards small files above all: halving a file doubles it, while macro F1
# can hardly double. Decide on the score that you need first, then take the cheapest
# network that reaches it. `precision: bf16` is up to twice as fast, on a processor or GPU
# that supports it.
#
# ## 08 · Compare heads and remedies
#
# **1.** What differs in macro F1 before and after Holm's correction.

# %%
table = run.load_table("heads")
alone = table[(table.score == "macro F1") & (table.p < 0.05)]
alone[["candidate", "difference", "p", "p_holm"]].round(3)

# %% [markdown]
# Rows whose `p_holm` is below 0.05, too, remain. Any others may be real, or they may be the
# lucky and unlucky ones among many.
#
# **2.** Balanced softmax against class weights, directly.

# %%
from helpers.evaluation.head_comparison import answer_heads

answers = answer_heads(run)
compare_scores(answers["balanced softmax"], answers["class weights"], classes,
               run.recipe.evaluation.bootstrap, run.recipe.splits.seed).round(3)

# %% [markdown]
# Where an interval contains 0, no difference is seen. In general, two candidates can differ
# from each other although neither differs from the baseline, and vice versa; only the direct
# comparison can tell.
#
# **3.** SMOTE before the split.

# %%
from sklearn.metrics import balanced_accuracy_score

from helpers.training.imbalance import Remedy

X, y = features, codes
more, codes = Remedy("smote").resample(X, y)
torn = np.random.default_rng(0).integers(0, 5, len(codes))
unweighted = run.recipe.change(imbalance="none").head
wrong, _ = cross_validate(lambda: create_head(unweighted, len(classes), 0),
                          more, codes, torn)
print(f"balanced accuracy {balanced_accuracy_score(codes, wrong.argmax(axis=1)):.3f}")
honest = answers["SMOTE"]
inside = balanced_accuracy_score(honest.label, honest.prediction)
print(f"SMOTE inside the folds {inside:.3f}")

# %% [markdown]
# The first score is worthless: an invented image lies between two real ones, of which one is
# often on the other side of the split. It says how well invented images are told apart, and
# nothing about new photos.
#
# ## 09 · A lab for fine-tuning
#
# **1.** The frozen head against the network.

# %%
from helpers.evaluation.compare import describe_difference

table = run.load_table("experiments")
row = table[(table.candidate == "frozen head") & (table.score == "log loss")].iloc[0]
print(describe_difference(row.candidate, row.score, row))

# %% [markdown]
# For log loss, lower is better, so a positive difference means that the frozen head is worse.
#
# **2.** Ensembles of one, two and six networks. What was trained for 09 is kept, so this only
# reads it.

# %%
from helpers.evaluation.experiments import open_lab, run_experiment

plan = open_lab(run)
names = ("baseline", "dropout", "cosine")
found = {name: run_experiment(run, plan, name) for name in names}
tables = [answer for name in names for answer in found[name].answers]
for count in (1, 2, len(tables)):
    mean = sum(t.filter(regex="^p_").to_numpy() for t in tables[:count]) / count
    right = np.array(classes)[mean.argmax(axis=1)] == tables[0].label
    print(f"{count} networks: {right.mean():.1%} right")

# %% [markdown]
# Here the ensemble gains hardly anything: these networks begin alike and learn from the same
# photos, so they mostly make the same mistakes. It would cost six networks a photo.
#
# ## 10 · How large should images be?
#
# **1.** The trained network and the frozen one, at the same size.

# %%
both = [pd.read_csv(run.folder / f"sizes/96-{strategy}/oof_probabilities.csv")
        for strategy in ("finetune", "frozen")]
difference = compare_scores(*both, classes, 2000, run.recipe.splits.seed)
print(describe_difference("trained against frozen", "accuracy",
                          difference.loc["accuracy"]))

# %% [markdown]
# The interval says how much of the difference could be due to the choice of photos.
#
# ## 11 · Serve the model
#
# **1.** Pure noise, and **2.** its nearest training photos, beside those of a photo.

# %%
from PIL import Image

from helpers.serving.predictor import load_predictor

predictor = load_predictor(run.folder)
photos = select_rows(run.load_table(), "test").path.tolist()
noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
said = predictor.predict([Image.fromarray(noise)]).iloc[0]
print(said[["prediction", "confidence", "sure"]])
for photo in (photos[0], Image.fromarray(noise)):
    print(predictor.find_nearest(photo)[["label", "similarity"]])

# %% [markdown]
# Noise gets an answer like any photo, because the classes share all of the probability
# among them. Here similarity does not give it away either: it is about that of a real photo.
# To know what a model has never seen takes other methods, and images of it to test them on.
