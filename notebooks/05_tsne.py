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
# Each image is a point in a space of a thousand dimensions or more. t-SNE lays these
# points out on a plane so that neighbours stay neighbours, and we can look at them.
#
# **You need** the features from 03.
# **You get** a picture of which classes the backbone keeps apart, and which it mixes.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | draw a sample, every class by its share | |
# | 2 | PCA first, then t-SNE | `tsne.csv` |
# | 3 | look, with caution | `figures/05_tsne.png` |

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
# Only training images are drawn: looking at the hold-out is a way of choosing by it.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)

# %% [markdown]
# ## 1 · A sample
#
# t-SNE's time grows faster than the number of points, and beyond a few thousand points
# the picture only gets fuller.

# %%
from helpers.data.splits import select_rows
from helpers.evaluation.projection import sample_rows
from helpers.features.store import load_features

settings, seed = run.recipe.projection, run.recipe.splits.seed
rows = select_rows(run.load_table(), "train")
chosen = sample_rows(rows.label, settings.tsne_images, seed)
features = load_features(run, "train")[chosen]
print(f"{len(chosen)} of {len(rows)} training images")

# %% [markdown]
# With fewer images than `tsne_images`, all are taken.
#
# ## 2 · PCA, then t-SNE
#
# First each feature is standardised (mean 0, spread 1). PCA, principal component analysis,
# then keeps the 50 directions in which the features vary most. That removes noise and
# makes t-SNE much faster.

# %%
from helpers.evaluation.projection import measure_variance, project_features

print(f"PCA keeps {measure_variance(features, seed):.0%} of the variance")
places = project_features(features, settings.perplexity, seed)

# %% [markdown]
# *Perplexity* is roughly the number of neighbours that each point tries to stay close
# to. The picture is saved with its coordinates, so that it can be drawn in other ways.

# %%
points = rows.loc[chosen, ["image_id", "path", "label", "group"]].assign(
    x=places[:, 0], y=places[:, 1])
run.save("tsne", points)

# %% [markdown]
# ## 3 · Look, with caution
#
# Each point is an image, its colour and shape are its class; a name stands in the
# middle of its class.

# %%
from helpers.pictures.charts import plot_projection, save_figure

save_figure(run, plot_projection(points), "05_tsne")

# %% [markdown]
# In the demo, zero, six and four stand apart, while eight has no island of its own.
#
# **What may be read from it:** classes that form islands of their own are easy for a
# classifier; a point deep inside another class's island may be mislabelled, or just odd.
#
# **What may not:** t-SNE cares about neighbours only. The *size* of an island says
# nothing about how varied a class is, the *distance* between two islands nothing about
# how similar they are, and another seed or perplexity gives another map. A classifier
# can also separate classes in a thousand dimensions that overlap on the plane.
#
# One number can be trusted more than the eye: how often does an image's nearest
# neighbour on the map have its label? Copies of the image itself do not count.

# %%
from helpers.evaluation.projection import match_neighbours

same = match_neighbours(places, points.label.to_numpy(), points.group.to_numpy())
same_by_class = points.assign(same=same).groupby("label").same.mean()
same_by_class.sort_values().round(2).to_frame("neighbour has its label").T

# %% [markdown]
# The classes at the left are the ones that the map mixes with others; 06 shows whether
# the classifier mixes them too.
#
# ## What we saw

# %%
import numpy as np

print(f"- {np.nanmean(same):.1%} of the images have a neighbour of their own class")
print(f"- mixed most: {same_by_class.idxmin()} ({same_by_class.min():.0%}); "
      f"least: {same_by_class.idxmax()} ({same_by_class.max():.0%})")
print(f"- {len(points)} points, perplexity {settings.perplexity:g}, "
      f"seed {seed}")

# %% [markdown]
# The last cell lists what was saved; a report that 06 has written gets the new picture.

# %%
from helpers.pictures.report import refresh_report

refresh_report(run)
run.finish("05_tsne")

# %% [markdown]
# ## Try it
#
# 1. Draw the map again with perplexity 5 and with 100. Which statements about it hold
#    in all three?
# 2. Find the images whose five nearest neighbours in the feature space all have another
#    label, and look at them. Are some of them mislabelled?
#
# Solutions are in [solutions.ipynb](solutions.ipynb). Next:
# [06 · Evaluate honestly](06_evaluation.ipynb).
