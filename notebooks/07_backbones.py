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
# # 07 · Compare backbones
#
# Is another network better on these images, or as good for a tenth of the time? Tables in
# papers answer for ImageNet and someone else's machine. Here each backbone is measured on
# yours: what it costs, and what it is worth on your own images.
#
# **You need** `table.csv`, `label_mapping.json` from 02, and some minutes a backbone.
# **You get** parameters, features, images a second, memory, file size and out-of-fold score
# with its interval, for every backbone of the recipe's `compare`.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | run every backbone on the same images | `backbones.csv`, `backbones/` |
# | 2 | look at score against cost | `figures/07_backbones.png` |

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
# This notebook stands beside the main line: `make run` leaves it out, and `python -m
# helpers.batch --from 07` runs it.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)

# %% [markdown]
# ## 1 · The same images through each
#
# At most `compare_images` training images, every class and fold in its share. Each backbone
# runs in a process of its own, so that its memory is its own, with the head of 04: the same
# folds, the same search for C. What is measured already is kept.

# %%
from helpers.evaluation.backbone_costs import compare_backbones

table = compare_backbones(run)
run.save("backbones", table, index=True)

# %% [markdown]
# `images_per_second` counts decoding and the network, not loading it. `peak_memory_mb` is the
# whole process, PyTorch included, which alone takes some 700. `file_mb` is what the weights
# take on a disk.

# %%
table.round(3)

# %% [markdown]
# Look at `weights` before anything else. *Random* means that no pretrained weights were found
# here, so the row's cost is real, but its score says only what untrained convolutions see, and
# the order of such scores says nothing about the pretrained networks.
#
# ## 2 · Score against cost
#
# The best trade lies at the top right. The bars are 95 % intervals.

# %%
from helpers.pictures.charts import plot_backbones, save_figure

save_figure(run, plot_backbones(table), "07_backbones")

# %% [markdown]
# Where two bars overlap widely, these images cannot tell the two apart: take the cheaper one.
# Choosing the best of many by this score flatters the winner a little. The hold-out would not,
# so leave it alone until the choice is made: then `final: true`, once.
#
# ## What we saw

# %%
best, fastest = table["macro F1"].idxmax(), table.images_per_second.idxmax()
row = table.loc[best]
print(f"- best: {best} ({row.weights} weights), {row.images_per_second:.0f} images/s, "
      f"macro F1 {row['macro F1']:.3f} [{row.low:.3f}, {row.high:.3f}]")
rivals = table.index[(table.high >= row["macro F1"]) & (table.index != best)]
print(f"- its score lies within the interval of {len(rivals)} others")
print(f"- fastest: {fastest}, {table.images_per_second[fastest]:.0f} images/s, "
      f"macro F1 {table['macro F1'][fastest]:.3f}")

# %% [markdown]
# To go on with another one, give it a run of its own, so that both stay:
# `make run SET="backbone=resnet18 run=my-resnet18"`.

# %%
run.finish("07_backbones")

# %% [markdown]
# ## Try it
#
# 1. Which backbone gives the most macro F1 for its megabytes? Sort the table by score divided
#    by `file_mb`. Is that a number to choose by?
# 2. In a terminal: `make run SET="precision=bf16 run=demo-bf16"`. How much faster is
#    extraction, and does the score of 06 leave its interval? (A processor without bf16 says so.)
#
# Solutions are in [solutions.ipynb](solutions.ipynb). Back to the start:
# [01 · Look at the data first](01_eda.ipynb).
