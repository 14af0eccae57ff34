"""PNG files, read by Pillow."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from triptych.picture import png as module


@pytest.fixture(params=["fpng", "Pillow"])
def png(request, monkeypatch):
    """The module, with what writes the files."""
    if request.param == "Pillow":
        monkeypatch.setattr(module, "fpng", None)
    else:
        assert module.fpng is not None
    return module


SIZES = ((1, 1), (8, 3), (3, 8), (64, 65), (256, 256), (300, 500))


def pictures():
    random = np.random.RandomState(0)
    for height, width in SIZES:
        noise = random.randint(0, 256, (height, width, 3)).astype(np.uint8)
        yield from (noise, noise * 0, noise * 0 + 255, noise[::-1], noise.transpose(1, 0, 2))
    ramp = np.add.outer(np.arange(256), np.arange(256))
    yield np.stack([ramp // 2, ramp // 4, 255 - ramp // 2], axis=-1).astype(np.uint8)


def size(pixels):
    return "{}x{}".format(*pixels.shape)


@pytest.mark.parametrize("pixels", list(pictures()), ids=size)
def test_it_is_read_as_it_was(png, pixels):
    file = io.BytesIO(png.write(pixels, PngInfo()))
    Image.open(file).verify()
    picture = Image.open(file)
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_texts_are_read_as_they_were(png):
    info = PngInfo()
    info.add_text("prompt", "a red circle\non blue")
    info.add_itxt("negative_prompt", "模糊")
    picture = Image.open(io.BytesIO(png.write(np.zeros((8, 8, 3), np.uint8), info)))
    assert picture.info == {"prompt": "a red circle\non blue", "negative_prompt": "模糊"}


def test_files_are_little_larger_than_pillow_s_where_there_is_grain(png):
    grain = np.random.RandomState(0).normal(128, 3, (256, 256, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grain).save(file, "PNG")
    assert len(png.write(grain, PngInfo())) < 1.17 * len(file.getvalue())


def test_grain_takes_no_more_bytes_than_it_has(png):
    grain = np.random.RandomState(0).randint(0, 256, (256, 256, 3)).astype(np.uint8)
    assert len(png.write(grain, PngInfo())) < 1.01 * grain.nbytes
