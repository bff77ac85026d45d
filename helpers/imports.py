"""Imports: which files of this package a piece of code reaches, read without running it."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from helpers.files import ROOT

PACKAGE = "helpers"


def list_imports(code: str) -> Iterator[str]:
    """Yield the modules of this package that `code` imports, at its top or in a function.

    What stands below `if __name__ == "__main__"` does not count: a command calls on any room.
    """
    tree = ast.parse(code)
    tree.body = [node for node in tree.body
                 if not (isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith(PACKAGE))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            yield node.module
            # `from helpers.data import images` names a module, not something in one.
            yield from (f"{node.module}.{name.name}" for name in node.names)


def find_file(module: str) -> Path | None:
    """Return the file of a module of this package, or None."""
    place = ROOT.joinpath(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py")
                 if path.is_file()), None)


def find_reached(codes: Iterable[str]) -> list[Path]:
    """Return all files of this package that pieces of code reach, directly or through others.

    A file beside a reached module whose name stands in it (a template, a style) is reached too.
    """
    reached, waiting = set(), list(codes)
    while waiting:
        for module in list_imports(waiting.pop()):
            path = find_file(module)
            if path and path not in reached:
                code = path.read_text("utf-8")
                waiting.append(code)
                reached |= {path} | {file for file in path.parent.rglob("*.*")
                                     if file.suffix != ".py" and file.name in code}
    return sorted(reached)
