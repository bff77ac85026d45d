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
# **You will be able to** report a score with an interval that is wide enough, compare two
# models, find wrong labels and shortcuts, and say when a model should rather not answer.
#
# **You need** the probabilities from 04.
# **You get** scores with intervals, the mistakes as pictures, a list of doubtful labels,
# predictions for the test images, a report to hand on, and a model card.
# **It takes** about half a minute for the demo, and a few minutes for 100,000 photos.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | scores, each with an interval | `metrics.json`, `fold_scores.csv` |
# | 2 | compared with other answers | |
# | 3 | which class is mistaken for which | `confusion_matrix.csv` |
# | 4 | class by class | `per_class.csv` |
# | 5 | mistakes worth a look | `mistakes.csv` |
# | 6 | labels in doubt | `label_suspects.csv` |
# | 7 | shortcuts | `shortcuts.csv`, `accuracy_by_part.csv` |
# | 8 | how sure is sure? | `calibration.json` |
# | 9 | predictions for the unseen images | `predictions.csv` |
# | 10 | two pages to hand on | `report.html`, `MODEL_CARD.md` |
# | 11 | a photo of your own | |

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
from IPython.display import display

from helpers.data.table import find_followed, restore_images
from helpers.files import load_json
from helpers.run import open_run

run = open_run(recipe, overrides)
oof, test = run.load_table("oof_probabilities"), run.load_table("test_probabilities")
restore_images(run.recipe, oof)
classes = list(load_json(run.need("label_mapping")))
resampling = run.recipe.evaluation.bootstrap, run.recipe.splits.seed

# %% [markdown]
# ## 1 · Scores, each with an interval
#
# Had we photographed other things of the same kinds, each score would be a little
# different. The *bootstrap* shows by how much: draw as many images again from ours, with
# replacement, thousands of times, and see where 95 % of the scores lie. Copies of one
# image are no independent evidence, so a *group* of copies is drawn, or not, as a whole.
# For accuracy this is all there is to it:

# %%
import numpy as np

right = (oof.prediction == oof.label).groupby(oof.group).agg(["sum", "size"]).to_numpy()
rng = np.random.default_rng(0)
draws = rng.integers(0, len(right), (2000, len(right)))
hits, images = right[draws].sum(axis=1).T
print(f"accuracy {right[:, 0].sum() / len(oof):.3f}, 95 % of the draws between "
      "{:.3f} and {:.3f}".format(*np.quantile(hits / images, [0.025, 0.975])))

# %% [markdown]
# The helper does this for every score, and better in two ways. It draws class by class, so
# that a small class does not vanish. And it knows that no mistake among few images is no
# certainty: a plain bootstrap of a perfect score gives an interval without length. In
# simulations with 60 images, of 100 intervals that claim 95 %, so many held the truth:
#
# | accuracy, 60 images | plain bootstrap, image by image | ours |
# |---|---|---|
# | 83 % right, each image alone | 93.9 | 96.6 |
# | 83 % right, groups of four alike | 77.8 | 94.7 |
# | 98 % right, each image alone | COV5 | COV6 |
#
# Out-of-fold scores may guide choices: another backbone, another recipe. The hold-out may
# not, because a score that guided a choice is optimistically biased. So the hold-out, and
# the data set's own test images if they have labels, are scored only with `final: true`, by
# the ensemble of the folds' models, and every look is counted. (The committed demo takes
# its one look to show it; nothing was chosen by it.)

# %%
import pandas as pd

from helpers.evaluation.holdout import describe_looks, select_judged
from helpers.evaluation.intervals import score_sets
from helpers.evaluation.scores import format_scores
from helpers.evaluation.summary import save_scores

sets = {"out-of-fold": oof} | select_judged(run, test, classes)
scores = score_sets(sets, classes, run)
save_scores(run, scores)
print(describe_looks(run))
pd.DataFrame({name: format_scores(table) for name, table in scores.items()})

