"""Image paths: the images that a table names, found as people name them."""

import posixpath
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

import pandas as pd

from helpers.data.images import IMAGE_SUFFIXES
from helpers.data.listing import list_folders, list_images
from helpers.files import SuiteError, show_path

SAMPLED = 50  # names by which it is found out where the images are
# The usual ones first.
ENDINGS = tuple(dict.fromkeys((".jpg", ".jpeg", ".png", ".webp", *sorted(IMAGE_SUFFIXES))))


def locate_images(base: Path, names: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return ids and paths of the images that a table names, found as people name them.

    Names may lack their ending (`.jpg`) or their folder, or be the full paths of another
    computer; which it is, some rows tell, and what was done is said in one line.

    Args:
        base: the folder where the names start.
        names: text, one a row.
    """
    web = names[names.str.match("(?i) *https?:")]
    if len(web):
        raise SuiteError(f"the table names {len(web)} addresses, e.g. {web.iloc[0].strip()}: "
                         "download the images, and name their files.")
    names = names.str.strip().str.replace("\\", "/").map(posixpath.normpath)
    some = names.iloc[:: max(1, len(names) // SAMPLED)].tolist()
    if names.map(_is_absolute).all():
        return _locate_absolute(base, names, some)
    found = {place: there for place in [base, *list_folders(base)]
             if (there := _list_there(place, some))}
    place = max(found, key=lambda place: len(found[place]), default=base)
    twins = [show_path(other) for other in found if found[other] == found[place]]
    if place != base and len(twins) > 1:
        raise SuiteError(f"the images of the table are in {' and in '.join(twins)}: set `images` "
                         "to the one that is meant.")
    if len(found.get(place, [])) < len(some):
        spread = _find_anywhere(base, place, names)
        if spread is not None:
            return spread
    if place != base:
        print(f"images are looked for in {show_path(place)}")
    bare = ~names.map(lambda name: posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES)
    whole = names.copy()
    whole[bare] = names[bare].map(lambda name: _add_ending(place, name))
    if (whole != names).any():
        added = sorted({posixpath.splitext(name)[1] for name in whole[whole != names]})
        print(f"added {', '.join(added)} to {(whole != names).sum()} names without an ending")
    return whole, join_paths(place, whole)


def join_paths(folder: Path, names: pd.Series) -> pd.Series:
    """Return the paths, as a table keeps them, of names in a folder."""
    return show_path(folder) + "/" + names


def _find_anywhere(base: Path, place: Path, names: pd.Series) -> tuple | None:
    """Return ids and paths of images by their file names, in whatever folders they are.

    One that is nowhere keeps its name. Null if none is found that `place` does not have.

    Raises:
        SuiteError: two files have the name that is looked for.
    """
    known = defaultdict(list)
    for path in list_images(base)[0]:
        name = unicodedata.normalize("NFC", path.name)
        for key in (name, posixpath.splitext(name)[0]):
            known[key].append(path.relative_to(base).as_posix())
    places = names.map(lambda name: [name] if (base / name).is_file() else known.get(
        unicodedata.normalize("NFC", name), [name]))
    if not any((base / found[0]).is_file() and (base / found[0]).parent != place
               for found in places):
        return None
    twice = places[places.map(len) > 1]
    if len(twice):
        raise SuiteError(f"the table names {names[twice.index[0]]}, which may be "
                         f"{' or '.join(twice.iloc[0][:3])} ({len(twice)} such images): set "
                         "`images` to their folder, or write it in front of the names.")
    whole = places.str[0]
    print(f"{(whole != names).sum()} images were found by their names in folders below "
          f"{show_path(base)}")
    return whole, join_paths(base, whole)


def _is_absolute(name: str) -> bool:
    return name.startswith("/") or bool(re.match("[A-Za-z]:/", name))


def _list_there(place: Path, names: list[str]) -> list[str]:
    return [name for name in names if (place / _add_ending(place, name)).is_file()]


def _add_ending(place: Path, name: str) -> str:
    """Return a name with the ending that a file of it has, if it has none itself.

    Raises:
        SuiteError: two files have it.
    """
    if (place / name).is_file():
        return name
    there = [name + ending for ending in ENDINGS if (place / (name + ending)).is_file()]
    if len(there) > 1:
        raise SuiteError(f"the table names {name}, which may be {' or '.join(there)} in "
                         f"{show_path(place)}: write the endings into the table.")
    return there[0] if there else name


def _locate_absolute(base: Path, names: pd.Series, some: list[str]) -> tuple:
    """Return ids and paths of names that are full paths, of this computer or another one."""
    above = posixpath.commonpath(names.map(posixpath.dirname).unique().tolist())
    ids = names.str.slice(len(above)).str.lstrip("/")
    if any(Path(name).is_file() for name in some):
        return ids, names.map(show_path)
    # Of all folders at the end of the common path, those that are here, too.
    parts = [part for part in above.split("/") if part]
    for start in range(len(parts) + 1):
        place = base.joinpath(*parts[start:])
        if any((place / name).is_file() for name in ids[names.isin(some)]):
            print(f"the table's paths are those of another computer: {above} is taken for "
                  f"{show_path(place)}")
            return ids, join_paths(place, ids)
    raise SuiteError(f"the table names full paths, e.g. {some[0]}, which are not on this "
                     f"computer, nor below {show_path(base)}: put the images there.")
