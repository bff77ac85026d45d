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
# # 05 · See the features
#
# Each image is a point in a space of a thousand dimensions or more. t-SNE arranges these
# points on a plane so that neighbours stay neighbours, and we can look at them.
#
# **You will be able to** draw a map of any features, and say what may be read from it and
# what may not.
#
# **You need** the features from 03.
# **You get** a picture of which classes the backbone keeps apart, and which it mixes.
# **It takes** about 10 seconds for the demo, and a minute for 5,000 points.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | draw a stratified sample | |
# | 2 | PCA first, then t-SNE | `tsne.csv` |
# | 3 | look, with caution | `figures/05_tsne.png` |
# | 4 | ask the features themselves | |

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
# Only training images are drawn: looking at the hold-out could influence our choices.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)

# %% [markdown]
# ## 1 · A sample
#
# t-SNE's time grows faster than the number of points, and beyond a few thousand points
# the picture only gets fuller.

# %%
from helpers.data.splits import sample_rows, select_rows
from helpers.features.store import load_features

settings, seed = run.recipe.projection, run.recipe.splits.seed
rows = select_rows(run.load_table(), "train")
chosen = sample_rows(rows, settings.tsne_images, seed)
features = load_features(run, "train")[chosen]
print(f"{len(chosen)} of {len(rows)} training images")

# %% [markdown]
# With fewer images than `tsne_images`, all are taken.
#
# ## 2 · PCA, then t-SNE
#
# First each feature is standardised (mean 0, standard deviation 1). PCA, principal
# component analysis, then keeps the 50 directions in which the features vary most. That
# drops what is mostly noise and makes t-SNE much faster.

# %%
from helpers.evaluation.projection import measure_variance, project_features

print(f"PCA keeps {measure_variance(features, seed):.0%} of the variance")
places = project_features(features, settings.perplexity, seed)

# %% [markdown]
# *Perplexity* is roughly the number of neighbours that each point tries to stay close
# to. The coordinates are saved, so that the map can be drawn in other ways.

# %%
points = rows.loc[chosen, ["image_id", "path", "label", "group"]].assign(
    x=places[:, 0], y=places[:, 1])
run.save("tsne", points)

# %% [markdown]
# ## 3 · Look, with caution
#
# Each point is an image, its colour is its class. The star is the photo that we follow.

# %%
from helpers.data.table import find_followed
from helpers.pictures.charts import plot_projection, save_figure

followed = find_followed(run.recipe, rows)
save_figure(run, plot_projection(points, followed.image_id), "05_tsne")

# %% [markdown]
# **What may be read from it:** classes that form islands of their own are easy for a
# classifier; a point deep inside another class's island may be mislabelled, or just odd.
#
# **What may not:** t-SNE cares about neighbours only. The *size* of an island says
# nothing about how varied a class is, the *distance* between two islands nothing about
# how similar they are, and another seed or perplexity gives another map. Classes that
# overlap on the plane may still be separable in a thousand dimensions.
#
# ## 4 · Ask the features themselves
#
# So for a number we go back to the features, where nothing was squeezed onto a plane: how
# often does an image's nearest neighbour have its label? Copies of the image itself do not
# count. For comparison we give *chance*: the share of each class, which is what a neighbour
# drawn at random would give.

# %%
import pandas as pd
from sklearn.preprocessing import StandardScaler

from helpers.evaluation.projection import match_neighbours

labels, groups = points.label.to_numpy(), points.group.to_numpy()
same = match_neighbours(StandardScaler().fit_transform(features), labels, groups)
by_class = pd.DataFrame({"neighbour has its label": points.assign(same=same).groupby(
    "label").same.mean(), "chance": points.label.value_counts(normalize=True)})
by_class.sort_values("neighbour has its label").round(2).T

# %% [markdown]
# The classes at the left are those that the features mix most with others. Compare with
# chance as well: a rare class can be far above its chance and still be mixed. 06 shows
# what the classifier makes of them.
#
# ## What we saw

# %%
import numpy as np

match = by_class["neighbour has its label"]
print(f"- {np.nanmean(same):.1%} of the images have a nearest neighbour of their own "
      f"class; by chance {(by_class.chance**2).sum():.1%} would")
for what, name in (("most", match.idxmin()), ("least", match.idxmax())):
    chance = by_class.chance[name]
    print(f"- mixed {what}: {name}, {match[name]:.0%} (chance {chance:.0%})")
print(f"- the map has {len(points)} points, perplexity {settings.perplexity:g}, "
      f"seed {seed}")

# %% [markdown]
# The next cell lists what was saved; if 06 has already written a report, it gets the new
# picture.

# %%
from helpers.pictures.report import refresh_report

refresh_report(run)
run.finish("05_tsne")

# %% [markdown]
# ## Try it
#
# Fill in the blanks (`___`), remove the `#` and run. Solutions are in
# [solutions.ipynb](solutions.ipynb).
#
# **1.** Draw the map again with perplexity 5, then with 100. What can be said about all
# three maps?

# %%
# for perplexity in (5, ___):
#     x, y = project_features(features, perplexity, seed).T
#     figure = plot_projection(points.assign(x=x, y=y))
#     display(save_figure(run, figure, f"solutions_tsne_{perplexity}"))

# %% [markdown]
# **2.** Find the images whose five nearest neighbours in the feature space all have another
# label, and look at them. Are some of them mislabelled?

# %%
# from sklearn.neighbors import NearestNeighbors
#
# from helpers.pictures.galleries import show_mistakes
#
# scaled = StandardScaler().fit_transform(features)
# _, near = NearestNeighbors(n_neighbors=___).fit(scaled).kneighbors()
# strange = (labels[near] != labels[:, None]).all(axis=1)
# odd = points[strange].assign(prediction=labels[near[strange, 0]])
# odd = odd.sample(frac=1, random_state=0)
# print(f"{len(odd)} of {len(points)} images")
# save_figure(run, show_mistakes(odd, answer="neighbour"), "solutions_odd")

# %% [markdown]
# Next: [06 · Evaluate honestly](06_evaluation.ipynb).
