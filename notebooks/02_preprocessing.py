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
# # 02 · Prepare the data
#
# Every number that we will report rests on one promise: no image is judged by a model
# that has seen it. This notebook makes the parts that keep the promise.
#
# **You need** `images.csv` and `quarantine.csv` from 01.
# **You get** a saved label mapping, a hold-out, k folds, and a look at what the network
# will see.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | give every class a number | `label_mapping.json` |
# | 2 | set a hold-out aside, deal the rest into folds | `table.csv`, `figures/02_class_shares.png` |
# | 3 | write the tables of every fold | `folds/` |
# | 4 | look at what the network sees | `figures/02_preprocessing.png` |

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
home = next((p for p in places if (p / "helpers" / "recipe.py").exists()), None)
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
# The same recipe as before, so the same folder; the readable images come from 01.

# %%
from helpers.inspection import set_aside
from helpers.run import open_run

run = open_run(recipe, overrides)
readable, _ = set_aside(run.load_table("images"))

# %% [markdown]
# If 01 had not been run, the cell above would say so instead of failing somewhere later.
#
# ## 1 · Names to numbers
#
# A model answers with a number. The mapping from class name to number is saved, because
# a model without it cannot be read by anyone, not even by us next month.

# %%
from helpers.files import save_csv, save_json
from helpers.splits import encode_labels

mapping = encode_labels(readable, run.recipe.class_names.values())
save_json(mapping, run.path("label_mapping"))
mapping

# %% [markdown]
# Classes named in the recipe keep the recipe's order, all others are sorted.
#
# ## 2 · A hold-out and folds
#
# Each labelled training image gets exactly one place:
#
# - the **hold-out** is locked away and scored once, in notebook 06. Nothing is ever
#   chosen by looking at it;
# - the other images are dealt into **k folds**. Each fold is judged by a model trained
#   on the other folds, so that in the end every image has been judged once by a model
#   that never saw it.
#
# Both are *stratified*: every part has the classes in the same shares.

# %%
from helpers.splits import assign_splits

settings = run.recipe
table = assign_splits(readable, settings.holdout, settings.folds, settings.seed)
save_csv(table, run.path("table"))
table.groupby(["split", "fold"]).size().rename("images").reset_index()

# %% [markdown]
# Fold -1 means "in no fold": the hold-out, and the data set's own test images, which
# often come without labels.

# %%
from helpers.charts import plot_class_shares

run.save_figure(plot_class_shares(table), "02_class_shares")

# %% [markdown]
# The bars break at nearly the same places from top to bottom: each part is a small copy
# of the whole. A class with fewer images than folds would have been refused by name.
#
# The promise holds for *files*, not yet for *pictures*: an exact copy under another name
# can land in another fold, and is then judged by a model that has seen its twin. The
# demo has four such copies; exercise 1 of notebook 03 finds them.
#
# ## 3 · Fold tables as files
#
# Anyone can check our promise, or train another model on the very same folds, with
# these files.

# %%
from helpers.splits import save_folds

paths = save_folds(table, run.path("folds"))
print(f"{len(paths)} files, from {paths[0].name} to {paths[-1].name}")

# %% [markdown]
# `fold_00_test.csv` holds the images judged in fold 0, `fold_00_train.csv` all others.
#
# ## 4 · What the network sees
#
# Preprocessing belongs to the network: it was trained on images of one size, resized in
# one way, normalised with one mean and standard deviation. timm keeps these with each
# architecture; the recipe may change size and resize mode.

# %%
from helpers.backbones import resolve_data_config

data_config = resolve_data_config(run.recipe)
data_config

# %% [markdown]
# `mean` and `std` are those of the images that the network was first trained on, one
# number for red, green and blue each. Below, the top row shows files as they are, the
# bottom row the same images as they reach the network.

# %%
from helpers.galleries import show_preprocessing

labelled = table[table.split == "train"]
run.save_figure(show_preprocessing(labelled, data_config, seed=settings.seed),
                "02_preprocessing")

# %% [markdown]
# Is what tells the classes apart still there in the bottom row? If not, raise
# `image_size`; if the sides are cut off, set `resize: squash`.
#
# ## What we saw

# %%
train = table[table.split == "train"]
kept = (table.split == "holdout").sum()
print(f"- {len(train)} images in {settings.folds} folds, {kept} in the hold-out")
print(f"- the smallest class has {train.label.value_counts().min()} images, "
      f"at least {train.groupby('fold').label.value_counts().min()} in each fold")
print(f"- the network gets {data_config['input_size'][1]} x "
      f"{data_config['input_size'][2]} pixels, {data_config['crop_mode']}")

# %% [markdown]
# The last cell lists the files that the next notebooks build on.

# %%
run.finish("02_preprocessing")

# %% [markdown]
# ## Try it
#
# 1. Check the promise: is there an image that stands in both files of a fold?
# 2. A new run starts at 01. In a terminal: `make run SET="folds=10 run=demo-10"`. How
#    many images of the smallest class does each fold have now?
# 3. `make run SET="resize=center run=demo-center"`, and compare the two runs'
#    `figures/02_preprocessing.png`. What was lost?
#
# Solutions are in [solutions.ipynb](solutions.ipynb). Next:
# [03 · Extract features](03_extraction.ipynb).
