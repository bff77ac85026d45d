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
# With good features a simple classifier goes far. We train one on them, a logistic
# regression unless the recipe names another, and predict every training image exactly
# once, with a model that never saw it. If the recipe says so (`strategy`), the network
# itself is trained as well.
#
# **You will be able to** cross-validate a classifier without fooling yourself, say how much
# better it is than a baseline, and whether more labelled images would help.
#
# **You need** the features from 03, and labels and folds from 02. You should
# have seen scikit-learn's `fit` and `predict` before.
# **You get** out-of-fold probabilities, on which 06 is built.
# **It takes** about half a minute for the demo, and some minutes for 100,000 images. If
# networks are trained, section 4 says how long before it starts.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | load features, labels and folds | |
# | 2 | one fold in plain scikit-learn | |
# | 3 | all folds | `head_<backbone>.npz`, `figures/04_choices.png` |
# | 4 | the network itself, if the recipe trains it; out-of-fold probabilities | `models/`, `training_log.csv`, `figures/04_training.png`, `oof_probabilities.csv` |
# | 5 | compare with baselines | `figures/04_baselines.png` |
# | 6 | would more images help? | `figures/04_learning_curve.png` |
# | 7 | predict the unseen images with all folds' models | `test_probabilities.csv` |

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
# Features, labels and folds have one row order, that of `table.csv`.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)

# %% [markdown]
# ## 1 · What we learn from
#
# Loading checks that the features were made from the images in `table.csv`; features
# of another run or another backbone would be refused.

# %%
import numpy as np

from helpers.data.splits import select_rows
from helpers.data.table import restore_images
from helpers.features.store import load_codes, load_features
from helpers.files import load_json

rows = select_rows(run.load_table(), "train")
restore_images(run.recipe, rows)
features, codes = np.asarray(load_features(run, "train")), load_codes(run)
folds, classes = rows.fold.to_numpy(), list(load_json(run.need("label_mapping")))
print(f"{features.shape[0]} images, {features.shape[1]} features, "
      f"{len(classes)} classes, {len(set(folds))} folds")

# %% [markdown]
# Each row of `features` is one image, each column one number from the backbone; `codes`
# are the class numbers, `folds` the fold of each image.
#
# ## 2 · One fold, in plain scikit-learn
#
# A logistic regression draws flat boundaries between classes in the space of features. A
# *penalty* keeps its coefficients small, so that it does not learn single images by heart;
# the smaller C, the stronger the penalty. Here is the pipeline for every C: standardise each
# feature, then fit, with class weights as 02 showed them, here of the images that are learnt
# from. At most 1,000 images take part, so that it takes seconds.

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.data.splits import sample_rows

some = sample_rows(rows, 1000, run.recipe.splits.seed)
X, y, part = features[some].astype(float), codes[some], folds[some]
pipelines = {C: make_pipeline(StandardScaler(), LogisticRegression(
    C=C, class_weight="balanced", max_iter=5000, tol=1e-6))
    for C in run.recipe.head.c_grid}

# %% [markdown]
# Which C is best? Choosing it by the score on fold 0, and then reporting that score, would
# be cheating: we would report the luckiest of several numbers. So fold 1 does the choosing:
# each candidate learns from folds 2 and up and is scored on fold 1. Fold 0 stays unseen.
# The score is *macro F1*, in which each class counts the same (06 explains it).

# %%
search = {}
for C, pipeline in pipelines.items():
    answers = pipeline.fit(X[part > 1], y[part > 1]).predict(X[part == 1])
    search[C] = f1_score(y[part == 1], answers, average="macro", zero_division=0)
print(", ".join(f"C={C:g}: {score:.3f}" for C, score in search.items()))

# %% [markdown]
# The best candidate now learns from all folds except fold 0, and predicts fold 0, which
# it has never seen.

# %%
chosen = max(search, key=search.get)
best = pipelines[chosen].fit(X[part > 0], y[part > 0])
plain = best.predict_proba(X[part == 0])
print(f"fold 0: {best.score(X[part == 0], y[part == 0]):.1%} right")

# %% [markdown]
# ## 3 · All folds
#
# The helper does the same for every fold. On the same images, and with the C that we have
# chosen, its first fold must give what we just computed; the last line makes sure that it
# does.

# %%
from helpers.training.crossvalidation import cross_validate
from helpers.training.heads import create_head

same_head = run.recipe.change(
    classifier="logistic", imbalance="class_weights", c_grid=[chosen]).head
same, _ = cross_validate(
    lambda: create_head(same_head, len(classes), 0), X, y, part)
assert np.allclose(same[part == 0][:, best.classes_], plain, atol=5e-3)

# %% [markdown]
# Now all images, with the classifier, the remedy for unequal classes and the inputs that the
# recipe asks for.

# %%
from helpers.training.crossvalidation import create_run_model, load_inputs

