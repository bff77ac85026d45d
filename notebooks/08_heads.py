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
# # 08 · Compare heads and remedies
#
# Logistic regression with class weights is one choice of many. Would a random forest, a
# support vector machine or a small neural network do better on the same features? And what
# helps the small classes: weights, SMOTE, another loss? Everybody has an opinion; here each
# is measured on your own images.
#
# **You will be able to** compare classifiers on the same folds, tell a real difference from
# luck, and say which classes gain from a remedy and which pay for it.
#
# **You need** the features from 03. You should have read 04 and 06.
# **You get** scores of every candidate beside one baseline, with paired intervals.
# **It takes** about two minutes for the demo. Whatever is finished is kept.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | how unequal are the classes? | |
# | 2 | one remedy by hand | |
# | 3 | every head and remedy on the same folds | `heads/` |
# | 4 | scores and paired differences | `heads.csv`, `figures/08_heads.png` |
# | 5 | who gains, who pays | `heads_by_class.csv`, `figures/08_classes.png` |

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
# `python -m helpers.batch --from 08` runs it.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)

# %% [markdown]
# ## 1 · How unequal are the classes?
#
# A classifier trained to be right as often as possible favours the large classes: when in
# doubt, they are the better bet.

# %%
import numpy as np

from helpers.data.splits import count_classes, imbalance_ratio, sample_rows, select_rows
from helpers.features.store import load_codes, load_features
from helpers.files import load_json

rows = select_rows(run.load_table(), "train")
counts, classes = count_classes(rows), list(load_json(run.need("label_mapping")))
print(f"{counts.idxmax()}: {counts.max()} images, {counts.idxmin()}: {counts.min()}, "
      f"a ratio of {imbalance_ratio(counts):.1f} to 1")

# %% [markdown]
# Whether that is a problem depends on what a mistake costs. If every photo counts the same,
# *accuracy* is the right score, and so is favouring large classes. If every class counts the
# same, look at *balanced accuracy*, the average of the classes' recalls, or at *macro F1*,
# which also punishes false positives: it falls when a model names a small class too often.
# Decide before you look at results.
#
# ## 2 · One remedy by hand
#
# *Logit adjustment* is the simplest remedy, since nothing is trained again: divide each
# class's probability by a power of its share among the training images. First, fit a plain
# logistic regression without class weights on all folds except fold 0. To keep it short, at
# most 1,000 images take part, and C is fixed.

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

some = sample_rows(rows, 1000, run.recipe.splits.seed)
X, y = np.asarray(load_features(run, "train"))[some], load_codes(run)[some]
part = rows.fold.to_numpy()[some]
plain = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
plain.fit(X[part > 0], y[part > 0])
probabilities, asked = plain.predict_proba(X[part == 0]), y[part == 0]

# %% [markdown]
# Now the adjustment. A strength of 0 leaves everything as it is; 1 answers as if all classes
# were equally frequent.

# %%
from sklearn.metrics import accuracy_score, balanced_accuracy_score

shares = np.unique(y[part > 0], return_counts=True)[1] / (part > 0).sum()
for strength in (0, 0.5, 1, 1.5):
    adjusted = plain.classes_[(probabilities / shares**strength).argmax(axis=1)]
    print(f"strength {strength}: accuracy {accuracy_score(asked, adjusted):.3f}, "
          f"balanced accuracy {balanced_accuracy_score(asked, adjusted):.3f}")