# %% [markdown]
# Read it as: value [from, to]. *Balanced accuracy* is the mean over the classes of recall,
# the share of a class's images that are found; *macro F1* also takes false positives into
# account (section 4); *AUC* asks whether an image of a class gets a larger probability of it
# than an image of another class. The last three judge the probabilities, and lower is
# better: *log loss* and *Brier score* punish being sure and wrong, and *calibration error*
# is how far confidence is from the share right (section 8).

# %%
from helpers.pictures.charts import save_figure
from helpers.pictures.results import plot_scores

save_figure(run, plot_scores(scores), "06_scores")

# %% [markdown]
# Smaller sets have wider intervals. The interval reflects which images we have, not
# variation across retraining. A clearly lower hold-out score has three usual causes:
# choices made by looking at the folds, copies shared between folds, or wrong labels in the
# hold-out. Fold by fold:

# %%
from helpers.evaluation.summary import score_folds

fold_scores = score_folds(run, oof, classes)
run.save("fold_scores", fold_scores, index=True)
fold_scores.round(3)

# %% [markdown]
# These rows are not independent, for the folds' models share most of what they learnt from:
# their spread is no interval.
#
# ## 2 · Compared with other answers
#
# Two intervals that overlap do not mean that two models are equally good: both were judged
# on the same images, and what is hard for one is often hard for the other. What counts is
# the *paired difference*, both scored in every draw. *McNemar's test* looks only at images
# on which one alone is right. Here the model meets the majority baseline, which always
# answers with the largest class, and every other run of the same images.

# %%
from helpers.evaluation.baselines import answer_always
from helpers.evaluation.compare import compare_answers, find_rivals

largest = oof.label.value_counts().idxmax()
answers = {f"always '{largest}'": answer_always(oof, largest), "this run": oof}
differences = compare_answers(answers | find_rivals(run.folder), classes)

# %% [markdown]
# To compare runs with each other:
# `python -m helpers.evaluation.compare outputs/one outputs/other`. Runs on different images
# are refused, because their difference would mean nothing.
#
# ## 3 · Which class is mistaken for which?
#
# Each row is a true class, each column a prediction; the diagonal is right. Classes that
# are often mixed up stand side by side.

# %%
from helpers.evaluation.scores import tabulate_confusion
from helpers.pictures.results import plot_confusion

confusion = tabulate_confusion(oof, classes)
run.save("confusion", confusion, index=True)
save_figure(run, plot_confusion(confusion), "06_confusion")

# %% [markdown]
# Colours are shares of the true class, so a small class's errors show as well as a large
# one's; the numbers are images. Here are the most frequent confusions, with their photos.

# %%
from helpers.evaluation.mistakes import list_confusions
from helpers.pictures.galleries import show_confusions

save_figure(run, show_confusions(oof, list_confusions(oof)), "06_pairs")

# %% [markdown]
# For each of these pairs it is worth asking whether you could tell the two apart yourself.
#
# ## 4 · Class by class
#
# *Precision*: of the predictions "this class", how many are right. *Recall*: of the images
# of this class, how many are found. F1 is high only if both are. *Support* is the number of
# images of the class, and `groups` how many of them are no copies of each other.

# %%
from helpers.evaluation.intervals import score_classes
from helpers.pictures.results import plot_class_scores

per_class = score_classes(oof, classes, *resampling)
run.save("classes", per_class, index=True)
display(save_figure(run, plot_class_scores(per_class), "06_class_scores"))
per_class.sort_values("F1").rename(columns={"images": "support"}).round(3)

# %% [markdown]
# The weakest class is at the top; the last two columns are the interval of F1. Small
# classes have wide ones: a dozen images cannot say more.
#
# ## 5 · Mistakes worth a look
#
# When a model is sure and wrong, there are usually three explanations: the label is wrong,
# the image is hard to read, or the model has learnt something false. A look tells which.

# %%
from helpers.evaluation.mistakes import find_mistakes, find_uncertain
from helpers.pictures.galleries import show_mistakes

