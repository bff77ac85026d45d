"""Model folder: what a saved model consists of, and how it is told from anything else.

Every file's SHA-256 stands in `SHA256SUMS` (`sha256sum -c` reads it). That tells a whole copy
from a damaged or edited one; who made it, it does not tell.
"""

import json
import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from helpers.files import SuiteError, hash_file, resolve_path, save_json, show_path, write_whole

FORMAT = 1  # raised when an older suite could not read what is saved, or would misread it
NOTE, SUMS, CARD = "model.json", "SHA256SUMS", "MODEL_CARD.md"
BACKBONE, HEADS = "backbone.safetensors", "heads.safetensors"
NETWORK = "network_{:02d}.safetensors"
PROBE, REFERENCES, LABELS = "probe.safetensors", "references.safetensors", "references.csv"
SAMPLES = "samples"
# Nothing else is in a model's folder, so nothing else is ever opened.
KNOWN = re.compile(r"model\.json|MODEL_CARD\.md|(backbone|heads|network_\d\d|probe|references)"
                   r"\.safetensors|references\.csv|samples/\d\d\.jpg")


def find_model(place: str | Path) -> Path:
    """Return the model's folder: `place` itself, or `model/` in the folder of a run.

    Raises:
        SuiteError: there is none; says how to make one.
    """
    folder = resolve_path(place)
    for model in (folder / "model", folder):
        if (model / NOTE).is_file():
            return model
    if (folder / "metadata.json").is_file():
        raise SuiteError(f"the run {show_path(folder)} has no saved model yet. Make one: "
                         f"`python -m helpers.serving.saving --run {show_path(folder)}`, or "
                         "notebook 11.")
    raise SuiteError(f"there is no saved model in {show_path(folder)}. Run a recipe first, "
                     "`make run`, then `python -m helpers.serving.saving --run outputs/demo`.")


def list_files(folder: Path) -> list[str]:
    """Return the names of all files below a folder, hidden ones left out."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")
             if path.is_file() or path.is_symlink()]
    return sorted(name for name in names if not any(part.startswith(".")
                                                    for part in name.split("/")))


def seal_folder(folder: Path, note: dict) -> None:
    """Write `model.json`, and then the hash of every file that is in the folder."""
    save_json({"format": FORMAT} | note, folder / NOTE)
    for name in list_files(folder):  # safetensors writes for the owner alone
        (folder / name).chmod(0o644)
    lines = [f"{hash_file(folder / name)}  {name}\n" for name in list_files(folder)]
    with write_whole(folder / SUMS) as temporary:
        temporary.write_text("".join(lines), "utf-8")


def read_note(folder: Path) -> dict:
    """Return what `model.json` says, once the folder is seen to hold what was saved.

    Raises:
        SuiteError: another version of the suite has saved it; a file is missing, was changed,
            or does not belong there, such as a pickle. No file but `model.json` was opened then.
    """
    try:
        note = json.loads((folder / NOTE).read_text("utf-8"))
        version = note["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SuiteError(f"{show_path(folder / NOTE)} cannot be read ({error}). Copy the whole "
                         "folder again, or save the model again (notebook 11).") from error
    if version != FORMAT:
        raise SuiteError(f"{show_path(folder)} was saved by another version of the suite (format "
                         f"{version}; this one reads {FORMAT}). Save it again with this version, "
                         "or use that one.")
    strange = [name for name in list_files(folder) if name != SUMS and not KNOWN.fullmatch(name)]
    if strange:
        raise SuiteError(f"{show_path(folder)} holds {strange[0]}, which is no part of a saved "
                         "model: it may be a pickle, which can run code when it is opened. "
                         "No other file was opened. If you put it there, remove it; otherwise do "
                         "not use this folder.")
    _compare_hashes(folder)
    return note


def _compare_hashes(folder: Path) -> None:
    again = "Copy the whole folder again, or save the model again (notebook 11)."
    try:
        lines = (folder / SUMS).read_text("utf-8").splitlines()
        known = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise SuiteError(f"{show_path(folder / SUMS)} is missing or damaged, so the model "
                         f"cannot be verified. {again}") from error
    found = list_files(folder)
    for name in sorted({*known, *found} - {SUMS}):
        if name not in found:
            raise SuiteError(f"{show_path(folder / name)} is missing. {again}")
        if name not in known:
            raise SuiteError(f"{show_path(folder / name)} was not saved with the model. {again}")
        if hash_file(folder / name) != known[name]:
            raise SuiteError(f"{show_path(folder / name)} has changed since the model was saved. "
                             f"{again}")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a `.safetensors` file; SuiteError if it is none."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise SuiteError(f"{show_path(path)} holds no plain arrays ({error}). Save the model "
                         "again (notebook 11).") from error
