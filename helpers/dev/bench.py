"""Bench: what the steps cost and find on this machine, each against a named baseline.

    make bench PHOTOS=/folder/of/folders      real photos for the figures about copies

Nothing here is a test: machines differ, so only ratios travel.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from helpers.processes import count_cores


def bench_inspection(count: int, side: int = 500) -> None:
    """Inspect `count` JPEG files of side x side in this process; print speed and peak memory."""
    from PIL import Image

    from helpers.data.images import decode_image
    from helpers.data.inspection import inspect_images
    from helpers.run import Run
    from helpers.settings import Recipe

    with tempfile.TemporaryDirectory() as place:
        rng = np.random.default_rng(0)
        paths = []
        for number in range(min(count, 200)):  # a few hundred distinct files, repeated
            rough = rng.integers(0, 255, (25, 25, 3), dtype=np.uint8)
            image = Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC)
            paths.append(f"{place}/{number}.jpg")
            image.save(paths[-1], quality=90)
        table = pd.DataFrame({"image_id": map(str, range(count)), "label": "x", "split": "train",
                              "path": [paths[n % len(paths)] for n in range(count)]})
        start = time.perf_counter()
        for path in table.path[:200]:
            decode_image(path)
        decoding = min(200, count) / (time.perf_counter() - start)
        start = time.perf_counter()
        recipe = Recipe(name="bench", data={"source": "folders", "path": place})
        inspect_images(table, Run(recipe, Path(place)))
        rate = count / (time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"inspection of {count} images of {side} x {side}: {rate:.0f} images/s, "
          f"{rate / decoding:.2f} times decoding alone on one core ({decoding:.0f}); peak memory "
          f"{peak:.0f} MiB")


def bench_table(count: int) -> None:
    """Take a table of `count` rows through a source, groups and splits."""
    from helpers.data.splits import (
        assign_splits,
        check_splits,
        exclude_leaks,
        settle_small_classes,
    )
    from helpers.data.table import load_table
    from helpers.recipe import load_recipe

    with tempfile.TemporaryDirectory() as place:
        rng = np.random.default_rng(0)
        names = [f"images/{n:06d}.jpg" for n in range(count)]
        Path(place, "images").mkdir()
        for name in names:
            Path(place, name).touch()
        pd.DataFrame({"image": names, "label": rng.zipf(1.5, count).clip(max=27)}).to_csv(
            f"{place}/table.csv", index=False)
        Path(place, "recipe.yaml").write_text(
            f"source: csv\ncsv: table.csv\ndata: {place}\nname: bench\n")
        recipe = load_recipe(f"{place}/recipe.yaml")
        start = time.perf_counter()
        table = load_table(recipe).assign(sha256=names)
        read = time.perf_counter() - start
        table["group"] = np.where(rng.random(count) < 0.1, rng.integers(0, count // 50, count),
                                  np.arange(count) + count)
        table = settle_small_classes(exclude_leaks(table, "drop"), 0.15, 10, "drop")
        check_splits(assign_splits(table, 0.15, 10, 42))
    whole = time.perf_counter() - start
    print(f"table of {count} rows: source {read:.1f} s, with splits {whole:.1f} s")


def bench_head(count: int, width: int = 1_280, classes: int = 27) -> None:
    """Fit one fold's logistic regression along its path, and as scikit-learn searches alone."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score, make_scorer
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from helpers.training.imbalance import Remedy
    from helpers.training.linear import LogisticHead

    rng = np.random.default_rng(0)
    shares = np.arange(1, classes + 1)
    codes = rng.choice(classes, count, p=shares / shares.sum())
    # Few directions and a little noise, as the features of a network.
    places = rng.normal(size=(count, 60)) + 0.6 * np.eye(60)[codes]
    mixing = 0.93 ** np.arange(60)[:, None] * rng.normal(size=(60, width))
    features = np.maximum(places @ mixing, 0).astype(np.float32)
    features += 0.1 * rng.normal(size=features.shape).astype(np.float32)
    grid = [10.0**k for k in range(-6, 3)]
    inner, start = np.arange(count) % 5 == 0, time.perf_counter()
    head = LogisticHead(classes, Remedy("class_weights"), grid)
    choices = head.fit(features, codes, inner).choices
    ours = time.perf_counter() - start
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(
            class_weight="balanced", max_iter=1000)),
        {"logisticregression__C": grid}, cv=PredefinedSplit(np.where(inner, 0, -1)),
        scoring=make_scorer(f1_score, average="macro", zero_division=0))
    start = time.perf_counter()
    # A thread a candidate, one core each: sharing a core's small products costs more.
    with joblib.parallel_config("threading", n_jobs=count_cores()), threadpool_limits(1):
        search.fit(features, codes)
    theirs = time.perf_counter() - start
    print(f"head, a fold of {count} x {width}, {classes} classes, {len(grid)} values of C: path "
          f"{ours:.0f} s, {theirs / ours:.1f} times as fast as scikit-learn's search; inner "
          f"macro F1 {choices['macro F1'].max():.3f} and {search.best_score_:.3f}")


def main() -> None:
    """Run the benches; those that report memory in a process of their own."""
    parser = argparse.ArgumentParser(prog="python -m helpers.dev.bench")
    parser.add_argument("--photos", type=Path, help="folder of folders of real photos")
    parser.add_argument("--inspect", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inspect:
        bench_inspection(options.inspect)
        return
    print(f"{count_cores()} cores")
    for count in (1_000, 10_000):
        subprocess.run([sys.executable, "-m", "helpers.dev.bench", "--inspect", str(count)],
                       stderr=subprocess.DEVNULL, check=True)
    bench_table(100_000)
    bench_head(20_000)
    photos = ["--photos", str(options.photos)] if options.photos else []
    if photos:
        subprocess.run([sys.executable, "-m", "helpers.dev.bench_copies", *photos],
                       stderr=subprocess.DEVNULL, check=True)
    subprocess.run([sys.executable, "-m", "helpers.dev.bench_extraction", *photos],
                   stderr=subprocess.DEVNULL, check=True)
    subprocess.run([sys.executable, "-m", "helpers.dev.bench_training"],
                   stderr=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
