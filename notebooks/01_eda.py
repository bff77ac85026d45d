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
# # 01 · Look at the data first
#
# Before a network sees an image, we look at what there is: how many images each class
# has, what they look like, and which files cannot be read at all.
#
# **You need** a recipe (the default is the demo, which makes its own images).
# **You get** a table of all images and a list of those set aside, with reasons.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | read the data layout into one table | |
# | 2 | open every image, set the unreadable ones aside | `images.csv`, `quarantine.csv` |
# | 3 | count the classes | `figures/01_class_counts.png` |
# | 4 | look at images of each class | `figures/01_classes.png` |
# | 5 | look at their sizes | `figures/01_sizes.png` |

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
# A *recipe* holds every setting, a *run* is the folder that its results go to. Opening
# one checks all settings before anything starts.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)

# %% [markdown]
# The line above says which data, which network and which folder this notebook is about.
#
# ## 1 · One table, one row an image
#
# Whatever the layout on disk, from here on the data is one table.

# %%
from helpers.sources import load_table

table = load_table(run.recipe)
table.head()

# %% [markdown]
# `label` is the class name, missing where the data set gives none; `split` says whether
# the data set itself calls an image training or test.
#
# ## 2 · Can every file be read?
#
# A download that broke off, an empty file: one such image can stop a night's training.
# Some pipelines put a black picture in its place, and the model learns from pictures of
# nothing. We decode every file to its last byte instead. (A file that decodes may still
# show nothing: two of the demo's are all black, and this check lets them in.)

# %%
from helpers.inspection import inspect_images, set_aside

images = inspect_images(table)
readable, quarantine = set_aside(images)

# %% [markdown]
# Nothing is deleted or moved: the *quarantine* is a list, and every later step leaves
# out what stands on it.

# %%
print(f"{len(quarantine)} of {len(images)} images cannot be read")
quarantine[["image_id", "split", "reason"]].head(20)

# %% [markdown]
# The demo has a few broken files planted on purpose. In your own data this list is worth
# a minute: many files with one reason often mean one broken archive.

# %%
from helpers.files import save_csv

save_csv(images, run.path("images"))
save_csv(quarantine, run.path("quarantine"))

# %% [markdown]
# Both tables are saved; the next notebook starts from them.
#
# ## 3 · How unbalanced are the classes?
#
# We count readable training images. The *imbalance ratio*, largest class divided by
# smallest, says how easily a model could look good by ignoring small classes.

# %%
from helpers.charts import plot_class_counts
from helpers.splits import count_classes, imbalance_ratio

counts = count_classes(readable)
run.save_figure(plot_class_counts(counts), "01_class_counts")

# %% [markdown]
# A long tail like this is usual for products, species or defects. Two things follow:
# accuracy alone will flatter us, and the training will weigh small classes up.

# %%
naive = counts.max() / counts.sum()
print(f"imbalance ratio {imbalance_ratio(counts):.1f}:1")
print(f"always answering '{counts.idxmax()}' would be right {naive:.1%} of the time")

# %% [markdown]
# Keep the second number in mind: it is the accuracy of a model that has learnt nothing.
#
# ## 4 · What do the classes look like?
#
# No statistic replaces a look. Each row shows random training images of one class.

# %%
from helpers.galleries import show_classes

labelled = readable[readable.split == "train"]
run.save_figure(show_classes(labelled, seed=run.recipe.seed), "01_classes")

# %% [markdown]
# Ask of each row: could *you* tell it from the others? Does one image seem to stand in
# the wrong row? Is there something beside the subject (a background, the light, a
# watermark) that would give the class away? A network will find such a shortcut.
#
# ## 5 · How large are the images?
#
# The network gets squares of one size, so we need to know what will be shrunk,
# stretched or cropped.

# %%
from helpers.charts import plot_sizes

run.save_figure(plot_sizes(readable), "01_sizes")

# %% [markdown]
# Points on the grey line are square. The outliers of the histogram are worth opening: in
# the demo the smallest files are all black, and those above 6 KiB are PNG files under
# the name .jpg, or CMYK (colours meant for print).
#
# ## What we saw

# %%
sizes = readable.groupby(["width", "height"]).size()
print(f"- {len(table)} images in {counts.size} classes, {len(quarantine)} set aside")
print(f"- {counts.idxmax()} has {counts.max()} training images, "
      f"{counts.idxmin()} has {counts.min()}: {imbalance_ratio(counts):.1f} to 1")
print(f"- {len(sizes)} different sizes, the most frequent one "
      f"{sizes.idxmax()[0]} x {sizes.idxmax()[1]} pixels")

# %% [markdown]
# The last cell lists what this notebook made and, in Colab, copies it to Drive if you
# asked for that.

# %%
run.finish("01_eda")

# %% [markdown]
# ## Try it
#
# 1. Which reasons stand in the quarantine, and how often does each occur in each split?
# 2. Are the files of one class larger than those of another? What could a model make of
#    that?
# 3. Rename one image file and run again with
#    `overrides = {"missing_images": "quarantine", "run": "demo-missing"}`, then without
#    `missing_images`. What changes? Rename the file back.
#
# Solutions are in [solutions.ipynb](solutions.ipynb). Next:
# [02 · Prepare the data](02_preprocessing.ipynb).
