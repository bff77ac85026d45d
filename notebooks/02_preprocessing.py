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
# # 02 · Prepare the data
#
# Every number that we will report rests on one promise: no image is judged by a model that
# has seen it, or a copy of it. This notebook makes the splits that keep the promise.
#
# **You will be able to** explain what a hold-out and folds are, why copies must stay
# together, and what a network sees of a photo.
#
# **You need** `images.csv` and `quarantine.csv` from 01, and to know what training and
# testing a model mean.
# **You get** a saved label mapping, a hold-out, k folds that no copy crosses, a look at
# what the network will see, and a checklist.
# **It takes** about 10 seconds for the demo, and a minute for 100,000 photos.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | give every class a number | `label_mapping.json` |
# | 2 | set a hold-out aside, deal the rest into folds | `table.csv`, `class_weights.json`, `figures/02_class_shares.png` |
# | 3 | write the tables of every fold | `folds/` |
# | 4 | look at what the network sees | `figures/02_preprocessing.jpg`, `figures/02_normalisation.jpg` |
# | 5 | see how training images may be varied | `figures/02_augmentation.jpg` |
# | 6 | go through the checklist | `checklist.json` |

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
# The same recipe as before, so the same folder; the images not set aside come from 01.

# %%
from helpers.data.preparation import load_used
from helpers.run import open_run

run = open_run(recipe, overrides)
settings, used = run.recipe.splits, load_used(run)

# %% [markdown]
# If 01 had not been run, the cell above would say so instead of failing somewhere later.
#
# Some images must be in no fold. A training image that is a copy of one of the data
# set's own test images would make the test too easy, and a class needs enough different
# images for every fold and the hold-out (7 by default); the recipe's `leaks` and
# `small_classes` say what to do.

# %%
from helpers.data.splits import exclude_leaks, join_groups, settle_small_classes

table = exclude_leaks(join_groups(used, settings.group_column), settings.leaks)
table = settle_small_classes(table, settings.holdout, settings.folds,
                             settings.small_classes)

# %% [markdown]
# If nothing is printed, nothing had to be left out.
#
# ## 1 · Names to numbers
#
# A model answers with a number. The mapping from class name to number is saved, because
# without it nobody can read the model's answers, not even we ourselves next month.

# %%
from helpers.data.splits import encode_labels

mapping = encode_labels(table, run.recipe.data.class_names.values())
run.save("label_mapping", mapping)
mapping

# %% [markdown]
# Classes named in the recipe keep the recipe's order, all others are sorted.
#
# ## 2 · A hold-out and folds
#
# Each labelled training image goes to exactly one place:
#
# - the **hold-out** is locked away until the recipe says `final: true`; then notebook
#   06 scores it, and keeps count. Nothing is ever chosen by looking at it, because a
#   score that guided a choice is no longer a score on unseen images;
# - the other images are dealt into **k folds**. Each fold is predicted by a model
#   trained on the other folds, so that every image is predicted once, by a model that
#   never saw it. Such predictions are called *out-of-fold*.
#
# Both are *stratified*: every part has the classes in the same shares. And both deal out
# whole *groups*: the copies that 01 found and, if the recipe names a `group_column`, all
# images of one product, patient or camera.

# %%
from helpers.data.splits import assign_splits, check_splits

table = assign_splits(table, settings.holdout, settings.folds, settings.seed)
check_splits(table, settings.leaks)
run.save("table", table)
table.groupby(["split", "fold"]).size().rename("images").reset_index()

# %% [markdown]
# Fold -1 means "in no fold": the hold-out, the data set's own test images, and those
# `excluded` above. `check_splits` would have stopped us if a group or exact copies were
# split.

# %%
from helpers.pictures.charts import plot_class_shares, save_figure

save_figure(run, plot_class_shares(table), "02_class_shares")

# %% [markdown]
# The bars break at nearly the same places from top to bottom: each part is a small copy
# of the whole, as far as whole groups allow.
#
# Where is the photo that we follow?

