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
# # 03 · Extract features
#
# A network trained on millions of photos has learnt to turn pixels into a few hundred
# numbers that mean something. We keep it as it is, *frozen*, and run every image through
# it once.
#
# **You need** `table.csv` and `label_mapping.json` from 02.
# **You get** a row of features for every image, as plain `.npy` files.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | build the backbone, load its weights | |
# | 2 | run every image through it | `train_features_<backbone>.npy`, `test_features_<backbone>.npy`, `train_labels.npy`, `metadata.json` |
# | 3 | check the numbers | `figures/03_features.png` |

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
# This is the slow notebook: on a CPU, large data takes hours. If it is interrupted, run
# it again and it continues where it was.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)

# %% [markdown]
# ## 1 · The backbone
#
# *Backbone* is the network without its last layer, the one that named ImageNet's
# classes. What remains ends in one vector per image.

# %%
from helpers.network.backbones import create_backbone

model, data_config = create_backbone(run.recipe, run.measured)
million = sum(p.numel() for p in model.parameters()) / 1e6
print(f"{run.recipe.network.backbone}: {million:.1f} million parameters, all frozen")

# %% [markdown]
# The demo uses *random* weights, so that nothing has to be downloaded. Surprisingly,
# they are useful for digits: random convolutions still tell strokes apart. On photos,
# pretrained weights are worlds better; set `weights: pretrained`.
#
# Frozen also means *evaluation mode*: batch normalisation keeps the statistics it was
# trained with. Left in training mode, each image's features would depend on the images
# that happen to share its batch.
#
# ## 2 · Every image, once
#
# On a CPU the network runs in OpenVINO, several times faster than in PyTorch, and to
# the same numbers; on a GPU PyTorch computes. The first batch is computed both ways and
# compared. A few images are tried first, so that you know how long it will take.
#
# Features are saved in *shards* of about a thousand images and joined at the end, so
# memory stays flat, and whatever ends the work loses one shard at most; in Colab each goes
# to Drive as well. An exact copy of an image is computed once. Features that already exist
# for the same images, weights and preprocessing are kept.

# %%
from helpers.features.extraction import extract_run

metadata = extract_run(run, (model, data_config))

# %% [markdown]
# `train_features` are the images in the folds; `test_features` are all that no model will
# learn from: the hold-out, then the data set's own test images, in the table's order.
# `metadata.json` holds everything needed to make the files again.

# %%
import pandas as pd

names = ["train_samples", "holdout_samples", "test_samples", "feature_dim", "engine",
         "precision", "device", "images_per_second", "peak_memory_mb",
         "max_relative_difference", "preprocessing_fingerprint", "timestamp"]
pd.Series({name: metadata[name] for name in names}, name="metadata").to_frame()

# %% [markdown]
# `max_relative_difference` is between the two ways of the first batch, decoding included.
# `preprocessing_fingerprint` stands for all that decides a prepared image: features made
# with another one are refused, and the refusal names what differs. Another version of a
# library is only warned of.
#
# Size matters most for the time: 224 x 224 pixels are twelve times the work of 64 x 64.
# After that `precision: bf16`, on a processor or GPU that has it, is up to twice as fast
# and moves each feature by about one percent; 07 shows how to see whether that matters.
# Several processes or GPUs share one extraction by
# `torchrun --nproc-per-node=2 -m helpers.features.extraction --recipe demo`.
#
# ## 3 · Are the numbers sound?
#
# First: do the same images give the same numbers again? We compute a few rows anew, the
# plain way with Pillow and PyTorch, and compare them with the file.

# %%
from helpers.features.extraction import check_determinism

difference = check_determinism(run, model, data_config)
print(f"computed again, features differ by {difference:.1e} of the largest one")

# %% [markdown]
# Zero would be the same to the last bit. Sums in another order, as in another engine or a
# batch of another size, differ by about 1e-6, which no classifier notices.
#
# One NaN spoils a whole training, so it stops us here. Then train and test are compared:
# they went through the same network, so their statistics should be close.

# %%
from helpers.features.statistics import compare_features

statistics = compare_features(run)
statistics.map("{:.4g}".format)

# %% [markdown]
# `nan` and `inf` must be 0. `constant` counts features that are the same for all images
# and tell us nothing; with random weights the scale of the numbers means little.

# %%
from helpers.features.store import load_features
from helpers.pictures.charts import plot_feature_statistics, save_figure

train, test = load_features(run, "train"), load_features(run, "test")
save_figure(run, plot_feature_statistics(train, test), "03_features")

# %% [markdown]
# The two colours should cover each other. A large second hump on one side would mean that
# those images come from elsewhere: another camera, another shop, another year. A few
# images far off deserve a look.
#
# ## What we saw

# %%
megabytes = run.path("train_features").stat().st_size / 1e6
print(f"- {train.shape[0]} training images became {train.shape[1]} numbers each, "
      f"{megabytes:.1f} MB")
print(f"- {int(statistics.loc[['nan', 'inf']].to_numpy().sum())} bad values, "
      f"{int(statistics.loc['constant'].max())} constant features")
print(f"- {metadata['images_per_second']:,.0f} images a second by {metadata['engine']} "
      f"on {metadata['device']}")

# %% [markdown]
# The last cell lists the files. From here on no image is opened for training any more:
# the features stand for them.

# %%
run.finish("03_extraction")

# %% [markdown]
# ## Try it
#
# 1. Open `train_features_<backbone>.npy` with NumPy as a memory map. Which two training
#    images are nearest to each other? Show them.
# 2. In a terminal: `make run SET="backbone=resnet18 run=demo-resnet18"`. How many
#    features does an image have now, and how fast is it?
#
# Solutions are in [solutions.ipynb](solutions.ipynb). Next:
# [04 · Train a classifier](04_training.ipynb).
