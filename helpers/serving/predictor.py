"""Predictor: a saved model at work.

Notebook, page and batch command classify through it, with the preprocessing that was saved with
the model; the export is made from it and checked against it.
"""

import copy
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from helpers.evaluation.calibration import apply_temperature
from helpers.evaluation.explain import HeadLayers, create_explainer, require_formula
from helpers.features.engines import DiffersError, Engine, build_engine
from helpers.features.store import warn_of_versions
from helpers.features.streaming import compute_batches, split_numbers
from helpers.files import SuiteError, show_path
from helpers.network.preprocessing import create_normalisation, fingerprint_preprocessing
from helpers.recipe import change_recipe
from helpers.serving.layers import CompleteNetwork, MeanLogits, split_outputs
from helpers.serving.members import load_heads, load_trunk
from helpers.serving.model_folder import find_model, read_note
from helpers.serving.photos import Limits, Photo, PhotoFiles, PhotoReader
from helpers.serving.probe import load_probe
from helpers.serving.references import load_references
from helpers.settings import Recipe
from helpers.training.crossvalidation import form_inputs

FEW = 8  # photos that are not worth starting threads for
BLOCK = 256  # photos whose answers are tabulated at once
NO_NUMBERS = "its features are no numbers in this precision"


def load_predictor(place: str | Path, engine: str = "auto", precision: str = "float32",
                   batch_size: int | None = None, workers: int | None = None,
                   limits: Limits | None = None) -> "Predictor":
    """Load a saved model, and see that it answers on this machine as where it was saved.

    Args:
        place: the model's folder, or that of its run.
        engine, precision, batch_size, workers: as in the recipe's section `features`.
        limits: of the photos that it will be given.

    Raises:
        SuiteError: no model, or a damaged, altered, unknown or foreign one; or this machine's
            libraries answer differently.
    """
    folder = find_model(place)
    note = read_note(folder)
    config = {key: tuple(value) if isinstance(value, list) else value
              for key, value in note["preprocessing"].items()}
    if fingerprint_preprocessing(config) != note["fingerprint"]:
        raise SuiteError(f"{show_path(folder)} was saved by a version of the suite that prepares "
                         "photos in another way. Save the model again (notebook 11).")
    recipe = Recipe(name="model", data={"source": "folders", "path": "."},
                    network={"backbone": note["backbone"], "weights": "random",
                             "image_size": note["image_size"]})
    recipe = change_recipe(recipe, {"engine": engine, "precision": precision,
                                    "batch_size": batch_size, "workers": workers})
    warn_of_versions(note["versions"], show_path(folder))
    trunk = load_trunk(folder, note, recipe, config)
    reader = PhotoReader(config, limits)
    probe = load_probe(folder, reader)
    try:
        made = build_engine(trunk, config, recipe, *probe)
    except DiffersError as error:
        raise SuiteError(f"{show_path(folder)} does not answer here as it did where it was "
                         f"saved: {error} Else install the versions of constraints.txt."
                         ) from error
    return Predictor(folder, note, reader, made, trunk, load_heads(folder, note))


