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
# like? Every score here comes from images that the model had never seen, not even as a
# copy.
#
# **You will be able to** report a score with its interval, read a confusion matrix, find
# wrong labels, and use the model on a photo of your own.
#
# **You need** the probabilities from 04.
# **You get** scores with intervals, the confusion matrix, the mistakes as pictures,
# predictions for the test images, and a report to hand on.
# **It takes** about 10 seconds, for large data as well.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | four scores, each with an interval | `metrics.json`, `figures/06_scores.png` |
# | 2 | which class is mistaken for which | `confusion_matrix.csv`, `figures/06_confusion.png` |
# | 3 | class by class | `per_class.csv`, `figures/06_class_scores.png` |
# | 4 | the most confident mistakes | `mistakes.csv`, `figures/06_mistakes.jpg` |
# | 5 | predictions for the unseen images | `predictions.csv` |
# | 6 | everything on one page | `report.html` |
# | 7 | a photo of your own | |

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
# Both tables of probabilities come from 04. The images are needed only to be looked at; on
# a fresh machine they are unpacked again.

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
# - **Accuracy**: the share of correct predictions. Large classes dominate it.
# - **Balanced accuracy**: the mean over the classes of *recall*, the share of a class's
#   images that are found. Each class counts the same.
# - **Macro F1**: the mean of the classes' F1, which also takes false positives into account
#   (section 3).
# - **Weighted F1**: the same, weighted by class size.
#
# Had we photographed other things of the same kinds, each score would be a little
# different. The *bootstrap* shows by how much: draw as many images again from ours, with
# replacement, thousands of times, and see where 95 % of the scores lie.

# %%
from helpers.evaluation.intervals import score_sets, score_with_intervals
from helpers.evaluation.scores import count_confusion

confusion = count_confusion(oof, classes)
resamples, seed = run.recipe.evaluation.bootstrap, run.recipe.splits.seed
score_with_intervals(confusion, resamples, seed).round(3)

# %% [markdown]
# These out-of-fold scores may guide choices: another backbone, another recipe. The
# hold-out may not, because a score that guided a choice is optimistically biased. So
# the hold-out, and the data set's own test images if they have labels, are scored only
# with `final: true`, by the ensemble of the folds' models, and every look is counted.

# %%
from helpers.evaluation.holdout import describe_looks, select_judged

held_out = select_judged(run, test, classes)
print(describe_looks(run))

# %% [markdown]
# The hold-out is good for one look. After several, with changes in between, its score
# is as flattering as any other. (The committed demo takes its one look to show it;
# nothing was chosen by it.) In the table, the last column is the majority baseline: a
# model that looks at no image and always answers with the largest class.

# %%
import pandas as pd

from helpers.evaluation.baselines import answer_always
from helpers.evaluation.scores import format_scores
from helpers.evaluation.summary import save_scores

scores = score_sets({"out-of-fold": oof} | held_out, classes, run)
save_scores(run, scores)
largest = oof.label.value_counts().idxmax()
always = score_sets({f"always '{largest}'": answer_always(oof, largest)}, classes, run)
pd.DataFrame({name: format_scores(table) for name, table in (scores | always).items()})

# %% [markdown]
# Read it as: value [from, to]. The interval reflects which images we have, not
# variation across retraining. To compare two models on the same images, use the paired
# difference of 04 or 07 rather than two intervals.

# %%
from helpers.pictures.charts import plot_scores, save_figure

save_figure(run, plot_scores(scores), "06_scores")

# %% [markdown]
# Smaller sets have wider intervals, and where a class has only two or three images in a
# set, some resamples miss it, which makes the interval of its averages lopsided. Where
# the intervals of two different sets of images overlap widely, chance is enough to
# explain the difference. A clearly lower hold-out score has three usual causes: choices
# made by looking at the folds, copies shared between folds, or wrong labels in the
# hold-out.
#
# ## 2 · Which class is mistaken for which?
#
# Each row is a true class, each column a prediction; the diagonal is right.

# %%
from helpers.pictures.charts import plot_confusion

matrix = pd.DataFrame(confusion, pd.Index(classes, name="true"), classes)
run.save("confusion", matrix, index=True)
save_figure(run, plot_confusion(confusion, classes), "06_confusion")

# %% [markdown]
# Colours are shares of the true class, so a small class's errors show as well as a large
# one's; the numbers are images. Two classes that are confused in both directions may simply
# look alike. Here are the most frequent confusions.

# %%
wrong = oof[oof.prediction != oof.label]
pairs = wrong.groupby(["label", "prediction"]).size().rename("images")
pairs.sort_values(ascending=False).head(5).reset_index()

# %% [markdown]
# For each of these pairs it is worth asking whether you could tell the two apart yourself.
#
# ## 3 · Class by class
#
# *Precision*: of the predictions "this class", how many are right. *Recall*: of the images
# of this class, how many are found. F1 is high only if both are. *Support* is the number of
# images of the class.

# %%
from helpers.evaluation.intervals import score_classes

per_class = score_classes(confusion, classes, resamples, seed)
run.save("classes", per_class, index=True)
per_class.sort_values("F1").rename(columns={"images": "support"}).round(3)

