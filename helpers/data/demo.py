"""The embedded demo: real images without a download, in Rakuten's layout, with planted faults.

The images are the 1,797 handwritten digits that scikit-learn ships (UCI, Alpaydin and Kaynak
1998, 8 x 8 grey values), enlarged and written as JPEG files. Classes are thinned to Rakuten's
imbalance. Faults are planted on purpose, so that the checks have something to find; the
manifest `planted_faults.csv` lists them and no check ever reads it.
"""

import functools
import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance

from helpers.files import SuiteError, make_folder, show_path, write_folder

SIDE = 160  # pixels; an 8 x 8 digit has no more to show
QUALITY = 92  # of the JPEG files

# Training images per digit after all faults are planted: the profile of Rakuten's class sizes
# (every third of its 27 sorted counts, as shares of the largest), largest to smallest 13.4:1.
COUNTS = {3: 161, 1: 79, 5: 77, 6: 75, 4: 62, 0: 51, 9: 42, 2: 33, 7: 19, 8: 12}
LARGEST = max(COUNTS, key=COUNTS.get)
# Rakuten's texts are French; the class names in English stand in the recipe.
WORDS = ("zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf")
FIRST_CODE = 1000  # prdtypecode of digit 0; Rakuten's own codes mean other things

# Fault -> (training, test) images that carry it.
FAULTS = {
    "truncated file": (3, 1),
    "zero-byte file": (2, 1),
    "wrong extension": (3, 0),
    "CMYK": (3, 0),
    "16-bit PNG named .jpg": (3, 0),
    "all black": (2, 0),
    "wrong label": (6, 0),
    "exact copy in train": (4, 0),
    "exact copy of a training image": (0, 2),
    "near copy of a training image": (0, 4),
}


def write_demo(folder: str | Path) -> Path:
    """Write the demo into `folder` unless it is there already.

    It is made under a temporary name and renamed at the end, so that a killed run leaves no
    half of it. The same files come out every time.

    Returns:
        The folder, with `X_train_update.csv`, `Y_train_CVw08PX.csv`, `X_test_update.csv`,
        `images/image_train/`, `images/image_test/` and `planted_faults.csv`.

    Raises:
        SuiteError: `folder` exists and is something else, or cannot be written.
    """
    folder = Path(folder)
    if (folder / "planted_faults.csv").is_file():
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise SuiteError(f"{show_path(folder)} is not empty and is not the demo: move its "
                         "contents away, or set `data` to another folder.")
    with write_folder(folder) as place:
        _fill(place)
    print(f"wrote the demo to {show_path(folder)}: {sum(COUNTS.values())} images of "
          "handwritten digits in Rakuten's layout, some of them spoiled on purpose")
    return folder


def _fill(place: Path) -> None:
    """Draw the images, plant the faults and write the three CSV files."""
    rng = np.random.default_rng(20251211)
    train, test = _draw_rows(rng)
    faults = _plant_faults(rng, train, test)
    for split, rows in (("train", train), ("test", test)):
        images = make_folder(place / f"images/image_{split}")
        for row in rows.itertuples():
            file = images / f"image_{row.imageid}_product_{row.productid}.jpg"
            file.write_bytes(_encode(row.digit_index, row.fault))
        texts = rows[["designation", "description", "productid", "imageid"]]
        texts.to_csv(place / f"X_{split}_update.csv", index_label="")
    train[["prdtypecode"]].to_csv(place / "Y_train_CVw08PX.csv", index_label="")
    pd.DataFrame(faults).to_csv(place / "planted_faults.csv", index=False)


