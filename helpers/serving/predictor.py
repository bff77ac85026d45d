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
from helpers.features.streaming import compute_batches
from helpers.files import SuiteError, show_path
from helpers.network.backbones import create_network
from helpers.network.preprocessing import (
    create_normalisation,
    describe_preprocessing,
    fingerprint_preprocessing,
)
from helpers.recipe import change_recipe
from helpers.serving.layers import CompleteNetwork, MeanLogits, StackedNetworks, split_outputs
from helpers.serving.model_folder import (
    BACKBONE,
    HEADS,
    NETWORK,
    NETWORKS,
    find_model,
    read_arrays,
    read_note,
)
from helpers.serving.photos import Limits, Photo, PhotoFiles, PhotoReader
from helpers.serving.probe import load_probe
from helpers.serving.references import load_references
from helpers.settings import Recipe
from helpers.training.crossvalidation import form_inputs
from helpers.training.heads import restore_model
from helpers.training.networks import load_network, read_network

FEW = 8  # photos that are not worth starting threads for


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
    trunk = _load_trunk(folder, note, recipe, config)
    reader = PhotoReader(config, limits)
    probe = load_probe(folder, reader)
    try:
        made = build_engine(trunk, config, recipe, *probe)
    except DiffersError as error:
        raise SuiteError(f"{show_path(folder)} does not answer here as it did where it was "
                         f"saved: {error} Else install the versions of constraints.txt."
                         ) from error
    return Predictor(folder, note, reader, made, trunk, _load_heads(folder, note))


def _load_trunk(folder: Path, note: dict, recipe: Recipe, config: dict) -> nn.Module:
    if note["kind"] == NETWORKS:
        known = {"classes": note["classes"], "backbone": note["backbone"],
                 "preprocessing": describe_preprocessing(config)}
        return StackedNetworks([load_network(folder / NETWORK.format(number), recipe, known)
                                for number in range(len(note["temperatures"]))]).eval()
    model = create_network(recipe)
    model.reset_classifier(0)
    try:
        model.load_state_dict(read_network(folder / BACKBONE)[1])
    except RuntimeError as error:
        raise SuiteError(f"{show_path(folder / BACKBONE)} does not fit {note['backbone']} in "
                         f"this version of timm: {str(error)[:200]}") from error
    return model.eval()


def _load_heads(folder: Path, note: dict) -> list:
    if note["kind"] == NETWORKS:
        return []
    members = {}
    for name, array in read_arrays(folder / HEADS).items():
        number, _, key = name.partition("/")
        members.setdefault(int(number), {})[key] = array
    try:
        heads = [restore_model(note["kind"], arrays) for _, arrays in sorted(members.items())]
        found = np.stack([_ask(head, note) for head in heads])
    except (KeyError, ValueError, TypeError) as error:
        raise SuiteError(f"{show_path(folder / HEADS)} does not hold the classifiers that "
                         f"model.json speaks of ({error}). Save the model again (notebook 11)."
                         ) from error
    if found.shape != (len(note["temperatures"]), 1, len(note["classes"])):
        raise SuiteError(f"{show_path(folder / HEADS)} holds other classifiers than model.json "
                         "speaks of. Save the model again (notebook 11).")
    return heads


def _ask(head, note: dict) -> np.ndarray:
    """Return what a head says of features that are nothing, to see that it can."""
    return head.predict(form_inputs(note["inputs"], np.zeros((1, note["features"]), np.float32),
                                    [""]))


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
        return pd.concat(parts, ignore_index=True) if parts else self._tabulate([], [], {}, None)

    def stream(self, photos: Sequence[Photo], texts: Sequence[str] | None = None,
               progress: bool = False) -> Iterator[pd.DataFrame]:
        """Yield what `predict` returns, batch by batch, while the next photos are read."""
        if isinstance(photos, str | Path | bytes | Image.Image):
            raise SuiteError("predict takes a list of photos: put the one into [ ].")
        files, size = PhotoFiles(photos, self.reader), self.engine.batch_size
        batches = [range(start, min(start + size, len(photos)))
                   for start in range(0, len(photos), size)]
        if len(photos) <= FEW:
            shape = self.engine.shape
            found = (self.engine.compute(files.read_batch(batch, shape))[: len(batch)]
                     for batch in batches)
        else:
            found = compute_batches(self.engine, files, batches)
        with tqdm(total=len(photos), unit="photo", mininterval=1, disable=not progress) as bar:
            for batch, outputs in zip(batches, found, strict=True):
                given = None if texts is None else [texts[number] for number in batch]
                refused = {number: files.refused.pop(number) for number in batch
                           if number in files.refused}
                finite = np.isfinite(outputs).all(axis=1)
                refused = {number: "its features are no numbers in this precision"
                           for number, good in zip(batch, finite, strict=True) if not good
                           } | refused
                outputs = np.where(finite[:, None], outputs, 0)
                yield self._tabulate([_name(photos[n], n) for n in batch], batch, refused,
                                     self.combine(self.answer_members(outputs, given)))
                bar.update(len(batch))

    def _tabulate(self, names, numbers, refused: dict, probabilities) -> pd.DataFrame:
        columns = [f"p_{name}" for name in self.classes]
        values = np.empty((0, len(columns))) if probabilities is None else probabilities
        missing = np.array([number in refused for number in numbers], bool)
        values = np.where(missing[:, None], np.nan, values) if len(values) else values
        best = np.nan_to_num(values, nan=-1).argmax(axis=1) if len(values) else []
        confidence = values.max(axis=1) if len(values) else []
        table = pd.DataFrame({
            "photo": names,
            "prediction": ["" if gone else self.classes[code]
                           for code, gone in zip(best, missing, strict=True)],
            "confidence": confidence, "sure": np.asarray(confidence) >= self.threshold,
            "refused": [refused.get(number, "") for number in numbers]})
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

