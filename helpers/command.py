"""Command: the command line that modules share: a recipe, and settings that replace its own."""

import argparse
import sys
from collections.abc import Callable

from helpers.files import SuiteError
from helpers.processes import join_processes
from helpers.recipe import parse_settings
from helpers.run import Run, open_run


def create_parser(module: str, purpose: str) -> argparse.ArgumentParser:
    """Return a parser of the options that every command has: recipe and settings."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=purpose)
    parser.add_argument("--recipe", default="demo", help="name under data/, or a YAML file")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="settings that replace the recipe's")
    return parser


def run_command(module: str, purpose: str, action: Callable[[Run], object]) -> int:
    """Run a module's command line, which one process or torchrun's many may call.

    Args:
        action: is called with the opened run, in every process.

    Returns:
        The exit status: 0 done, 2 with a sentence on what is wrong.
    """
    options = create_parser(module, purpose).parse_args()
    try:
        with join_processes():
            action(open_run(options.recipe, parse_settings(options.set)))
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