inputs = load_inputs(run, "train", run.recipe.head.inputs)
probabilities, models = cross_validate(
    lambda: create_run_model(run), inputs, codes, folds)

# %% [markdown]
# Every image now has probabilities from a model that never saw it: they are *out-of-fold*.
# Each line below is one fold's search: the inner fold's score for every candidate, here
# values of C, and a dot at the best one.

# %%
from helpers.pictures.charts import plot_choices, save_figure
from helpers.training.crossvalidation import tabulate_choices

choices = tabulate_choices(models)
save_figure(run, plot_choices(choices), "04_choices")

# %% [markdown]
# Where two candidates score the same, the smaller log loss decides (08 explains it). Where a
# line is flat, the choice hardly matters. If most lines still rise at an end of the
# values of C, widen `c_grid` in the recipe. Where the folds choose very different values, as
# with few images, the inner fold is too small to choose well, and the choice is mostly
# chance.
#
# The models are saved as plain arrays, together with a description of the features they
# expect: loading refuses features of any other network or preprocessing.

# %%
from helpers.training.crossvalidation import describe_inputs, save_models
from helpers.training.heads import name_kind

with run.write("head") as path:
    save_models(models, name_kind(run.recipe.head), classes, describe_inputs(run), path)

# %% [markdown]
# ## 4 · The network itself
#
# So far the network was *frozen*. With `strategy: finetune` its upper layers are trained on
# your images as well, and with `strategy: scratch` all of it, from random weights. A network
# is trained in each fold, on what the classifier above learnt from, and answers for the same
# unseen images. Finished folds are kept; an interrupted one continues after its last epoch.

# %%
strategy, head_answers = run.recipe.network.strategy, probabilities
if strategy != "frozen":
    from helpers.training.finetuning import train_networks

    trained = train_networks(run)
    probabilities = trained.probabilities
print(f"strategy: {strategy}")

# %% [markdown]
# If it says `frozen`, no network was trained, the classifier's answers stand, and the next
# cell shows nothing ([09](09_fine_tuning_lab.ipynb) trains networks on the demo). Otherwise it
# draws the log: a thin line is one fold, a thick one their mean. The loss on what is learnt
# from should fall; if an inner fold is left out to judge by (`keep_epoch: best`), its loss
# tells when to stop. Then the network is compared with the frozen one on the same images.

# %%
from helpers.training.crossvalidation import tabulate_probabilities

oof = tabulate_probabilities(rows, probabilities, classes)
if strategy != "frozen":
    from IPython.display import display

    from helpers.evaluation.compare import compare_scores, describe_difference
    from helpers.pictures.training import plot_training_log

    display(save_figure(run, plot_training_log(trained.log), "04_training"))
    frozen = tabulate_probabilities(rows, head_answers, classes)
    difference = compare_scores(oof, frozen, classes, run.recipe.evaluation.bootstrap,
                                run.recipe.splits.seed)
    for score, row in difference.iterrows():
        print(describe_difference("network against frozen", score, row))

# %% [markdown]
# Every image now has probabilities from a model that never saw it; we keep them.

# %%
run.save("oof_probabilities", oof)
oof.drop(columns=["path", "split", "group"]).head().round(3)

# %% [markdown]
# `prediction` is the class with the largest probability. And the photo that we follow?

# %%
from helpers.data.table import find_followed

followed = find_followed(run.recipe, rows).image_id
oof[oof.image_id == followed].drop(columns=["path", "split", "group"]).round(3).T

# %% [markdown]
# This model had never seen the photo or its label.
#
# ## 5 · Better than what?
#
# A score alone says little. We train the same *head*, which is what the classifier on
# top of a backbone is called, on the same folds with other inputs: the pixels of each
# photo, shrunk to 16 x 16; the features of the same network with *random* weights,
# which has never seen a photo; and the features of this run. At the top is the majority
# baseline, which looks at no photo at all.

# %%
from helpers.evaluation.baselines import answer_baselines, tabulate_baselines

baselines = tabulate_baselines(run, answer_baselines(run))
baselines.filter(regex="^(accuracy|macro F1)").round(3)

# %% [markdown]
# `value` is the score. To see how much luck is in it, we draw as many images again from
# ours, with replacement, thousands of times; 95 % of the scores of these *resamples* lie
# between `low` and `high` (06 explains more).

# %%
from helpers.pictures.comparisons import plot_baselines

save_figure(run, plot_baselines(baselines), "04_baselines")

# %% [markdown]
# To compare two models, do not compare their intervals: some images are hard for both, and
# that moves both scores up and down together. Look at the *paired difference* instead, in
# which every resample scores both models on the same images.

# %%
ahead = baselines.filter(like="ahead").iloc[:-1]
for name, row in ahead.iterrows():
    value, low, high = row
    print(f"ahead of {name} by {value:.3f} in macro F1 [{low:.3f}, {high:.3f}]")

