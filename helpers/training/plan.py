"""Plan: all that the folds of one training share: settings, images, folds, and what is kept."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.splits import select_rows
from helpers.data.table import restore_images
from helpers.features.engines import count_workers
from helpers.features.store import describe_network, load_features
from helpers.files import SuiteError, hash_files, load_json, show_path
from helpers.finetune_settings import FinetuneSettings
from helpers.network.preprocessing import resolve_data_config
from helpers.run import Run
from helpers.settings import Recipe
from helpers.training.distillation import Teacher
from helpers.training.loaders import Images, choose_augmentations


@dataclass(frozen=True)
class Plan:
    """What is trained on what. Positions below are those of `rows`, then of `unseen`.

    Args:
        rows: training images, with label and fold; `unseen`: to be answered besides.
        codes: (images,) classes, -1 for those of `unseen`.
        features: (rows, features) of the frozen backbone, that a classifier may begin on.
        folder: the run's.
        teacher: what a teacher answers for `rows`, by fold.
        seed: of all that is random in the training.
        watched: score the fold that is left out after each epoch. It is to be looked at only:
            whoever chooses by it has no unseen images left.
    """

    recipe: Recipe
    measured: dict | None
    rows: pd.DataFrame
    unseen: pd.DataFrame
    codes: np.ndarray
    classes: list[str]
    features: np.ndarray
    images: Images
    folder: Path
    origin: dict
    seed: int
    teacher: Teacher | None = None
    watched: bool = False  # the fold that is left out is scored after each epoch, to be seen
    quiet: bool = False  # no bars, no forecast
    kept: dict = field(default_factory=dict, repr=False)  # activations by cut, heads by fold

    @property
    def settings(self) -> FinetuneSettings:
        """The recipe's, and what goes without saying when weights begin at random."""
        own = self.recipe.finetune
        if self.recipe.network.strategy != "scratch":
            # A classifier fitted on what random layers make of photos would not fit for long.
            random = {"head_start": "new"} if self.recipe.network.weights == "random" else {}
            return own.model_copy(update=random)
        return own.model_copy(update={"unfreeze": [1.0], "head_start": "new", "layer_decay": 1.0})

    @property
    def folds(self) -> np.ndarray:
        """The fold of each of `rows`."""
        return self.rows.fold.to_numpy(int)

    @cached_property
    def data_config(self) -> dict:
        """What the network is given of an image."""
        return resolve_data_config(self.recipe, self.measured)

    @cached_property
    def levels(self) -> np.ndarray | None:
        """The augmentation of each of `rows`."""
        return choose_augmentations(self.rows, self.settings.augmentation,
                                    self.recipe.network.augmentation_sizes)

    @property
    def workers(self) -> int:
        """Processes that decode; beside a network on the CPU there is no core left for them."""
        import torch

        return count_workers(self.recipe, "cuda") if torch.cuda.is_available() else 0

    def part(self, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return positions: the fold's training part, the inner fold of it, and the fold."""
        inner = (fold + 1) % (self.folds.max() + 1)
        places = np.arange(len(self.rows))
        return (places[self.folds != fold], places[self.folds == inner],
                places[self.folds == fold])

    def split_epochs(self) -> list[int]:
        """Return the epochs of each phase; the last ones get what cannot be shared equally."""
        phases = len(self.settings.unfreeze)
        parts = np.array_split(np.arange(self.settings.epochs), phases)
        return [len(part) for part in parts][::-1]

    def change(self, seed: int | None = None, teacher: Teacher | None = None,
               **settings) -> "Plan":
        """Return a plan on the same images with other settings of `finetune`."""
        recipe = self.recipe.change(**settings)
        origin = self.origin | {"settings": recipe.select("finetune"),
                                "seed": self.seed if seed is None else seed}
        return replace(self, recipe=recipe, origin=origin, seed=origin["seed"], teacher=teacher)


def create_plan(run: Run, chosen: np.ndarray | None = None, unseen: bool = True) -> Plan:
    """Return the plan of a run's recipe.

    Args:
        chosen: positions of training images to be content with.
        unseen: answer the hold-out and the test images, too.

    Raises:
        SuiteError: texts are asked for, or a training part lacks so much that nothing can be
            learnt from it.
    """
    recipe, table = run.recipe, run.load_table()
    require_photos(run)
    restore_images(recipe, table)
    mapping, rows = load_json(run.need("label_mapping")), select_rows(table, "train")
    chosen = np.arange(len(rows)) if chosen is None else chosen
    rows = rows.iloc[chosen].reset_index(drop=True)
    others = select_rows(table, "test") if unseen else table[:0]
    codes = np.concatenate([rows.label.map(mapping).to_numpy(np.int64),
                            np.full(len(others), -1, np.int64)])
    _require_folds(rows, show_path(run.path("table")))
    features = np.asarray(load_features(run, "train"))[chosen]
    origin = {"network": describe_network(recipe, run.measured),
              "table": hash_files(run.need("table"))[0], "images": len(rows),
              "answered": len(others), "strategy": recipe.network.strategy,
              "levels": list(recipe.network.augmentation_sizes),
              "settings": recipe.select("finetune"), "seed": recipe.splits.seed}
    every = pd.concat([rows, others], ignore_index=True)
    images = Images(every, resolve_data_config(recipe, run.measured))
    return Plan(recipe, run.measured, rows, others, codes, list(mapping), features, images,
                run.folder, origin, recipe.splits.seed)


def require_photos(run: Run) -> None:
    """SuiteError if the recipe asks for texts."""
    inputs = run.recipe.head.inputs
    if inputs != "photo":
        raise SuiteError(f"`inputs: {inputs}` is for heads on frozen features; networks are "
                         "trained on photos: set `inputs: photo`.")


def _require_folds(rows: pd.DataFrame, where: str) -> None:
    folds = sorted(rows.fold.unique())
    for fold in folds:
        left = rows[rows.fold != fold].label
        if left.nunique() < 2:
            raise SuiteError(f"{where}: without fold {fold} there are images of one class only, "
                             f"{left.iloc[0] if len(left) else 'none'}: there is nothing to "
                             "tell apart. Lower `folds`, or add images of other classes.")
        lacking = sorted(set(rows.label) - set(left))
        if lacking:
            print(f"no image of {', '.join(lacking)} is left without fold {fold}: its network "
                  "will not know the class")
