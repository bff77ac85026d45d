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
# # 11 · Serve the model
#
# **Question: does the model answer outside the notebooks as it did in them?** A classifier
# is often trained in one program and used in another, which decodes, resizes or crops a
# little differently; its answers then change, and nothing says so. Here there is one saved
# folder and one way in. The web page and the batch command use it, the export is checked
# against it, and you will see how far their answers differ.
#
# **You will be able to** save a model with all that its answers depend on, open it on
# another machine, put a page in front of it, classify a folder of photos, and export it.
#
# **You need** a finished run (01 to 06).
# **You get** a folder that can be copied, an ONNX export, a table of predictions, a page.
# **It takes** about half a minute on two cores for the demo.
#
# | step | what happens | what it leaves in `outputs/<run>/` |
# |---|---|---|
# | 1 | the model is saved, and has to answer as it did in 04 | `model/` |
# | 2 | it is loaded and asked | `figures/11_answers.jpg` |
# | 3 | why several models are calibrated before their answers are averaged | |
# | 4 | a folder of photos is classified by the command | `served.csv` |
# | 5 | the network is exported | `onnx/` |
# | 6 | what other preprocessing would do | |
# | 7 | the web page | |

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
# `python -m helpers.batch --from 11` runs it.

# %%
from helpers.run import open_run

run = open_run(recipe, overrides)
print(f"what is saved: {run.recipe.serving.serve}")

# %% [markdown]
# ## 1 · Save the model
#
# The folder holds the network, the classifiers of all folds, the class names, the
# preprocessing in full, the temperatures of 06, thumbnails of training photos, some sample
# photos, and the hash of every file. Before it is kept, it is loaded and has to give the
# same probabilities as 04 for photos outside the folds. (`serve: refit` saves a single
# model, trained on all training images, instead. It is smaller, and trained networks answer
# faster; but no photo is left that could judge it.)

# %%
from helpers.serving.saving import save_model

folder = save_model(run)
for path in sorted(folder.glob("*")):
    if path.is_file():
        print(f"{path.stat().st_size / 1024:8,.0f} KiB  {path.name}")

# %% [markdown]
# Weights are plain arrays (`.safetensors`): opening them runs no code, whereas opening a
# pickle can. `SHA256SUMS` lists the hashes. When the model is loaded, each file is checked
# against it, and a file that is not on it makes the folder invalid. This tells a damaged
# copy from a whole one; it does not stop somebody who changes the list as well. With
# `reference_photos: 0` no photo is saved.

# %%
from helpers.files import load_json

note = load_json(folder / "model.json")
print(f"{note['method']}\nclasses: {', '.join(note['classes'])}")
print(f"preprocessing {note['fingerprint']}: {note['preprocessing']}")

# %% [markdown]
# The fingerprint stands for the preprocessing: if a later version of the suite prepared
# photos in another way, it would refuse this folder instead of answering differently.
#
# ## 2 · Load it and ask
#
# `load_predictor(folder).predict(photos)` is the only way in. Photos may be files, bytes
# or opened images. The model is first run on two pictures saved with it, to check that this
# machine gives the same pixels and outputs, up to rounding.

# %%
from helpers.data.splits import select_rows
from helpers.data.table import restore_images
from helpers.serving.predictor import load_predictor

table = run.load_table()
restore_images(run.recipe, table)
rows = select_rows(table, "test").head(200)
rows = rows if len(rows) else table.head(50)
photos = rows.path.tolist()
predictor = load_predictor(folder)
answers = predictor.predict(photos)
answers[["photo", "prediction", "confidence", "sure"]].assign(
    photo=[path.rpartition("/")[2] for path in answers.photo]).head()

# %% [markdown]
# No model was trained on these photos (hold-out and test), unless the data has none. `sure`
# means that the confidence reaches the threshold that 06 chose for the target accuracy;
# otherwise the model abstains.

# %%
from helpers.pictures.charts import save_figure
from helpers.pictures.galleries import show_photos

