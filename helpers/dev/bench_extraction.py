"""Bench of extraction: images a second, difference and memory, beside the loop it replaces.

    python -m helpers.dev.bench_extraction --photos folder        a table, some minutes
    python -m helpers.dev.bench_extraction --photos folder --rows 98728 --precision bf16

The baseline is the loop of the project that the suite replaces: one image after the other by
Pillow, Resize, ToTensor, Normalize, then eager float32 in batches of 32. A second loop resizes
as we do, so that what the engine changes is seen apart from what another rounding of pixels does.
All work on the same 500 x 500 JPEG files with the same weights. Every round measures all of them,
each in a process of its own, and ratios are taken within a round: machines are noisy.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.listing import list_images
from helpers.features.engines import create_engine
from helpers.features.forecast import forecast_extraction, measure_peak
from helpers.features.streaming import ImageFiles, record_file, stream_features
from helpers.files import load_json
from helpers.network.backbones import create_backbone
from helpers.network.preprocessing import create_preprocessing
from helpers.processes import count_cores
from helpers.settings import Recipe

SIDE, FILES = 500, 512
ROUNDS = 3
VARIANTS = {"loop": "the loop", "resized": "the loop, resized as ours",
            "float32": "ours, float32", "bf16": "ours, bf16"}
SLOW, FAST = 256, 2048  # images for the loops, and for ours


def write_photos(source: Path | None, folder: Path) -> None:
    """Write 512 JPEG files of 500 x 500: real photos cropped, or rough noise without any."""
    from PIL import Image, ImageOps

    rng = np.random.default_rng(0)
    files = list_images(source)[0] if source else []
    random.Random(0).shuffle(files)
    for number in range(FILES):
        if files:
            image = ImageOps.fit(Image.open(files[number % len(files)]).convert("RGB"),
                                 (SIDE, SIDE), Image.Resampling.LANCZOS)
        else:
            rough = rng.integers(0, 255, (50, 50, 3), dtype=np.uint8)
            image = Image.fromarray(rough).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:03d}.jpg")


def open_backbone(options):
    """Return the bench's recipe, model and preprocessing, those of the replaced project."""
    recipe = Recipe(name="bench", data={"source": "folders", "path": options.folder}).change(
        resize="squash", image_size=224, backbone=options.backbone, weights=options.weights,
        precision=options.precision)
    model, data_config = create_backbone(recipe)
    return recipe, model, data_config | {"interpolation": "bilinear"}


def run_loop(model, data_config: dict, paths: list[str], ours: bool) -> np.ndarray:
    """Return features by the replaced project's loop, or by it with our preprocessing."""
    import torch
    from PIL import Image
    from torchvision import transforms

    prepare = create_preprocessing(data_config) if ours else transforms.Compose([
        transforms.Resize((224, 224)), transforms.ToTensor(),
        transforms.Normalize(data_config["mean"], data_config["std"])])
    features = []
    for start in range(0, len(paths), 32):
        batch = torch.stack([prepare(Image.open(path).convert("RGB"))
                             for path in paths[start : start + 32]])
        with torch.no_grad():
            features.append(model(batch).numpy())
    return np.vstack(features)


def measure_loop(options) -> dict:
    """Measure the loop, once warm."""
    _, model, data_config = open_backbone(options)
    paths = sorted(map(str, Path(options.folder).glob("*.jpg")))[:SLOW]
    ours = options.variant == "resized"
    run_loop(model, data_config, paths[:64], ours)
    start = time.perf_counter()
    features = run_loop(model, data_config, paths, ours)
    rate = len(paths) / (time.perf_counter() - start)
    np.save(f"{options.folder}/{options.variant}.npy", features)
    return {"rate": rate, "peak": measure_peak()}


