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
# Before a network sees an image, we look at what there is: which files cannot be read,
# which photos are in the data twice, how many images each class has, and what they look
# like.
#
# **You will be able to** find broken files, duplicates and unbalanced classes in any folder
# of images, and decide what to leave out.
#
# **You need** to know what a folder and a table are; no machine learning. The default
# recipe is the demo: 600 photos of waste that come with the suite, and sixteen copies,
# planted with other faults. **You get** a table of all images, everything that looks
# odd about them, and a list of those set aside, with reasons. **It takes** about 20
# seconds for the demo, and some fifteen minutes for 100,000 photos on two cores.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | read the data into one table | |
# | 2 | open every image once and measure it | |
# | 3 | find copies, exact, near and transformed | `figures/01_copies_*.jpg`, `figures/01_keypoints.jpg`, `figures/01_borderline_*.jpg` |
# | 4 | list what is odd, set aside what is unusable | `near_copies.csv`, `inspection.csv`, `quarantine.csv`, `images.csv`, `figures/01_findings.jpg` |
# | 5 | count the classes | `figures/01_class_counts.png` |
# | 6 | look at images of each class, and at their sizes | `figures/01_classes.jpg`, `figures/01_sizes.png` |

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
# A *recipe* holds every setting; a *run* is the folder that its results go to. Opening one
# checks all settings before anything starts.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)

# %% [markdown]
# The lines above say which data, which network and which folder this notebook is about.
# (The committed demo was run with `final=true`, to show what 06 does with held-out
# images. Leave it off for your own data until all choices are made.)
#
# ## 1 · One table, one row per image
#
# However the files are arranged on disk, from here on the data is one table. An archive is
# unpacked to the local disk first.

# %%
from helpers.data.table import load_table

table = load_table(run.recipe)
table[["image_id", "path", "label", "split"]].head()

# %% [markdown]
# `label` is the class name, missing where the data set gives none; `split` says whether
# the data set itself calls an image training or test.
#
# We will follow one photo from here to notebook 06. Here it is, with its label.

# %%
from helpers.data.table import find_followed
from helpers.pictures.charts import save_figure
from helpers.pictures.galleries import show_photos

followed = find_followed(run.recipe, table)
title = f"{followed.image_id}\nlabel: {followed.label}"
save_figure(run, show_photos([followed.path], [title]), "01_followed")

# %% [markdown]
# Do you agree with the label? Remember your answer; we will see what the computer says.
#
# ## 2 · Open every image, once
#
# One interrupted download or empty file can stop an overnight training run. Some
# pipelines put a black picture in its place, and the model learns from pictures of
# nothing. We decode every file to its last byte, and measure it while it is open:
# brightness, sharpness, information, size, a checksum, a thumbnail and *keypoints*, of
# which more below. If this is interrupted, run it again and it continues.

# %%
from helpers.data.inspection import inspect_images

images = inspect_images(table, run)

# %% [markdown]
# Unreadable files have a `reason`; all others have numbers.

# %%
print(f"{(images.reason != '').sum()} of {len(images)} images cannot be read")
images.reason[images.reason != ""].value_counts().to_frame("images")

# %% [markdown]
# This list is worth a minute: many files with the same reason often mean one broken
# archive. The demo's were broken on purpose.
#
# ## 3 · The same photo twice?
#
# If a model trains on one copy and is tested on the other, it only has to remember, and
# the score says nothing about new images. There are three kinds of copies:
#
# - *exact* copies have the same checksum;
# - *near* copies (saved again, resized, mirrored, brightened, cropped a little) are
#   found by comparing thumbnails: the details of the two correlate;
# - *transformed* copies were turned, shifted, zoomed or cropped, or all of these at once,
#   as happens when images are augmented and stored beside their originals. They are
#   found by their keypoints, small patterns that can be recognised in a turned image, and
#   what was cropped also by comparing thumbnails with parts of thumbnails.

