"""Shoot page: the README's picture of the web page, on a desktop and on a phone.

    python -m helpers.dev.shoot_page --run outputs/demo --photo data/demo/photos/glass/0001.jpg

after notebook 11; needs Chromium and playwright.
"""

import argparse
import io
import os
import re
import shutil
from pathlib import Path

from PIL import Image

from helpers.files import ROOT, write_whole
from helpers.serving.launch import start_page

TARGET = ROOT / "notebooks" / "page.jpg"
HEIGHT, GAP = 760, 24  # pixels of the picture, and between its parts
WINDOWS = {(980, 1240): "en-US", (390, 1240): "fr-FR"}


def shoot_page(run: str, photo: Path, target: Path = TARGET) -> None:
    """Write a picture of the page that has answered for a photo, in two widths."""
    from playwright.sync_api import sync_playwright

    browser = os.environ.get("SUITE_BROWSER") or shutil.which("chromium")
    page, shots = start_page(run), []
    try:
        with sync_playwright() as play:
            chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            for (width, height), locale in WINDOWS.items():
                context = chromium.new_context(viewport={"width": width, "height": height},
                                               locale=locale)
                visitor = context.new_page()
                visitor.goto(page.address)
                visitor.locator("input[type=file]").set_input_files(photo)
                visitor.wait_for_selector("[data-testid=stVegaLiteChart]")
                visitor.get_by_text(re.compile("Show why|Voir pourquoi")).first.click()
                visitor.get_by_text("Grad-CAM").first.wait_for()
                visitor.wait_for_timeout(2_000)  # until all pictures are drawn
                shots.append(Image.open(io.BytesIO(visitor.screenshot())).convert("RGB"))
    finally:
        page.stop()
    shots = [shot.resize((round(shot.width * HEIGHT / shot.height), HEIGHT),
                         Image.Resampling.LANCZOS) for shot in shots]
    width = sum(shot.width for shot in shots) + GAP * (len(shots) + 1)
    picture, left = Image.new("RGB", (width, HEIGHT + 2 * GAP), "#d5dbe1"), GAP
    for shot in shots:
        picture.paste(shot, (left, GAP))
        left += shot.width + GAP
    with write_whole(target) as temporary:
        picture.save(temporary, quality=85)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m helpers.dev.shoot_page")
    parser.add_argument("--run", default="outputs/demo")
    parser.add_argument("--photo", type=Path, required=True)
    options = parser.parse_args()
    shoot_page(options.run, options.photo)