mistakes = find_mistakes(oof)
run.save("mistakes", mistakes)
save_figure(run, show_mistakes(mistakes), "06_mistakes")

# %% [markdown]
# Look at each photo first, then at its label and prediction. The least certain answers
# are another list: images between two classes, right or wrong.

# %%
uncertain = find_uncertain(oof)
save_figure(run, show_mistakes(uncertain, 10), "06_uncertain")

# %% [markdown]
# What did the model look at? *Grad-CAM* asks for the last feature maps of the network which
# of them spoke for a class, and where. Each mistake is explained by the model of its own
# fold, for its prediction and for its label; what counted is lit.

# %%
from helpers.evaluation.explain import explain_answers
from helpers.files import SuiteError
from helpers.pictures.galleries import show_explanations

try:
    chosen = oof[oof.image_id.isin(mistakes.image_id.head(8))]
    explanations = explain_answers(run, chosen)
    display(save_figure(run, show_explanations(explanations), "06_gradcam"))
except SuiteError as error:
    print(error)

# %% [markdown]
# Light on the background is a warning: what the model uses there may be missing from the
# next photo. Light on the object is no proof that it was understood.
#
# ## 6 · Labels in doubt
#
# *Confident learning* compares each label with the out-of-fold probabilities, class by
# class. Where another class is more probable than is usual for images of that class, the
# label is in doubt.

# %%
from helpers.evaluation.label_errors import find_label_errors

suspects, followed = find_label_errors(oof, classes), find_followed(run.recipe, oof)
run.save("label_suspects", suspects)
place = suspects.index[suspects.image_id == followed.image_id]
verdict = f"number {place[0] + 1} of them" if len(place) else "not one of them"
print(f"{len(suspects)} of {len(oof)} labels are in doubt")
print(f"{followed.image_id}, labelled {followed.label}, is {verdict}")
shown = suspects.rename(columns={"suggestion": "prediction"})
save_figure(run, show_mistakes(shown, 10, answer="rather"), "06_suspects")

# %% [markdown]
# What did you say in 01 of the photo that we follow? No check there can see a wrong label,
# but a model trained on the other folds disagrees with it. To put labels right, copy
# `label_suspects.csv` beside the recipe, write the right class into its column `correction`
# (or `(leave out)`) where you are sure, and set `corrections` to its path. Your images and
# tables stay as they are. Mind that labels are then checked only where the model objects,
# so that the score rises a little by that alone.
#
# ## 7 · Shortcuts
#
# Could something cheap give the class away: brightness, size, file type, or a column of
# the table such as the camera? Two questions about each cue. How well does it tell the
# classes apart alone (by a small decision tree, out-of-fold)? And does the model's accuracy
# fall on images for which it points to another class?

# %%
from helpers.evaluation.summary import measure_shortcuts
from helpers.pictures.results import plot_parts, plot_shortcuts

cues, parts = measure_shortcuts(run, oof, classes)
run.save("shortcuts", cues)
run.save("parts", parts)
save_figure(run, plot_shortcuts(cues), "06_shortcuts")

# %% [markdown]
# Orange cues are those for which both answers are yes beyond doubt. Then the score is one
# for photos on which the cue holds, and may be much lower elsewhere. Accuracy by the values
# of the most telling cues, and photos of both ends of the first:

# %%
from helpers.evaluation.shortcuts import describe_cues, describe_shortcut
from helpers.pictures.galleries import show_ends

table = run.load_table().set_index("image_id").loc[oof.image_id]
display(save_figure(run, plot_parts(parts, list(cues.cue)), "06_parts"))
for _, cue in cues.head(1).iterrows():
    print(describe_shortcut(cue))
    figure = show_ends(table, describe_cues(table)[cue.cue])
    display(save_figure(run, figure, "06_ends"))