class Predictor:
    """A saved model, ready: photos in, calibrated probabilities out. Threads may share it.

    Attributes:
        note: what `model.json` says.
        classes: their names, in the order of columns.
        reader: what reads photos for it.
        engine: what computes.
    """

    def __init__(self, folder: Path, note: dict, reader: PhotoReader, engine: Engine,
                 trunk: nn.Module, heads: list):
        self.folder, self.note, self.reader, self.engine = folder, note, reader, engine
        self.classes, self.width = note["classes"], note["features"]
        self.references = load_references(folder)
        self._trunk, self._heads = trunk, heads
        self._powers = 1 / np.array(note["temperatures"])
        self._explaining = threading.Lock()  # hooks of one photo would catch another's maps

    @property
    def threshold(self) -> float:
        """The confidence from which on it is sure; inf if it never is."""
        found = self.note["abstention"]
        return np.inf if None in (found["threshold"], found["accuracy"]) else found["threshold"]

    def predict(self, photos: Sequence[Photo], texts: Sequence[str] | None = None,
                progress: bool = False) -> pd.DataFrame:
        """Classify photos: files, what files hold (bytes), or opened images.

        Args:
            texts: of each photo, for a model of photo and text; where there is none, the photo
                alone is classified.
            progress: show a bar.

        Returns:
            A row a photo, in order: `photo` (its file, or number), `prediction`, `confidence`,
            `sure` (its confidence reaches the threshold of the target accuracy), `refused` (why a
            photo could not be read, else empty), and `p_<class>`.
        """
        parts = list(self.stream(photos, texts, progress))
        if not parts:
            nothing = np.empty((0, self.engine.width), np.float32)
            return self._tabulate(PhotoFiles([], self.reader), [], nothing, None)
        return pd.concat(parts, ignore_index=True)

    def stream(self, photos: Sequence[Photo], texts: Sequence[str] | None = None,
               progress: bool = False) -> Iterator[pd.DataFrame]:
        """Yield what `predict` returns, block by block, while the next photos are read."""
        if isinstance(photos, str | Path | bytes | Image.Image):
            raise SuiteError("predict takes a list of photos: put the one into [ ].")
        files = PhotoFiles(photos, self.reader)
        batches = split_numbers(range(len(photos)), self.engine.batch_size)
        if len(photos) <= FEW:
            shape = self.engine.shape
            found = (self.engine.compute(files.read_batch(batch, shape))[: len(batch)]
                     for batch in batches)
        else:
            found = compute_batches(self.engine, files, batches)
        waiting, numbers = [], []
        with tqdm(total=len(photos), unit="photo", mininterval=1, disable=not progress) as bar:
            for batch, outputs in zip(batches, found, strict=True):
                waiting.append(outputs)
                numbers += batch
                bar.update(len(batch))
                # Tables of a few rows each would take as long as the network.
                if len(numbers) >= BLOCK or numbers[-1] == len(photos) - 1:
                    yield self._tabulate(files, numbers, np.concatenate(waiting), texts)
                    waiting, numbers = [], []

    def _tabulate(self, files: PhotoFiles, numbers: list[int], outputs: np.ndarray,
                  texts: Sequence[str] | None) -> pd.DataFrame:
        finite = np.isfinite(outputs).all(axis=1)
        refused = [files.refused.pop(number, "" if good else NO_NUMBERS)
                   for number, good in zip(numbers, finite, strict=True)]
        good = np.array([not reason for reason in refused], bool)
        given = None if texts is None else [texts[number] for number in numbers]
        values = self.combine(self.answer_members(np.where(good[:, None], outputs, 0), given))
        values = np.where(good[:, None], values, np.nan)
        confidence = values.max(axis=1, initial=-1.0)
        best = np.nan_to_num(values, nan=-1).argmax(axis=1)
        table = pd.DataFrame({
            "photo": [_name(files.photos[number], number) for number in numbers],
            "prediction": [self.classes[code] if answered else ""
                           for code, answered in zip(best, good, strict=True)],
            "confidence": confidence, "sure": confidence >= self.threshold, "refused": refused})
        columns = [f"p_{name}" for name in self.classes]
        return pd.concat([table, pd.DataFrame(values, columns=columns)], axis=1)

    def compute(self, photo: Photo) -> np.ndarray:
        """Return the network's outputs for one photo; UnreadableImageError as the reader."""
        pixels = np.zeros(self.engine.shape, np.uint8)
        pixels[0] = self.reader.read(photo)
        return self.engine.compute(pixels)[:1]

    def answer_members(self, outputs: np.ndarray, texts: Sequence[str] | None = None
                       ) -> np.ndarray:
        """Return the probabilities of each fold's model, (models, images, classes).

        Args:
            outputs: (images, ...) as from `engine.compute`; features, for a frozen backbone.
        """
        if not self._heads:
            logits = np.stack(split_outputs(outputs, self.width, len(self.classes))[1])
            return torch.softmax(torch.from_numpy(logits), dim=-1).numpy()
        texts = [""] * len(outputs) if texts is None else texts
        given = form_inputs(self.note["inputs"], outputs, texts)
        return np.stack([head.predict(given) for head in self._heads])

    def combine(self, answers: np.ndarray) -> np.ndarray:
        """Return the mean of the models' answers, each calibrated first, (images, classes)."""
        return np.mean([apply_temperature(part, power)
                        for part, power in zip(answers, self._powers, strict=True)], axis=0)

    def find_nearest(self, photo: Photo, count: int = 5) -> pd.DataFrame:
        """Return the training photos most like one, see `References.find_nearest`.

        Raises:
            SuiteError: no photos were saved with the model.
        """
        if self.references is None:
            raise SuiteError("no training photos were saved with this model "
                             "(`reference_photos: 0`).")
        return self.references.find_nearest(self.compute(photo)[0, : self.width], count)

    @cached_property
    def _plain_trunk(self) -> nn.Module:
        """The network on the CPU, apart from the one that the engine may be computing with."""
        if self.engine.name != "torch":
            return self._trunk  # OpenVINO has compiled one of its own
        return copy.deepcopy(self._trunk).cpu()

    def explain(self, photo: Photo, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return which part of a photo spoke for a class, by Grad-CAM.

        Returns:
            The photo as the network is given it, (H, W, 3) uint8, and the map, (H, W) from 0 to
            1: of all models together on a frozen backbone, else the mean of the networks'.

        Raises:
            SuiteError: the classifier is no formula, or the network keeps no maps.
            UnreadableImageError: as the reader.
        """
        pixels = self.reader.read(photo)
        size = self.reader.data_config["input_size"]
        batch = create_normalisation(self.reader.data_config)(torch.from_numpy(pixels)[None])
        networks = self._plain_trunk.networks if not self._heads else [nn.Sequential(
            self._plain_trunk, MeanLogits(self._create_layers("Grad-CAM"), self._powers))]
        code = [self.classes.index(name)]
        with self._explaining:
            maps = [create_explainer(network, size)(batch, code)[0] for network in networks]
        return pixels, np.mean(maps, axis=0)

    def create_complete_network(self) -> CompleteNetwork:
        """Return pixels to probabilities as one torch module, on the CPU, to be exported.

        Raises:
            SuiteError: the classifier is no formula.
        """
        heads = self._create_layers("ONNX") if self._heads else []
        return CompleteNetwork(self._plain_trunk, heads, self._powers, self.width,
                               len(self.classes), self.reader.data_config).eval()

    def _create_layers(self, what: str) -> list[nn.Module]:
        require_formula(self.note["kind"], what)
        return [HeadLayers(getattr(head, "photo", head).arrays) for head in self._heads]


def _name(photo: Photo, number: int) -> str:
    if not isinstance(photo, str | Path):
        return f"photo {number + 1}"
    return str(photo).encode("utf-8", "backslashreplace").decode()  # a name may be no text

