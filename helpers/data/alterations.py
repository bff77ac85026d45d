"""Alterations: what is done to images before a data set is shared, so that copies look new.

The demo plants some, and the bench and the tests measure how many of each kind are found.
"""

import math
import random
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

EDGES = {"black": cv2.BORDER_CONSTANT, "repeated": cv2.BORDER_REPLICATE,
         "reflected": cv2.BORDER_REFLECT_101}  # what is put where the original ends


def move(image: Image.Image, edges: str, turn: float = 0, right: float = 0, down: float = 0,
         shear: float = 0, wide: float = 1, high: float = 1) -> Image.Image:
    """Turn, shear, scale and shift an image about its middle; its size stays.

    Args:
        edges: one of EDGES.
        turn, shear: degrees.
        right, down: shares of width and height.
        wide, high: factors.
    """
    angle, slope = math.radians(turn), math.tan(math.radians(shear))
    turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turned @ np.array([[1, slope], [0, 1]]) @ np.diag([wide, high])
    middle = np.array(image.size) / 2
    offset = middle - matrix @ middle + (right * image.width, down * image.height)
    return Image.fromarray(cv2.warpAffine(np.asarray(image), np.c_[matrix, offset], image.size,
                                          borderMode=EDGES[edges]))


def brighten(image: Image.Image, chance: random.Random) -> Image.Image:
    """Make it darker or brighter, by 0.6 to 1.4."""
    return ImageEnhance.Brightness(image).enhance(chance.uniform(0.6, 1.4))


def rotate(image: Image.Image, chance: random.Random) -> Image.Image:
    """Turn it by 8 to 40 degrees either way."""
    return move(image, chance.choice(list(EDGES)), turn=chance.uniform(8, 40) * chance.choice(
        [-1, 1]))


def shift(image: Image.Image, chance: random.Random) -> Image.Image:
    """Shift it by up to 20 % either way, and up or down."""
    return move(image, chance.choice(list(EDGES)), right=chance.uniform(-0.2, 0.2),
                down=chance.uniform(-0.2, 0.2))


def zoom(image: Image.Image, chance: random.Random) -> Image.Image:
    """Zoom by 0.8 to 1.2."""
    factor = chance.uniform(0.8, 1.2)
    return move(image, chance.choice(list(EDGES)), wide=factor, high=factor)


def crop(image: Image.Image, chance: random.Random) -> Image.Image:
    """Take 30 % off its width and its height, anywhere."""
    width, height = (round(0.7 * side) for side in image.size)
    left, top = chance.randint(0, image.width - width), chance.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def augment(image: Image.Image, chance: random.Random) -> Image.Image:
    """Change all of it together, as training pipelines do, edges repeated."""
    image = move(ImageOps.mirror(image) if chance.random() < 0.5 else image, "repeated",
                 turn=chance.uniform(-40, 40), right=chance.uniform(-0.2, 0.2),
                 down=chance.uniform(-0.2, 0.2), shear=chance.uniform(-12, 12),
                 wide=chance.uniform(0.8, 1.2), high=chance.uniform(0.8, 1.2))
    return brighten(image, chance)


def turn_quarter(image: Image.Image, chance: random.Random) -> Image.Image:
    """Turn it by 90 degrees either way."""
    return image.transpose(chance.choice([Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270]))


ALTERATIONS: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "brightened": brighten,
    "mirrored": lambda image, _: ImageOps.mirror(image),
    "upside down": lambda image, _: image.transpose(Image.Transpose.ROTATE_180),
    "quarter turn": turn_quarter,
    "rotated": rotate,
    "shifted": shift,
    "zoomed": zoom,
    "cropped": crop,
    "augmented": augment,
}
