"""The embedded demo: 600 real photos of waste that come with the suite, with planted faults.

The photos are a sample of TrashNet (Thung and Yang, 2016; MIT licence, `data/demo/photos/`).
Faults are planted on purpose, so that the checks have something to find; the manifest
`planted_faults.csv` lists them and no check ever reads it.
"""

import io
import random
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance, ImageFilter

from helpers.data.alterations import ALTERATIONS
from helpers.files import ROOT, SuiteError, hash_file, make_folder, show_path, write_folder

PHOTOS = ROOT / "data" / "demo" / "photos"
SEED = 20251211
TEST_SHARE = 0.1  # of each class
COMMON = 80  # photos; faults are planted in classes that have as many, rare ones stay whole

# Fault -> (training, test) images that carry it.
FAULTS = {
    "truncated file": (3, 1),
    "zero-byte file": (2, 1),
    "wrong extension": (3, 0),
    "CMYK": (3, 0),
    "16-bit PNG named .jpg": (3, 0),
    "all black": (2, 0),
    "blurred": (1, 0),
    "overexposed": (1, 0),
    "wrong label": (6, 0),
    "exact copy in train": (4, 0),
    "exact copy of a training image": (0, 2),
    "near copy of a training image": (0, 4),
    "rotated copy of a training image": (0, 3),
    "augmented copy of a training image": (0, 3),
}


def write_demo(folder: str | Path) -> Path:
    """Write the demo into `folder` unless it is there already.

    It is made under a temporary name and renamed at the end, so that a killed run leaves no
    half of it. The same files come out every time.

    Returns:
        The folder, with `train/<class>/<number>.jpg`, the same below `test/`, and
        `planted_faults.csv`.

    Raises:
        SuiteError: `folder` exists and is something else, or cannot be written.
    """
    folder = Path(folder)
    if (folder / "planted_faults.csv").is_file():
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise SuiteError(f"{show_path(folder)} is not empty and is not the demo, which "
                         "`generate: demo` would write there. For your own photos use the recipe "
                         "`own`, or set `generate: null`; or set `data` to another folder.")
    files = _plan_files()
    with write_folder(folder) as place:
        for file in files.itertuples():
            make_folder((place / file.image_id).parent)
            (place / file.image_id).write_bytes(_encode(file.photo, file.fault))
        columns = ["image_id", "fault", "original", "true_label"]
        files.loc[files.fault != "", columns].to_csv(place / "planted_faults.csv", index=False)
    print(f"wrote the demo to {show_path(folder)}: {len(files)} photos of waste, "
          f"{(files.fault != '').sum()} of them spoiled or copied on purpose")
    return folder


def _plan_files() -> pd.DataFrame:
    """Return a row a file: its `image_id`, the photo it shows, fault, original, true label."""
    rng = np.random.default_rng(SEED)
    files = pd.DataFrame({"photo": rng.permutation(sorted(PHOTOS.glob("*/*.jpg")))})
    files["label"] = files["true_label"] = files.photo.map(lambda photo: photo.parent.name)
    files[["fault", "original"]] = "", None
    members = files.groupby("label").label
    first = members.cumcount() < (members.transform("size") * TEST_SHARE).round()
    files["split"] = np.where(first, "test", "train")
    # Three pictures of TrashNet stand there under two labels: a fault of its own.
    alone = ~files.photo.map(hash_file).duplicated(keep=False)
    usual = files.index[alone & (members.transform("size") >= COMMON)]
    free = {split: [row for row in usual if files.split[row] == split]
            for split in ("train", "test")}
    for fault, counts in FAULTS.items():
        for split, count in zip(("train", "test"), counts, strict=True):
            for _ in range(count):
                row = free["train" if "copy" in fault else split].pop()
                if "copy" in fault:
                    files.loc[len(files)] = files.loc[row]
                    row, files.loc[len(files) - 1, "original"] = len(files) - 1, row
                    files.loc[row, "split"] = split
                if fault == "wrong label":
                    others = sorted(set(files.label[usual]) - {files.label[row]})
                    files.loc[row, "label"] = rng.choice(others)
                files.loc[row, "fault"] = fault
    # Numbers in place of TrashNet's names, which tell the class.
    numbers = [f"{number:04d}.jpg" for number in rng.permutation(len(files))]
    files["image_id"] = files.split + "/" + files.label + "/" + numbers
    return files.assign(original=files.original.map(files.image_id))


def _encode(photo: Path, fault: str) -> bytes:
    """Return the file of one photo, with its fault."""
    whole, picture = photo.read_bytes(), Image.open(photo)
    if fault == "zero-byte file":
        return b""
    if fault == "truncated file":
        return whole[: len(whole) // 2]
    if fault == "wrong extension":
        return _save(picture, "PNG")
    if fault == "CMYK":
        return _save(picture.convert("CMYK"))
    if fault == "16-bit PNG named .jpg":
        deep = picture.convert("I").point(lambda value: value * 257)
        return _save(deep.convert("I;16"), "PNG")
    if fault == "all black":
        return _save(ImageEnhance.Brightness(picture).enhance(0.015))  # as under a lens cap
    if fault == "blurred":
        return _save(picture.filter(ImageFilter.GaussianBlur(8)))
    if fault == "overexposed":
        return _save(ImageEnhance.Brightness(picture).enhance(12))
    if fault == "near copy of a training image":
        smaller = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4))
        return _save(ImageEnhance.Brightness(smaller).enhance(0.92), quality=70)
    kind = fault.removesuffix(" copy of a training image")
    if kind in ALTERATIONS:
        # The photo's name decides how, so that the same files come out every time.
        return _save(ALTERATIONS[kind](picture.convert("RGB"), random.Random(photo.stem)))
    return whole


def _save(picture: Image.Image, kind: str = "JPEG", quality: int = 92) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, quality=quality)  # which PNG does not look at
    return stream.getvalue()


if __name__ == "__main__":
    write_demo(ROOT / "data/demo/waste")