asked = answers.sort_values("confidence").iloc[:: max(1, len(answers) // 7)].head(8)
said = [f"{row.prediction}\n{row.confidence:.0%}{'' if row.sure else ', not sure'}"
        for row in asked.itertuples()]
save_figure(run, show_photos(asked.photo.tolist(), said), "11_answers")

# %% [markdown]
# From left to right the model is more confident. Some of what it is not sure of is easy for
# us.
#
# ## 3 · Several models, one answer
#
# The folder holds the models of all folds. Each has its own temperature: above 1 the model
# is overconfident, below 1 underconfident. So each is calibrated first, and then they are
# averaged. (As in 06, a strong penalty gives flat probabilities and a temperature near 0.)

# %%
from helpers.evaluation.calibration import apply_temperature

members = predictor.answer_members(predictor.compute(photos[0]))
mean = 0
for answer, temperature in zip(members, note["temperatures"], strict=True):
    calibrated = apply_temperature(answer, 1 / temperature)
    mean = mean + calibrated / len(members)
    name = predictor.classes[answer.argmax()]
    print(f"{name}: temperature {temperature:.2f}, confidence {answer.max():.3f}, "
          f"calibrated {calibrated.max():.3f}")
print(f"{predictor.classes[mean.argmax()]}: the mean, {mean.max():.3f}; "
      f"predict says {answers.confidence[0]:.3f}")

# %% [markdown]
# No temperature changes which class a single model prefers, but it changes how much each
# model counts in the mean. Where models disagree, the mean is less confident than they are.
#
# Does calibrating first help? 04 averaged the plain answers. With `final: true` both means
# are scored on the images that no model was trained on, and the look is counted.

# %%
from helpers.evaluation.holdout import select_judged
from helpers.evaluation.intervals import score_with_intervals

plain = run.load_table("test_probabilities").head(len(rows))
columns = [f"p_{name}" for name in predictor.classes]
served = plain.assign(prediction=answers.prediction, sure=answers.sure,
                      **{name: answers[name] for name in columns})
judged = select_judged(run, plain, predictor.classes)
for name, part in judged.items():
    ways = {"plain mean": part, "calibrated": served.loc[part.index]}
    for how, given in ways.items():
        found = score_with_intervals(given, predictor.classes, 1000, 0, ["log loss"])
        print(f"{name}, {how}: log loss {found.value.iloc[0]:.3f} "
              f"[{found.low.iloc[0]:.3f}, {found.high.iloc[0]:.3f}]")

# %% [markdown]
# And are the answers that count as sure right as often as 06 promised? Its threshold was
# chosen on single models; the mean has a confidence scale of its own.

# %%
for name, part in judged.items():
    sure = served.loc[part.index][lambda found: found.sure]
    found = score_with_intervals(sure, predictor.classes, 1000, 0, ["accuracy"])
    print(f"{name}: sure of {len(sure)} of {len(part)}; {found.value.iloc[0]:.1%} "
          f"right [{found.low.iloc[0]:.1%}, {found.high.iloc[0]:.1%}]")

# %% [markdown]
# Compare the intervals with the target accuracy: on so few photos they are wide. The page
# therefore says what the threshold was measured on, and promises nothing more.
#
# ## 4 · A folder of photos
#
# For many photos there is a command. It reads while it computes, lists what it cannot
# read, and exits with status 1 if there was any (`--keep-going`: 0).

# %%
from helpers.serving.predict import main as predict

target = run.folder / "served.csv"
status = predict(["--run", str(run.folder), "--out", str(target), *photos])

# %% [markdown]
# In a terminal: `python -m helpers.serving.predict --run outputs/demo my_photos`.
#
# ## 5 · Export
#
# An application without PyTorch can use ONNX. The normalisation, the classifiers, the
# temperatures and the averaging are inside. Resizing is exported as a second network,
# because that is where applications go wrong: it gives the suite's pixels to the last bit.

# %%
from helpers.serving.export import try_export

exported = try_export(predictor, run.folder / "onnx")

# %% [markdown]
# This is how an application uses it; `onnx/example.py` does the same without the suite, for
# ordinary JPEG files.

# %%
import numpy as np
import onnxruntime

from helpers.data.images import decode_image

ways = {}
if exported:
    resize, model = (onnxruntime.InferenceSession(exported / f"{name}.onnx")
                     for name in ("resize", "model"))
    pixels = [resize.run(None, {"photo": np.asarray(decode_image(path))})[0]
              for path in photos]
    ways["ONNX"] = np.concatenate([model.run(None, {"pixels": one[None]})[0]
                                   for one in pixels])

# %% [markdown]
# Three ways, the same photos: how far are their probabilities apart?

# %%
import pandas as pd

ways["batch command"] = pd.read_csv(target)[columns].to_numpy()
own = answers[columns].to_numpy()
for way, found in ways.items():
    same = (found.argmax(axis=1) == own.argmax(axis=1)).mean()
    print(f"{way}: same class for {same:.1%} of {len(photos)} photos, probabilities "
          f"differ by at most {np.abs(found - own).max():.1g}")

# %% [markdown]
# The differences are rounding. A test checks that the page gives the same.
#
# ## 6 · What other preprocessing would do
#
# Suppose an application prepares photos by itself before it hands them to the model. The
# model is the same; only the pixels that it is given differ.

# %%
from PIL import Image, ImageOps

side = note["preprocessing"]["input_size"][1]
habits = {
    "nearest neighbour": lambda image: ImageOps.scale(
        image, side / min(image.size), Image.Resampling.NEAREST),
    "squashed to a square": lambda image: image.resize((side, side)),
    "sent as a thumbnail": lambda image: ImageOps.contain(image, (64, 64)),
    "red and blue swapped": lambda image: Image.merge("RGB", image.split()[::-1])}

# %% [markdown]
# Each habit is tried on the same photos.

# %%
for habit, spoil in habits.items():
    spoilt = predictor.predict([spoil(decode_image(path)) for path in photos])
    other = (spoilt.prediction != answers.prediction).mean()
    print(f"{habit}: another class for {other:.1%} of the photos")

# %% [markdown]
# None of these raises an error, and the answers still look plausible. That is why
# preprocessing belongs to the model and is not written a second time elsewhere.
#
# ## 7 · The web page
#
# In Colab the page appears below; elsewhere open the address. In a terminal,
# `make app RUN=demo` starts it. What a visitor sends is gone when the visit ends.

# %%
from helpers.serving.launch import start_page

page = start_page(run.folder)
page.show()

# %% [markdown]
# The page stops with this notebook, or with `page.stop()`.
#
# ## What we saw

# %%
found = note["abstention"]
print(f"- saved: {sum(f.stat().st_size for f in folder.rglob('*.*')) / 1e6:.1f} MB, "
      f"{len(note['temperatures'])} models, {len(note['classes'])} classes")
print(f"- sure of {answers.sure.mean():.0%} of {len(answers)} photos; target accuracy "
      f"{found['wished']:.0%}")
for way, values in ways.items():
    print(f"- {way}: differs by at most {np.abs(values - own).max():.1g}")

# %% [markdown]
# A saved model can be trusted only on photos like those it was trained on. It abstains where
# its confidence is low, but it does not notice a photo of something else.

# %%
run.finish("11_serving")

# %% [markdown]
# ## Try it
#
# Fill in the blanks (`___`), remove the `#` and run. Solutions are in
# [solutions.ipynb](solutions.ipynb).
#
# **1.** What does the model say of pure noise?

# %%
# noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
# said = predictor.predict([Image.fromarray(___)]).iloc[0]
# print(said[["prediction", "confidence", "sure"]])

# %% [markdown]
# **2.** Does the similarity of the nearest training photos give the noise away?

# %%
# for photo in (photos[0], ___):
#     print(predictor.find_nearest(photo)[["label", "similarity"]])

# %% [markdown]
# Back to the start: [01 · Look at the data first](01_eda.ipynb).
