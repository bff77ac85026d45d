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
# t-SNE's time grows with the number of points, and beyond a few thousand points the
# picture only gets fuller. `tsne_images: null` draws all of them all the same.

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
# component analysis, then keeps the 50 directions in which the features vary most. That
# drops what is mostly noise and makes t-SNE much faster. In scikit-learn both steps, and a
# map of a few hundred points, look like this:

# %%
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

few = features[:300]
reduction = make_pipeline(StandardScaler(), PCA(min(50, *few.shape), random_state=seed))
TSNE(perplexity=10, random_state=seed).fit_transform(reduction.fit_transform(few)).shape

# %% [markdown]
# Two numbers an image. For the real map we take openTSNE: it does the same, stays fast
# for a hundred thousand points, and can place images on a finished map.

# %%
from helpers.evaluation.projection import project_features, tabulate_points

projection = project_features(features, settings.perplexity, seed)
points = tabulate_points(run, rows.iloc[chosen], projection)
run.save("tsne", points)
print(f"PCA keeps {projection.variance:.0%} of the variance")

# %% [markdown]
# *Perplexity* is roughly the number of neighbours that each point tries to stay close
# to. The table also holds the data set's own test images, if it has any, each placed on the
# finished map.
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
# **What may be read from it:** classes that form islands of their own are easy for a
# classifier; a point deep inside another class's island may be mislabelled, or just odd.
#
# **What may not:** t-SNE cares about neighbours only. The *size* of an island says
# nothing about how varied a class is, the *distance* between two islands nothing about
# how similar they are. Classes that overlap on the plane may still be separable in a
# thousand dimensions.
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
# Islands move, split and change size from one to the next. Which classes lie side by side,
# and which mix, is what remains; only that is worth saying.
#
# ## 5 · How far can the map be trusted?
#
# Two numbers. *Trustworthiness*: are neighbours on the map neighbours in truth (1: all
# are)? *Agreement*: of an image's ten nearest neighbours, how many have its label? We ask
# that of the map and of the features themselves, where nothing was squeezed onto a plane.
# Copies of the image do not count, and *chance* is what neighbours drawn at random would
# give.

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
# The classes at the left are those that the features mix most with others. Compare with
# chance as well: a rare class can be far above its chance and still be mixed. Where the
# map's number is higher than the features', it shows more order than there is.
#
# ## 6 · A page on which points show their photos
#
# Each point tells its label, its out-of-fold prediction, its fold and its path, and can be
# coloured by each of them, or by what was found: mistakes, copies, labels in doubt.

# %%
from helpers.files import show_path
from helpers.pictures.map_page import write_map

print(f"open {show_path(write_map(run, points))} in a browser")

# %% [markdown]
# The page needs no network. It never grows beyond `map_megabytes`: of many images the
# photos get smaller, then only some points show one.
#
# ## What we saw

# %%
match, overall = by_class["in the features"], agreement.mean()
print(f"- of ten nearest neighbours {overall['in the features']:.1%} share the label "
      f"in the features, {overall['on the map']:.1%} on the map; by chance "
      f"{(by_class.chance**2).sum():.1%} would")
for what, name in (("most", match.idxmin()), ("least", match.idxmax())):
    chance = by_class.chance[name]
    print(f"- mixed {what}: {name}, {match[name]:.0%} (chance {chance:.0%})")
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
# **1.** Draw the map again with two other seeds. What can be said about all three maps?

# %%
# for other in (1, ___):
#     x, y = project_features(features, settings.perplexity, other).places.T
#     figure = plot_projection(rows.iloc[chosen].assign(x=x, y=y))
#     display(save_figure(run, figure, f"solutions_tsne_{other}"))

# %% [markdown]
# **2.** Find the images whose five nearest neighbours in the feature space all have another
# label, and look at them. Are some of them mislabelled?

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