def _draw_rows(rng):
    """Pick digits for train (COUNTS less the copies) and test (a sixth more of each class)."""
    target = _load_digits().target
    rows = []
    for digit, count in COUNTS.items():
        drawn = count - (FAULTS["exact copy in train"][0] if digit == LARGEST else 0)
        found = rng.permutation((target == digit).nonzero()[0])
        rows += [(d, digit, "train") for d in found[:drawn]]
        rows += [(d, digit, "test") for d in found[drawn : drawn + round(count * 13812 / 84916)]]
    table = pd.DataFrame(rows, columns=["digit_index", "digit", "split"])
    table = table.sample(frac=1, random_state=int(rng.integers(2**31)))
    table["fault"] = ""
    room = len(table) + 20  # ids for the copies as well
    table["imageid"] = 900_000_000 + rng.choice(90_000_000, room, False)[: len(table)]
    table["productid"] = 1_000_000 + rng.choice(4_000_000_000, len(table))
    table["prdtypecode"] = FIRST_CODE + table.digit
    names = table.digit.map(lambda d: WORDS[d])
    table["designation"] = "Chiffre manuscrit : " + names
    table["description"] = ("Le chiffre " + names + ", écrit à la main et numérisé").where(
        rng.random(len(table)) < 0.65)  # Rakuten's descriptions are missing as often
    return [table[table.split == s].reset_index(drop=True) for s in ("train", "test")]


def _plant_faults(rng, train, test) -> list[dict]:
    """Mark rows with faults, append the copies, and return the manifest's rows."""
    # Rare classes stay whole: a fold must still find their members.
    common = train.index[train.digit.map(COUNTS) >= 40].to_numpy()
    free = {"train": list(rng.permutation(common)), "test": list(rng.permutation(test.index))}
    sources = list(rng.permutation(train.index[train.digit == LARGEST]))
    manifest = []
    for fault, counts in FAULTS.items():
        for split, rows, count in (("train", train, counts[0]), ("test", test, counts[1])):
            for _ in range(count):
                row = free[split].pop()
                if fault == "exact copy in train":
                    original = _pop_faultless(sources, train)
                    row = len(train)
                    train.loc[row] = train.loc[original]
                    train.loc[row, "imageid"] = 990_000_000 + row
                elif "copy of a training image" in fault:
                    original = _pop_faultless(sources, train)
                    kept = test.loc[row, ["imageid", "productid"]]
                    test.loc[row] = train.loc[original]
                    test.loc[row, ["imageid", "productid"]] = kept
                if fault == "wrong label":
                    wrong = [d for d, n in COUNTS.items() if n >= 40 and d != rows.digit[row]]
                    rows.loc[row, "prdtypecode"] = FIRST_CODE + rng.choice(wrong)
                rows.loc[row, "fault"] = fault
                manifest.append({
                    "imageid": rows.imageid[row], "split": split, "fault": fault,
                    "original_imageid": train.imageid[original] if "copy" in fault else "",
                    "true_prdtypecode": FIRST_CODE + rows.digit[row]})
    return manifest


def _pop_faultless(sources: list[int], train) -> int:
    """Take the next training image that carries no fault of its own."""
    row = sources.pop()
    return row if not train.fault[row] else _pop_faultless(sources, train)


def _encode(digit_index: int, fault: str) -> bytes:
    """Return the file of one image: dark ink on white paper, and its fault."""
    grey = np.uint8(255 - _load_digits().images[digit_index] * 255 / 16)
    picture = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")
    if fault == "zero-byte file":
        return b""
    if fault == "truncated file":
        whole = _save(picture)
        return whole[: len(whole) // 2]
    if fault == "wrong extension":
        return _save(picture, "PNG")
    if fault == "CMYK":
        return _save(picture.convert("CMYK"))
    if fault == "16-bit PNG named .jpg":
        deep = picture.convert("I").point(lambda value: value * 257)
        return _save(deep.convert("I;16"), "PNG")
    if fault == "all black":
        return _save(Image.new("RGB", picture.size))
    if fault == "near copy of a training image":
        smaller = picture.resize((SIDE * 3 // 4, SIDE * 3 // 4), Image.Resampling.BICUBIC)
        return _save(ImageEnhance.Brightness(smaller).enhance(0.92), quality=70)
    return _save(picture)


@functools.cache
def _load_digits():
    from sklearn.datasets import load_digits  # takes seconds, and the demo is mostly there

    return load_digits()


def _save(picture: Image.Image, kind: str = "JPEG", quality: int = QUALITY) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, quality=quality)  # which PNG does not look at
    return stream.getvalue()


if __name__ == "__main__":
    from helpers.files import ROOT

    write_demo(ROOT / "data/demo/rakuten")
