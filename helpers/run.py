"""Run: a recipe and its folder under outputs/. Where artefacts are, and whether they still fit.

Whatever a notebook leaves is noted in `artefacts.json` when it is written: with which settings,
from which inputs (a hash of each), and its own hash. So a half-finished notebook, another recipe
under the same name or a changed table are noticed by whoever reads the artefact next.
"""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from helpers.colab import copy_results, fetch_results
from helpers.files import (
    ROOT,
    SuiteError,
    hash_files,
    load_json,
    make_folder,
    resolve_path,
    save_array,
    save_csv,
    save_json,
    show_path,
)
from helpers.processes import rank, wait_for_all
from helpers.recipe import format_settings, load_recipe
from helpers.settings import WEIGHT_FILES, Recipe
from helpers.steps import MAIN_LINE, MAKERS, STEPS, Step
from helpers.unforeseen import explain_unforeseen
from helpers.versions import describe_changes

# SUITE_OUTPUTS sends all runs to another disk.
OUTPUTS = resolve_path(os.environ.get("SUITE_OUTPUTS", ROOT / "outputs"))


@dataclass(frozen=True)
class Run:
    """A checked recipe and the folder that holds all it makes."""

    recipe: Recipe
    folder: Path
    options: tuple[str, ...] = ()  # of a command line: the recipe and the settings
    # Hashes of artefacts as they were when this process last read or wrote them.
    _seen: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def command(self) -> str:
        """What makes the run headless, to be shown."""
        return f"python -m helpers.batch {shlex.join(self.options)}"

    def path(self, artefact: str) -> Path:
        """Return where `artefact`, one that a step makes, is or will be."""
        strategy = self.recipe.network.strategy
        files = MAKERS[artefact].list_files(strategy)
        if artefact not in files:
            raise SuiteError(f"`strategy: {strategy}` makes no {artefact}.")
        return self.folder / files[artefact].format(
            backbone=self.recipe.network.backbone.replace("/", "_"))

    def need(self, artefact: str) -> Path:
        """Return where to read `artefact`.

        Raises:
            SuiteError: it is missing, or it, or what it was made from, was made with other
                settings or from other inputs; names the notebook to run.
        """
        path = self.path(artefact)
        if not path.exists():
            notebook = MAKERS[artefact].name
            raise SuiteError(
                f"{show_path(path)} is missing: run {notebook} first (notebooks/{notebook}.ipynb"
                f", or `{self.command}`)."
            )
        notes = self._load_notes()
        stale = self._explain_stale(artefact, notes)
        if stale:
            raise SuiteError(f"{stale}, or set `run` to keep both.")
        self._seen[artefact] = notes[path.name]["hash"]
        return path

    def load_table(self, artefact: str = "table"):
        """Return one of the run's CSV files as a DataFrame, every column in its type."""
        from helpers.columns import read_table

        column = self.recipe.splits.group_column
        return read_table(self.need(artefact), [column or "productid",
                                                *self.recipe.head.text_columns])

    @contextmanager
    def write(self, artefact: str, **facts) -> Iterator[Path]:
        """Yield where to write `artefact`; note afterwards how it was made.

        Args:
            facts: further plain values for the note.
        """
        step, path = MAKERS[artefact], self.path(artefact)
        # From here on nothing vouches for what an earlier run has left.
        self._note(path, None)
        # What was read, should another process have changed it since.
        inputs = {name: self._seen.get(name, digest)
                  for name, digest in self._hash_inputs(step).items()}
        yield path
        digest, state = hash_files(path)
        self._seen[artefact] = digest
        self._note(path, {"settings": self.recipe.select(*step.settings), "inputs": inputs,
                          "hash": digest, "state": state,
                          "written": datetime.now(UTC).isoformat(timespec="seconds")} | facts)

    def save(self, artefact: str, content, index: bool = False) -> None:
        """Write a DataFrame, an array, or a dictionary or list, by the artefact's ending."""
        with self.write(artefact) as path:
            if path.suffix == ".csv":
                save_csv(content, path, index)
            else:
                (save_array if path.suffix == ".npy" else save_json)(content, path)

    def is_current(self, artefact: str) -> bool:
        """Return whether `artefact` is there and fits."""
        return self.path(artefact).exists() and not self._explain_stale(artefact,
                                                                        self._load_notes())

    def is_done(self, step: Step) -> bool:
        """Return whether all that `step` makes is there and fits."""
        return all(map(self.is_current, step.list_files(self.recipe.network.strategy)))

    def finish(self, notebook: str) -> None:
        """Say what `notebook` has made, and copy the run to Drive if one is set.

        Raises:
            SuiteError: one of its artefacts is missing, or an earlier run has left it.
        """
        step = next(step for step in STEPS if step.name == notebook)
        for artefact in step.list_files(self.recipe.network.strategy):
            path = self.path(artefact)
            if not path.exists():
                raise SuiteError(f"{notebook} has not made {show_path(path)}: run all its cells "
                                 "in order.")
            self.need(artefact)
            files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
            size = sum(f.stat().st_size for f in files) / 1024
            many = f" ({len(files)} files)" if path.is_dir() else ""
            print(f"{show_path(path)}{many}  {size:,.0f} KiB")
        copy_results(self.folder)

    @property
    def measured(self) -> dict | None:
        """Mean and deviation of the data set's own pixels, if 01 has measured them."""
        path = self.path("normalisation")
        return load_json(path) if path.exists() else None

    @property
    def _notes_file(self) -> Path:
        return self.folder / "artefacts.json"

    def _load_notes(self) -> dict:
        return load_json(self._notes_file) if self._notes_file.exists() else {}

    def _note(self, path: Path, note: dict | None) -> None:
        notes = self._load_notes()
        if note or notes.pop(path.name, None):
            save_json(notes | ({path.name: note} if note else {}), self._notes_file)

    def _hash_inputs(self, step: Step) -> dict[str, str]:
        """Hash what `step` reads of this run, and the files that its settings name."""
        notes, inputs = self._load_notes(), {}
        for artefact in step.reads:
            if artefact in self._applicable and self.path(artefact).exists():
                inputs[artefact] = self._hash(artefact, notes)
        weights = resolve_path(self.recipe.network.weights)
        if "features" in step.settings and weights.suffix in WEIGHT_FILES and weights.is_file():
            inputs["weights"], _ = hash_files(weights)
        corrections = self.recipe.data.corrections
        if "data" in step.settings and corrections and resolve_path(corrections).is_file():
            inputs["corrections"], _ = hash_files(resolve_path(corrections))
        return inputs

    @property
    def _applicable(self) -> set[str]:
        """Artefacts that are made under this run's strategy."""
        return {name for step in STEPS
                for name in step.list_files(self.recipe.network.strategy)}

    def _hash(self, artefact: str, notes: dict) -> str:
        path = self.path(artefact)
        return hash_files(path, notes.get(path.name, {}).get("state"))[0]

    def _explain_stale(self, artefact: str, notes: dict) -> str:
        """Say why an artefact that is there does not fit; empty if it does."""
        step, path = MAKERS[artefact], self.path(artefact)
        note = notes.get(path.name)
        if note is None:
            return (f"nothing says with which settings {show_path(path)} was made (its notebook "
                    f"was interrupted, or it comes from elsewhere): run {step.name} again")
        inputs = self._hash_inputs(step) if note["inputs"] else {}
        for name in step.reads:  # the earliest reason helps most
            if name in note["inputs"] and name in inputs:
                stale = self._explain_stale(name, notes)
                if stale:
                    return stale
        if self._hash(artefact, notes) != note["hash"]:
            return f"{show_path(path)} has changed since it was written: run {step.name} again"
        changed = describe_changes(note["settings"], self.recipe.select(*step.settings))
        if changed:
            return f"{show_path(path)} was made with {changed}: run {step.name} again"
        others = [name for name, digest in note["inputs"].items()
                  if inputs.get(name, digest) != digest]
        if others:
            names = ", ".join(self.path(name).name if name in MAKERS else name
                              for name in others)
            return (f"{show_path(path)} was made from another {names} than is there now: run "
                    f"{step.name} again")
        return ""