# %%
from helpers.data.copies import find_copies, group_copies

pairs = find_copies(images, run)
images["group"] = group_copies(len(images), pairs)
pairs.groupby("how")["copy"].agg(copies="sum", listed="size")

# %% [markdown]
# Beside the copies, pairs that come near are listed. Copies, and copies of copies, share
# a `group`; the next notebook never splits a group. Below are near copies, the surest at
# the left and the weakest at the right, with what was done to the upper image to get the
# lower one.

# %%
from helpers.pictures.copy_pairs import show_borderline, show_copies, show_keypoints

save_figure(run, show_copies(images, pairs, "near"), "01_copies_near")

# %% [markdown]
# The same for transformed copies: whole thumbnails would not find these.

# %%
save_figure(run, show_copies(images, pairs, "transformed"), "01_copies_transformed")

# %% [markdown]
# How do keypoints find these? Each line joins two keypoints that look alike. If many
# agree on one way to lay the first image over the second, that is a proposal. It counts
# only if the details agree in every part of the overlap once one image is laid over the
# other, as on the right: a shop's logo or a line of print has keypoints that agree, too.

# %%
save_figure(run, show_keypoints(images, pairs), "01_keypoints")

# %% [markdown]
# Are the thresholds right for your data? Look at the pairs closest to them: those marked
# *=* count as the same photo, those marked *≠* do not. Near copies first.

# %%
save_figure(run, show_borderline(images, pairs, "near"), "01_borderline_near")

# %% [markdown]
# Two images whose thumbnails correlate may still be no copies: if their details differ in
# many places (two pages of print), or if their colours differ (one product in two
# colours, perhaps). If images in other colours are copies in your data, set
# `copy_colours: any`. Now the transformed copies:

# %%
figure = show_borderline(images, pairs, "transformed")
save_figure(run, figure, "01_borderline_transformed")

# %% [markdown]
# If a pair marked *=* shows two different things, raise `near_copy` (0.9 by default) or
# `transformed_copy` (0.82); if one marked *≠* is clearly the same photo, lower it. Two
# photos taken of one object are no copies; if a column says which object it is,
# `group_column` keeps them together. When in doubt, keep both low: a pair that is joined
# by mistake costs little, a missed copy inflates the score. The checklist in 02 warns
# where pairs chain into one large group. Photos that show little but a common frame or
# background may need `transformed_copies: false`.
#
# ## 4 · What is odd, and what must go
#
# Each finding has a decision: `quarantine` (left out of everything), `group` (kept on
# one side of each split) or `keep` (only reported). The recipe's `quarantine` names the
# checks that set images aside, `keep_images` the images that stay regardless.

# %%
import pandas as pd

from helpers.data.findings import find_faults, set_aside

findings = find_faults(images, pairs, run.recipe.data)
used, quarantine = set_aside(images, findings)
pd.crosstab(findings.check, findings.decision)

# %% [markdown]
# An image can have several findings. Nothing is deleted, moved or changed in your data:
# the quarantine is a list, and every later step leaves out what is on it.
# `conflicting labels` means the same file under two labels, so that at least one is wrong;
# `leak` means a training image of which the test set holds a copy.

# %%
from helpers.pictures.galleries import show_findings

save_figure(run, show_findings(findings, images), "01_findings")

# %% [markdown]
# Each row is one check, with the number of images it found, of which at most eight fit.
# Files that cannot be opened are left out, and so are images that an earlier row shows.
# Dark, blurry or odd-sized images are not wrong by themselves. Ask whether they cluster
# in one class, because then the model may learn darkness instead of the object.

# %%
quarantine[["image_id", "split", "reason"]].head(20)

# %% [markdown]
# And the photo that we follow? Here is what the checks found about it.

# %%
about = findings[findings.image_id == followed.image_id]
about[["check", "note"]] if len(about) else f"no finding about {followed.image_id}"

