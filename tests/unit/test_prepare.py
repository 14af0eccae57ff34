"""What is made of a request's pictures, against what diffusers' image processor gave."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from picture_cases import CASES, DRAWN, pictures
from test_denoising import SETTINGS

from triptych.picture.prepare import prepare, put_back

FIXTURE = Path(__file__).parents[1] / "fixtures" / "pictures.npz"


def file_of(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("number", range(len(CASES)))
def test_samples_masks_and_overlays_are_those_of_diffusers(number):
    case = CASES[number]
    settings = dataclasses.replace(
        SETTINGS,
        width=case.size[0],
        height=case.size[1],
        strength=1.0,
        mask_blur=case.mask_blur,
        padding_mask_crop=case.padding,
    )
    image, mask = map(file_of, pictures(case))
    prepared = prepare(settings, image, mask, 8)
    with np.load(FIXTURE) as fixture:
        expected = {name: fixture[f"{name}_{number}"] for name in ("sample", "mask")}
        over = fixture[f"over_{number}"] if case.padding is not None else None
    np.testing.assert_array_equal(np.rint((prepared.sample + 1) * 127.5), expected["sample"])
    np.testing.assert_array_equal(prepared.mask, expected["mask"])
    kept = np.abs(prepared.masked_sample - prepared.sample) < 1e-6
    assert (kept | (prepared.masked_sample == 0)).all() and not kept.all()
    if case.padding is not None:
        drawn = np.asarray(DRAWN.resize(case.size))
        np.testing.assert_array_equal(put_back(drawn, settings, image, mask), over)


def test_a_mask_of_another_size_is_fitted_to_the_picture():
    settings = dataclasses.replace(SETTINGS, width=32, height=24, strength=1.0)
    picture, mask = pictures(CASES[0])
    same, other = (
        prepare(settings, file_of(picture), file_of(one), 8)
        for one in (mask, mask.resize((64, 48)))
    )
    np.testing.assert_array_equal(other.mask, same.mask)

    cropped = dataclasses.replace(settings, padding_mask_crop=2)
    files = file_of(picture), file_of(mask.resize((64, 48)))
    drawn = np.full((24, 32, 3), 7, np.uint8)
    over = put_back(drawn, cropped, *files)
    assert over.shape == (24, 32, 3)
    assert np.abs(over[6:13, 6:17].astype(int) - 7).max() < 9
    np.testing.assert_array_equal(over[19:], np.asarray(picture)[19:])
