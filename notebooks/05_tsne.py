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
# Each image is a point in a space of hundreds or thousands of dimensions. t-SNE
# arranges these points on a plane so that near neighbours stay near, and we can look at
# them.
#
# **You will be able to** draw a map of any features, place new images on it, and say what
# may be read from it, what may not, and how far it can be trusted.
#
# **You need** the features from 03 and the probabilities from 04.
# **You get** a picture of which classes the backbone keeps apart, and a page on which each
# point shows its photo.
# **It takes** about 10 seconds for the demo, half a minute for 5,000 points, and a few
# minutes for 80,000.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | draw a stratified sample | |
# | 2 | PCA first, then t-SNE | `tsne.csv` |
# | 3 | look, with caution | `figures/05_tsne.png` |
# | 4 | three perplexities side by side | `figures/05_perplexities.png` |
# | 5 | how far can the map be trusted? | |
# | 6 | a page on which points show their photos | `map.html` |

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
# Only training images make the map: looking at the hold-out could influence our choices.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)

# %% [markdown]
# ## 1 · A sample
#
# t-SNE takes longer the more points there are, and beyond a few thousand the picture
# only gets more crowded. So we draw a sample with the same class shares (*stratified*),
# of `tsne_images` images; `tsne_images: null` takes all.

# %%
import numpy as np

from helpers.data.splits import sample_rows, select_rows
from helpers.data.table import restore_images
from helpers.features.store import load_features

settings, seed = run.recipe.projection, run.recipe.splits.seed
rows = select_rows(run.load_table(), "train")
restore_images(run.recipe, rows)
chosen = sample_rows(rows, settings.tsne_images or len(rows), seed)
features = np.asarray(load_features(run, "train"))[chosen]
print(f"{len(chosen)} of {len(rows)} training images")

# %% [markdown]
# With fewer images than `tsne_images`, all are taken.
#
# ## 2 · PCA, then t-SNE
#
# First each feature is standardised (mean 0, standard deviation 1). PCA, principal
# component analysis, then keeps the 50 directions in which the features vary most. This
# suppresses some noise and makes t-SNE much faster. In scikit-learn both steps, and a
# map of at most 300 points, look like this:

# %%
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

few = features[:300]
reduction = make_pipeline(StandardScaler(), PCA(min(50, *few.shape), random_state=seed))
TSNE(perplexity=10, random_state=seed).fit_transform(reduction.fit_transform(few)).shape

# %% [markdown]
# Each image gets two coordinates. For the real map we use openTSNE: it implements the
# same method, stays fast for a hundred thousand points, and can place new images on a
# finished map.

# %%
from helpers.evaluation.projection import project_features, tabulate_points

projection = project_features(features, settings.perplexity, seed)
points = tabulate_points(run, rows.iloc[chosen], projection)
run.save("tsne", points)
print(f"PCA keeps {projection.variance:.0%} of the variance")

# %% [markdown]
# *Perplexity* is roughly the number of neighbours that each point tries to stay close
# to. The data set's own test images, if it has any, are placed on the finished map with
# `projection.place`; they do not change it.
#
# ## 3 · Look, with caution
#
# Each point is an image, its colour is its class. The star is the photo that we follow.

# %%
from helpers.data.table import find_followed
from helpers.pictures.charts import plot_projection, save_figure

drawn, followed = points[points.split == "train"], find_followed(run.recipe, rows)
save_figure(run, plot_projection(drawn, followed.image_id), "05_tsne")

# %% [markdown]
# **What may be read from it:** a class that forms a cluster of its own is easy for a
# classifier; a point deep inside another class's cluster may be mislabelled, or
# unusual. Not every data set forms clusters: in the demo glass, plastic and metal
# overlap.
#
# **What may not:** t-SNE preserves neighbourhoods, not distances. The *size* of a
# cluster says little about how varied a class is, and the *distance* between two
# clusters says little about how similar they are. Classes that overlap on the map may
# still be separable in the feature space.
#
# ## 4 · Three perplexities side by side
#
# Before anything is read from a map, see whether it survives another perplexity.

# %%
from helpers.pictures.charts import plot_perplexities