# %% [markdown]
# A wrong label cannot be seen by looking at files. It takes a model that has seen many
# other photos, and 06 shows where it turns up.

# %%
from helpers.data.inspection import forget_inspection, measure_normalisation

mean, std = measure_normalisation(used)
run.save("images", images)
run.save("inspection", findings)
run.save("quarantine", quarantine)
run.save("near_copies", pairs)
run.save("normalisation", {"mean": mean, "std": std})
forget_inspection(run)

# %% [markdown]
# All tables are saved, each with a note of the settings that it was made with; the next
# notebook starts from them.
#
# ## 5 · How unbalanced are the classes?
#
# We count the usable training images. The *imbalance ratio*, largest class divided by
# smallest, says how easily a model could look good while ignoring small classes.

# %%
from helpers.data.splits import count_classes, imbalance_ratio
from helpers.pictures.charts import plot_class_counts

counts = count_classes(used)
save_figure(run, plot_class_counts(counts), "01_class_counts")

# %% [markdown]
# A long tail is usual for products, species or defects. Two things follow: accuracy alone
# will flatter us, and small classes have few images to learn from.

# %%
majority = counts.max() / counts.sum()
print(f"imbalance ratio {imbalance_ratio(counts):.1f}:1")
print(f"always answering '{counts.idxmax()}' would be right {majority:.1%} of the time")

# %% [markdown]
# The second number is the *majority baseline*: the accuracy of a model that has learnt
# nothing. 04 and 06 compare the model with it.
#
# ## 6 · What do the classes look like?
#
# No statistic replaces a look. Each row shows random training images of one class.

# %%
from helpers.pictures.galleries import show_classes

labelled = used[used.split == "train"]
save_figure(run, show_classes(labelled, seed=run.recipe.splits.seed), "01_classes")

# %% [markdown]
# Ask of each row: could *you* tell it from the others? Is there an image that seems to
# be in the wrong row? Is there anything besides the subject (a background, the light, a
# watermark) that would give the class away? A network will find such a shortcut.

# %%
from helpers.pictures.charts import plot_sizes

save_figure(run, plot_sizes(used), "01_sizes")

# %% [markdown]
# The area of a circle is its number of images; circles on the grey line are square images.
# The outliers of the histogram are worth opening.

# %%
used.assign(KiB=(used.bytes / 1024).round(1)).sort_values("bytes", ascending=False)[
    ["image_id", "format", "mode", "width", "height", "KiB"]].head(4)

# %% [markdown]
# PNG files are much larger than JPEG files of the same photo; `mode` tells whether an
# image has the usual three colours (RGB).
#
# ## What we saw

# %%
print(f"- {len(table)} images in {counts.size} classes, {len(quarantine)} set aside")
print(f"- {findings.image_id.nunique()} images with a finding, most often: "
      f"{', '.join(findings.check.mode()) or 'none'}")
print(f"- {images.group.duplicated(keep=False).sum()} images have a copy")
print(f"- {counts.idxmax()} has {counts.max()} training images, "
      f"{counts.idxmin()} has {counts.min()}: {imbalance_ratio(counts):.1f} to 1")

# %% [markdown]
# The next cell lists what this notebook made and, in Colab, copies it to Drive if you
# asked for that.

# %%
run.finish("01_eda")

# %% [markdown]
# ## Try it
#
# Fill in the blanks (`___`), remove the `#` and run. Solutions are in
# [solutions.ipynb](solutions.ipynb).
#
# **1.** How many images were set aside in each split, and why?

# %%
# pd.crosstab(quarantine.reason, quarantine.___)

# %% [markdown]
# **2.** Are the files of one class larger than those of another? What could a model make of
# that?

# %%
# (images.groupby("___").bytes.median() / 1024).round(1)

# %% [markdown]
# Next: [02 · Prepare the data](02_preprocessing.ipynb).
