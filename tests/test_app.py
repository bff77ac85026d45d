"""App: the web page in a real browser: answers as elsewhere, bad files, two visitors at once."""

import io
import re
import time
import tomllib
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.data.demo import PHOTOS
from helpers.serving.app_text import LANGUAGES, escape, load_texts, say, say_reason, say_share
from helpers.serving.launch import APP, start_page
from helpers.serving.predictor import load_predictor
from helpers.serving.saving import save_model

AT_ONCE = 20  # files that the page takes


@pytest.fixture(scope="module")
def served(browser, served_run):
    """The page of a saved model, at work."""
    page = start_page(served_run.folder)
    yield page
    page.stop()


@contextmanager
def visit(browser, served, width=1200, height=900, locale="en-US"):
    """Yield the page of one visitor; fail if it complains, or asks anybody else for anything."""
    context = browser.new_context(viewport={"width": width, "height": height}, locale=locale)
    page, complaints, asked = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text)
            if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url)
            if not request.url.startswith(("data:", "blob:", served.address)) else None)
    page.goto(served.address)
    page.wait_for_selector("input[type=file]", state="attached")
    yield page
    assert not complaints and not asked
    context.close()


def upload(page, files):
    page.locator("input[type=file]").set_input_files(files)


def download(page, button="Download the results (CSV)") -> pd.DataFrame:
    with page.expect_download() as found:
        page.get_by_role("button", name=button).click()
    return pd.read_csv(found.value.path(), keep_default_na=False)


def wait_for_answers(page, count):
    page.wait_for_function(
        "count => document.querySelectorAll('[data-testid=stVegaLiteChart]').length === count",
        arg=count)


def test_a_photo_is_answered_at_once_and_explained_in_full(browser, served, served_run):
    path = str(next((PHOTOS / "glass").iterdir()))
    own = load_predictor(served_run.folder).predict([path]).iloc[0]
    with visit(browser, served) as page:
        upload(page, path)
        page.wait_for_selector("h3")
        assert page.locator("h3").first.inner_text() == own.prediction
        share = say_share("en", own.confidence)
        page.get_by_text(f"Confidence: {share}").wait_for()
        chart = page.locator("[data-testid=stVegaLiteChart]")
        chart.wait_for()
        alternative = chart.locator("xpath=ancestor-or-self::*[@aria-label]").first
        said = alternative.get_attribute("aria-label") or chart.inner_html()
        assert f"{own.prediction} {share}" in said
        page.locator("label", has_text="Show why").click()
        page.get_by_text("Highlighted: what counted for").wait_for()
        near = page.get_by_text(re.compile(r"^\w+, similarity \d\.\d\d$"))
        near.first.wait_for()
        assert near.count() == 5
        page.locator("summary", has_text="About this model").click()
        about = page.locator("[data-testid=stExpander]").inner_text()
        assert "served" in about and "TrashNet, MIT" in about and "Where it fails" in about
        assert "of photos in cross-validation" in page.locator("body").inner_text()


def test_the_page_answers_for_200_photos_as_the_notebook_does(browser, served, served_run,
                                                              many_photos):
    own = load_predictor(served_run.folder).predict(many_photos)
    with visit(browser, served) as page:
        for start in range(0, len(many_photos), AT_ONCE):
            # Names repeat between classes, and the order of what was answered is kept.
            upload(page, many_photos[start : start + AT_ONCE])
            page.wait_for_function(
                "() => !document.querySelector('[data-testid=stStatusWidget]')")
            wait_for_answers(page, AT_ONCE)
            table = download(page)
            assert len(table) == AT_ONCE
            found = table.filter(regex="^p_").to_numpy()
            wanted = own.iloc[start : start + AT_ONCE].filter(regex="^p_").to_numpy()
            assert np.abs(found - wanted).max() <= 1e-4
            assert (found.argmax(axis=1) == wanted.argmax(axis=1)).all()
            page.reload()
            page.wait_for_selector("input[type=file]", state="attached")