# %% [markdown]
# Parts with few images have wide intervals, and the worst of many parts looks worse than it
# is. Look at the photos: does the cue come with the class by nature, or by how they were
# collected?
#
# ## 8 · How sure is sure?
#
# If the model says 0.9, is it right nine times out of ten? Points above the line: it is
# right more often than it says. A *temperature* sharpens or flattens all probabilities; it
# is fitted on the other folds.

# %%
from helpers.evaluation.calibration import measure_reliability
from helpers.evaluation.summary import measure_calibration_gain
from helpers.pictures.results import plot_reliability

corrected, calibration = measure_calibration_gain(run, oof, classes)
run.save("calibration", calibration)
answers = {"as it is": oof, "temperature corrected": corrected}
tables = {name: measure_reliability(answered, classes, *resampling)
          for name, answered in answers.items()}
save_figure(run, plot_reliability(tables), "06_reliability")

# %% [markdown]
# Whether the correction helps is not said in advance: each fold's model has chosen its
# sharpness already, on few images. The log loss before and after tells. And a model that
# may say "not sure" makes fewer mistakes: the surest photos are answered first.

# %%
from helpers.evaluation.calibration import describe_calibration, trace_risk
from helpers.pictures.results import plot_risk

print(describe_calibration(calibration))
save_figure(run, plot_risk(trace_risk(oof), calibration["abstention"]), "06_risk")

# %% [markdown]
# `wished_accuracy` sets what is asked for. The threshold that answers for a fold was chosen
# on the other folds, so the red point is an honest one.
#
# ## 9 · Predictions for the unseen images
#
# The data set's own test images and, with `final: true`, the hold-out, each with the
# ensemble's prediction and its confidence. For the Rakuten challenge its own CSV is written
# as well. Several runs become one with
# `python -m helpers.evaluation.ensembles outputs/one outputs/other --to outputs/both`.

# %%
from helpers.evaluation.summary import list_predictions, write_submission

predictions = list_predictions(run, test)
run.save("predictions", predictions)
if run.recipe.data.source == "rakuten":
    write_submission(run, predictions)
predictions.drop(columns="path").head().round(3)

# %% [markdown]
# Confidence is the largest probability.
#
# ## 10 · Two pages to hand on
#
# The report holds all of this in one HTML file that opens anywhere, even offline. The model
# card says in Markdown what the model is for, how good it is, and where its limits are.

# %%
from helpers.files import show_path
from helpers.pictures.report import write_report

print(f"open {show_path(write_report(run))} in a browser; "
      f"{show_path(run.path('card'))} is the model card")

# %% [markdown]
# ## 11 · A photo of your own
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
from helpers.pictures.facts import gather_facts

for sentence in gather_facts(run)["findings"]:
    print(f"- {sentence}")

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
# from helpers.evaluation.intervals import score_with_intervals
#
# for count in (20, 200, 2000):
#     rounds = [score_with_intervals(oof, classes, ___, seed).loc["macro F1"]
#               for seed in range(3)]
#     print(count, ", ".join(f"[{r.low:.3f}, {r.high:.3f}]" for r in rounds))

# %% [markdown]
# **2.** Suppose that predictions below a confidence of 0.8 go to a person instead. How many
# are left, and how many of those are right? **3.** How many of the twenty first suspects
# are label errors? The demo's manifest of planted faults knows some of them.

# %%
# sure = oof[oof.filter(regex="^p_").max(axis=1) >= ___]
# print(f"{len(sure) / len(oof):.0%} are left, "
#       f"{(sure.prediction == sure.label).mean():.1%} of them right")

# %%
# from helpers.files import resolve_path
#
# manifest = pd.read_csv(resolve_path(run.recipe.data.path) / "planted_faults.csv")
# print(manifest.fault.unique())
# planted = manifest.image_id[manifest.fault == "___"]
# few = suspects.head(20).image_id.isin(planted).sum()
# print(few, "of the first twenty were planted")

# %% [markdown]
# Next: [07 · Compare backbones](07_backbones.ipynb).