# %% [markdown]
# If the interval excludes 0, the difference is unlikely to be due to the choice of
# images. The line about random weights shows what pretraining is worth on this data,
# for this network and against one draw of random weights: everything else was equal.
#
# ## 6 · Would more images help?
#
# The classifier on frozen features learns from only a part of the training images, but is
# judged on all of them each time. If the curve still rises at its end, labelling more photos
# should help; if it is flat, look for other features or better labels instead.

# %%
from helpers.evaluation.learning_curve import measure_learning_curve
from helpers.pictures.comparisons import plot_learning_curve

curve = measure_learning_curve(run, rows, inputs, codes, head_answers)
save_figure(run, plot_learning_curve(curve), "04_learning_curve")

# %% [markdown]
# Small steps that lie within the intervals mean little. The first points also depend on
# which few images of the small classes happened to be drawn. How much did the last step
# bring?

# %%
curve.rename(columns={"value": "macro F1"}).round(3)

# %% [markdown]
# If it brought next to nothing, more photos of the same kind promise little, though a class
# with very few images may be another matter.
#
# ## 7 · The unseen images
#
# For the hold-out and the test images, the predicted probabilities of all folds' models
# are averaged. Such an *ensemble* is usually a little better than each of its members.

# %%
from helpers.training.crossvalidation import predict_ensemble

unseen = select_rows(run.load_table(), "test")
answers = trained.unseen if strategy != "frozen" else predict_ensemble(
    models, load_inputs(run, "test", run.recipe.head.inputs))
answered = tabulate_probabilities(unseen, answers, classes)
run.save("test_probabilities", answered)
print(f"{len(unseen)} images, averaged over {len(models)} models")

# %% [markdown]
# We do not score them here. 06 does, at the end, and only when asked to.
#
# ## What we saw

# %%
from helpers.training.crossvalidation import describe_choices

right = (oof.prediction == oof.label).groupby(oof.fold).mean()
print(f"- {(oof.prediction == oof.label).mean():.1%} of the training images are "
      "recognised by a model that never saw them")
print(f"- the folds' accuracies lie between {right.min():.1%} and {right.max():.1%}")
print(f"- chosen: {'; '.join(describe_choices(choices))}")
print("- macro F1 learning from " + ", ".join(
    f"{row.images:.0f} images {row.value:.3f}" for row in curve.itertuples()))

# %% [markdown]
# Folds would differ even if only chance were at work, which is why 06 gives every score an
# interval. The next cell lists what was saved.

# %%
run.finish("04_training")

# %% [markdown]
# ## Try it
#
# Fill in the blanks (`___`), remove the `#` and run. Solutions are in
# [solutions.ipynb](solutions.ipynb).
#
# **1.** Score the first fold's model on the images that it learnt from, and on fold 0. Why
# is the first number worthless?

# %%
# answers = models[0].predict(inputs).argmax(axis=1)
# print(f"learnt from: {(answers == codes)[folds ___ 0].mean():.1%}")
# print(f"never seen:  {(answers == codes)[folds == 0].mean():.1%}")

# %% [markdown]
# **2.** Train again without class weights. What happens to the smallest class?

# %%
# import pandas as pd
#
# from helpers.evaluation.scores import class_f1, count_confusion
#
# unweighted = run.recipe.change(imbalance="___").head
# equal, _ = cross_validate(
#     lambda: create_head(unweighted, len(classes), 0),
#     features, codes, folds)
# without = tabulate_probabilities(rows, equal, classes)
# pd.DataFrame({name: class_f1(count_confusion(answered, classes))
#               for name, answered in (("weighted", oof), ("equal", without))}, classes)

# %% [markdown]
# **3.** Break the split on purpose. Pretend that every photo is in the data twice, the
# second time saved again (we add a little noise to its features). First keep copies in
# one fold, then deal them at random, as if nobody had looked for copies.

# %%
# rng = np.random.default_rng(0)
# twice = np.vstack([features, features + rng.normal(0, 0.02, features.shape)])
# codes_twice = np.tile(codes, 2)
# together, torn = np.tile(folds, 2), rng.integers(0, ___, 2 * len(folds))
# for name, dealt in (("copies together", together), ("copies torn apart", torn)):
#     found, _ = cross_validate(
#         lambda: create_head(same_head, len(classes), 0),
#         twice, codes_twice, dealt)
#     print(f"{name}: {(found.argmax(axis=1) == codes_twice).mean():.1%} right")

# %% [markdown]
# One head, one remedy: [08](08_heads.ipynb) compares them with the others, on the same folds.
# One way to train a network: [09](09_fine_tuning_lab.ipynb) compares techniques.
#
# Next: [05 · See the features](05_tsne.ipynb).