def encode(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_bad_files_get_a_sentence_each_and_the_page_goes_on(browser, served, tmp_path):
    good = next((PHOTOS / "paper").iterdir()).read_bytes()
    files = {"empty.jpg": b"", "zip.jpg": b"PK\x03\x04" + bytes(99), "cut.jpg": good[:2000],
             "dot.png": encode(Image.new("L", (1, 1))),
             "bomb.png": encode(Image.new("1", (20_000, 20_000))),
             "huge.jpg": good + bytes(21 * 2**20),
             "=../../<b>*x*[y](http://z.org) www.z.org a@z.org.jpg": good}
    said = {"zip.jpg": "not an image", "cut.jpg": "truncated file",
            "dot.png": "too small: 1 x 1 pixels", "bomb.png": "too large"}
    with visit(browser, served) as page:
        upload(page, [{"name": name, "mimeType": "image/jpeg", "buffer": content}
                      for name, content in files.items()])
        wait_for_answers(page, 1)
        alerts = page.locator("[data-testid=stAlert]").all_inner_texts()
        for name, reason in said.items():
            assert any(f"{name} cannot be read: {reason}" in text for text in alerts), name
        marked = page.locator("[aria-invalid=true]")
        assert marked.count() == 1 and "huge.jpg" in marked.get_attribute("aria-label")
        after = page.locator("[data-testid=stFileUploader]").evaluate(
            "element => getComputedStyle(element, '::after').content")
        assert "larger than 20 MB" in after
        assert page.locator("[data-testid=stMain] a").count() == 0, "a name is text, no markup"
        table = download(page)
        assert "huge.jpg" not in table.photo.tolist()
        assert table.photo.iloc[-1].startswith("'=") and table.refused.iloc[-1] == ""


def test_two_visitors_at_once_see_their_own_photos_alone(browser, served, served_run):
    own = load_predictor(served_run.folder)
    names = ["glass", "metal"]
    paths = {name: sorted((PHOTOS / name).iterdir())[:5] for name in names}
    with visit(browser, served) as one, visit(browser, served) as other:
        visitors = dict(zip(names, (one, other), strict=True))
        for name, page in visitors.items():
            upload(page, [{"name": f"{name}-{number}.jpg", "mimeType": "image/jpeg",
                           "buffer": path.read_bytes()}
                          for number, path in enumerate(paths[name])])
        for page in visitors.values():  # both ask why, while the other is answered
            page.locator("label", has_text="Show why").first.click()
        for name, page in visitors.items():
            wait_for_answers(page, 5)
            page.get_by_text("Highlighted: what counted for").wait_for()
            found = download(page)
            assert len(found) == 5 and found.photo.str.startswith(name).all()
            wanted = own.predict(list(map(str, paths[name])))
            assert np.abs(found.filter(regex="^p_").to_numpy()
                          - wanted.filter(regex="^p_").to_numpy()).max() <= 1e-4
            shown = page.locator("[data-testid=stImage] img").first.evaluate(
                "image => [image.naturalWidth, image.naturalHeight]")
            assert shown == list(Image.open(paths[name][0]).size)
        one.get_by_role("button", name="Clear the list").click()
        one.get_by_role("button", name="Download the results (CSV)").wait_for(state="detached")
        assert len(download(other)) == 5


def test_more_files_than_the_page_takes(browser, served, many_photos):
    with visit(browser, served) as page:
        upload(page, many_photos[: AT_ONCE + 5])
        page.get_by_text(f"Only the first {AT_ONCE} photos were processed").wait_for()
        wait_for_answers(page, AT_ONCE)
        assert len(download(page)) == AT_ONCE
        page.get_by_text("Français").click()  # the page runs again, without what it let go of
        page.get_by_role("button", name="Vider la liste").wait_for()
        wait_for_answers(page, AT_ONCE)


def test_photos_of_other_kinds_are_answered_and_shown_upright(browser, served):
    photo = Image.open(next((PHOTOS / "glass").iterdir())).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    large = photo.resize((2048, 1536)).transpose(Image.Transpose.ROTATE_90)
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    with visit(browser, served) as page:
        upload(page, [
            {"name": "turned.jpg", "mimeType": "image/jpeg",
             "buffer": encode(large, "JPEG", exif=turned)},
            {"name": "cmyk.jpg", "mimeType": "image/jpeg",
             "buffer": encode(photo.convert("CMYK"), "JPEG")},
            {"name": "deep.png", "mimeType": "image/png", "buffer": encode(deep)}])
        wait_for_answers(page, 3)
        width, height = page.locator("[data-testid=stImage] img").first.evaluate(
            "image => [image.naturalWidth, image.naturalHeight]")
        assert width > height, "upright, as the model was given it"
        assert (download(page).refused == "").all()


def test_a_model_that_is_saved_anew_is_loaded_anew(browser, served_run):
    page = start_page(served_run.folder)
    names = load_predictor(served_run.folder).classes
    try:
        with visit(browser, page) as visitor:
            upload(visitor, str(next((PHOTOS / "glass").iterdir())))
            wait_for_answers(visitor, 1)
            time.sleep(1.1)  # `saved` is to the second
            save_model(served_run)
            visitor.get_by_text("Français").click()
            visitor.get_by_role("button", name="Vider la liste").wait_for()
            wait_for_answers(visitor, 1)
            found = download(visitor, "Télécharger les résultats (CSV)")
            assert [f"p_{name}" for name in names] == list(found.filter(regex="^p_"))
            assert len(found) == 1
    finally:
        page.stop()


def test_the_limits_of_page_and_server_are_the_same():
    config = tomllib.loads((APP.parent / ".streamlit" / "config.toml").read_text("utf-8"))
    said = re.search(r"FILES, MEGABYTES, PIXELS = (\d+), (\d+)", APP.read_text("utf-8"))
    assert config["server"]["maxUploadSize"] == int(said[2])
    assert config["server"]["address"] == "localhost" and int(said[1]) == AT_ONCE
    assert config["browser"]["gatherUsageStats"] is False


def test_samples_and_french_on_a_phone(browser, served):
    with visit(browser, served, width=390, height=844, locale="fr-FR") as page:
        page.get_by_role("heading", name=re.compile("Que montre la photo")).wait_for()
        page.get_by_text("Exemples").click()
        page.get_by_role("button", name="Photo 2", exact=True).click()
        wait_for_answers(page, 1)
        page.get_by_text(re.compile(r"^Confiance.: \d+,\d.%$")).wait_for()
        page.get_by_text("Son étiquette").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.get_by_text("English").click()
        page.get_by_role("heading", name="What does the photo show?").wait_for()


def test_everything_can_be_reached_by_keyboard(browser, served):
    with visit(browser, served) as page:
        seen = []
        for _ in range(25):
            page.keyboard.press("Tab")
            seen.append(page.evaluate("(document.activeElement.innerText || "
                                      "document.activeElement.ariaLabel || '').trim()"))
            if page.evaluate("document.activeElement.tagName") == "SUMMARY":
                break
        text = "\n".join(seen)
        for name in ("English", "Upload", "About this model"):
            assert name in text, seen
        page.keyboard.press("Enter")
        page.get_by_text("prepared as in training").wait_for()


def test_text_stands_out_from_its_background(browser, served):
    """Contrast of at least 4.5 (WCAG 2.2, AA) for all text that is there."""
    with visit(browser, served) as page:
        upload(page, str(next((PHOTOS / "glass").iterdir())))
        wait_for_answers(page, 1)
        colours = page.evaluate("""() => {
            const found = [];
            const walker = document.createTreeWalker(document.querySelector(
                "[data-testid=stMain]"), NodeFilter.SHOW_TEXT);
            while (walker.nextNode()) {
                const own = walker.currentNode.parentElement, style = getComputedStyle(own);
                if (!walker.currentNode.textContent.trim() || !own.offsetParent
                    || parseFloat(style.fontSize) === 0 || own.getBoundingClientRect().width <= 1
                    || own.closest("[aria-hidden=true]")
                    || own.closest("[data-testid=stIconMaterial], svg, style")) continue;
                let back = own, colour = "rgba(0, 0, 0, 0)";
                while (back && /, 0\\)$/.test(colour)) {
                    colour = getComputedStyle(back).backgroundColor; back = back.parentElement; }
                found.push([walker.currentNode.textContent, style.color,
                            /, 0\\)$/.test(colour) ? "rgb(255, 255, 255)" : colour]);
            }
            return found; }""")
    assert len(colours) > 10
    for text, front, back in colours:
        assert measure_contrast(front, back) >= 4.5, (text, front, back)


def measure_contrast(front: str, back: str) -> float:
    def light(colour, under=(255, 255, 255)):
        *values, alpha = [*map(float, re.findall(r"[\d.]+", colour)), 1.0][:4]
        mixed = np.array(values[:3]) * alpha + np.array(under) * (1 - alpha)
        share = mixed / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    one, other = sorted((light(front), light(back)))
    return (other + 0.05) / (one + 0.05)


def test_without_a_model_the_page_says_how_to_make_one(browser, tmp_path):
    page = start_page(tmp_path / "nothing")
    try:
        visitor = browser.new_page()
        visitor.goto(page.address)
        visitor.get_by_text("There is no model to show yet.").wait_for()
        visitor.locator("[data-testid=stCode]", has_text="make app").wait_for()
        visitor.close()
    finally:
        page.stop()


def test_both_languages_say_the_same():
    for key, text in load_texts().items():
        if key not in ("reasons", "scores"):
            assert set(text) == set(LANGUAGES.values()), key
            fields = [sorted(re.findall(r"{(\w+)}", part)) for part in text.values()]
            assert fields[0] == fields[1], key
    share = say_share("fr", 0.7159)
    assert say("fr", "confidence", share=share) == "Confiance\u00a0: 71,6\u00a0%"
    assert say_reason("fr", "too large: 9 x 9 pixels") == "image trop grande\u00a0: 9 × 9 pixels"
    assert escape("a*b[c](d)\n_e_&lt;") == r"a\*b\[c\]\(d\) \_e\_\&lt;"