# %% [markdown]
# The weakest class is at the top; the last two columns are the interval of F1.

# %%
from helpers.pictures.charts import plot_class_scores

save_figure(run, plot_class_scores(per_class), "06_class_scores")

# %% [markdown]
# Small classes have wide intervals: a dozen images cannot say more. An F1 of 1 with an
# interval of zero width means that no mistake was seen, not that none will come: if
# none of n images was missed, the true miss rate may still be as high as about 3/n (the
# "rule of three").
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
# Look at each photo first, then at its label and prediction. Where the photo agrees
# with the prediction, the label may be wrong (then correct it in your data and run
# again), or two classes overlap: is a used tissue paper or trash? Otherwise it is the
# model's own error. Where is the photo that we have followed since 01?

# %%
from helpers.data.table import find_followed

followed = find_followed(run.recipe, oof)
place = mistakes.index[mistakes.image_id == followed.image_id]
print(f"{followed.image_id} is labelled {followed.label}; the model says "
      f"{followed.prediction} ({followed['p_' + followed.prediction]:.0%} sure)")
print(f"mistake {place[0] + 1} of {len(mistakes)}" if len(place) else "no mistake")

# %% [markdown]
# What did you say in 01? No check there can see a wrong label, but a model trained on
# the other folds disagrees with it, and so puts the photo on its list of suspects. All
# mistakes are in `mistakes.csv`, the most confident first.
#
# ## 5 · Predictions for the unseen images
#
# The data set's own test images and, with `final: true`, the hold-out, each with the
# ensemble's prediction and its confidence.

# %%
from helpers.evaluation.summary import list_predictions

predictions = list_predictions(run, test)
run.save("predictions", predictions)
predictions.drop(columns="path").head().round(3)

# %% [markdown]
# Confidence is the largest probability. Whether 0.9 really means "right nine times out
# of ten" is a question of its own, called calibration.
#
# ## 6 · One page to hand on
#
# The report holds scores, figures, quarantine and all settings in one HTML file that
# opens anywhere, even offline.

# %%
from helpers.files import show_path
from helpers.pictures.report import write_report

print(f"open {show_path(write_report(run))} in a browser")

# %% [markdown]
# ## 7 · A photo of your own
#
# Put the path of any photo into the first line, and its text, if the recipe's model reads
# text. The rest loads the network and the folds' models, and asks them.

# %%
photo, text = followed.path, ""

from helpers.data.images import decode_image
from helpers.network.backbones import create_backbone
from helpers.network.preprocessing import create_preprocessing
from helpers.training.crossvalidation import (
    describe_inputs, form_inputs, load_models, predict_ensemble)

backbone, data_config = create_backbone(run.recipe, run.measured)
models, names = load_models(run.need("head"), describe_inputs(run))
batch = create_preprocessing(data_config)(decode_image(photo)).unsqueeze(0)
features = backbone(batch).numpy()
inputs = form_inputs(run.recipe.head.inputs, features, [text])
answer = pd.Series(predict_ensemble(models, inputs)[0], names)
answer.sort_values(ascending=False).head(5).round(3).to_frame("probability")

# %% [markdown]
# A training photo is no fair test: all but one of the folds' models have learnt from
# it, and of the label that it came with. Your own photo is a fair one. Also try
# something outside the classes: the model cannot say "none of these", and spreads its
# probability over what it knows.
#
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
# The next cell lists what was saved. This ends the core sequence; the next notebook
# asks whether another backbone would be better, or as good for less.

# %%
run.finish("06_evaluation")

# %% [markdown]
# ## Try it
#
# Fill in the blanks (`___`), remove the `#` and run. Solutions are in
# [solutions.ipynb](solutions.ipynb).
#
# **1.** Compute the interval of macro F1 three times each with 20, 200 and 2,000 resamples.
# When does it stop moving?

# %%
# for count in (20, 200, 2000):
#     rounds = [score_with_intervals(confusion, ___, seed).loc["macro F1"]
#               for seed in range(3)]
#     print(count, ", ".join(f"[{r.low:.3f}, {r.high:.3f}]" for r in rounds))

# %% [markdown]
# **2.** Suppose that predictions below a confidence of 0.8 go to a person instead. How many
# are left, and how many of those are right?

# %%
# sure = oof[oof.filter(regex="^p_").max(axis=1) >= ___]
# print(f"{len(sure) / len(oof):.0%} are left, "
#       f"{(sure.prediction == sure.label).mean():.1%} of them right")

# %% [markdown]
# **3.** How many of the twenty most confident mistakes are label errors? The demo's
# manifest of planted faults knows some of them.

# %%
# from helpers.files import resolve_path
#
# manifest = pd.read_csv(resolve_path(run.recipe.data.path) / "planted_faults.csv")
# print(manifest.fault.unique())
# planted = manifest.image_id[manifest.fault == "___"]
# few = mistakes.head(20).image_id.isin(planted).sum()
# print(few, "of the first twenty were planted")

# %% [markdown]
# Next: [07 · Compare backbones](07_backbones.ipynb).