# %% [markdown]
# In theory a larger strength gives up accuracy for balanced accuracy, up to about 1. In one
# fold of a small data set, a single photo of a small class can move balanced accuracy by
# several points, so do not choose a strength from these lines. The helper chooses it on an
# inner fold, by macro F1, as 04 chooses C.
#
# The other remedies act during training:
#
# | remedy | what it does |
# |---|---|
# | class weights | images of small classes count more |
# | balanced batches | images of small classes are drawn more often |
# | random oversampling | images of small classes are repeated |
# | random undersampling | images of large classes are left out |
# | SMOTE | new images of small classes are invented, between neighbours |
# | focal loss | images that the model still gets wrong, or is unsure of, count more |
# | balanced softmax | the logarithm of each class's share is added to its score (*logit*) during training only, so that the model need not learn which classes are frequent |
#
# All of them act inside the training part of a fold, and never on the images that are judged.
# The third exercise shows what happens otherwise.
#
# ## 3 · Every head and every remedy
#
# Each *head* (a classifier on top of the features) is trained without a remedy, and each
# remedy is tried with the baseline's head, or with the linear layer where it needs batches.
# All use the folds of 02. Each head's settings, and for some heads whether features are
# standardised or reduced by PCA, are chosen on an inner fold, as C is in 04.
#
# | head | in a line |
# |---|---|
# | logistic regression | as in 04, but without class weights: the baseline |
# | ridge regression | least squares on the classes as -1 and 1 |
# | linear SVM | one class against the rest, with as wide a margin as possible |
# | nearest neighbours | the vote of the most similar training images |
# | random forest, gradient boosting | many decision trees: averaged, or each correcting the last |
# | nearest class mean | the class whose average is nearest |
# | linear layer | a logistic regression trained in batches, with dropout and an early stop (look at it before you judge `balanced batches`) |
# | perceptron (MLP) | the same with one hidden layer |
#
# Heads that give no probabilities (ridge, SVM, neighbours, class mean) get them from a
# *temperature*, one factor for all scores, fitted on the inner fold; the others keep theirs.

# %%
from helpers.evaluation.head_comparison import answer_heads, tabulate_heads

answers = answer_heads(run)
baseline, *others = answers
print(f"baseline: {baseline}; {len(answers[baseline])} images, {len(others)} others")

# %% [markdown]
# Unless the recipe says otherwise, the model of 04 is the row `class weights`. All rows below
# are out-of-fold. *Log loss* judges the probabilities themselves; lower is better. Most
# remedies make small classes more probable on purpose, so expect theirs to be worse.
# *Weighted F1* averages the classes' F1 by their images. `seconds` is the total over all
# folds, including the search for settings.

# %%
table, by_class = tabulate_heads(run, answers)
run.save("heads", table)
run.save("heads_by_class", by_class)
scores = table.pivot(index="candidate", columns="score", values="value")
scores = scores.loc[list(answers)]
scores.assign(seconds=table.groupby("candidate").seconds.first()).round(3)

# %% [markdown]
# It is tempting to take the largest number of a column and be done. But with other photos
# the order might well be different.
#
# ## 4 · What is a difference worth?
#
# So we draw the photos again, with replacement, thousands of times, and score all candidates
# on each draw. Photos that are hard for one candidate are often hard for another, so when two
# answer alike, their *difference* varies less than either score. Copies of a photo, and photos
# of the same group (`group_column`, see 02), are drawn together, because they are not
# independent evidence. Differences are in *points*, hundredths of a score, but for log loss.

# %%
from helpers.pictures.charts import save_figure
from helpers.pictures.comparisons import plot_differences

save_figure(run, plot_differences(table), "08_heads")

# %% [markdown]
# Points to the right of the line are better than the baseline, except for log loss, where left
# is better. Grey means that the interval contains 0, so no difference was seen. That does not
# prove there is none: more images might reveal one. And the interval reflects only which
# photos are scored, not other folds, other seeds or other photos to learn from.

# %%
from helpers.evaluation.compare import describe_difference

macro = table[(table.score == "macro F1") & (table.candidate != baseline)]
for _, row in macro.sort_values("difference", ascending=False).iterrows():
    print(describe_difference(row.candidate, row.score, row))

# %% [markdown]
# We have looked at many candidates. Even if none differed from the baseline, about one 95 %
# interval in twenty would exclude 0 by chance. The *p value* says how often a difference at
# least this large would arise by chance if there were none. *Holm's correction* raises the
# p values so that the chance of even one false alarm among all candidates stays below 5 %,
# for each score separately. Filled points in the picture have passed it. How many remain?

