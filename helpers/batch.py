"""Batch: the notebooks headless, one after another, each in a process of its own.

    python -m helpers.batch --recipe demo --set backbone=resnet50 --from 03 --until 04

What is done is not done again: a notebook counts as done while its own text, the parts of this
package that it reaches, and (01) the data are what they were, and all that it makes is there and
fits (`helpers.run`). Executed copies go to outputs/<run>/notebooks/. Exit status: 0 done, 1 a
notebook failed, 2 wrong settings.

This process waits for hours beside others that need the memory: whatever loads a library runs
in a process of its own.
"""

import argparse
import hashlib
import json
import math
import multiprocessing
import re
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from helpers.colab import copy_results
from helpers.command import INTERRUPTED, create_parser, report_errors
from helpers.execution import FOLDER, execute_apart
from helpers.files import (
    SuiteError,
    hash_files,
    load_json,
    resolve_path,
    save_json,
    show_path,
)
from helpers.imports import find_reached
from helpers.processes import heed_interrupts, hold_interrupts
from helpers.recipe import parse_settings
from helpers.run import Run, open_run
from helpers.steps import MAIN_LINE, NOTEBOOKS, STEPS, Step


def run_notebooks(recipe: str, overrides: dict | None = None, first: str | None = None,
                  last: str | None = None, limit_s: float = 43_200) -> bool:
    """Execute a recipe's notebooks and return whether all went well.

    Args:
        recipe, overrides: as in `open_run`.
        first: number of a notebook ("03") to run again from, done or not.
        last: number of the last notebook to run; by default the main line's, or `first`.
        limit_s: seconds that one notebook may take.

    Raises:
        SuiteError: the recipe, a notebook's number or the backbone is wrong; nothing was run.
    """
    run = open_run(recipe, overrides)
    chosen = _choose(first, last)
    lock = FileLock(run.folder / ".lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        raise SuiteError(f"another batch is at work in {show_path(run.folder)}: wait for it, or "
                         "set `run` to another name.") from None
    except OSError as error:
        raise SuiteError(f"cannot write in {show_path(run.folder)} ({error.strerror or error}). "
                         "Make it writable, or send runs elsewhere with SUITE_OUTPUTS.") from None
    with held:
        return _run_chosen(run, chosen, recipe, overrides or {}, limit_s, first is not None)


def _run_chosen(run: Run, chosen: list[Step], recipe: str, overrides: dict, limit_s: float,
                again: bool) -> bool:
    state_file, checked = run.folder / "progress.json", False
    state = load_json(state_file) if state_file.exists() else {}
    for place, step in enumerate(chosen):
        name, record = step.name, state.pop(step.name, {})
        inputs, data = _hash_code(FOLDER / f"{name}.ipynb"), {}
        if step is STEPS[0]:
            digest = _call_apart(_hash_data, run)
            data = {"data": show_path(run.recipe.data.place), "digest": digest}
            _refuse_other_data(run, record, data)
            inputs += digest
        if record.get("inputs") == inputs and not again and run.is_done(step):
            print(f"{name}: done on {record['finished']}, nothing to do")
            state[name] = record
            continue
        if not checked:
            _call_apart(_check_inputs, run, FOLDER, chosen[place:])
            checked = True
        start = time.monotonic()
        save_json(state, state_file)
        if not execute_apart(run, name, recipe, overrides, limit_s):
            return False
        seconds = round(time.monotonic() - start, 1)
        state[name] = {"inputs": inputs, **data, "seconds": seconds,
                       "finished": datetime.now(UTC).isoformat(timespec="seconds")}
        save_json(state, state_file)
        copy_results(run.folder)
        print(f"{name}: done in {seconds:.0f} s")
    print(f"all done: {show_path(run.folder)}")
    return True


def _refuse_other_data(run: Run, then: dict, now: dict) -> None:
    """Raise SuiteError if a run's results are of another folder, which is no copy of this one."""
    if "data" in then and all(then[key] != now[key] for key in now):
        raise SuiteError(f"{show_path(run.folder)} holds results of {then['data']}: set `run` to "
                         f"another name for those of {now['data']}, or remove them with `python "
                         f"-m helpers.removal {run.folder.name}`.")


