"""Copies: whatever was done to an image, it is found; what only looks like it is not."""

import random
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter

from helpers.data.alignment import OTHER_COLOURS, Transform, compare, fit_and_compare, shrink
from helpers.data.alterations import ALTERATIONS, crop, move
from helpers.data.copies import find_copies, group_copies
from helpers.data.demo import PHOTOS
from helpers.data.images import decode_image
from helpers.data.inspection import forget_inspection, inspect_images
from helpers.data.neighbours import find_neighbours
from helpers.dev.bench_copies import draw_covers
from helpers.recipe import load_recipe
from helpers.run import Run


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """40 photos of different things."""
    files = [path for name in ("paper", "metal", "plastic", "glass")
             for path in sorted((PHOTOS / name).iterdir())[20:30]]
    return [decode_image(path) for path in files]


@pytest.fixture
def search(tmp_path):
    """Return a function that saves images, looks for copies, and returns pairs and groups."""

    def find(images: list[Image.Image], order=None, **changes) -> tuple[pd.DataFrame, np.ndarray]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        rows = []
        for number, image in enumerate(images):
            image.save(folder / f"{number:04d}.png")
            rows.append((f"{number:04d}", str(folder / f"{number:04d}.png"), "x", "train"))
        table = pd.DataFrame(rows, columns=["image_id", "path", "label", "split"])
        if order is not None:
            table = table.iloc[order].reset_index(drop=True)
        run = Run(load_recipe("demo").change(**changes), folder)
        found = inspect_images(table, run)
        pairs = find_copies(found, run)
        groups = group_copies(len(found), pairs)
        forget_inspection(run)
        assert {p.suffix for p in folder.iterdir()} == {".png"}
        return pairs, groups[np.argsort(order)] if order is not None else groups

    return find


@pytest.fixture(scope="module")
def altered(photos) -> tuple[list[Image.Image], np.ndarray, list[str]]:
    """Four altered copies of each kind: images, the numbers of their originals, kinds."""
    chance = random.Random(0)
    chosen = [(kind, number) for kind in ALTERATIONS
              for number in chance.sample(range(len(photos)), 4)]
    return ([ALTERATIONS[kind](photos[number], chance) for kind, number in chosen],
            np.array([number for _, number in chosen]), [kind for kind, _ in chosen])


def test_copies_of_each_kind_are_found_and_nothing_else(photos, altered, search):
    images, originals, kinds = altered
    pairs, groups = search(photos + images)
    found = groups[len(photos) :] == groups[originals]
    missed = [kind for kind, hit in zip(kinds, found, strict=True) if not hit]
    assert len(missed) <= 1, missed
    assert len(set(groups[: len(photos)])) == len(photos)
    assert set(pairs.how[pairs["copy"]]) == {"near", "transformed"}
    # Thumbnails alone find only what they are there for.
    without = search(photos + images, transformed_copies=False)[1]
    lost = without[len(photos) :] != without[originals]
    assert {kind for kind, gone in zip(kinds, lost, strict=True) if gone} >= {
        "upside down", "quarter turn", "rotated", "cropped", "augmented"}


def test_what_is_found_does_not_depend_on_the_order_of_the_files(photos, altered, search):
    images = photos + altered[0][16:]
    order = np.random.default_rng(3).permutation(len(images))
    columns = ["first_id", "second_id", "how", "copy", "correlation", "points", "transform"]
    one, other = (search(images, order=rows)[0][columns] for rows in (None, order))
    pd.testing.assert_frame_equal(one, other)


def test_a_shared_logo_or_frame_joins_nothing(photos, search):
    """A shop's whole catalogue would be one group."""
    marked = []
    for photo in photos:
        page = np.asarray(photo).copy()
        cv2.circle(page, (50, 50), 34, (220, 20, 20), -1)
        cv2.putText(page, "SHOP", (24, 57), cv2.FONT_HERSHEY_TRIPLEX, 0.6, (255, 255, 255), 1)
        cv2.rectangle(page, (2, 2), (page.shape[1] - 3, page.shape[0] - 3), (10, 60, 10), 5)
        marked.append(Image.fromarray(page))
    turned = [move(image, "black", turn=25) for image in marked[:6]]
    _, groups = search(marked + turned)
    assert len(set(groups[: len(marked)])) == len(marked)
    assert (groups[len(marked) :] == groups[:6]).all()


def test_parts_of_printed_covers_are_found_among_many_that_share_their_letters(photos, search):
    chance, covers = random.Random(0), draw_covers(photos)
    cut = [crop(cover, chance) for cover in covers]
    _, groups = search(covers + cut)
    assert len(set(groups[: len(covers)])) == len(covers)
    assert (groups[len(covers) :] == groups[: len(covers)]).mean() >= 0.95


