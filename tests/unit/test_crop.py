"""Pictures cut and filled to a shape, also those that are much longer than wide."""

import numpy as np
import pytest
from PIL import Image

from triptych.picture import crop

SIZES = [(64, 64), (100, 72), (64, 200), (37, 91), (300, 24)]


def grain(size):
    pixels = np.random.RandomState(0).randint(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def smooth(size):
    return grain((6, 6)).resize(size, Image.BICUBIC)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("own", SIZES)
def test_a_picture_that_is_only_scaled_where_it_is_seen_is_nearly_the_same(own, size, monkeypatch):
    whole = np.asarray(crop.cover(smooth(own), size), int)
    monkeypatch.setattr(crop, "MOST_SCALED", 0)
    seen = np.asarray(crop.cover(smooth(own), size), int)
    assert seen.shape == whole.shape
    assert np.abs(seen - whole).mean() < 1


def test_no_more_is_scaled_than_is_seen(monkeypatch):
    scaled, resize = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda *a, **b: scaled.append(a[1]) or resize(*a, **b)
    )
    assert crop.cover(Image.new("RGB", (64, 64)), (4, 60000)).size == (4, 60000)
    assert scaled == [(4, 60000)]


@pytest.mark.parametrize("own", [(16, 1200), (1200, 16), (1, 100)])
def test_a_picture_too_thin_for_a_pixel_fills_one(own):
    assert crop.fill(grain(own), (64, 64)).size == (64, 64)
