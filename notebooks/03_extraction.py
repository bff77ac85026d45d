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
# A network trained on millions of photos has learnt to turn pixels into about a thousand
# numbers that describe what is in a picture. We use it as it is, *frozen*: nothing in it
# is trained any further. Every image goes through it once.
#
# **You will be able to** say what a feature is and where it comes from, open a network and
# look inside, and compute features for a data set of any size.
#
# **You need** `table.csv` and `label_mapping.json` from 02, and to know what an array is.
# **You get** a row of features for every image, as plain `.npy` files.
# **It takes** about 15 seconds for the demo; 100,000 photos take about 10 minutes on 2 cores.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | open the network and follow one photo through it | `figures/03_feature_maps.jpg` |
# | 2 | run every image through it | `train_features_<backbone>.npy`, `test_features_<backbone>.npy`, `train_labels.npy`, `metadata.json` |
# | 3 | see what features are good for | `figures/03_neighbours.jpg` |
# | 4 | check the numbers | `figures/03_features.png` |

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
# For large data on a CPU this is the slow notebook. If it is interrupted, run it again and
# it continues where it was.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)
table = run.load_table()

# %% [markdown]
# ## 1 · Inside the network
#
# Let us follow one photo, step by step, in plain PyTorch. Change anything you like in these
# cells; nothing after them depends on it. First the network, with the weights that the
# recipe asks for.

# %%
from helpers.network.backbones import create_network

network = create_network(run.recipe)
million = sum(p.numel() for p in network.parameters()) / 1e6
trained = sum(p.requires_grad for p in network.parameters())
print(f"{run.recipe.network.backbone} with {run.recipe.network.weights} weights: "
      f"{million:.1f} million parameters, {trained} tensors to be trained")

# %% [markdown]
# `packaged` weights come from a package that was installed with the suite: the network
# was trained on ImageNet, 1.3 million photos of 1,000 kinds of things. *Frozen* means
# that no parameter will change. It also means *evaluation mode*: batch normalisation
# keeps the statistics of its training. In training mode each image's features would
# depend on the images that happen to share its batch.
#
# A network takes a *tensor*, numbers in the shape (images, colours, height, width), for
# a *batch* of several photos at a time; ours is a batch of one.

# %%
from helpers.data.images import decode_image
from helpers.data.table import find_followed, restore_images
from helpers.network.preprocessing import create_preprocessing, resolve_data_config

restore_images(run.recipe, table)
photo = find_followed(run.recipe, table).path
data_config = resolve_data_config(run.recipe, run.measured)
batch = create_preprocessing(data_config)(decode_image(photo)).unsqueeze(0)
print(f"shape {tuple(batch.shape)}, values from {batch.min():.2f} to {batch.max():.2f}")

# %% [markdown]
# One photo, three colours, resized and normalised as 02 showed. Most pretrained
# networks were trained to tell ImageNet's 1,000 classes apart. What does this one say
# about our photo, before it has seen any of our classes? `softmax` turns its outputs
# into shares that add up to 1.

# %%
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset

names = ImageNetInfo(infer_imagenet_subset(network) or "imagenet-1k")
with torch.inference_mode():
    answer = network(batch).softmax(dim=1)[0]
if network.num_classes:
    for share, number in zip(*answer.topk(5), strict=True):
        print(f"{share:6.1%}  {names.index_to_description(number.item())}")
else:
    print("these weights come without a classifier")

# %% [markdown]
# Our classes are not among ImageNet's, so the names can only come close. That is why
# the last layer, the *classifier*, is of no use to us; but to tell a thousand things
# apart, the layers before it must have learnt edges, textures, shapes and materials.
# Here are some of their *feature maps*: pictures of where in the photo a *block*, a
# group of layers, found what it looks for.

# %%
from helpers.pictures.charts import save_figure
from helpers.pictures.galleries import show_feature_maps

with torch.inference_mode():
    maps = network.forward_intermediates(batch, intermediates_only=True)
picture = show_feature_maps(photo, maps[1][0], maps[-1][0])
save_figure(run, picture, "03_feature_maps")

# %% [markdown]
# Bright means a strong response, on each map's own scale; some respond to the
# background. An early block sees edges and surfaces in fine detail; a late block has
# many more maps, coarse ones, each for something more complex. One more layer turns
# these into the last maps, and the final step averages each of them into one number: it
# does not matter any more where something was, only how much of it.

# %%
with torch.inference_mode():
    last = network.forward_features(batch)
    vector = network.forward_head(last, pre_logits=True)[0]
print(f"{tuple(last.shape)} becomes {tuple(vector.shape)}: "
      f"{vector[:5].numpy().round(2)} …")

# %% [markdown]
# This vector is what we call the *features* of the photo. The network without its
# classifier is called the *backbone*.
#
# ## 2 · Every image, once
#
# The helper does the same for every image. On a CPU the network runs in OpenVINO,
# several times faster than in PyTorch and with the same results; on a GPU, in PyTorch.
# The first batch is computed both ways and compared. A few images are tried first, so
# that you know how long it will take.

# %%
from helpers.features.extraction import extract_run
from helpers.network.backbones import create_backbone

model, data_config = create_backbone(run.recipe, run.measured)
metadata = extract_run(run, (model, data_config))

