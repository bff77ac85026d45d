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
# # 06 · Evaluate honestly
#
# How good is it, how sure are we, where does it fail, and what do the failures look
# like? Every number here comes from images that the answering model had never seen, nor a
# copy of them.
#
# **You need** the probabilities from 04.
# **You get** scores with intervals, the confusion matrix, the mistakes as pictures,
# predictions for the test images, and a report to hand on.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | four scores, each with an interval | `metrics.json`, `figures/06_scores.png` |
# | 2 | which class is taken for which | `confusion_matrix.csv`, `figures/06_confusion.png` |
# | 3 | class by class | `per_class.csv`, `figures/06_class_scores.png` |
# | 4 | the most confident mistakes | `mistakes.csv`, `figures/06_mistakes.png` |
# | 5 | predictions for the test images | `predictions.csv` |
# | 6 | everything on one page | `report.html` |

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
# Both tables of probabilities come from 04; neither the network nor the features are
# needed any more. The images are, to look at: on a fresh machine they are unpacked again.

# %%
from helpers.data.table import restore_images
from helpers.files import load_json
from helpers.run import open_run

run = open_run(recipe, overrides)
oof, test = run.load_table("oof_probabilities"), run.load_table("test_probabilities")
restore_images(run.recipe, oof)
classes = list(load_json(run.need("label_mapping")))

# %% [markdown]
# ## 1 · Four scores, each with an interval
#
# - **Accuracy**: the share of images that are right. Large classes decide it.
# - **Balanced accuracy**: the mean over the classes of *recall*, the share of a class's
#   images that are found. Each class counts the same.
# - **Macro F1**: the mean of the classes' F1, which also counts false positives (section 3).
# - **Weighted F1**: the same, weighted by class size.
#
# Had we photographed other images of the same kind, each score would differ a little.
# The *bootstrap* shows by how much: draw as many images again from ours, with
# replacement, thousands of times, and see where 95 % of the scores lie.

# %%
from helpers.evaluation.intervals import score_with_intervals
from helpers.evaluation.scores import count_confusion

confusion = count_confusion(oof, classes)
resamples, seed = run.recipe.evaluation.bootstrap, run.recipe.splits.seed
score_with_intervals(confusion, resamples, seed).round(3)

# %% [markdown]
# These scores may guide choices: another backbone, another recipe. The hold-out may not,
# because a score that anything was chosen by is no longer one of unseen images. So it, and
# the data set's own test images if they have labels, are scored only with `final: true`,
# by the folds' ensemble, and every look is counted.

# %%
from helpers.evaluation.holdout import describe_looks, select_judged

held_out = select_judged(run, test, classes)
print(describe_looks(run))

# %% [markdown]
# The hold-out is good for one look. After several, with changes between them, its score is
# as flattering as any other.

# %%
import pandas as pd

from helpers.evaluation.scores import format_scores
from helpers.evaluation.summary import save_scores, score_sets

scores = score_sets({"out-of-fold": oof} | held_out, classes, run)
save_scores(run, scores)
pd.DataFrame({name: format_scores(table) for name, table in scores.items()})

# %% [markdown]
# Read it as: value [from, to]. The interval covers the luck of which images we have, not
# the luck of training again. To compare two models on the same images, do not compare
# their intervals: resample the difference of their scores instead.

# %%
from helpers.pictures.charts import plot_scores, save_figure

save_figure(run, plot_scores(scores), "06_scores")

# %% [markdown]
# With `final: true` a second set stands beside the first. The hold-out is smaller, so its
# intervals are wider; where the two overlap, chance is enough to explain the difference (in
# the demo, eight has two images there). A hold-out that lies clearly lower has three usual
# causes: choices made by looking at the folds, copies shared between folds, or wrong labels
# in the hold-out.
#
# ## 2 · Which class is taken for which?
#
# Each row is a true class, each column an answer; the diagonal is right.

# %%
from helpers.pictures.charts import plot_confusion

matrix = pd.DataFrame(confusion, pd.Index(classes, name="true"), classes)
run.save("confusion", matrix, index=True)
save_figure(run, plot_confusion(confusion, classes), "06_confusion")

