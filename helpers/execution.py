"""Execution: one notebook run by papermill, in a process of its own that ends with its parent."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

from helpers.files import ROOT, make_folder, show_path
from helpers.processes import heed_interrupts, hold_interrupts
from helpers.run import Run

FOLDER = ROOT / "notebooks"
GRACE_S = 5  # for an interrupted notebook to end by itself
FORESEEN = ("SuiteError", "DownloadError", "DiffersError", "AssertionError", "KeyboardInterrupt")


def execute_apart(run: Run, name: str, recipe: str, overrides: dict, limit_s: float) -> bool:
    """Execute one notebook in a new process, ended with all its children at the limit."""
    import psutil

    target = make_folder(run.folder / "notebooks") / f"{name}.ipynb"
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_execute, args=(name, target, recipe, overrides))
    with hold_interrupts():
        process.start()
    stopped = True  # even if it comes to its end while it is being stopped
    try:
        process.join(limit_s)
        stopped = process.exitcode is None
        if process.exitcode is None:
            print(f"{name}: stopped after {limit_s / 60:g} minutes, its time limit (see "
                  f"--time-limit). What it did is in {show_path(target)}; the same command "
                  "continues here.", file=sys.stderr)
        elif process.exitcode < 0:
            print(f"{name}: ended from outside by signal {-process.exitcode}; often memory ran "
                  "out: lower `batch_size` or `workers`. The same command continues here.",
                  file=sys.stderr)
    finally:
        if process.exitcode is None:  # the limit, or an interrupt
            children = psutil.Process(process.pid).children(recursive=True)
            os.kill(process.pid, signal.SIGINT)  # so that it gives back what it holds
            process.join(GRACE_S)
            if process.exitcode is None:
                children += psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.join()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
    return process.exitcode == 0 and not stopped


def _execute(name: str, target: Path, recipe: str, overrides: dict) -> None:
    """Execute one notebook with papermill; on failure say where, what and what now."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    if multiprocessing.parent_process():
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        heed_interrupts()
        for attempt in (1, 2):
            try:
                papermill.execute_notebook(
                    FOLDER / f"{name}.ipynb", target, {"recipe": recipe, "overrides": overrides},
                    kernel_name="python3", cwd=str(ROOT), progress_bar={"desc": name},
                    autosave_cell_every=5,
                    # Its warnings (about TCP, each time) would hide what matters.
                    extra_arguments=["--IPKernelApp.log_level=ERROR"])
                return
            except RuntimeError as error:
                # Two kernels may have drawn the same port: nothing has been executed yet.
                if attempt == 2 or "before replying to kernel_info" not in str(error):
                    raise
    except papermill.PapermillExecutionError as error:
        source = "\n".join(f"    {line}" for line in error.source.splitlines()[:12])
        unforeseen = "" if error.ename in FORESEEN else (
            "\nThe suite did not foresee this. Please report it with the recipe and the "
            f"traceback in {show_path(target)}.")
        print(f"\n{name} failed in cell [{error.exec_count}]:\n{source}\n\n"
              f"{error.ename}: {error.evalue}{unforeseen}\n", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
    except DeadKernelError:
        print(f"\n{name} failed: its kernel died. Often memory ran out: lower `batch_size` or "
              "`workers`.\n", file=sys.stderr)
    except OSError as error:
        print(f"\n{name} failed: {show_path(error.filename or target)} could not be read or "
              f"written ({error.strerror or error}).\n", file=sys.stderr)
    except Exception as error:
        print(f"\n{name} failed: {type(error).__name__}: {error}\n", file=sys.stderr)
    print(f"The notebook with its outputs up to there: {show_path(target)}\n"
          "The same command continues here.", file=sys.stderr)
    sys.exit(1)


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one, and end then, its kernel too.

    Killed alone it would leave a notebook at work, and no lock to tell the next run.
    """
    import psutil

    multiprocessing.parent_process().join()
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)
