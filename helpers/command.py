"""Command: what the modules' command lines share: options, and how they end."""

import argparse
import functools
import sys
from collections.abc import Callable

from helpers.files import SuiteError
from helpers.processes import join_processes
from helpers.recipe import parse_settings
from helpers.run import Run, open_run
from helpers.unforeseen import add_report

WRONG, INTERRUPTED = 2, 130  # exit statuses


def create_parser(module: str, purpose: str) -> argparse.ArgumentParser:
    """Return a parser of the options that every command has: recipe and settings."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=purpose)
    parser.add_argument("--recipe", default="demo", help="name under data/, or a YAML file")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="settings that replace the recipe's")
    return parser


def report_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Decorate a command line, so that what goes wrong ends in a sentence and a status.

    What nobody foresaw is raised, with what to report.
    """
    @functools.wraps(main)
    def run(*arguments) -> int:
        try:
            return main(*arguments)
        except SuiteError as error:
            print(f"error: {error}", file=sys.stderr)
            return WRONG
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            spec = sys.modules["__main__"].__spec__  # of what `python -m` runs
            add_report(error, f"python -m {spec.name}" if spec else main.__qualname__)
            raise

    return run


@report_errors
def run_command(module: str, purpose: str, action: Callable[[Run], object]) -> int:
    """Run a module's command line, which one process or torchrun's many may call.

    Args:
        action: is called with the opened run, in every process.

    Returns:
        The exit status: 0 done, 2 with a sentence on what is wrong.
    """
    options = create_parser(module, purpose).parse_args()
    with join_processes():
        action(open_run(options.recipe, parse_settings(options.set)))
    return 0