def test_one_edge_alone_proves_no_copy(search):
    """Two sheets of different stuff, each with one edge on a table, lie alike in every part."""
    rng, sheets = np.random.default_rng(0), []
    for colour, corner in (((40, 44, 70), 150), ((170, 130, 70), 130), ((60, 90, 60), 175)):
        sheet = np.full((240, 300, 3), 235, np.float32)
        corners = np.array([[0, 0], [240, 0], [corner, 300], [0, 300]])
        cv2.fillPoly(sheet, [corners], colour, cv2.LINE_AA)
        sheet += rng.normal(0, 4, sheet.shape)
        sheets.append(Image.fromarray(sheet.clip(0, 255).astype(np.uint8)))
    assert len(set(search(sheets, copy_colours="any")[1])) == len(sheets)


def test_bright_copies_whose_colours_burn_out_are_no_other_products(photos):
    same, covers = Transform(np.array([[1.0, 0, 0], [0, 1, 0]]), False), draw_covers(photos)
    found = [compare(shrink(cover), shrink(ImageEnhance.Brightness(cover).enhance(1.4)), same)
             for cover in covers]
    assert sum(agreement.recoloured for agreement in found) <= 0.05 * len(covers)


def test_print_and_patterns_that_repeat_themselves_join_nothing(search):
    chance, words = random.Random(0), ["light", "paper", "river", "house", "stone", "winter"]
    pages = []
    for _ in range(12):
        page = np.full((460, 340, 3), 250, np.uint8)
        for line in range(30, 440, 15):
            text = " ".join(chance.choice(words) for _ in range(7))
            cv2.putText(page, text, (12, line), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (20, 20, 20), 1,
                        cv2.LINE_AA)
        pages.append(Image.fromarray(page))
    rng = np.random.default_rng(0)
    for petals in range(5, 11):  # a field of flowers, each time strewn in another way
        field = np.full((300, 300, 3), (40, 90, 30), np.uint8)
        for x, y in rng.integers(0, 300, (60, 2)).tolist():
            for petal in range(petals):
                cv2.ellipse(field, (x, y), (14, 5), petal * 360 / petals, 0, 360, (230, 190, 20),
                            -1, cv2.LINE_AA)
            cv2.circle(field, (x, y), 5, (90, 50, 10), -1, cv2.LINE_AA)
        pages.append(Image.fromarray(field))
    turned = [move(page, "repeated", turn=20) for page in pages]
    _, groups = search(pages + turned)
    assert len(set(groups[: len(pages)])) == len(pages)
    assert (groups[len(pages) :] == groups[: len(pages)]).mean() > 0.8


def test_another_colour_is_another_product_unless_the_recipe_says_otherwise(search):
    rng = np.random.default_rng(5)
    label = cv2.resize(rng.integers(0, 255, (12, 12), dtype=np.uint8), (110, 110))

    def draw(colour):
        page = np.full((200, 260, 3), (225, 222, 215), np.uint8)
        cv2.circle(page, (130, 100), 80, colour, -1, cv2.LINE_AA)
        inner = page[45:155, 75:185].astype(float) * (0.6 + 0.4 * label[..., None] / 255)
        page[45:155, 75:185] = inner.astype(np.uint8)
        return Image.fromarray(page)

    red, green = draw((200, 60, 50)), draw((75, 115, 60))
    for other in (green, move(green, "repeated", turn=20)):
        pairs, groups = search([red, other])
        assert groups[0] != groups[1]
        assert len(pairs) == 1 and not pairs["copy"][0]  # shown as what it is:
        assert pairs.colours[0] >= OTHER_COLOURS
        assert len(set(search([red, other], copy_colours="any")[1])) == 1
    warmer = Image.fromarray((np.asarray(red) * (1, 0.9, 0.75)).astype(np.uint8))
    darker = ImageEnhance.Brightness(red).enhance(0.7)
    for same in (warmer, darker, red.convert("L").convert("RGB")):
        assert len(set(search([red, same])[1])) == 1


def test_images_that_show_nothing_and_data_too_small_to_learn_from(photos, search):
    blank = [Image.new("RGB", size, grey) for size, grey in (
        ((200, 150), "white"), ((200, 150), "black"), ((1, 1), "red"), ((300, 2), "grey"))]
    blurred = [photo.filter(ImageFilter.GaussianBlur(30)) for photo in photos[:3]]
    _, groups = search([*blank, *blurred, *photos[:3]])
    assert len(set(groups)) == 10
    assert len(set(search(photos[:1])[1])) == 1
    turned = photos[0].transpose(Image.Transpose.ROTATE_90)
    assert len(set(search([photos[0], turned])[1])) == 1


def test_a_hundred_copies_of_one_image_are_one_group(photos, search):
    chance = random.Random(2)
    copies = [ALTERATIONS["rotated"](photos[2], chance) for _ in range(100)]
    pairs, groups = search([photos[2], *copies, *photos[5:8]])
    assert (groups[:101] == groups[0]).sum() >= 100 and len(set(groups[101:])) == 3
    assert len(pairs) < 101 * 24  # not each with each


def test_a_transform_is_said_in_words(photos):
    photo = photos[0]
    wide, high = photo.size
    middle = np.array([wide, high]) / max(wide, high) / 2

    def turn(degrees, zoom=1.0, mirrored=False):
        angle = np.radians(degrees)
        matrix = zoom * np.array([[np.cos(angle), -np.sin(angle)],
                                  [np.sin(angle), np.cos(angle)]])
        return Transform(np.c_[matrix, middle - matrix @ middle], mirrored).describe(
            photo.size, photo.size)

    assert turn(0) == "the same framing"
    assert turn(31) == "turned by 31 degrees to the right"
    assert turn(-90, mirrored=True) == "mirrored, turned by 90 degrees to the left"
    assert turn(180, 1.2) == "turned by 180 degrees, zoomed to 120%"