def open_run(recipe: str, overrides: dict | None = None) -> Run:
    """Check a recipe, make its folder under outputs/ and say what is about to happen.

    Args:
        recipe: the name of a recipe under data/, or the path of a YAML file.
        overrides: settings that replace the recipe's; a JSON text is read as a dictionary,
            because that is how the command line of papermill hands one over.
    """
    if isinstance(overrides, str):
        try:
            overrides = json.loads(overrides)
        except ValueError:
            raise SuiteError(f"overrides is not a dictionary: {overrides!r}") from None
    checked = load_recipe(recipe, overrides)
    pairs = format_settings(overrides or {})
    options = ("--recipe", show_path(recipe), *(["--set", *pairs] if pairs else []))
    run = Run(checked, make_folder(OUTPUTS / checked.run_name), options)
    if rank() == 0 and not any(run.folder.iterdir()):
        fetch_results(run.folder)
    corrections = checked.data.corrections
    if corrections and resolve_path(corrections).is_file():  # as they are when they are read
        run._seen["corrections"], _ = hash_files(resolve_path(corrections))
    wait_for_all()
    changed = "".join(f", {pair}" for pair in pairs)
    network = checked.network
    print(f"recipe {checked.name}{changed}: {checked.data.source} in "
          f"{show_path(checked.data.place)}, {network.backbone} "
          f"({network.weights} weights), {checked.splits.folds} folds")
    print(f"results go to {show_path(run.folder)}")
    explain_unforeseen(f"recipe {checked.name}{changed}")
    return run


def reopen_run(folder: Path) -> Run:
    """Open a run by its folder alone, with the settings that its notebooks were run with.

    Raises:
        SuiteError: it has not come as far as 03.
    """
    if not (folder / "metadata.json").is_file():
        raise SuiteError(f"{show_path(folder)} is no run that could be opened: it has no "
                         "metadata.json, which 03_extraction leaves.")
    try:
        values = load_json(folder / "metadata.json")["configuration"]
        backbone = values["network"]["backbone"].replace("/", "_")
        notes = load_json(folder / "artefacts.json")
        # Some may have been run anew since; those that compare leave settings of their own.
        for step in (*STEPS[: len(MAIN_LINE)], STEPS[-1]):
            for file in step.makes.values():
                note = notes.get(file.format(backbone=backbone), {})
                for key, value in note.get("settings", {}).items():
                    section, _, setting = key.partition(".")
                    values.setdefault(section, {})[setting] = value
        recipe = Recipe(**values)
    except (KeyError, TypeError, ValidationError) as error:
        raise SuiteError(f"{show_path(folder)} was made by another version of the suite: run its "
                         "notebooks again.") from error
    return Run(recipe, folder, ("--recipe", recipe.name, "--set", f"run={folder.name}"))