some = sample_rows(rows.iloc[chosen].reset_index(drop=True), 2000, seed)
values = sorted({*settings.other_perplexities, settings.perplexity})
places = {each: project_features(features[some], each, seed).places for each in values}
save_figure(run, plot_perplexities(drawn.iloc[some], places), "05_perplexities")

# %% [markdown]
# Clusters move, split and change size from one map to the next. Report only what all
# maps show: usually which classes mix, and which stay apart.
#
# ## 5 · How far can the map be trusted?
#
# Two numbers tell. *Trustworthiness*: are neighbours on the map also neighbours in the
# feature space? It is 1 if all are, and about 0.5 for a map drawn at random.
# *Agreement*: which share of an image's ten nearest neighbours has its label? We
# measure it on the map and in the feature space. Copies of the image do not count, and
# *chance* is what neighbours drawn at random would give.

# %%
import pandas as pd

from helpers.evaluation.projection import draw_sample, match_neighbours, measure_trust

sample = draw_sample(len(drawn), seed)
labels, groups = drawn.label.to_numpy()[sample], drawn.group.to_numpy()[sample]
scaled = StandardScaler().fit_transform(features)[sample]
spaces = {"in the features": scaled, "on the map": projection.places[sample]}
agreement = pd.DataFrame({name: match_neighbours(space, labels, groups)
                          for name, space in spaces.items()})
by_class = agreement.groupby(labels).mean().assign(
    chance=pd.Series(labels).value_counts(normalize=True))
print(f"trustworthiness {measure_trust(features, projection.places, seed):.3f}")
by_class.sort_values("in the features").round(2).T

# %% [markdown]
# The classes on the left are the ones most mixed with others in the features. Compare
# with chance as well: a rare class can be far above chance and still be mixed, and one
# of fewer than eleven images cannot reach 1. A higher number on the map than in the
# features is not necessarily an error: the map is made from the PCA directions, whose
# distances can be less noisy than those over all features.
#
# ## 6 · A page on which points show their photos
#
# Point at an image to see its photo, label, out-of-fold prediction, fold and path. The
# menu colours the points by label, prediction, fold or finding: a mistake, a copy, or a
# label in doubt (one that is probably wrong, see 06).

# %%
from helpers.files import show_path
from helpers.pictures.map_page import write_map

print(f"open {show_path(write_map(run, points))} in a browser")

# %% [markdown]
# The page works offline. With many images the photos get smaller, and then only some
# points have one, so that they fit into `map_megabytes`.
#
# ## What we saw

# %%
match, overall = by_class["in the features"], agreement.mean()
print(f"- of ten nearest neighbours {overall['in the features']:.1%} share the label "
      f"in the features, {overall['on the map']:.1%} on the map; by chance "
      f"{(by_class.chance**2).sum():.1%} would")
for what, name in (("most", match.idxmin()), ("least", match.idxmax())):
    chance = by_class.chance[name]
    print(f"- {what} mixed: {name}, {match[name]:.0%} agreement (chance {chance:.0%})")
print(f"- the map has {len(drawn)} points, perplexity {settings.perplexity:g}, "
      f"seed {seed}; {points.suspect.sum()} of their labels are in doubt")

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
# **1.** Draw the map again with two other seeds. What do all three maps have in common?

# %%
# for other in (1, ___):
#     x, y = project_features(features, settings.perplexity, other).places.T
#     figure = plot_projection(rows.iloc[chosen].assign(x=x, y=y))
#     display(save_figure(run, figure, f"solutions_tsne_{other}"))

# %% [markdown]
# **2.** Find the images of which none of the five nearest neighbours in the feature
# space has the same label, and look at fifteen of them. Are some of them mislabelled?
# (`kneighbors()` without arguments leaves out the image itself.)

# %%
# from sklearn.neighbors import NearestNeighbors
#
# from helpers.pictures.galleries import show_mistakes
#
# _, near = NearestNeighbors(n_neighbors=___).fit(scaled).kneighbors()
# strange = (labels[near] != labels[:, None]).all(axis=1)
# odd = drawn.iloc[sample][strange].assign(prediction=labels[near[strange, 0]])
# odd = odd.sample(frac=1, random_state=0)
# print(f"{len(odd)} of {len(sample)} images")
# save_figure(run, show_mistakes(odd, answer="neighbour"), "solutions_odd")

# %% [markdown]
# Next: [06 · Evaluate honestly](06_evaluation.ipynb).
