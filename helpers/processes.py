"""Processes: one job shared by several processes that torchrun has started.

Without torchrun all of this is a matter of one process, and nothing is initialised.
"""

import contextlib
import os

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@contextlib.contextmanager
def join_processes():
    """Meet the other processes, over nccl between GPUs and gloo between CPUs; part at the end.

    Only the first process keeps its voice: the others' standard output goes nowhere.
    """
    if WORLD == 1:
        yield
        return
    import torch
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    with open(os.devnull, "w") as nowhere, (  # noqa: PTH123
            contextlib.redirect_stdout(nowhere) if RANK else contextlib.nullcontext()):
        try:
            yield
        finally:
            distributed.destroy_process_group()


def wait_for_all() -> None:
    """Return when every process has come here."""
    gather(None)


def gather(value) -> list:
    """Return every process's value, in the order of their ranks."""
    if WORLD == 1:
        return [value]
    from torch import distributed

    values = [None] * WORLD
    distributed.all_gather_object(values, value)
    return values
