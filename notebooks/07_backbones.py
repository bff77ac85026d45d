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
# **You will be able to** choose a backbone by its score and its cost, and say whether the
# difference is more than chance.
#
# **You need** `table.csv` and `label_mapping.json` from 02. **You get** parameters,
# features, images a second, memory, file size and out-of-fold score for every backbone
# of the recipe's `compare`. **It takes** some 20 seconds per backbone for the demo,
# longer for large ones and for those that have to be downloaded.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | run every backbone on the same images | `backbones.csv`, `backbones/` |
# | 2 | look at score and cost | `figures/07_backbones.png` |

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
# `python -m helpers.batch --from 07` runs it.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)

# %% [markdown]
# ## 1 · The same images through each
#
# At most `compare_images` training images, stratified by class and fold. Each backbone
# runs in a process of its own, so that its memory is its own, with the head of 04: the
# same folds, the same search for C. What is measured already is kept.

# %%
from helpers.evaluation.backbone_costs import compare_backbones

table = compare_backbones(run)
run.save("backbones", table, index=True)

# %% [markdown]
# `images_per_second` includes decoding, but not loading the network. `parameters`
# leaves out the classifier. `peak_memory_mb` is the whole process, of which PyTorch
# alone takes some 700. `file_mb` is the size of the weights on disk.

# %%
table.drop(columns=["behind", "behind_low", "behind_high"]).round(3)

# %% [markdown]
# Look at `weights` before anything else. *Random* means that pretrained weights could not be
# downloaded here: the row's cost is real, but its score is that of an untrained network and
# says nothing about the pretrained one.
#
# ## 2 · Score and cost
#
# Best score on top, with its 95 % interval; hollow points are random weights.

# %%
from helpers.pictures.charts import save_figure
from helpers.pictures.comparisons import plot_backbones

save_figure(run, plot_backbones(table), "07_backbones")

# %% [markdown]
# Two intervals that overlap do not mean that two backbones are equally good: both were
# judged on the same images, and what is hard for one is often hard for the other. What
# counts is the *paired difference*: every draw scores both on the same images.

# %%
from helpers.evaluation.compare import load_answers, tabulate_differences
from helpers.pictures.comparisons import plot_differences

measured = table.index[table["macro F1"].notna()].str.replace("/", "_")
answers, classes = load_answers([run.folder / "backbones" / name for name in measured])
differences = tabulate_differences(answers, classes)
save_figure(run, plot_differences(differences), "07_differences")

# %% [markdown]
# A filled point stays different after Holm's correction: of many backbones compared at
# once, some would look different by chance alone. Only pretrained networks are worth
# comparing.

# %%
best, trained = table.index[0], table[table.weights != "random"]
for name, row in trained[trained.index != best].dropna(subset="behind").iterrows():
    clear = "behind" if row.behind_low > 0 else "not clearly behind"
    print(f"{name} is {clear} {best}: {row.behind:.3f} in macro F1 "
          f"[{row.behind_low:.3f}, {row.behind_high:.3f}]")
print(f"{len(table) - len(trained)} of {len(table)} have random weights")

# %% [markdown]
# Of those that are not clearly behind, take the cheapest; if only one is pretrained,
# there is nothing to choose. Choosing the best of many by this score flatters the
# winner a little. The hold-out would not, so leave it alone until the choice is made,
# then set `final: true`, once.
#
# ## What we saw

# %%
fastest, top = table.images_per_second.idxmax(), table.loc[best]
rivals = trained.index[(trained.behind_low <= 0) & (trained.index != best)]
print(f"- best: {best} ({top.weights} weights), {top.images_per_second:.0f} images/s, "
      f"macro F1 {top['macro F1']:.3f} [{top.low:.3f}, {top.high:.3f}]")
print(f"- not clearly behind: {', '.join(rivals) or 'none'}")
print(f"- fastest: {fastest}, {table.images_per_second[fastest]:.0f} images/s, "
      f"macro F1 {table['macro F1'][fastest]:.3f}")

# %% [markdown]
# To go on with another one, give it a run of its own, so that both stay:
# `make run SET="backbone=resnet18 weights=pretrained run=demo-resnet18"`.

# %%
run.finish("07_backbones")

# %% [markdown]
# ## Try it
#
# Fill in the blanks (`___`), remove the `#` and run. Solutions are in
# [solutions.ipynb](solutions.ipynb).
#
# **1.** Which backbone gives the most macro F1 for its megabytes? Is that a number to choose
# by?

# %%
# worth = table["macro F1"] / table.___
# worth.sort_values(ascending=False)

# %% [markdown]
# **2.** How many minutes would 100,000 images take with each backbone?

# %%
# minutes = 100_000 / table.___ / 60
# minutes.round(1).sort_values()

# %% [markdown]
# Next: [08 · Compare heads and remedies](08_heads.ipynb).
