"""A picture as a regression: where its pixels lie, that all of them are trained on, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from issgd_cli.datasets import image, prepare, prepared
from issgd_cli.errors import DataError

HEIGHT, WIDTH = 5, 8
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def saved(path: Path, colours: NDArray[np.generic] = COLOURS, mode: str = "RGB") -> Path:
    Image.fromarray(colours).convert(mode).save(path)
    return path


def painted(split: prepared.Split, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """The picture of these examples, each where its place says."""
    found = np.zeros((height, width, 3), np.uint8)
    places = np.rint((np.asarray(split.inputs) + 1) / 2 * [max(1, height - 1), max(1, width - 1)]).astype(int)
    found[places[:, 0], places[:, 1]] = np.rint((np.asarray(split.targets) + 1) * 127.5)
    return found


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.3, 0.8])
def test_all_pixels_are_trained_on_and_tested_and_some_are_valid(tmp_path: Path, fraction: float) -> None:
    source = saved(tmp_path / "my.png")
    data = prepared.load(prepare("image", tmp_path / "data", source=source, validation_fraction=fraction))
    assert (data.shape, data.outputs, data.targets) == ((2,), 3, "numbers")
    assert data.sizes["train"] == data.sizes["test"] == HEIGHT * WIDTH
    total = data.sizes["train"] + data.sizes["valid"]
    assert data.sizes["valid"] == np.ceil(round(fraction * total, 9))
    for name in ("train", "test"):
        np.testing.assert_array_equal(painted(data.splits[name]), COLOURS)
    whole = {bytes(place): colour.tolist() for place, colour in zip(*examples(data.splits["train"]), strict=True)}
    for place, colour in zip(*examples(data.splits["valid"]), strict=True):
        assert whole[bytes(place)] == colour.tolist()
    if 0 < fraction < 0.5:
        assert len({bytes(place) for place in examples(data.splits["valid"])[0]}) == data.sizes["valid"]


def examples(split: prepared.Split) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.array(split.inputs), np.array(split.targets)


def test_places_and_colours_are_from_minus_1_to_1_and_stay_so(tmp_path: Path) -> None:
    colours = np.zeros((3, 2, 3), np.uint8)
    colours[0, 1] = [255, 51, 0]
    data = prepared.load(prepare("image", tmp_path / "data", source=saved(tmp_path / "my.png", colours)))
    found = dict(
        zip(map(tuple, data.splits["test"].inputs.tolist()), data.splits["test"].targets.tolist(), strict=True)
    )
    assert set(found) == {(row, column) for row in (-1, 0, 1) for column in (-1, 1)}
    assert found[-1, 1] == pytest.approx([1, -0.6, -1])
    assert not data.mean.any()
    assert (data.std == 1).all()
    assert json.loads((data.directory / "picture.json").read_text()) == {"height": 3, "width": 2}


def test_a_single_pixel_is_a_picture(tmp_path: Path) -> None:
    data = prepared.load(prepare("image", tmp_path / "data", source=saved(tmp_path / "my.png", COLOURS[:1, :1])))
    assert data.splits["train"].inputs.tolist() == [[-1, -1]]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA"])
def test_other_kinds_of_pixels_become_red_green_and_blue(tmp_path: Path, mode: str) -> None:
    source = saved(tmp_path / "my.png", mode=mode)
    found = image.picture(source)
    np.testing.assert_array_equal(found, np.array(Image.open(source).convert("RGB")))
    assert found.shape == COLOURS.shape


def test_another_picture_is_made_anew(tmp_path: Path) -> None:
    one = prepared.load(prepare("image", tmp_path / "data", source=saved(tmp_path / "one.png"))).fingerprint
    again = prepared.load(prepare("image", tmp_path / "data", source=tmp_path / "one.png")).fingerprint
    other = saved(tmp_path / "two.png", COLOURS[::-1].copy())
    assert prepared.load(prepare("image", tmp_path / "data", source=other)).fingerprint != one == again


@pytest.mark.parametrize("count", [1, 7, 40, 262_144])
@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.1, 1 / 3, 0.9])
def test_as_many_are_left_for_training_as_there_are_pixels(count: int, fraction: float) -> None:
    from issgd_cli.datasets.writing import valid_count

    total = image.total_for(count, fraction)
    assert total - valid_count(total, fraction) == count


def test_what_is_no_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(match: str, source: Path | None) -> None:
        with pytest.raises(DataError, match=match):
            prepare("image", tmp_path / "data", source=source)

    refused("a picture of your own. Name its file", None)
    refused("is a folder", tmp_path)
    (tmp_path / "text.png").write_text("hello")
    refused(r"text\.png cannot be read as a picture", tmp_path / "text.png")
    whole = saved(tmp_path / "whole.png").read_bytes()
    for cut in (10, 40, len(whole) // 2):
        (tmp_path / "cut.png").write_bytes(whole[:cut])
        refused(r"cut\.png cannot be read as a picture", tmp_path / "cut.png")
    Image.fromarray(COLOURS[:, :, 0].astype(np.uint16) * 256).save(tmp_path / "deep.png")
    refused(r"has pixels of the kind I;16", tmp_path / "deep.png")
    monkeypatch.setattr(image, "MOST_PIXELS", 39)
    refused("has 40 pixels. Make it 39 at most", tmp_path / "whole.png")
    with pytest.raises(DataError, match="`size` is for generated data"):
        prepare("image", tmp_path / "data", source=tmp_path / "whole.png", size=5)
