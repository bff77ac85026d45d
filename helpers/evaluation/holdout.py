"""Hold-out: looked at on purpose, and each look counted.

A score that anything was chosen by is no longer one of unseen images. So the hold-out, and the
data set's own test images, are scored only when the recipe says that this is the end.
"""

from datetime import UTC, datetime

import pandas as pd

from helpers.files import load_json, save_json
from helpers.run import Run


def select_judged(run: Run, answered: pd.DataFrame,
                  classes: list[str]) -> dict[str, pd.DataFrame]:
    """Return the images of `test_probabilities` that are to be scored, by set.

    None unless `final` is set; with it, the look is noted in `holdout_looks.json`.
    """
    if not run.recipe.evaluation.final:
        return {}
    parts = {name.replace("holdout", "hold-out"): rows
             for name, rows in answered[answered.label.isin(classes)].groupby("split")}
    if parts:
        note_look(run, list(parts))
    return parts


def note_look(run: Run, sets: list[str]) -> None:
    """Count one look at held-out sets."""
    look = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "sets": sets}
    save_json([*list_looks(run), look], run.folder / "holdout_looks.json")


def list_looks(run: Run) -> list[dict]:
    """Return the date and the sets of every look that this run has taken, the first one first."""
    path = run.folder / "holdout_looks.json"
    return load_json(path, list) if path.exists() else []


def describe_looks(run: Run) -> str:
    """Say how often the held-out images have been scored."""
    looks = list_looks(run)
    if not looks:
        return "the held-out images have not been scored (set `final: true` to score them)"
    times = "once" if len(looks) == 1 else f"{len(looks)} times"
    dates = ", ".join(dict.fromkeys(look["date"][:10] for look in looks))
    return f"the held-out images have been scored {times} ({dates})"
