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
# # 10 · How large should images be?
#
# A network was trained on images of one size, often 224 pixels. Small images, such as the
# 32 x 32 pixels of CIFAR-100, can be enlarged before they go in, and large ones shrunk to
# save time. An earlier project found that enlarging took its test accuracy from about 50 %
# to about 78 %. Here we measure accuracy over a range of sizes. Most of them shrink the
# demo's photos, so that detail is lost as well; with CIFAR-100 only the scale changes.
#
# **You will be able to** choose the input's size by what it costs and gains, and say why a
# network that has never seen small images does badly on them.
#
# **You need** labels and folds from 02. You should have read 04.
# **You get** accuracy by size, frozen and fine-tuned, with intervals.
# **It takes** about two minutes on two cores for the demo. Whatever is finished is kept.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | one photo at every size | `figures/10_photo.jpg` |
# | 2 | accuracy at every size | `sizes/`, `sizes.csv`, `figures/10_sizes.png` |
# | 3 | what the last step costs | |

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
# `python -m helpers.batch --from 10` runs it.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)
sizes = run.recipe.evaluation.sizes
print(f"sizes {sizes}; networks are trained at {run.recipe.evaluation.sizes_finetuned}")

# %% [markdown]
# ## 1 · One photo at every size
#
# What is left of a photo when it is shrunk, or what comes of enlarging a small one? Below,
# the photo that we follow, as the network sees it at each size.

# %%
from helpers.data.table import find_followed, restore_images
from helpers.network.preprocessing import resolve_data_config

table = run.load_table()
restore_images(run.recipe, table)
followed = find_followed(run.recipe, table)
configs = {size: resolve_data_config(run.recipe.change(image_size=size), run.measured)
           for size in sizes}

# %% [markdown]
# All are drawn at the same size.

# %%
from helpers.pictures.charts import save_figure
from helpers.pictures.training import show_sizes

save_figure(run, show_sizes(followed.path, configs), "10_photo")

# %% [markdown]
# Enlarging adds no information. But a network's filters cover a fixed number of pixels: in
# a small image, objects and their parts span fewer pixels than in training, and the last
# feature map is only a few cells wide (at 32 pixels, a single one). Enlarging restores the
# scale that the network has learnt.
#
# ## 2 · Accuracy at every size
#
# At each size the frozen network computes features, and a classifier learns on them, its
# penalty chosen inside the folds, as in 04. Images are resized as they stream through the
# network, so no enlarged copy of the data ever exists, in memory or on disk. At some sizes
# the network's upper layers are trained as well, as the recipe's `finetune` settings say.
# Accuracy is out-of-fold. With `final: true` the test images are scored as well; do not
# choose a size by them.

# %%
from helpers.evaluation.resize_curve import measure_sizes

curve = measure_sizes(run)
run.save("sizes", curve)
curve.round(3)

# %% [markdown]
# `seconds` is what features and training took at that size.

# %%
from helpers.pictures.training import plot_sizes_curve

cifar = run.recipe.data.source == "cifar"
save_figure(run, plot_sizes_curve(curve, reference=cifar), "10_sizes")

# %% [markdown]
# Does the curve flatten? If so, larger images beyond that point cost time without a clear
# gain. If it still rises at the end, try a larger size. The earlier project's two numbers
# appear in the picture when the data is CIFAR-100. They were measured with other networks
# and other training images, so compare the rise, not the level.
#
# ## 3 · What the last step costs
#
# Twice the side is four times the pixels.

# %%
frozen = curve[(curve.strategy == "frozen") & (curve.images == "out-of-fold")]
for before, after in zip(frozen.iloc[:-1].itertuples(), frozen.iloc[1:].itertuples(),
                         strict=True):
    print(f"{before.size} to {after.size} pixels: accuracy {before.value:.3f} to "
          f"{after.value:.3f}, {before.seconds:.0f} to {after.seconds:.0f} seconds")

# %% [markdown]
# On so few photos, fixed costs and noise hide the trend. On large data sets the network's
# time grows roughly with the number of pixels.
#
# ## What we saw

# %%
import pandas as pd

from helpers.evaluation.compare import compare_scores, describe_difference
from helpers.files import load_json

best = frozen.loc[frozen.value.idxmax(), "size"]
classes = list(load_json(run.need("label_mapping")))
answers = {size: pd.read_csv(run.folder / f"sizes/{size}-frozen/oof_probabilities.csv")
           for size in sizes}
resampling = run.recipe.evaluation.bootstrap, run.recipe.splits.seed
for size in sizes:
    if size != best:
        difference = compare_scores(answers[size], answers[best], classes, *resampling)
        print(describe_difference(f"{size} against {best} pixels", "accuracy",
                                  difference.loc["accuracy"]))

# %% [markdown]
# Each line compares the same images at two sizes, so the smallest size without a clear
# difference is a fair candidate. What do the trained networks reach?

# %%
for row in curve[(curve.strategy != "frozen")].itertuples():
    print(f"- fine-tuned at {row.size} pixels, {row.images}: {row.value:.3f} "
          f"[{row.low:.3f}, {row.high:.3f}]")

# %% [markdown]
# The best of several sizes looks a little better than it is, since it was chosen by these
# numbers; the hold-out (06), which played no part in the choice, gives a fair estimate. Set
# `image_size` to what you choose.

# %%
run.finish("10_resize_curve")

# %% [markdown]
# ## Try it
#
# Fill in the blanks (`___`), remove the `#` and run. Solutions are in
# [solutions.ipynb](solutions.ipynb).
#
# **1.** Is the trained network better than the frozen one at the same size? Report the
# paired difference with its interval.

# %%
# both = [pd.read_csv(run.folder / f"sizes/96-{strategy}/oof_probabilities.csv")
#         for strategy in (___)]
# difference = compare_scores(*both, classes, 2000, run.recipe.splits.seed)
# print(describe_difference("trained against frozen", "accuracy",
#                           difference.loc["accuracy"]))

# %% [markdown]
# Next: [11 · Serve the model](11_serving.ipynb) takes the model out of the notebooks.
