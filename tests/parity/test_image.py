"""Pixels against diffusers' own image processor."""

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor

from triptych.picture.pixels import to_pixels


def test_pixels_are_those_of_diffusers():
    random = np.random.default_rng(0)
    sample = (0.7 * random.standard_normal((3, 96, 160))).astype(np.float32)
    # Every edge between two values, and what lies beyond the ends.
    sample[0].ravel()[:1024] = np.arange(1024) / 510 - 1
    (expected,) = VaeImageProcessor().postprocess(torch.from_numpy(sample)[None], "pil")
    assert np.array_equal(to_pixels(sample), np.asarray(expected))
