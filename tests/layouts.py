"""Layouts of data sets that cannot be shipped, written from the demo's photos."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

FIRST_CODE = 1000  # prdtypecode of the first class; Rakuten's own codes mean other things
WORDS = {"cardboard": "carton", "glass": "verre", "metal": "métal", "paper": "papier",
         "plastic": "plastique", "trash": "déchet"}


def write_rakuten(demo: Path, place: Path) -> Path:
    """Write the demo as three CSV files and two image folders, its manifest by image number."""
    rng = np.random.default_rng(0)
    names = sorted(p.relative_to(demo).as_posix() for p in demo.glob("*/*/*"))
    rows = pd.DataFrame([name.split("/") for name in names], columns=["split", "label", "file"])
    rows["imageid"] = 900_000_000 + rng.choice(90_000_000, len(rows), False)
    rows["productid"] = 1_000_000 + rng.choice(4_000_000_000, len(rows))
    rows["prdtypecode"] = FIRST_CODE + pd.factorize(rows.label, sort=True)[0]
    faults = pd.read_csv(demo / "planted_faults.csv")
    rows["copy"] = pd.Series(names).isin(faults.image_id[faults.original.notna()])
    words = rows.label.map(WORDS)
    rows["designation"] = "Objet trié : " + words
    rows["description"] = ("Un objet en " + words + ", posé sur une table").where(
        rng.random(len(rows)) < 0.65)  # Rakuten's descriptions are missing as often
    for split, part in rows.groupby("split"):
        images = place / f"images/image_{split}"
        images.mkdir(parents=True)
        for row in part.itertuples():
            shutil.copy(demo / split / row.label / row.file,
                        images / f"image_{row.imageid}_product_{row.productid}.jpg")
        part = part.sample(frac=1, random_state=0)
        # A copy comes after what it copies, so that it is the one that is found.
        part = part.sort_values("copy", kind="stable").reset_index(drop=True)
        texts = part[["designation", "description", "productid", "imageid"]]
        texts.to_csv(place / f"X_{split}_update.csv", index_label="")
        if split == "train":
            part[["prdtypecode"]].to_csv(place / "Y_train_CVw08PX.csv", index_label="")
    ids = dict(zip(names, rows.imageid.astype(str), strict=True))
    faults.insert(0, "imageid", faults.image_id.map(ids))
    faults["original_imageid"] = faults.original.map(ids)
    faults["split"] = faults.image_id.str.partition("/")[0]
    faults.to_csv(place / "planted_faults.csv", index=False)
    return place
