"""Inspection: every image opened once before it is used; what is seen of it, in numbers.

One pass gives the header's facts, CleanVision's image properties (Apache-2.0, cleanlab 2022),
the sums behind the data set's own mean and standard deviation, and a thumbnail and keypoints
for the search for copies. Pixels are measured on the image reduced to at most 128 pixels a side.

    torchrun --nproc-per-node=4 -m helpers.data.inspection --recipe rakuten

shares the pass between processes, before notebook 01 goes on from what they leave.
"""

import hashlib
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from helpers.command import run_command
from helpers.data.images import UnreadableImageError, decode_image, describe_header, read_file
from helpers.data.keypoints import (
    NO_KEYPOINTS,
    KeypointFile,
    find_keypoints,
    join_keypoints,
    save_keypoints,
)
from helpers.data.table import load_table
from helpers.data.thumbnails import THUMBNAIL
from helpers.files import SuiteError, resolve_path, write_whole
from helpers.processes import count_cores, rank, wait_for_all, world
from helpers.resuming import Shards, choose_rows
from helpers.run import Run

MEASURED = 128  # pixels a side at most; enough for every property, and flat in cost
EMPTY = hashlib.sha256(b"").hexdigest()
MEASURES = 3  # raised when an image is measured otherwise, so that no old shards are kept
KEYPOINTS = "keypoints.shards"
FLAGS = ("rotated", "transparent", "animated", "grey")


def inspect_images(table: pd.DataFrame, run: Run | None = None) -> pd.DataFrame:
    """Decode every image of the table to its last byte and measure it.

    Args:
        table: with `image_id` and `path`.
        run: keeps what is measured in shards until `forget_inspection`, so that a killed
            inspection continues; beside them lie the thumbnails (`load_thumbnails`) and, if its
            recipe looks for transformed copies, the keypoints (`load_keypoints`).

    Returns:
        The table with `bytes`, `sha256`, `reason` ("" if readable), and for readable images
        `width`, `height` (after EXIF rotation), `format`, `mode`, `rotated`, `transparent`,
        `animated`, `grey`, CleanVision's raw properties, and `mean_r` ... `square_b` (0 to 1);
        where there are images of more than 8 bits, `white`: the value that became 255.
    """
    if run is None:
        with tempfile.TemporaryDirectory() as place:
            return _join_facts(table, _fill_shards(table, Path(place)), None)
    settings = run.recipe.data
    keypoints = (_open_shards(run.folder, table, KEYPOINTS)
                 if settings.transformed_copies and settings.near_copy < 1 else None)
    shards = _fill_shards(table, run.folder, keypoints)
    images = _join_facts(table, shards, _thumbnails_file(run) if rank() == 0 else None)
    if keypoints and rank() == 0:
        save_keypoints(_keypoints_file(run), map(keypoints.load, range(keypoints.count)))
    wait_for_all()
    if "white" in images and images.white.nunique() > 1 and rank() == 0:
        whites = ", ".join(f"{white:g} in {count}"
                           for white, count in images.white.value_counts().items())
        print(f"images of more than 8 bits were scaled by what each uses, white being {whites}: "
              "if they come from one device, save them as 8 bits on one scale")
    return images


def load_thumbnails(run: Run) -> np.ndarray:
    """Open the thumbnails of an inspected run, (images, 64, 64) uint8 in the table's order."""
    return np.load(_thumbnails_file(run), mmap_mode="r", allow_pickle=False)


def load_keypoints(run: Run) -> KeypointFile:
    """Open the keypoints of an inspected run, in the table's order."""
    return KeypointFile(_keypoints_file(run))


def forget_inspection(run: Run) -> None:
    """Remove shards, thumbnails and keypoints: what they are for has been saved."""
    for name in ("inspection.shards", KEYPOINTS):
        Shards(run.folder / name, run.folder, 0, {}).remove()
    for file in (_thumbnails_file(run), _keypoints_file(run),
                 _keypoints_file(run).with_suffix(".npz")):
        file.unlink(missing_ok=True)


def _thumbnails_file(run: Run) -> Path:
    return run.folder / ".thumbnails.npy"


def _keypoints_file(run: Run) -> Path:
    return run.folder / ".keypoints.bin"


def _open_shards(folder: Path, table: pd.DataFrame, name: str = "inspection.shards") -> Shards:
    size = choose_rows(len(table))
    names = hashlib.sha256("\0".join([*table.image_id, *table.path]).encode()).hexdigest()[:16]
    return Shards(folder / name, folder, -(-len(table) // size),
                  {"images": f"{len(table)}, {names}", "measures": MEASURES},
                  local=name == KEYPOINTS)


def _fill_shards(table: pd.DataFrame, folder: Path, keypoints: Shards | None = None) -> Shards:
    paths, size = table.path.tolist(), choose_rows(len(table))
    shards = _open_shards(folder, table)
    shards.open()
    if keypoints:
        keypoints.open()
    elif rank() == 0:  # what is inspected now would leave them behind
        Shards(folder / KEYPOINTS, folder, 0, {}).remove()
    if rank() == 0:
        for number in shards.list_done():  # files may have changed since
            _keep_if_current(shards, number, paths[number * size : (number + 1) * size])
        if keypoints:  # not asked for until now, or lost with Colab's disk
            for number in set(shards.list_done()) - set(keypoints.list_done()):
                shards.drop(number)
    wait_for_all()
    missing = shards.list_missing()
    name = "inspecting" if world() == 1 else f"inspecting ({world()} processes)"
    inspect = partial(_inspect, len(paths) if keypoints else 0)
    # Threads suffice: Pillow and OpenCV work outside Python's lock. Processes were no faster.
    with ThreadPoolExecutor(count_cores()) as pool, tqdm(
            total=len(paths), initial=max(0, len(paths) - len(missing) * size * world()),
            desc=name, unit="image", mininterval=2, disable=rank() > 0) as bar:
        for number in missing:
            facts, pictures, points = [], [], []
            part = paths[number * size : (number + 1) * size]
            for found, picture, places in pool.map(inspect, part):
                facts.append(found)
                pictures.append(picture)
                points.append(places)
                bar.update(world())
            if keypoints:
                keypoints.save(number, **join_keypoints(points))
            text = np.frombuffer(json.dumps(facts, default=float).encode(), np.uint8)
            shards.save(number, facts=text, thumbnails=np.stack(pictures))
    wait_for_all()
    return shards


def _keep_if_current(shards: Shards, number: int, paths: list[str]) -> None:
    known = zip(paths, _read_facts(shards.load(number)).sha256, strict=True)
    # Files that were missing, and still are, have not changed.
    there = [pair for pair in known if pair[1] != EMPTY or resolve_path(pair[0]).exists()]
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda pair: read_file(*pair), there))
    except SuiteError:
        shards.drop(number)


