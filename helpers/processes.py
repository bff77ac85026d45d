"""Processes: one job shared by several processes that torchrun has started, and what they obey.

Without torchrun all of this is a matter of one process, and nothing is initialised.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing import resource_tracker

from helpers.files import ROOT, SuiteError


def rank() -> int:
    """Return this process's number among those of the job, from 0."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """Return how many processes share the job."""
    return int(os.environ.get("WORLD_SIZE", 1))


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def hold_interrupts():
    """Let Ctrl-C wait, here for a moment, and in a process that is started now until it heeds it.

    A terminal interrupts all of its processes at once, and one that is still importing would
    answer with a page of its frames.
    """
    resource_tracker.ensure_running()  # which would let them through when it is started
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def heed_interrupts() -> None:
    """Let Ctrl-C interrupt this process, now if it has come already.

    Even if the one that started it ignores them, as what `nohup` starts does: it has to pass on
    its own end.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


@contextlib.contextmanager
def join_processes():
    """Meet the other processes, over nccl between GPUs and gloo between CPUs; part at the end.

    Only the first process keeps its voice: the others' standard output goes nowhere.

    Raises:
        SuiteError: there are more processes than GPUs.
    """
    if world() == 1:
        yield
        return
    import torch
    from torch import distributed

    cuda, here = torch.cuda.is_available(), int(os.environ.get("LOCAL_WORLD_SIZE", world()))
    if cuda and here > torch.cuda.device_count():
        raise SuiteError(f"{here} processes cannot share {torch.cuda.device_count()} GPUs: lower "
                         "--nproc-per-node, or hide the GPUs with CUDA_VISIBLE_DEVICES=''.")
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Shares take unequal times, and whoever is done waits for the others, hours if need be.
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(days=7))
    with open(os.devnull, "w") as nowhere, (  # noqa: PTH123
            contextlib.redirect_stdout(nowhere) if rank() else contextlib.nullcontext()):
        yield
    distributed.destroy_process_group()  # not after a failure: it would wait for the others


def run_processes(count: int, module: str, options: Sequence[str]) -> None:
    """Let torchrun start a module `count` times on this machine, and show what they say.

    For notebooks: processes that a notebook itself spawns would each begin by running it.

    Raises:
        SuiteError: one of them has failed.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               f"--nproc-per-node={count}", "-m", module, *options]
    print(f"torchrun --nproc-per-node={count} -m {module} ...")
    job = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, bufsize=1)
    try:
        for line in job.stdout:
            print(line, end="", flush=True)
    finally:  # an interrupted cell ends them, too
        if job.poll() is None:
            job.terminate()
        status = job.wait()
    if status:
        raise SuiteError(f"a process of {module} has failed; what it said is above. Put that "
                         "right and run this cell again: what is finished is kept.")


def wait_for_all() -> None:
    """Return when every process has come here."""
    gather(None)


def gather(value) -> list:
    """Return every process's value, in the order of their ranks."""
    if world() == 1:
        return [value]
    from torch import distributed

    values = [None] * world()
    try:
        distributed.all_gather_object(values, value)
    except RuntimeError as error:  # the connection ends with the process at its other end
        raise SuiteError("another process of this job has failed; its message says why. The "
                         "same command continues.") from error
    return values