# %%
from helpers.data.table import find_followed

followed = find_followed(run.recipe, table)
followed[["image_id", "label", "split", "fold", "group"]].to_frame("followed").T

# %% [markdown]
# It will be judged by the one model that was trained without this fold.
#
# *Class weights* make up for the imbalance: during training, an error on an image of a rare
# class can be made to cost more, so that each class counts the same as a whole. These are
# the weights of all training images; 04 takes those of the images that it learns from.

# %%
from helpers.data.splits import weigh_classes

weights = weigh_classes(table, mapping)
run.save("class_weights", weights)
{name: round(weight, 2) for name, weight in weights.items()}

# %% [markdown]
# A weight of 2 means that one image of the class counts like two average ones.
#
# ## 3 · Fold tables as files
#
# With these files anyone can check our promise, or train another model on the very same
# folds.

# %%
from helpers.data.splits import save_folds

with run.write("folds") as folder:
    paths = save_folds(table, folder)
print(f"{len(paths)} files, from {paths[0].name} to {paths[-1].name}")

# %% [markdown]
# `fold_00_test.csv` holds the images judged in fold 0, `fold_00_train.csv` those of the
# other folds.
#
# ## 4 · What the network sees
#
# Preprocessing belongs to the network: it was trained on images of one size, resized in
# one way, normalised with one mean and standard deviation. timm, the library that the
# networks come from, keeps these with each architecture; the recipe may change the size
# and how images are resized.

# %%
from helpers.network.preprocessing import resolve_data_config

data_config = resolve_data_config(run.recipe, run.measured)
data_config

# %% [markdown]
# `mean` and `std` are the numbers that this network was trained with, one each for red,
# green and blue. Below, the top row shows files as they are, the bottom row the same
# images as they reach the network.

# %%
from helpers.pictures.galleries import show_preprocessing

labelled = table[table.split == "train"]
pictures = show_preprocessing(labelled, data_config, seed=settings.seed)
save_figure(run, pictures, "02_preprocessing")

# %% [markdown]
# Is what tells the classes apart still there in the bottom row? If details are lost, raise
# `image_size`; if something important is cut off, set `resize: squash`.
#
# *Normalisation* is the last step: bytes from 0 to 255 become small numbers, mostly
# around zero. There are several ways; a pretrained network that is not trained any
# further works best with the one it was trained with, the `mean` and `std` above.

# %%
from helpers.network.preprocessing import normalise_config
from helpers.pictures.galleries import show_normalisations

ways = ["minmax", "symmetric", "imagenet", "dataset", "zscore"]
configs = {way: normalise_config(data_config, way, run.measured) for way in ways}
picture = show_normalisations(followed.path, configs)
save_figure(run, picture, "02_normalisation")

# %% [markdown]
# One photo, and the histogram of its red, green and blue values under each normalisation,
# with their range below. `minmax` and `symmetric` only shift and scale all values alike.
# `imagenet` and `dataset` use one mean and deviation per colour, those of ImageNet and
# those that 01 measured on this data; `zscore` uses each image's own, so that a dark and
# a bright photo look the same to the network.
#
# ## 5 · Augmenting training images
#
# Only training the network itself uses this (`strategy: finetune`, see 09): it should not
# see the very same pixels every time. The fewer images a class has, the more often each
# of them is repeated, and the more it should be varied. None of this ever touches
# validation, test or the extraction that follows.

# %%
from helpers.network.augmentation import choose_levels
from helpers.data.splits import count_classes

sizes = run.recipe.network.augmentation_sizes
choose_levels(count_classes(table), sizes).to_frame().T

# %% [markdown]
# Classes with more images than the first of `augmentation_sizes` are LIGHT, with fewer than
# the second HEAVY, all others MEDIUM; small data sets are HEAVY throughout.

# %%
from helpers.pictures.galleries import show_augmentations

save_figure(run, show_augmentations(labelled, seed=settings.seed), "02_augmentation")