def _choose(first: str | None, last: str | None) -> list[Step]:
    numbers = [name[:2] for name in NOTEBOOKS]
    for number in (first, last):
        if number is not None and number not in numbers:
            raise SuiteError(f"there is no notebook '{number}'; they are {', '.join(numbers)}.")
    last = last or max(first or "", MAIN_LINE[-1][:2])
    chosen = [step for step in STEPS if (first or "00") <= step.name[:2] <= last]
    if not chosen:
        raise SuiteError(f"no notebook lies from {first} until {last}.")
    return chosen


def _call_apart(function, *arguments):
    """Return what `function` returns in a process of its own, which ends with it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            with hold_interrupts():
                future = pool.submit(_call_heeding, function, *arguments)
            return future.result()
        except KeyboardInterrupt:  # which it may not have heard
            for process in multiprocessing.active_children():
                process.kill()
            raise


def _call_heeding(function, *arguments):
    heed_interrupts()
    return function(*arguments)


def _hash_code(book: Path) -> str:
    """Hash a notebook's code and the files of this package that it reaches."""
    cells = json.loads(book.read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    digest = hashlib.sha256("\0".join(code).encode())
    script = book.with_suffix(".py")  # changed alone, it is to be noticed, see _check_inputs
    text = script.read_text("utf-8") if script.exists() else ""
    digest.update(re.sub(r"(?m)^#.*\n", "", text).encode())
    for path in find_reached(re.sub(r"(?m)^[%!].*", "", cell) for cell in code):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _hash_data(run: Run) -> str:
    """Hash the content of the data, files that have kept size and time by what is known."""
    if run.recipe.data.comes_by_itself:
        from helpers.data.table import find_data

        find_data(run.recipe)  # makes or fetches it
    known = run.folder / "data_files.json"
    digest, files = hash_files(run.recipe.data.place,
                               load_json(known) if known.exists() else None)
    save_json(files, known)
    if run.recipe.data.corrections:
        digest += hash_files(resolve_path(run.recipe.data.corrections))[0]
    return digest


def _check_inputs(run: Run, notebooks: Path, ahead: list[Step]) -> None:
    """Say what the data is; raise SuiteError for wrong data or weights, and for a torn pair.

    That is a notebook whose `.py` says something else: which of the two was meant?
    """
    import jupytext

    from helpers.data.table import load_table
    from helpers.network.backbones import create_backbone
    from helpers.network.weights import check_network, find_weight_file

    check_network(run.recipe)
    # Weights that are broken, or out of reach, are better noticed now than in 03.
    if find_weight_file(run.recipe) or any(step.name.startswith("03") for step in ahead):
        create_backbone(run.recipe)
    if STEPS[0] in ahead:
        load_table(run.recipe)
    for step in ahead:
        book = notebooks / f"{step.name}.ipynb"
        pair = [[cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
                for path in (book, book.with_suffix(".py")) if path.exists()]
        if any(code != pair[0] for code in pair):
            raise SuiteError(f"{show_path(book)} and its .py differ: run `jupytext --sync "
                             f"{show_path(book)}`, which takes over the newer one.")


def _read_minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of minutes above 0")
    return minutes


@report_errors
def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = create_parser("helpers.batch", "Run a recipe's notebooks headless.")
    parser.add_argument("--from", dest="first", metavar="NN",
                        help="run again from this notebook on, done or not")
    parser.add_argument("--until", dest="last", metavar="NN",
                        help="stop after this notebook (default: 06, or that of --from)")
    parser.add_argument("--time-limit", type=_read_minutes, default=720, metavar="MINUTES",
                        help="for each notebook (default: 720)")
    options = parser.parse_args(arguments)
    # `timeout`, Slurm and CI end a program so: take the notebook and its kernel along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        done = run_notebooks(options.recipe, parse_settings(options.set), options.first,
                             options.last, options.time_limit * 60)
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
