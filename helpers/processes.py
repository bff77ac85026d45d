"""Processes: one job shared by several processes that torchrun has started.

Without torchrun all of this is a matter of one process, and nothing is initialised.
"""

import contextlib
import os
from datetime import timedelta

from helpers.files import SuiteError


def rank() -> int:
    """Return this process's number among those of the job, from 0."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """Return how many processes share the job."""
    return int(os.environ.get("WORLD_SIZE", 1))


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
