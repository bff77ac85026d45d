"""References: photos kept with a model. The nearest training photos are shown beside an answer,
and some that no model has learnt from are samples to try it on."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file
from tqdm import tqdm

from helpers.data.images import UnreadableImageError, shrink_image
from helpers.data.splits import select_rows
from helpers.data.table import restore_images
from helpers.features.engines import create_engine
from helpers.features.store import load_features
from helpers.features.streaming import ImageFiles, compute_batches, split_numbers
from helpers.files import save_csv, write_whole
from helpers.network.preprocessing import resolve_data_config
from helpers.run import Run
from helpers.serving.layers import StackedNetworks
from helpers.serving.model_folder import LABELS, REFERENCES, SAMPLES, read_arrays

THUMBNAIL, QUALITY = 160, 80  # pixels of the longer side, and JPEG's
SAMPLED, SIDE = 12, 640  # sample photos for the page, and pixels of their longer side


@dataclass(frozen=True)
class References:
    """Training photos: a row each of `table` (`image_id`, `label`), features, a thumbnail."""

    table: pd.DataFrame
    features: np.ndarray  # (photos, features) float32, of length 1
    thumbnails: list[bytes]  # JPEG

    def find_nearest(self, features: np.ndarray, count: int = 5) -> pd.DataFrame:
        """Return the photos most like one with these features, the nearest first.

        Args:
            features: (features,) of one photo.

        Returns:
            `image_id`, `label`, `similarity` (cosine), `photo` (JPEG).
        """
        similarity = self.features @ normalise(features)
        nearest = np.argsort(-similarity, kind="stable")[:count]
        return self.table.iloc[nearest].assign(
            similarity=similarity[nearest], photo=[self.thumbnails[n] for n in nearest]
        ).reset_index(drop=True)


def normalise(features: np.ndarray) -> np.ndarray:
    """Return features of length 1."""
    values = np.asarray(features, np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def choose_references(labels: pd.Series, count: int, seed: int) -> np.ndarray:
    """Return positions of at most `count` photos, the shares of classes kept as far as they go.

    Of each class there is one at least, if there is room.
    """
    if len(labels) <= count:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    drawn = labels.iloc[order]
    rank = drawn.groupby(drawn).cumcount().to_numpy()
    share = (rank + 0.5) / drawn.map(drawn.value_counts()).to_numpy()
    wanted = np.lexsort((share, rank > 0))[:count]  # the first of each class, then by its share
    return np.sort(order[wanted])


def save_references(folder: Path, rows: pd.DataFrame, features: np.ndarray) -> None:
    """Write photos with their features and labels.

    Args:
        rows: `image_id`, `path`, `label`.
        features: (rows, features).
    """
    photos, kept = [], []
    for number, path in enumerate(tqdm(rows.path, desc="thumbnails", unit="photo",
                                       mininterval=1)):
        try:
            photos.append(shrink_image(path, THUMBNAIL, QUALITY))
            kept.append(number)
        except UnreadableImageError as error:
            print(f"{rows.image_id.iloc[number]} is left out of the references: {error}")
    rows = rows.iloc[kept]
    arrays = {"features": normalise(features)[kept].astype(np.float16),
              "thumbnails": np.frombuffer(b"".join(photos), np.uint8),
              "ends": np.cumsum([len(photo) for photo in photos], dtype=np.int64)}
    with write_whole(folder / REFERENCES) as temporary:
        save_file(arrays, temporary)
    save_csv(rows[["image_id", "label"]], folder / LABELS)


def save_photos(run: Run, note: dict, trunk, folder: Path) -> None:
    """Write references and samples, unless no photo is to leave the run.

    Args:
        note: `classes` and `features`; `samples` are added to it.
        trunk: the frozen backbone, whose features are stored already, or `StackedNetworks`.
    """
    count, table = run.recipe.serving.reference_photos, run.load_table()
    if not count:
        return
    restore_images(run.recipe, table)
    rows = select_rows(table, "train")
    chosen = choose_references(rows.label, count, run.recipe.splits.seed)
    rows = rows.iloc[chosen]
    if isinstance(trunk, StackedNetworks):
        features = _compute_features(run, trunk, rows, note["features"])
    else:
        features = np.asarray(load_features(run, "train"))[chosen]
    save_references(folder, rows, features)
    others = select_rows(table, "test")
    others = others[others.label.isin(note["classes"])] if others.label.notna().any() else others
    drawn = others.sample(frac=1, random_state=run.recipe.splits.seed)
    drawn = drawn.assign(turn=drawn.groupby("label", dropna=False).cumcount()).sort_values(
        ["turn", "label"], kind="stable").head(SAMPLED)
    (folder / SAMPLES).mkdir()
    for number, row in enumerate(drawn.itertuples()):
        name = f"{SAMPLES}/{number:02d}.jpg"
        try:
            (folder / name).write_bytes(shrink_image(row.path, SIDE, quality=90))
        except UnreadableImageError:
            continue
        note["samples"].append({"file": name, "label": row.label if pd.notna(row.label)
                                else None})


def _compute_features(run: Run, trunk, rows: pd.DataFrame, width: int) -> np.ndarray:
    """Return the features that the first trained network computes of photos."""
    config = resolve_data_config(run.recipe, run.measured)
    engine = create_engine(trunk, config, run.recipe.change(precision="float32"),
                           rows.path.tolist())
    files = ImageFiles(rows[["path"]], config)
    batches = split_numbers(range(len(files)), engine.batch_size)
    return np.concatenate(list(compute_batches(engine, files, batches)))[:, :width]


def load_references(folder: Path) -> References | None:
    """Return what `save_references` wrote; None if the model has no photos with it."""
    if not (folder / REFERENCES).exists():
        return None
    arrays = read_arrays(folder / REFERENCES)
    stream = io.BytesIO(arrays["thumbnails"].tobytes())
    sizes = np.diff(arrays["ends"], prepend=0)
    table = pd.read_csv(folder / LABELS, dtype=str, keep_default_na=False)
    return References(table, arrays["features"].astype(np.float32),
                      [stream.read(int(size)) for size in sizes])
