"""Unforeseen: errors without a sentence of ours say so, and what to report."""

import sys
import traceback

from helpers.files import ROOT, SuiteError
from helpers.versions import describe_versions


def explain_unforeseen(about: str) -> None:
    """Let IPython, if it runs this, add what to report to errors that come out of this package.

    A reader's own mistakes in a cell stay as they are.

    Args:
        about: what is at work, as the recipe and its folder.
    """
    if "IPython" not in sys.modules:
        return
    from IPython import get_ipython

    def show(shell, kind, error, trace, tb_offset=None):
        if not isinstance(error, SuiteError) and _comes_from_here(trace):
            add_report(error, about)
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc((Exception,), show)


def add_report(error: Exception, about: str) -> None:
    """Add to an error what its reader should report; `about` as in `explain_unforeseen`."""
    versions = ", ".join(f"{name} {number}" for name, number in describe_versions().items())
    error.add_note(f"The suite did not foresee this ({about}). Please report it with all lines "
                   f"above and these versions: {versions}.")


def _comes_from_here(trace) -> bool:
    package = str(ROOT / "helpers")
    return any(frame.filename.startswith(package) for frame in traceback.extract_tb(trace))
