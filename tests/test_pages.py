"""Pages: the report and the map in a real browser, the model card, and what they do not tell."""

import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.data.preparation import prepare_run
from helpers.data.splits import select_rows
from helpers.evaluation.projection import project_features, tabulate_points
from helpers.evaluation.shortcuts import describe_cues
from helpers.evaluation.summary import evaluate_run
from helpers.features.extraction import extract_run
from helpers.features.store import load_features
from helpers.files import SuiteError
from helpers.pictures.charts import plot_projection, save_figure
from helpers.pictures.galleries import show_ends, show_mistakes
from helpers.pictures.map_page import SIDES, encode_photos, list_findings, thin_points, write_map
from helpers.pictures.report import write_report
from helpers.run import open_run
from helpers.training.strategies import train_run

ODD = "<b>a&b|</script>"  # as a class may be called


@pytest.fixture(scope="module")
def run(folders, write_recipe, tmp_path_factory):
    """A run outside the suite's folder with all its pages, one class oddly named."""
    place = tmp_path_factory.mktemp("far away") / "photos"
    shutil.copytree(folders, place)
    (place / "glass").rename(place / "odd")
    for number in range(3):  # near copies, to be seen on the map
        image = Image.open(sorted((place / "paper").iterdir())[number])
        image.save(place / "paper" / f"copy{number}.png")
    run = open_run(write_recipe("pages", place, source="folders", run="pages",
                                tsne_images=None, class_names={"odd": ODD}))
    prepare_run(run)
    extract_run(run)
    train_run(run)
    evaluate_run(run)
    rows = select_rows(run.load_table(), "train")
    projection = project_features(np.asarray(load_features(run, "train")), 5, 0)
    points = tabulate_points(run, rows, projection)
    run.save("tsne", points)
    write_map(run, points)
    save_figure(run, plot_projection(points), "05_tsne")
    save_figure(run, show_mistakes(run.load_table("mistakes")), "06_mistakes")
    save_figure(run, show_ends(rows, describe_cues(rows).brightness), "06_ends")
    write_report(run)
    return run


@contextmanager
def open_page(browser, path: Path, width: int, height: int = 800):
    """Yield an open page; fail if it complains or wants anything of the network."""
    page = browser.new_page(viewport={"width": width, "height": height})
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text)
            if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url)
            if not request.url.startswith(("data:", "blob:")) else None)
    page.goto(path.as_uri())
    yield page
    assert not complaints and asked == [path.as_uri()]
    page.close()


@pytest.mark.parametrize("width", [1200, 390])
def test_the_report_opens_from_disk_at_any_width(browser, run, width):
    with open_page(browser, run.need("report"), width) as page:
        assert page.title() == "pages: report"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        pictures = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.alt])")
        assert len(pictures) >= 3 and all(size > 0 and alt for size, alt in pictures)
        links = page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.hash)")
        assert len(links) >= 9
        assert all(page.locator(link).count() == 1 for link in links)
        text = page.locator("body").inner_text()
        assert ODD in text and "frozen; logistic regression on" in text
        assert page.locator("b", has_text="a&b").count() == 0, "a name is text, no markup"


@pytest.mark.parametrize("width", [1200, 390])
def test_the_map_shows_the_photo_of_what_is_pointed_at(browser, run, width):
    with open_page(browser, run.need("map"), width) as page:
        page.wait_for_function("document.querySelector('#map .nsewdrag') !== null")
        x, y, number = page.evaluate("""() => {
            const map = document.getElementById("map"), box = map.getBoundingClientRect();
            const trace = map.data.find(trace => trace.visible === true), l = map._fullLayout;
            return [box.left + l.xaxis._offset + l.xaxis.d2p(trace.x[0]),
                    box.top + l.yaxis._offset + l.yaxis.d2p(trace.y[0]), trace.customdata[0]];
        }""")
        page.mouse.move(x - 3, y)
        page.mouse.move(x, y, steps=3)
        photo = page.locator("#card img")
        photo.wait_for(state="visible")
        size = photo.evaluate("image => Math.max(image.naturalWidth, image.naturalHeight)")
        assert size == SIDES[0]
        points = run.load_table("tsne")
        said = page.locator("#card").inner_text()
        shown = photo.get_attribute("alt")
        assert shown in points.image_id.tolist() and said.count(shown) == 1
        row = points[points.image_id == shown].iloc[0]
        assert f"label {row.label}" in said and f"prediction {row.prediction}" in said
        assert f"fold {row.fold:.0f}" in said and number < len(points)
        legend = page.evaluate(
            "[...document.querySelectorAll('#map .legendtext')].map(t => t.textContent)")
        assert any(text.startswith(ODD) for text in legend), "a name is text, no markup"
        colourings = page.evaluate("document.getElementById('map').layout.updatemenus[0]"
                                   ".buttons.map(b => b.label)")
        assert colourings == [f"coloured by {name}"
                              for name in ("label", "prediction", "fold", "finding")]