def test_the_way_back_undoes_a_transform():
    first, second = (200, 100), (150, 150)
    there = Transform(np.array([[0.6, 0.5, 0.1], [-0.5, 0.7, 0.2]]), True)
    back = there.invert(first, second)
    flips = [np.array([[-1, 0, size[0] / max(size)], [0, 1, 0], [0, 0, 1]])
             for size in (first, second)]
    whole, again = (np.vstack([way.matrix, (0, 0, 1)]) @ flip
                    for way, flip in zip((there, back), flips, strict=True))
    np.testing.assert_allclose(again @ whole, np.eye(3), atol=1e-12)
    assert back.mirrored and back.plausible


def test_a_thousand_copies_of_one_image_do_not_hide_those_of_others():
    rng = np.random.default_rng(0)
    single = rng.normal(size=(1000, 40))
    crowd = rng.normal(size=40) + 0.5 * rng.normal(size=(900, 40))
    single[500:550] = single[:50] + 0.5 * rng.normal(size=(50, 40))
    order = rng.permutation(1900)
    vectors = np.concatenate([single, crowd])[order].astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    firsts, seconds, *_ = find_neighbours(vectors, [vectors, vectors], -1.1, 8)
    found, place = set(zip(firsts.tolist(), seconds.tolist(), strict=True)), np.argsort(order)
    pairs = [tuple(sorted(place[[n, 500 + n]].tolist())) for n in range(50)]
    assert len(found & set(pairs)) >= 48


def test_a_transform_that_collapses_an_image_is_not_plausible():
    for matrix in ([[0, 0, 0.5], [0, 0, 0.5]], [[1, 0, 0], [0, 0.1, 0]], [[9, 0, 0], [0, 9, 0]],
                   [[-1, 0, 1], [0, 1, 0]]):
        assert not Transform(np.array(matrix, float), False).plausible
    assert Transform(np.array([[0.8, 0.3, 0], [-0.3, 0.8, 0.1]]), True).plausible


def test_the_known_transform_fits_best(photos):
    photo = photos[2]
    cut = crop(photo, random.Random(1))
    one = Transform(np.array([[1.0, 0, 0], [0, 1, 0]]), False)
    assert compare(shrink(photo), shrink(photo), one).details == pytest.approx(1, abs=1e-3)
    assert not compare(shrink(photo), shrink(cut), one).details > 0.5
    near = Transform(np.array([[1.02, 0, -0.01], [0, 1.02, -0.01]]), False)
    refined, agreement = fit_and_compare(shrink(photo), shrink(photo), near)
    assert agreement.details > 0.95 and np.abs(refined.matrix - one.matrix).max() < 0.01


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 400), st.integers(0, 10**6), st.booleans())
def test_neighbours_are_those_of_the_whole_comparison(count, seed, smooth):
    rng = np.random.default_rng(seed)
    rough = rng.normal(size=(count, 8)) @ rng.normal(size=(8, 144))
    plain = rough + 0.3 * rng.normal(size=rough.shape)
    plain = (plain / np.linalg.norm(plain, axis=1, keepdims=True)).astype(np.float32)
    mirrored = plain.reshape(-1, 12, 12)[:, :, ::-1].reshape(plain.shape)
    firsts, seconds, likeness, ways = find_neighbours(plain, [plain, mirrored], 0.7, 400,
                                                      smooth)
    scores = np.maximum(plain @ plain.T, mirrored @ plain.T)
    expected = np.argwhere(np.triu(scores >= 0.7, 1))
    # Rounding decides about those on the border.
    sure = expected[scores[tuple(expected.T)] > 0.7001]
    found = set(zip(firsts.tolist(), seconds.tolist(), strict=True))
    assert set(map(tuple, sure.tolist())) <= found <= set(map(tuple, np.argwhere(
        np.triu(scores >= 0.6999, 1)).tolist()))
    np.testing.assert_allclose(likeness, scores[firsts, seconds], atol=1e-4)
    assert set(ways.tolist()) <= {0, 1}


def test_keypoints_that_were_lost_are_found_again(photos, tmp_path):
    """As on a new Colab machine, where only what Drive kept is left."""
    for number, photo in enumerate(photos[:20]):
        photo.save(tmp_path / f"{number}.png")
    table = pd.DataFrame({"image_id": map(str, range(20)), "label": "x", "split": "train",
                          "path": [str(tmp_path / f"{number}.png") for number in range(20)]})
    (tmp_path / "run").mkdir()
    run = Run(load_recipe("demo"), tmp_path / "run")
    once = find_copies(inspect_images(table, run), run)
    kept = Path(run.folder / "keypoints.shards")
    next(iter(sorted(kept.glob("*.npz")))).unlink()
    pd.testing.assert_frame_equal(once, find_copies(inspect_images(table, run), run))
