"""Draws the digits of house numbers, one example after the other; see `house_numbers` for what they look like.

First shapes: Pillow draws the digit and its neighbours on a strip and looks at it in perspective. Then light: colours,
clutter and grain, element by element.
"""

import importlib.util
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issgd_cli.errors import DataError
from issgd_cli.randomness import generator

SEED = 2011
VERSION = 1  # of the drawing; raise it whenever examples change, so that prepared folders are made again

# About how often each digit 0-9 stands in SVHN's train and extra. Checked are the sum, 604,388, and that the shares are
# within 2.4 points of those of 10,083 real crops; the single counts are not.
COUNTS = (50_498, 104_421, 85_325, 69_262, 58_091, 60_372, 47_309, 49_592, 40_403, 39_115)

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "DejaVuSansMono"),
    *("DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmb10", "cmr10", "cmss10", "cmtt10", "cmti10", "cmmi10"),
)
WEIGHTS = 4  # stroke widths that a font is drawn in
_CAP = 40  # height of a digit on the strip it is drawn on, before it is seen in perspective
_STRIP = (128, 64)  # width, height


def examples(first: int, count: int, seed: int = SEED) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Examples first..first + count - 1; each depends on its number and the seed alone.

    Returns:
        Images, uint8 (count, 3, 32, 32), and labels, uint8 (count,).
    """
    labels = np.empty(count, np.uint8)
    masks = np.empty((count, 32, 32, 3), np.uint8)
    clutter = np.empty((count, 32, 32), np.uint8)
    grain = np.empty((count, 32, 32), np.float32)
    scenes = np.empty((count, len(_SCENE)), np.float32)
    for position in range(count):
        random = generator(seed, "house_numbers", first + position)
        labels[position], scenes[position], masks[position], clutter[position] = _drawn(random)
        random.standard_normal(out=grain[position], dtype=np.float32)
    return _lit(masks, clutter, grain, scenes), labels


def font_files() -> list[Path]:
    """The fonts to draw with: those that matplotlib carries, found without importing it.

    Raises:
        DataError: matplotlib or one of its fonts is missing.
    """
    package = importlib.util.find_spec("matplotlib")
    if package is None or not package.submodule_search_locations:
        raise DataError("house-numbers is drawn in the fonts of matplotlib, which is not installed. Install it.")
    folder = Path(package.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    files = [folder / f"{font}.ttf" for font in FONTS]
    for path in files:
        if not path.is_file():
            raise DataError(f"house-numbers needs the font {path}, which is missing. Install matplotlib again.")
    return files


@cache
def _glyph(font: int, weight: int, digit: int) -> Any:
    """A digit in a font and stroke width, trimmed to its box and _CAP high: a PIL image of mode L."""
    from PIL import Image, ImageDraw, ImageFont

    typeface = ImageFont.truetype(str(_files()[font]), 56, layout_engine=ImageFont.Layout.BASIC)
    sheet = Image.new("L", (128, 128))
    ImageDraw.Draw(sheet).text((32, 24), str(digit), font=typeface, fill=255, stroke_width=weight)
    box = sheet.getbbox()
    assert box is not None
    width = max(6, round((box[2] - box[0]) * _CAP / (box[3] - box[1])))
    return sheet.crop(box).resize((width, _CAP), Image.Resampling.BILINEAR)


@cache
def _files() -> list[Path]:
    return font_files()


_CUMULATED = np.cumsum(COUNTS) / np.sum(COUNTS)

# The numbers of a scene, one row an example: colours of wall, digit, plate and occluder, light, and grain.
_SCENE = (
    *("wall_r", "wall_g", "wall_b", "digit_r", "digit_g", "digit_b", "plate_r", "plate_g", "plate_b"),
    *("clutter", "light_x", "light_y", "grain"),
)


def _drawn(random: np.random.Generator) -> tuple[int, list[float], Any, Any]:
    """One example's label, scene, masks (digits, plate, occluder; 32x32x3) and clutter (32x32)."""
    from PIL import Image, ImageFilter

    u = random.random(24).tolist()
    z = random.standard_normal(24).tolist()
    label = int(np.searchsorted(_CUMULATED, u[0], side="right"))
    hard = u[1] < 0.09  # the heavy tail: faint, blurred or hidden

    font, weight = int(u[2] * len(FONTS)), int(u[3] ** 1.4 * WEIGHTS)
    strip = Image.new("RGB", _STRIP)
    if u[4] < 0.35:  # a plate, or an edge of the wall: another colour beyond a line
        edge = int(4 + 20 * u[5])
        if u[6] < 0.4:
            strip.paste((0, 255, 0), (0, 0, _STRIP[0], edge - 2))
        if u[6] > 0.3:
            strip.paste((0, 255, 0), (0, _STRIP[1] - edge + 2, _STRIP[0], _STRIP[1]))
        if u[7] < 0.3:
            strip.paste((0, 255, 0), (0, 0, 24 + edge, _STRIP[1]))
        if u[7] > 0.7:
            strip.paste((0, 255, 0), (_STRIP[0] - 24 - edge, 0, _STRIP[0], _STRIP[1]))
    middle = _glyph(font, weight, label)
    left = 64 - middle.width // 2
    gap = int(2 + 5 * u[8])
    ink = (255, 0, 0)
    if u[9] < 0.62:
        neighbour = _glyph(font, weight, int(u[10] * 10))
        strip.paste(ink, (left - gap - neighbour.width, 12 + int(z[0])), neighbour)
    if u[11] < 0.62:
        neighbour = _glyph(font, weight, int(u[12] * 10))
        strip.paste(ink, (left + middle.width + gap, 12 + int(z[1])), neighbour)
    strip.paste(ink, (left, 12), middle)
    if hard and u[13] < 0.4:  # something in front of the digit
        at = int(40 + 48 * u[14])
        if u[15] < 0.5:
            strip.paste((0, 0, 255), (at, 0, at + 6 + int(8 * u[16]), _STRIP[1]))
        else:
            strip.paste((0, 0, 255), (0, at - 32, _STRIP[0], at - 28 + int(8 * u[16])))

    # The crop: each of its 32x32 pixels looks up its place on the strip.
    zoom = _CAP / (32 * (0.95 - 0.25 * u[17]))
    aspect = math.exp(0.2 + 0.22 * z[2])
    turn = 0.07 * z[3]
    slant = 0.10 * z[4]
    a, b = zoom * aspect * math.cos(turn), zoom * (slant + math.sin(turn))
    d, e = -zoom * math.sin(turn), zoom / aspect**0.5 * math.cos(turn)
    g, h = 0.003 * z[5], 0.003 * z[6]
    loose = 2.2 if hard else 1.1
    x, y = 16 + loose * z[7], 16 + loose * z[8]
    scale = 1 - g * x - h * y
    across = (a + 64 * g, b + 64 * h, 64 * scale - a * x - b * y)
    down = (d + 32 * g, e + 32 * h, 32 * scale - d * x - e * y)
    look_up = tuple(value / scale for value in (*across, *down, g, h))
    crop = strip.transform((32, 32), Image.Transform.PERSPECTIVE, look_up, Image.Resampling.BILINEAR)
    blur = 0.5 + 1.1 * u[18] + (1.7 * u[19] if hard else 0.0)
    crop = crop.filter(ImageFilter.GaussianBlur(blur))
    size = (3, 5, 9)[int(3 * u[20])]
    clutter = Image.frombytes("L", (size, size), random.bytes(size * size)).resize((32, 32), Image.Resampling.BICUBIC)

    contrast = (18 + 64 * math.exp(0.48 * z[9])) * (0.6 if hard else 1.0)
    wall = min(235.0, max(18.0, 116 + 52 * z[10]))
    sign = 1.0 if u[21] < 0.5 + 0.45 * math.tanh((118 - wall) / 60) else -1.0
    tint = 4 + 28 * u[22] ** 3
    colours = [wall + tint * z[11 + channel] for channel in range(3)]
    colours += [colour + sign * contrast + tint * z[14 + channel] for channel, colour in enumerate(colours)]
    colours += [colour + 28 * z[17] + 0.7 * tint * z[18 + channel] for channel, colour in enumerate(colours[:3])]
    scene = [*colours, 5 + 36 * u[23] ** 2, 0.10 * z[21], 0.10 * z[22], 1.2 * math.exp(0.5 * z[23])]
    return label, scene, crop, clutter


