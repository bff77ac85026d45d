"""Model folder: what a saved model consists of, and how it is told from anything else.

Every file's SHA-256 stands in `SHA256SUMS` (`sha256sum -c` reads it). That tells a whole copy
from a damaged or edited one; who made it, it does not tell.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from helpers.files import SuiteError, hash_file, resolve_path, save_json, show_path, write_whole

FORMAT = 1  # raised when an older suite could not read what is saved, or would misread it
NOTE, SUMS, CARD = "model.json", "SHA256SUMS", "MODEL_CARD.md"
BACKBONE, HEADS = "backbone.safetensors", "heads.safetensors"
NETWORK = "network_{:02d}.safetensors"
PROBE, REFERENCES, LABELS = "probe.safetensors", "references.safetensors", "references.csv"
SAMPLES = "samples"
NETWORKS = "networks"  # the kind of a model that has no heads
# Nothing else is in a model's folder, so nothing else is ever opened.
KNOWN = re.compile(r"model\.json|MODEL_CARD\.md|(backbone|heads|network_\d\d|probe|references)"
                   r"\.safetensors|references\.csv|samples/\d\d\.jpg")


class _Sample(BaseModel):
    file: Annotated[str, Field(pattern=rf"^{SAMPLES}/\d\d\.jpg$")]
    label: str | None


class _Abstention(BaseModel):
    wished: float
    threshold: float | None
    accuracy: float | None
    low: float | None
    high: float | None


class _Note(BaseModel):
    """What `model.json` has to say, for all that read it to rely on."""

    name: str
    method: str
    serve: Literal["ensemble", "refit"]
    kind: str
    classes: Annotated[list[str], Field(min_length=2)]
    temperatures: Annotated[list[PositiveFloat], Field(min_length=1)]
    abstention: _Abstention
    backbone: str
    image_size: int | None
    inputs: Literal["photo", "both"]
    text_columns: list[str]
    features: PositiveInt
    preprocessing: dict
    fingerprint: str
    trained_on: dict
    trained: str
    saved: str
    scores: dict[str, dict[str, dict[str, float]]]
    by_class: list[dict]
    confusions: list[dict]
    notes: dict
    versions: dict[str, str]
    samples: list[_Sample]


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
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
    try:
        _Note(**note)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SuiteError(f"{show_path(folder / NOTE)}: {where} is not as this version of the "
                         f"suite writes it ({first['msg']}). Save the model again with this "
                         "version (notebook 11).") from error
    _require_files(folder, note)
    return note


def _require_files(folder: Path, note: dict) -> None:
    members = [NETWORK.format(number) for number in range(len(note["temperatures"]))]
    needed = [PROBE, *(members if note["kind"] == NETWORKS else (BACKBONE, HEADS)),
              *(sample["file"] for sample in note["samples"])]
    if (folder / REFERENCES).exists() or (folder / LABELS).exists():
        needed += [REFERENCES, LABELS]
    for name in needed:
        if not (folder / name).is_file():
            raise SuiteError(f"{show_path(folder / name)} is missing. Save the model again "
                             "(notebook 11).")


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
