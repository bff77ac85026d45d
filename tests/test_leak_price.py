"""The price of the leak: what the score would be with copies on both sides of the folds."""

import pytest
from PIL import Image, ImageEnhance

from helpers.data.preparation import prepare_run
from helpers.data.splits import select_rows
from helpers.evaluation.leak_price import answer_torn_folds, measure_leak_price
from helpers.features.extraction import extract_run
from helpers.files import load_json
from helpers.run import Run, open_run
from helpers.training.strategies import train_run


@pytest.fixture(scope="module")
def run(folders, write_recipe, tmp_path_factory, one_thread) -> Run:
    """36 photos, each with a copy that was saved again, brighter."""
    place = tmp_path_factory.mktemp("leaking")
    for photo in sorted(folders.rglob("*.jpg")):
        (place / photo.parent.name).mkdir(exist_ok=True)
        picture = Image.open(photo)
        picture.save(place / photo.parent.name / photo.name)
        ImageEnhance.Brightness(picture).enhance(1.15).save(
            place / photo.parent.name / f"again-{photo.name}", quality=60)
    run = open_run(write_recipe("leaking", place, source="folders", run="leaking", holdout=0,
                                leak_price=True))
    prepare_run(run)
    extract_run(run, progress=False)
    train_run(run, progress=False)
    return run


def test_copies_on_both_sides_flatter_the_score(run):
    classes = list(load_json(run.need("label_mapping")))
    scores, said = measure_leak_price(run, classes)
    kept, torn = (next(table for name, table in scores.items() if name.startswith(how))
                  for how in ("groups kept", "groups torn"))
    assert torn.value["accuracy"] > kept.value["accuracy"] + 0.05
    assert said[0].startswith("groups torn apart: accuracy +")
    assert [name for name in scores if "the 72 that share a group" in name]


def test_only_the_dealing_of_the_folds_differs(run):
    classes = list(load_json(run.need("label_mapping")))
    answers = answer_torn_folds(run, classes)
    kept, torn = answers.values()
    rows = select_rows(run.load_table(), "train")
    assert list(kept.image_id) == list(torn.image_id) == list(rows.image_id)
    assert kept.groupby("group").fold.nunique().eq(1).all()
    assert torn.groupby("group").fold.nunique().gt(1).any()


def test_it_is_told_only_where_it_is_asked_for_and_something_can_leak(run, folders, write_recipe):
    quiet = open_run(run.options[1], {"leak_price": False})
    assert measure_leak_price(quiet, [])[0] == {}
    alone = open_run(write_recipe("alone", folders, source="folders", run="alone", holdout=0,
                                  leak_price=True))
    prepare_run(alone)
    scores, said = measure_leak_price(alone, [])
    assert scores == {} and "nothing can leak" in said[0]