def _lit(
    masks: NDArray[np.uint8], clutter: NDArray[np.uint8], grain: NDArray[np.float32], scenes: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Images (B, 3, 32, 32) from masks (B, 32, 32, 3), clutter and grain (B, 32, 32) and scenes (B, scene).

    Element by element, in float32: the same bits on every machine, however many examples there are.
    """
    scene = dict(zip(_SCENE, scenes.T[:, :, None, None], strict=True))  # (B, 1, 1) each
    cover = masks.astype(np.float32) / np.float32(255)
    digit, plate, occluder = cover[..., 0], cover[..., 1], cover[..., 2]
    place = (np.arange(32, dtype=np.float32) - np.float32(15.5)) / np.float32(16)
    light = 1 + scene["light_x"] * place + scene["light_y"] * place[:, None]
    rough = (clutter.astype(np.float32) / np.float32(127.5) - 1) * scene["clutter"] + grain * scene["grain"]
    images = np.empty((len(masks), 3, 32, 32), np.uint8)
    for channel, letter in enumerate("rgb"):
        wall, ink, board = (scene[f"{what}_{letter}"] for what in ("wall", "digit", "plate"))
        seen = wall + digit * (ink - wall) + plate * (board - wall)
        seen += occluder * (board - seen)
        seen = seen * light + rough
        images[:, channel] = np.clip(np.rint(seen), 0, 255)
    return images
