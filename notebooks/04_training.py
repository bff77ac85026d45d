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
# # 04 · Train a classifier
#
# On good features a straight line between classes goes far. We train a logistic
# regression, weighted so that small classes count, and let it answer for every training
# image exactly once, by a model that never saw that image.
#
# **You need** the features from 03, and labels, weights and folds from 02.
# **You get** out-of-fold probabilities (for each image, from a model that never saw it), on
# which 06 is built.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | load features, labels and folds | |
# | 2 | train one model a fold, its penalty chosen inside | `head_<backbone>.npz`, `figures/04_c_search.png` |
# | 3 | keep the out-of-fold probabilities | `oof_probabilities.csv` |
# | 4 | let all folds vote on the test images | `test_probabilities.csv` |

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
# `recipe` names a folder under `data/`; `overrides` replaces settings of it, for example
# `{"folds": 10}`.

# %% tags=["parameters"]
recipe = "demo"
overrides = {}

# %% [markdown]
# ## Open the run
#
# Features, labels and folds have one row order, that of `table.csv`.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)

# %% [markdown]
# ## 1 · What we learn from
#
# Loading checks that the features were made from the images in `table.csv`; features
# of another run or another backbone would be refused. Classes and their weights come from
# 02: they do not depend on how images become numbers.

# %%
import numpy as np

from helpers.data.splits import select_rows
from helpers.features.store import load_codes, load_features
from helpers.files import load_json

rows = select_rows(run.load_table(), "train")
features, codes = np.asarray(load_features(run, "train")), load_codes(run)
weights = load_json(run.need("class_weights"))
print(f"{features.shape[0]} images, {features.shape[1]} features, "
      f"{len(weights)} classes, {rows.fold.nunique()} folds")

# %% [markdown]
# Each row of `features` is one image, each column one number that the backbone gives.
#
# ## 2 · One model a fold
#
# Here is the whole idea for fold 0, in scikit-learn's own words: learn from all other folds,
# answer for this one.

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

judged = rows.fold.to_numpy() == 0
classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
classifier.fit(features[~judged], codes[~judged])
print(f"fold 0: {classifier.score(features[judged], codes[judged]):.1%} right")

# %% [markdown]
# Three things are missing: the other folds, the class weights, and a choice of C. A
# *penalty* keeps the coefficients small, so that the model does not learn single images by
# heart; a smaller C means a stronger penalty. Choosing C on the fold that we report would
# be cheating: the judge would have picked the candidate. So within each fold's training
# part one more fold judges the candidates, and the fold that we report stays unseen until
# the end.

# %%
from helpers.training.crossvalidation import cross_validate, create_model

folds = rows.fold.to_numpy()
probabilities, models = cross_validate(
    lambda: create_model(run), features, codes, folds)

# %% [markdown]
# Each line below is one fold: its inner fold's *macro F1* (a score in which each class
# counts the same, see 06) for every candidate, and a dot where the best was.

# %%
from helpers.pictures.charts import plot_c_search, save_figure
from helpers.training.crossvalidation import tabulate_choices

choices = tabulate_choices(models)
save_figure(run, plot_c_search(choices), "04_c_search")

# %% [markdown]
# Where a line is flat, the choice hardly matters; compare its rise with the distance
# between the folds. If the lines still rise at an end where dots stand, widen `c_grid` in
# the recipe.
#
# The models are saved as plain arrays, with what their inputs have to mean: features of
# another network or preprocessing are refused when they are loaded.

# %%
from helpers.features.store import describe_network
from helpers.training.crossvalidation import save_models

classes = list(weights)
inputs = describe_network(run.recipe, run.measured)
with run.write("head") as path:
    save_models(models, "logistic", classes, inputs, path)

# %% [markdown]
# `inputs` names the network and what it was given; the file holds all of it.
#
# ## 3 · Out-of-fold probabilities
#
# Every training image now has one row of probabilities from a model that never saw it.

# %%
from helpers.training.crossvalidation import tabulate_probabilities

oof = tabulate_probabilities(rows, probabilities, classes)
run.save("oof_probabilities", oof)
oof.drop(columns=["path", "split"]).head().round(3)

# %% [markdown]
# `prediction` is the class with the largest probability. Rows in which one class has
# nearly everything and is wrong deserve a look; 06 shows them as pictures.
#
# ## 4 · The folds' ensemble on unseen images
#
# For the hold-out and the test images, all folds' models answer and their probabilities
# are averaged. This is the *ensemble*, usually a little better than each of its members.

# %%
from helpers.training.crossvalidation import predict_ensemble

unseen = select_rows(run.load_table(), "test")
answers = predict_ensemble(models, load_features(run, "test"))
answered = tabulate_probabilities(unseen, answers, classes)
run.save("test_probabilities", answered)
print(f"{len(unseen)} images answered by {len(models)} models each")

# %% [markdown]
# We do not score the hold-out here: that is done once, at the end, by 06.
#
# ## What we saw

# %%
best = choices[choices.chosen]
right = (oof.prediction == oof.label).groupby(oof.fold).mean()
print(f"- {(oof.prediction == oof.label).mean():.1%} of the training images are "
      "recognised by a model that never saw them")
print(f"- the folds' accuracies lie between {right.min():.1%} and {right.max():.1%}")
print(f"- C chosen: {', '.join(f'{c:g}' for c in sorted(set(best['C'])))}")

# %% [markdown]
# Folds would differ even if only chance were at work. That is why 06 gives every score an interval. The last
# cell lists what was saved.

# %%
run.finish("04_training")

# %% [markdown]
# ## Try it
#
# 1. Score the models on their own *training* images instead of out-of-fold. How much
#    better do they look, and why is that number worthless?
# 2. Set all class weights to 1 and train again. What happens to the smallest class?
#
# Solutions are in [solutions.ipynb](solutions.ipynb). Next:
# [05 · See the features](05_tsne.ipynb).