# %%
for score, part_of in table[table.candidate != baseline].groupby("score", sort=False):
    print(f"{score}: {(part_of.p < 0.05).sum()} of {len(part_of)} differ before the "
          f"correction, {(part_of.p_holm < 0.05).sum()} after it")

# %% [markdown]
# Report all comparisons with their intervals, and claim only the differences that remain.
# That nothing helps is a result, too.
#
# ## 5 · Who gains, who pays
#
# Most remedies move answers towards small classes: their recall rises, but so do their false
# positives, and F1 counts both. In blue cells the candidate has a higher F1 than the baseline,
# in red ones a lower. The number of images stands beside each class.

# %%
from helpers.pictures.comparisons import plot_class_differences

save_figure(run, plot_class_differences(by_class), "08_classes")

# %% [markdown]
# In small classes a few photos decide, and their intervals are wide. All cells of a row
# compare the same photos with the same baseline, so a row of one colour is one piece of
# evidence, not many; and nothing here is corrected for the number of cells.
#
# With `text_columns` in the recipe, for example
# `overrides = {"text_columns": ["designation", "description"]}` for Rakuten, two more rows
# appear everywhere: the text alone, and photo and text together.
#
# ## What we saw

# %%
passed = table[table.p_holm < 0.05]
print(f"- baseline: {baseline}, macro F1 {scores['macro F1'][baseline]:.3f}, log loss "
      f"{scores['log loss'][baseline]:.3f}")
for score in ("macro F1", "balanced accuracy", "accuracy"):
    left = passed[passed.score == score]
    better, worse = left[left.difference > 0], left[left.difference < 0]
    print(f"- {score}, after Holm: better {', '.join(better.candidate) or 'none'}; "
          f"worse {', '.join(worse.candidate) or 'none'}")

# %% [markdown]
# Where no difference is seen, keep what is simple, fast and gives good probabilities. A
# candidate that was chosen because it came out best here looks a little better than it is;
# the hold-out, scored once (06), does not flatter it. To use another head or remedy, set it
# and name a new run, for example
# `make run SET="imbalance=logit_adjustment run=demo-adjusted"`.

# %%
run.finish("08_heads")

# %% [markdown]
# ## Try it
#
# Fill in the blanks (`___`), remove the `#` and run. Solutions are in
# [solutions.ipynb](solutions.ipynb).
#
# **1.** Which candidates would you call better or worse in macro F1 if you had not heard of
# Holm? Which of them remain?

# %%
# alone = table[(table.score == "macro F1") & (table.p < ___)]
# alone[["candidate", "difference", "p", "p_holm"]].round(3)

# %% [markdown]
# **2.** Is the balanced softmax better than class weights? Both are candidates, so compare
# them with each other, not each with the baseline.

# %%
# from helpers.evaluation.compare import compare_scores
#
# compare_scores(answers["balanced softmax"], answers["___"], classes,
#                run.recipe.evaluation.bootstrap, run.recipe.splits.seed).round(3)

# %% [markdown]
# **3.** The classic mistake: apply SMOTE to all images, and only then assign the folds. What
# does the score promise, and what does it say about new photos?

# %%
# from helpers.training.crossvalidation import cross_validate
# from helpers.training.heads import create_head
# from helpers.training.imbalance import Remedy
#
# more, codes = Remedy("___").resample(X, y)
# torn = np.random.default_rng(0).integers(0, 5, len(codes))
# unweighted = run.recipe.change(imbalance="none").head
# wrong, _ = cross_validate(lambda: create_head(unweighted, len(classes), 0),
#                           more, codes, torn)
# print(f"balanced accuracy {balanced_accuracy_score(codes, wrong.argmax(axis=1)):.3f}")

# %% [markdown]
# Next: [09 · A lab for fine-tuning](09_fine_tuning_lab.ipynb).