def test_no_page_tells_where_the_data_lies(run, folders):
    places = [str(run.recipe.data.place.parent), str(Path(run.options[1]).parent.parent)]
    for artefact in ("report", "map", "card"):
        text = run.need(artefact).read_text("utf-8")
        assert not [place for place in [*places, f"{Path.home()}/"] if place in text], artefact
        assert "photos" in text or artefact == "map"


def test_the_model_card_says_what_the_run_was(run):
    text = run.need("card").read_text("utf-8")
    assert text.startswith("# Model card: pages\n") and "\n## Limits\n" in text
    score = run.load_table("classes").set_index("class").loc["paper"]
    assert f"| paper | {score.images:.0f} | {score.precision:.3f} |" in text
    assert "| &lt;b>a&amp;b\\|&lt;/script> |" in text
    assert "python -m helpers.batch --recipe" in text
    tables = re.findall(r"(?m)^\|.*\|$\n\|---.*\|$\n(?:^\|.*\|$\n)+", text)
    assert len(tables) == 3, "a blank line inside a table would end it"


def test_findings_of_points(run):
    points = run.load_table("tsne")
    found = list_findings(points)
    copies = points.image_id.str.contains("copy")
    assert copies.sum() == 3 and (found[copies] != "nothing found").all()
    assert (found[points.suspect.astype(bool)] == "label in doubt").all()


def test_the_map_keeps_to_its_size(run, tmp_path):
    paths = run.load_table("tsne").path.to_numpy()
    whole, side = encode_photos(paths, 10**7)
    assert side == SIDES[0] and len(whole) == len(paths)
    for budget in (30_000, 5_000):
        photos, side = encode_photos(paths, budget)
        assert side < SIDES[0] and sum(len(photo) + 4 for photo in photos) <= budget
    assert 0 < len(photos) < len(paths)
    many = pd.DataFrame({"finding": ["nothing found"] * 50_000 + ["mistake"] * 100})
    few = thin_points(many, 10**7)
    assert 10_000 < len(few) < 15_000 and (few.finding == "mistake").sum() == 100
    assert len(thin_points(many, 10**9)) == len(many)
    gone = [*paths[:2], str(tmp_path / "gone.jpg")]
    assert encode_photos(np.array(gone), 10**6)[0][2] is None


def test_a_report_goes_on_without_images_that_have_gone(run):
    first = Path(run.load_table().path[0])
    kept = first.read_bytes()
    first.unlink()
    try:
        text = write_report(run).read_text("utf-8")
        assert "1 images that this run was made from are no longer there" in text
        assert f"e.g. {run.load_table().image_id[0]}" in text.replace("\n", " ")
    finally:
        first.write_bytes(kept)


def test_a_figure_of_an_earlier_model_is_left_out(run):
    old = run.folder / "figures" / "06_gradcam.jpg"
    shutil.copy(run.folder / "figures" / "06_ends.jpg", old)
    assert "figures/06_gradcam.jpg" in write_report(run).read_text("utf-8")
    os.utime(old, (1, 1))
    assert "figures/06_gradcam.jpg" not in write_report(run).read_text("utf-8")
    old.unlink()


def test_there_is_no_report_before_the_evaluation(folders, write_recipe):
    early = open_run(write_recipe("early", folders, source="folders", run="early-pages"))
    with pytest.raises(SuiteError, match="run 03_extraction first"):
        write_report(early)