def measure_ours(options) -> dict:
    """Measure the engine with its decoding, and alone on pixels that are in memory."""
    recipe, model, data_config = open_backbone(options)
    paths = sorted(map(str, Path(options.folder).glob("*.jpg")))
    engine = create_engine(model, data_config, recipe, paths)
    target = Path(options.folder, f"{options.variant}.npy")

    def extract(count: int) -> float:
        rows = pd.DataFrame({"path": [paths[n % len(paths)] for n in range(count)]})
        stream_features(engine, ImageFiles(rows, data_config), target, {})
        record = load_json(record_file(target))
        return record["images"] / record["seconds"]

    extract(128)
    rate = extract(FAST)
    peak = measure_peak()
    batch = np.random.default_rng(0).integers(0, 255, engine.shape, dtype=np.uint8)
    with ThreadPoolExecutor(engine.workers) as pool:
        start = time.perf_counter()
        list(pool.map(engine.compute, [batch] * (FAST // len(batch))))
        alone = FAST // len(batch) * len(batch) / (time.perf_counter() - start)
    return {"rate": rate, "peak": peak, "alone": alone}


def measure_memory(options) -> None:
    """Extract `rows` rows, files repeated, and print time and peak memory."""
    recipe, model, data_config = open_backbone(options)
    paths = sorted(map(str, Path(options.folder).glob("*.jpg")))
    rows = pd.DataFrame({"path": [paths[n % len(paths)] for n in range(options.rows)]})
    engine = create_engine(model, data_config, recipe, paths)
    files, target = ImageFiles(rows, data_config), Path(options.folder, "memory.npy")
    forecast_extraction(engine, files, target.parent)
    stream_features(engine, files, target, {})
    record = load_json(record_file(target))
    print(f"{options.rows:,} rows in {options.precision}: {record['seconds'] / 60:.1f} minutes, "
          f"{options.rows / record['seconds']:.0f} images/s, peak memory "
          f"{record['peak_memory_mb']} MiB")


def bench(options) -> None:
    """Measure all variants in rounds and print the table."""
    rounds = []
    for _ in range(options.rounds):
        rounds.append({variant: json.loads(_run_apart(options, ["--variant", variant]))
                       for variant in VARIANTS})
        print(json.dumps(rounds[-1]), file=sys.stderr)
    exact, same = (np.load(Path(options.folder, f"{name}.npy")).astype(np.float64)
                   for name in ("loop", "resized"))

    weights = "random weights" if options.weights == "random" else "pretrained weights"
    print(f"{options.backbone} ({weights}), {SIDE} x {SIDE} JPEG to 224, {count_cores()} "
          f"cores, medians of {options.rounds} rounds\n")
    print("| | images/s | times the loop | of the engine alone | difference from the same "
          "pixels | from the loop | median cosine | peak MiB |\n" + "|---" * 8 + "|")
    for variant, name in VARIANTS.items():
        found = np.load(Path(options.folder, f"{variant}.npy"))[:SLOW]
        cosine = np.median((found * exact).sum(1) / np.linalg.norm(found, axis=1)
                           / np.linalg.norm(exact, axis=1))
        values = pd.DataFrame([r[variant] for r in rounds])
        loop = np.array([r["loop"]["rate"] for r in rounds])
        middle = values.median()
        share = f"{(values.rate / values.alone).median():.0%}" if "alone" in values else ""
        print(f"| {name} | {middle.rate:.0f} | {np.median(values.rate / loop):.2f} | {share} | "
              f"{np.abs(found - same).max() / np.abs(same).max():.0e} | "
              f"{np.abs(found - exact).max() / np.abs(exact).max():.0e} | {cosine:.6f} | "
              f"{middle.peak:.0f} |")
        if "alone" in values:
            print(f"| its engine alone | {middle.alone:.0f} | "
                  f"{np.median(values.alone / loop):.2f} | | | | | |")


def _run_apart(options, extra: list[str]) -> str:
    command = [sys.executable, "-m", "helpers.dev.bench_extraction", "--folder", options.folder,
               "--backbone", options.backbone, "--weights", options.weights, *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout.splitlines()[-1]


def main() -> None:
    """Run the bench, or the part of it that a child process is asked for."""
    parser = argparse.ArgumentParser(prog="python -m helpers.dev.bench_extraction")
    parser.add_argument("--photos", type=Path, help="folder of folders of real photos")
    parser.add_argument("--backbone", default="efficientnet_b0")
    parser.add_argument("--weights", default="random", help="random, or a weight file")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--rows", type=int, help="only extract so many rows: time and memory")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        ours = options.variant in ("float32", "bf16")
        options.precision = options.variant if ours else "float32"
        print(json.dumps((measure_ours if ours else measure_loop)(options)))
        return
    with tempfile.TemporaryDirectory() as place:
        options.folder = place
        write_photos(options.photos, Path(place))
        (measure_memory if options.rows else bench)(options)


if __name__ == "__main__":
    main()
