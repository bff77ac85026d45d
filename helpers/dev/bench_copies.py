"""Bench: how many altered copies the search finds, how many it joins wrongly, and how it grows.

    python -m helpers.dev.bench_copies --photos FOLDER
    python -m helpers.dev.bench_copies --photos FOLDER --grow 5000 10000 20000

FOLDER holds photos, in folders or not. From them covers are drawn as well, as of books and games:
with titles and lines of print, in the same letters, and with one publisher's logo.
"""

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import imagehash
import numpy as np
import pandas as pd
from PIL import Image

from helpers.data.alterations import ALTERATIONS
from helpers.data.copies import find_copies, group_copies
from helpers.data.images import UnreadableImageError, decode_image
from helpers.data.inspection import inspect_images
from helpers.data.listing import list_images
from helpers.run import Run
from helpers.settings import Recipe

EACH = 100  # altered copies of a kind
HASHES = 8  # bits by which pHash, the usual search, lets copies differ
SIDE = 500  # pixels of the longer side, at most
WORDS = ("light", "paper", "river", "house", "stone", "garden", "winter", "letter", "music",
         "travel", "story", "night", "summer", "silver", "island", "memory", "window", "forest")


def load_photos(folder: Path, most: int) -> list[Image.Image]:
    """Return the photos below a folder, in random order, of at most 500 pixels a side."""
    files, _ = list_images(folder)
    random.Random(0).shuffle(files)
    photos = []
    for file in files[:most]:
        try:
            photo = decode_image(file)
        except UnreadableImageError:
            continue
        photo.thumbnail((SIDE, SIDE))
        if min(photo.size) >= 32:
            photos.append(photo)
    return photos


def draw_covers(photos: list[Image.Image]) -> list[Image.Image]:
    """Draw a cover from each photo: a title, lines of print, and the publisher's logo."""
    chance, covers = random.Random(1), []
    fonts = (cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)
    for photo in photos:
        page = np.array(photo.resize((340, 460)))
        top, high = chance.randint(90, 260), chance.randint(40, 160)
        page[top : top + high] = chance.choice([(255, 255, 255), (250, 245, 230), (20, 20, 40)])
        ink = (30, 30, 30) if page[top, 0, 0] > 99 else (240, 240, 240)
        for line in range(top + 16, top + high - 4, 14):
            words = " ".join(chance.choice(WORDS) for _ in range(6))
            cv2.putText(page, words, (14, line), fonts[0], 0.4, ink, 1, cv2.LINE_AA)
        title = " ".join(chance.sample(WORDS, 2)).upper()
        cv2.putText(page, title, (chance.randint(8, 30), chance.randint(40, 75)),
                    chance.choice(fonts), chance.uniform(0.6, 0.9),
                    tuple(chance.randint(0, 255) for _ in range(3)), 2, cv2.LINE_AA)
        cv2.circle(page, (295, 425), 25, (200, 30, 30), -1, cv2.LINE_AA)
        cv2.putText(page, "ABC", (275, 432), fonts[1], 0.6, (255, 255, 255), 1, cv2.LINE_AA)
        covers.append(Image.fromarray(page))
    return covers


def search(images: Iterable[Image.Image], place: Path) -> tuple[pd.DataFrame, list[float]]:
    """Save images, inspect them and look for copies; return pairs, and seconds of both."""
    (place / "run").mkdir(parents=True)
    rows = []
    for number, image in enumerate(images):
        path = place / f"{number:06d}.jpg"
        image.save(path, quality=88)
        rows.append((path.name, str(path), "x", "train"))
    table = pd.DataFrame(rows, columns=["image_id", "path", "label", "split"])
    run = Run(Recipe(name="bench", data={"source": "folders", "path": place}), place / "run")
    start = time.perf_counter()
    found = inspect_images(table, run)
    seconds = [time.perf_counter() - start]
    pairs = find_copies(found, run)
    return pairs, [*seconds, time.perf_counter() - start - seconds[0]]


def bench_kinds(name: str, photos: list[Image.Image]) -> None:
    """Alter some photos in each way and print how many copies are found with their original."""
    chance = random.Random(2)
    images, source, kinds = list(photos), list(range(len(photos))), [""] * len(photos)
    for kind, alter in ALTERATIONS.items():
        for number in chance.sample(range(len(photos)), min(EACH, len(photos))):
            images.append(alter(photos[number], chance))
            source.append(number)
            kinds.append(kind)
    source, kinds = np.array(source), np.array(kinds)
    with tempfile.TemporaryDirectory() as place:
        pairs, seconds = search(images, Path(place))
    groups, copies = group_copies(len(images), pairs), pairs[pairs["copy"]]
    bits = np.stack([imagehash.phash(image).hash.ravel() for image in images])
    bits = bits.astype(np.float32) * 2 - 1
    near = (bits.shape[1] - bits @ bits.T) / 2 <= HASHES
    print(f"{name}: {len(photos)} images, {len(images) - len(photos)} altered copies; inspection "
          f"{seconds[0]:.0f} s, search {seconds[1]:.0f} s")
    for kind in ALTERATIONS:
        rows = np.flatnonzero(kinds == kind)
        print(f"  {kind:14} recall {np.mean(groups[rows] == groups[source[rows]]):.2f} of "
              f"{len(rows)} (pHash {near[rows, source[rows]].mean():.2f})")
    right = source[copies["first"]] == source[copies["second"]]
    # What the originals have in common is no fault of the search.
    alike = groups[: len(photos)]
    known = alike[source[copies["first"]]] == alike[source[copies["second"]]]
    twins = pd.Series(alike).duplicated(keep=False).sum()
    for how, part in copies.groupby("how"):
        print(f"  {how:14} precision {right[part.index].mean():.4f} of {len(part)} pairs "
              f"({(right | known)[part.index].mean():.4f} where copies among the originals are "
              "no mistakes)")
    one, other = np.nonzero(np.triu(near, 1))
    print(f"  originals that share a group with another one: {twins}; pHash's precision "
          f"{(source[one] == source[other]).mean():.4f}")


def bench_growth(photos: list[Image.Image], counts: list[int]) -> None:
    """Search among many images of 500 x 500, each a blend of two photos' parts."""
    rng = np.random.default_rng(3)

    def take_part() -> Image.Image:
        photo = photos[rng.integers(len(photos))]
        width, height = (int(side * rng.uniform(0.5, 0.8)) for side in photo.size)
        left, top = (rng.integers(0, whole - part + 1) for whole, part in
                     zip(photo.size, (width, height), strict=True))
        return photo.resize((SIDE, SIDE), box=(left, top, left + width, top + height))

    for count in counts:
        with tempfile.TemporaryDirectory() as place:
            images = (Image.blend(take_part(), take_part(), 0.5) for _ in range(count))
            pairs, seconds = search(images, Path(place))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{count} images of {SIDE} x {SIDE}: inspection with keypoints {seconds[0]:.0f} s, "
              f"search {seconds[1]:.0f} s, {pairs['copy'].sum()} copies; peak {peak:.0f} MiB")


def main() -> None:
    """Run the benches."""
    parser = argparse.ArgumentParser(prog="python -m helpers.dev.bench_copies")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of real photos")
    parser.add_argument("--grow", type=int, nargs="+", default=[], help="numbers of images")
    options = parser.parse_args()
    photos = load_photos(options.photos, 1_500)
    if options.grow:
        bench_growth(photos, options.grow)
        return
    bench_kinds(str(options.photos), photos)
    bench_kinds("covers drawn from them", draw_covers(photos))


if __name__ == "__main__":
    main()