# %% [markdown]
# Features are saved in *shards* of about a thousand images and joined at the end, so memory
# stays flat, and an interruption costs one shard at most; in Colab each shard goes to Drive
# as well. An exact copy of an image is computed once. Features that already exist for the
# same images, weights and preprocessing are kept.

# %%
import pandas as pd

facts = ["train_samples", "holdout_samples", "test_samples", "feature_dim", "engine",
         "precision", "device", "images_per_second", "peak_memory_mb",
         "max_relative_difference", "preprocessing_fingerprint", "timestamp"]
pd.Series({name: metadata[name] for name in facts}, name="metadata").to_frame()

# %% [markdown]
# `train_features` are the images in the folds; `test_features` are all that no model
# will learn from: the hold-out, then the data set's own test images.
# `max_relative_difference` compares both results for the first batch.
# `preprocessing_fingerprint` identifies how images were prepared: features prepared in
# another way are refused, with the reason.
#
# Size matters most for the time: 224 x 224 pixels are twelve times the work of 64 x 64.
# `precision: bf16`, on a processor or GPU that supports it, is up to twice as fast and
# moves each feature by about one percent. Several processes or GPUs share one extraction:
# `torchrun --nproc-per-node=2 -m helpers.features.extraction --recipe demo`.
#
# ## 3 · What are features good for?
#
# Two photos with similar features show similar things. Here are the training photos whose
# features are nearest to those of our photo.

# %%
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from helpers.data.splits import select_rows
from helpers.features.store import load_features

rows, train = select_rows(table, "train"), load_features(run, "train")
scaled = StandardScaler().fit_transform(train)
place = rows.index[rows.path == photo][0]
distances, nearest = NearestNeighbors(n_neighbors=7).fit(scaled).kneighbors(
    scaled[[place]])

# %% [markdown]
# The first photo is its own nearest neighbour, at distance 0. The titles give each photo's
# label and its distance.

# %%
from helpers.pictures.galleries import show_photos

near = rows.iloc[nearest[0]]
titles = [f"{label}\n{distance:.0f}" for label, distance in
          zip(near.label, distances[0], strict=True)]
save_figure(run, show_photos(near.path.tolist(), titles), "03_neighbours")

# %% [markdown]
# Nobody told the network about our classes. If most neighbours show the same kind of
# thing, a simple classifier on top of these features will do, and 04 trains one. Look
# at the nearest ones first: if they show the same kind of thing as the photo, and their
# labels differ from its own, the photo's label is suspicious.
#
# ## 4 · Are the numbers sound?
#
# First: do the same images give the same numbers again? We compute a few rows anew, the
# plain way with Pillow and PyTorch, and compare them with the file.

# %%
from helpers.features.extraction import check_determinism

difference = check_determinism(run, model, data_config)
print(f"computed again, features differ by {difference:.1e} of the largest one")

# %% [markdown]
# Zero would be the same to the last bit. Adding the same numbers in another order, as
# another engine or batch size does, changes them by about 1e-6, which no classifier notices.
#
# A single NaN would ruin the training, so it would stop us here. Then train and test are
# compared: they went through the same network, so their statistics should be close.

# %%
from helpers.features.statistics import compare_features

statistics = compare_features(run)
statistics.map("{:.4g}".format)

# %% [markdown]
# `nan` and `inf` must be 0. `constant` counts features that are the same for all images and
# tell us nothing.

# %%
from helpers.pictures.charts import plot_feature_statistics

test = load_features(run, "test")
save_figure(run, plot_feature_statistics(train, test), "03_features")

# %% [markdown]
# The two histograms should roughly overlap; few images make them ragged. A second peak
# in only one of them would mean that those images come from elsewhere: another camera,
# another shop, another year.
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
# The next cell lists the files. From here on the training needs no image any more: the
# features take their place.

# %%
run.finish("03_extraction")

# %% [markdown]
# ## Try it
#
# Fill in the blanks (`___`), remove the `#` and run. Solutions are in
# [solutions.ipynb](solutions.ipynb).
#
# **1.** What does the network say about another training photo, say number 7?

# %%
# batch = create_preprocessing(data_config)(decode_image(rows.path[___])).unsqueeze(0)
# with torch.inference_mode():
#     best = network(batch).softmax(dim=1)[0].topk(3)
# [names.index_to_description(number.item()) for number in best.indices]

# %% [markdown]
# **2.** Which two training photos are nearest to each other? Without arguments,
# `kneighbors` leaves out each photo itself.

# %%
# distances, nearest = NearestNeighbors(n_neighbors=___).fit(scaled).kneighbors()
# first = distances[:, 0].argmin()
# second = nearest[first, 0]
# pair = rows.iloc[[first, second]]
# picture = show_photos(pair.path.tolist(), pair.label.tolist())
# print(f"distance {distances[first, 0]:.2f}, groups {pair.group.tolist()}")
# save_figure(run, picture, "solutions_nearest")

# %% [markdown]
# **3.** How many features would `resnet18` give?

# %%
# import timm
#
# timm.create_model("___", num_classes=0).num_features

# %% [markdown]
# Next: [04 · Train a classifier](04_training.ipynb).
