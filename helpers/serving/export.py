"""Export: a saved model as ONNX, with its resize, checked against the model's own answers.

    python -m helpers.serving.export --run outputs/vehicles

writes `onnx/` into the run: `resize.onnx` (one decoded photo to pixels), `model.onnx` (pixels to
calibrated probabilities), what they mean (`description.json`), and `example.py`, which needs
onnxruntime and Pillow alone.
"""

import argparse
import contextlib
import io
import logging
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from helpers.command import report_errors
from helpers.data.images import decode_image
from helpers.files import SuiteError, hash_file, save_json, show_path, write_folder
from helpers.network.preprocessing import describe_geometry
from helpers.serving.model_folder import SUMS, find_model
from helpers.serving.predictor import Predictor, load_predictor
from helpers.serving.probe import draw_probe
from helpers.serving.resize import ExactResize

RESIZE, MODEL = "resize.onnx", "model.onnx"
DESCRIPTION, EXAMPLE = "description.json", "example.py"
LARGEST = 1e-4  # difference of a probability from the model's own answer
TEMPLATE = Path(__file__).parent / "templates" / "onnx_example.py"


def export_model(predictor: Predictor, target: Path) -> dict:
    """Write a model as ONNX to the folder `target`, and compare it with the model.

    The model of an ensemble holds all its members. Of a model of photo and text it is the part
    that answers for a photo without text.

    Returns:
        What `description.json` says.

    Raises:
        SuiteError: the classifier is no formula (nearest neighbours, trees), torch cannot export
            the network, the exported one answers otherwise, or `target` is something else.
    """
    if target.exists() and not (target / DESCRIPTION).is_file() and (
            not target.is_dir() or any(target.iterdir())):
        raise SuiteError(f"{show_path(target)} is there already and no export: choose another "
                         "folder.")
    config = predictor.reader.data_config
    network, geometry = predictor.create_complete_network(), describe_geometry(config)
    with write_folder(target) as folder:
        one = torch.zeros(2, *config["input_size"][1:], 3, dtype=torch.uint8)
        _export(network, {"pixels": one}, {"pixels": {0: "batch"}}, "probabilities",
                folder / MODEL)
        if geometry:
            _export(ExactResize(geometry), {"photo": torch.zeros(301, 402, 3, dtype=torch.uint8)},
                    {"photo": {0: "height", 1: "width"}}, "pixels", folder / RESIZE)
            shutil.copyfile(TEMPLATE, folder / EXAMPLE)
        description = describe_export(predictor, geometry)
        description["largest_difference"] = compare_export(predictor, folder)
        save_json(description, folder / DESCRIPTION)
    return description


def try_export(predictor: Predictor, target: Path) -> Path | None:
    """Export if the model can be, and say what came of it; return the folder, or None."""
    try:
        found = export_model(predictor, target)
    except SuiteError as error:
        print(f"not exported: {error}")
        return None
    names = ", ".join(sorted(path.name for path in target.iterdir()))
    print(f"{show_path(target)}: {names}; probabilities differ by at most "
          f"{found['largest_difference']:.1g} from the saved model's")
    return target


def _export(module, inputs: dict, axes: dict, output: str, path: Path) -> None:
    """Write a module as ONNX, silently; the axes named are of any length."""
    shapes = {name: {axis: torch.export.Dim(said, min=1 if said == "batch" else 2)
                     for axis, said in own.items()} for name, own in axes.items()}
    voices = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [voice.level for voice in voices]
    try:
        for voice in voices:
            voice.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(module, tuple(inputs.values()), path, input_names=list(inputs),
                              output_names=[output], dynamic_shapes=shapes, dynamo=True,
                              external_data=False, verbose=False)
    except Exception as error:  # the exporter raises whatever an operation stumbles over
        first = next(filter(None, str(error).splitlines()), type(error).__name__)
        raise SuiteError(f"torch cannot export this network to ONNX ({first[:200]}). The saved "
                         "model still works.") from error
    finally:
        for voice, level in zip(voices, levels, strict=True):
            voice.setLevel(level)


def describe_export(predictor: Predictor, geometry: dict | None) -> dict:
    """Return what an application has to know, as plain values."""
    note, config = predictor.note, predictor.reader.data_config
    height, width = config["input_size"][1:]
    return {
        "name": note["name"], "method": note["method"], "classes": predictor.classes,
        "threshold": note["abstention"]["threshold"],
        "input": f"{MODEL} takes `pixels`, (batch, {height}, {width}, 3) uint8, RGB, and gives "
                 "`probabilities`, (batch, classes) float32, calibrated; the normalisation is "
                 "inside",
        "resize": f"{RESIZE} takes `photo`, (height, width, 3) uint8 of any size, and gives the "
                  "pixels of one photo" if geometry else
                  "to be done outside, see preprocessing: resize.onnx cannot hold it",
        "decoding": "RGB, upright by the EXIF orientation; transparency on white; 16 bits "
                    "divided by 257; the first frame of an animation",
        "preprocessing": config, "geometry": geometry, "fingerprint": note["fingerprint"],
        "texts": "left out: it answers as for a photo without text"
                 if note["inputs"] == "both" else None,
        "model": {"saved": note["saved"], "sha256sums": hash_file(predictor.folder / SUMS)},
        "versions": note["versions"]}


def compare_export(predictor: Predictor, folder: Path) -> float:
    """Return the largest difference of a probability from the model's, on probe and samples.

    Raises:
        SuiteError: it is over `LARGEST`, or a photo is resized to other pixels.
    """
    resize, model = (open_session(folder / name) if (folder / name).exists() else None
                     for name in (RESIZE, MODEL))
    photos = [Image.fromarray(photo) for photo in draw_probe()] + [
        decode_image(predictor.folder / sample["file"]) for sample in predictor.note["samples"]]
    worst, expected = 0.0, predictor.predict(photos)
    for photo, own in zip(photos, expected.filter(regex="^p_").to_numpy(), strict=True):
        pixels = predictor.reader.read(photo)
        if resize:
            (found,) = resize.run(None, {"photo": np.asarray(photo)})
            if not np.array_equal(found, pixels):
                raise SuiteError("the exported resize gives other pixels than the suite's on "
                                 "this machine's processor. Export on one with AVX2.")
        (answers,) = model.run(None, {"pixels": pixels[None]})
        worst = max(worst, float(np.abs(answers[0] - own).max()))
    if not worst <= LARGEST:
        raise SuiteError(f"the exported network gives other answers: probabilities differ by up "
                         f"to {worst:.2g}. The saved model is unaffected.")
    return worst


def open_session(path: Path):
    """Return an onnxruntime session on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@report_errors
def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.serving.export",
                                     description="Export a saved model to ONNX.")
    parser.add_argument("--run", default="outputs/demo", metavar="outputs/RUN")
    parser.add_argument("--to", metavar="FOLDER", help="default: onnx/ beside the model")
    options = parser.parse_args(arguments)
    folder = find_model(options.run)
    target = Path.cwd() / options.to if options.to else folder.parent / "onnx"
    return 0 if try_export(load_predictor(folder), target) else 1


if __name__ == "__main__":
    sys.exit(main())