# %% [markdown]
# Could you still name the class of each picture? If not, the level is too strong for
# this data. For text or digits, mirroring changes what it shows: no level fits all
# data, so look.
#
# ## 6 · The checklist
#
# Before hours are spent on a model: is everything as it should be?

# %%
from helpers.network.readiness import run_checklist

checklist = run_checklist(run, table)
run.save("checklist", checklist.to_dict("records"))
checklist.style.hide(axis="index")

# %% [markdown]
# A `fail` must be put right first. A `warn` is for you to judge; the last column says what
# was found.
#
# ## What we saw

# %%
from helpers.data.splits import count_folds

per_fold = count_folds(table)
smallest = per_fold.sum(axis=1).idxmin()
in_folds = per_fold.loc[smallest]
held = (table.split == "holdout").sum()
print(f"- {per_fold.to_numpy().sum()} images in {settings.folds} folds, "
      f"{held} in the hold-out")
print(f"- the smallest class, {smallest}, has {in_folds.sum()} images, "
      f"{in_folds.min()} to {in_folds.max()} in each fold")
print(f"- the network gets {data_config['input_size'][1]} x "
      f"{data_config['input_size'][2]} pixels, {data_config['crop_mode']}")

# %% [markdown]
# The next cell lists the files that the next notebooks build on.

# %%
run.finish("02_preprocessing")

# %% [markdown]
# ## Try it
#
# Fill in the blanks (`___`), remove the `#` and run. Solutions are in
# [solutions.ipynb](solutions.ipynb).
#
# **1.** Check the promise: how many groups are both in the training and in the test file of
# each fold?

# %%
# import pandas as pd
#
# for fold in range(settings.folds):
#     train, test = (set(pd.read_csv(folder / f"fold_{fold:02d}_{part}.csv").___)
#                    for part in ("train", "test"))
#     print(f"fold {fold}: {len(train & test)} groups are in both")

# %% [markdown]
# **2.** Deal the images into ten folds. How many images of the smallest class are there in
# each fold now?

# %%
# back = table.assign(split=table.split.replace("holdout", "train"))
# ten = assign_splits(back, settings.holdout, ___, settings.seed)
# count_folds(ten).loc[smallest]

# %% [markdown]
# **3.** Show what the network would see with the other `resize` mode (`squash` or
# `center`). What is lost, what is distorted?

# %%
# other = resolve_data_config(run.recipe.change(resize="___"))
# pictures = show_preprocessing(labelled, other, seed=settings.seed)
# save_figure(run, pictures, "solutions_resize")

# %% [markdown]
# **4.** What do scores do when copies leak? Give some photos an augmented copy each, as
# people do who want more data, and judge a classifier twice: with folds that know nothing
# of copies, and with folds that keep them together.

# %%
# import random
# import torch
# from sklearn.linear_model import LogisticRegression
# from sklearn.model_selection import (StratifiedGroupKFold, StratifiedKFold,
#                                      cross_val_score)
# from helpers.data.alterations import augment
# from helpers.data.images import decode_image
# from helpers.network.backbones import create_backbone
# from helpers.network.preprocessing import create_preprocessing
#
# some = labelled.groupby("label").head(25)
# network = create_backbone(run.recipe)[0]
# photos = [decode_image(path) for path in some.path]
# photos += [augment(photo, random.Random(seed)) for seed, photo in enumerate(photos)]
# with torch.inference_mode():
#     x = torch.stack(list(map(create_preprocessing(data_config), photos)))
#     x = network(x).numpy()
# y, groups = [*some.label] * 2, [*range(len(some))] * 2
# model = LogisticRegression(max_iter=1000)
# how = {"shuffle": True, "random_state": 0}
# torn = cross_val_score(model, x, y, cv=StratifiedKFold(5, **how))
# kept = cross_val_score(model, x, y, groups=groups, cv=___(5, **how))
# print(f"torn apart: {torn.mean():.3f}, kept together: {kept.mean():.3f}")

# %% [markdown]
# Next: [03 · Extract features](03_extraction.ipynb).