def _read_facts(arrays: dict[str, np.ndarray]) -> pd.DataFrame:
    return pd.DataFrame(json.loads(arrays["facts"].tobytes()))


def _join_facts(table: pd.DataFrame, shards: Shards, thumbnails: Path | None) -> pd.DataFrame:
    frames = []
    if thumbnails is None:
        frames = [_read_facts(shards.load(number)) for number in range(shards.count)]
    else:
        with write_whole(thumbnails) as temporary, temporary.open("wb") as stream:
            np.lib.format.write_array_header_2_0(stream, {
                "shape": (len(table), THUMBNAIL, THUMBNAIL), "fortran_order": False,
                "descr": "|u1"})
            for number in range(shards.count):
                arrays = shards.load(number)
                frames.append(_read_facts(arrays))
                stream.write(arrays["thumbnails"].tobytes())
    facts = pd.concat(frames, ignore_index=True).set_index(table.index).round(5)
    kinds = dict.fromkeys(("width", "height"), "Int64") | dict.fromkeys(FLAGS, "boolean")
    for column in ("format", "mode", *kinds):
        if column not in facts:  # not one image can be read
            facts[column] = None
    return table.join(facts.astype(kinds))


def _inspect(keypoints: int, path: str) -> tuple[dict, np.ndarray, tuple]:
    file, nothing = resolve_path(path), np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)
    try:
        content, reason = file.read_bytes(), ""
    except OSError as error:
        content, reason = b"", ("file is missing" if isinstance(error, FileNotFoundError)
                                else f"cannot be read: {error.strerror}")
    facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
             "reason": reason}
    if reason:
        return facts, nothing, NO_KEYPOINTS
    try:
        image = decode_image(path, content)
        facts |= describe_header(content)
    except UnreadableImageError as error:
        return facts | {"reason": str(error)}, nothing, NO_KEYPOINTS
    facts |= {"width": image.width, "height": image.height}
    if "white" in image.info:
        facts["white"] = image.info["white"]
    small = image.reduce(max(1, -(-max(image.size) // MEASURED)))
    thumbnail = small.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    pixels = np.asarray(thumbnail)
    facts |= measure_image(small) | {"sharpness": measure_sharpness(pixels)}
    return facts, pixels, find_keypoints(image, keypoints) if keypoints else NO_KEYPOINTS


def measure_image(image: Image.Image) -> dict[str, float]:
    """Return CleanVision's properties, channel sums and greyness of one RGB image."""
    from cleanvision.issue_managers import image_property as properties

    values = properties.BrightnessProperty("dark").calculate(image)
    values |= properties.EntropyProperty().calculate(image)
    pixels = np.asarray(image, np.float32).reshape(-1, 3) / 255
    values["grey"] = bool(np.ptp(pixels, axis=1).max() < 0.05)
    for name, numbers in (("mean", pixels.mean(axis=0)), ("square", (pixels**2).mean(axis=0))):
        values |= {f"{name}_{c}": float(v) for c, v in zip("rgb", numbers, strict=True)}
    return values


def measure_sharpness(grey: np.ndarray) -> float:
    """Return the deviation of an image's Laplacian, as a share of that of its grey values.

    The classic measure of focus (Pech-Pacheco et al. 2000), relative to the contrast. CleanVision
    counts the image's border as an edge, so that nothing on a white table would be blurred.
    """
    import cv2

    contrast = float(grey.std())
    return float(cv2.Laplacian(grey, cv2.CV_64F).std()) / contrast if contrast > 1 else 1.0


def measure_normalisation(images: pd.DataFrame) -> tuple[tuple, tuple]:
    """Return mean and standard deviation of the data set's own pixels, (r, g, b) in 0 to 1.

    They are those of the images reduced to 128 pixels, which takes a little off the deviation.
    Each readable training image counts the same, whatever its size.
    """
    train = images[(images.split == "train") & (images.reason == "")]
    mean = train[["mean_r", "mean_g", "mean_b"]].mean().to_numpy()
    square = train[["square_r", "square_g", "square_b"]].mean().to_numpy()
    std = np.sqrt(np.maximum(square - mean**2, 1e-6))
    return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())


if __name__ == "__main__":
    sys.exit(run_command("helpers.data.inspection", "Inspect a recipe's images.",
                         lambda run: inspect_images(load_table(run.recipe), run)))