# %% [markdown]
# Colours are shares of the true class, so a small class's failures show as well as a
# large one's. Two classes that are confused in both directions may look alike. In one
# direction only, ask which of the two the training favours: class weights pull images of
# large classes towards smaller ones, and in the demo more threes are taken for rarer
# digits than rarer digits for three.
#
# ## 3 · Class by class
#
# *Precision*: of the answers "this class", how many are right. *Recall*: of the images
# of this class, how many are found. F1 is high only if both are.

# %%
from helpers.evaluation.intervals import score_classes

per_class = score_classes(confusion, classes, resamples, seed)
run.save("classes", per_class, index=True)
per_class.sort_values("F1").round(3)

# %% [markdown]
# The worst class stands on top; the last two columns are the interval of F1.

# %%
from helpers.pictures.charts import plot_class_scores

save_figure(run, plot_class_scores(per_class), "06_class_scores")

# %% [markdown]
# Small classes have long intervals: a dozen images cannot say more. Should a class reach
# F1 1 with an interval of no length, then no mistake was seen, not that none will come:
# if none of n images was missed, up to about 3/n may still be missed in the long run
# (the "rule of three").
#
# ## 4 · The most confident mistakes
#
# When a model is sure and wrong, there are usually three explanations: the label is wrong,
# the image is hard to read, or the model has learnt something false. A look tells which.

# %%
from helpers.evaluation.scores import find_mistakes
from helpers.pictures.galleries import show_mistakes

mistakes = find_mistakes(oof)
run.save("mistakes", mistakes)
save_figure(run, show_mistakes(mistakes), "06_mistakes")

# %% [markdown]
# In the demo six labels are wrong on purpose, and most of those that the folds can see
# turn up among these: look at the digit first, then at label and answer. Not every sure
# mistake is a label error; some are just hard to read. The table gives the paths.

# %%
listed = mistakes.head(15)[["path", "label", "prediction", "confidence"]]
listed.style.format(precision=3).hide(axis="index")

# %% [markdown]
# All mistakes are in `mistakes.csv`, sorted like this.
#
# ## 5 · Predictions for the test images
#
# The data set's own test images and, with `final: true`, the hold-out, each with the
# ensemble's answer and its confidence; `code` is the data set's own name of the class,
# where it has one.

# %%
from helpers.evaluation.summary import list_predictions

predictions = list_predictions(run, test)
run.save("predictions", predictions)
predictions.drop(columns="path").head().round(3)

# %% [markdown]
# Confidence is the largest probability. Whether 0.9 really means "right nine times out
# of ten" is a question of its own, calibration.
#
# ## 6 · One page to hand on
#
# The report holds scores, figures, quarantine and all settings in one HTML file that
# opens anywhere, without a network.

# %%
from helpers.files import show_path
from helpers.pictures.report import write_report

print(f"open {show_path(write_report(run))} in a browser")

# %% [markdown]
# ## What we saw

# %%
macro, worst = scores["out-of-fold"].loc["macro F1"], per_class.F1.idxmin()
print(f"- macro F1 {macro.value:.3f}, between {macro.low:.3f} and {macro.high:.3f}, "
      f"on {len(oof)} images judged out-of-fold")
print(f"- weakest class: {worst}, F1 {per_class.F1[worst]:.3f} "
      f"on {per_class.images[worst]} images")
print(f"- {len(mistakes)} mistakes, {(mistakes.confidence > 0.9).sum()} of them made "
      "with more than 90 % confidence")

# %% [markdown]
# The last cell lists what was saved. This ends the main line; the next notebook asks
# whether another backbone would have done better, or the same for less.

# %%
run.finish("06_evaluation")

# %% [markdown]
# ## Try it
#
# 1. Compute the interval of macro F1 with 20 resamples, 200 and 2,000, a few times
#    each. When does it stop moving?
# 2. How many of the ten most confident mistakes are label errors? The demo's manifest,
#    `data/demo/rakuten/planted_faults.csv`, knows.
# 3. What would accuracy and macro F1 be for a model that always answers with the
#    largest class?
#
# Solutions are in [solutions.ipynb](solutions.ipynb). Next:
# [07 · Compare backbones](07_backbones.ipynb).
