"""Requests that bring pictures: what is taken, and what is refused before anything is decoded."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from triptych.errors import InvalidRequest
from triptych.limits import Limits
from triptych.picture import reading
from triptych.picture.request import read_request
from triptych.settings import Defaults

DEFAULTS = Defaults(64, 128, 20, 5.0, "pndm")
LIMITS = Limits()


def file_of(mode="RGB", size=(100, 72), kind="PNG", **options):
    pixels = np.random.RandomState(0).randint(0, 255, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def text(file):
    return base64.b64encode(file).decode()


def ask(limits=LIMITS, takes_pictures=True, **values):
    raw = json.dumps({"prompt": "x", **values}).encode()
    return read_request(raw, DEFAULTS, limits, takes_pictures=takes_pictures)


def refused(**values):
    with pytest.raises(InvalidRequest) as error:
        ask(**values)
    assert len(str(error.value)) < 400
    return str(error.value)


PNG = file_of()


def test_a_request_without_a_picture_is_as_ever():
    asked = ask(takes_pictures=False)
    assert asked.image == asked.mask_image == b""
    assert (asked.settings.height, asked.settings.width) == (64, 128)
    assert asked.settings.strength is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_gives_its_size_down_to_the_multiple(kind):
    file = file_of(kind=kind)
    for value in (text(file), f"data:image/{kind.lower()};base64,{text(file)}"):
        asked = ask(image=value)
        assert asked.image == file
        assert (asked.settings.height, asked.settings.width) == (72, 96)
        assert asked.settings.strength == 0.8
    other = ask(image=text(file), height=128, strength=0.5).settings
    assert (other.height, other.width, other.strength) == (128, 96, 0.5)
    assert text(file) not in other.to_json()


def test_base64_may_be_broken_into_lines():
    assert ask(image=base64.encodebytes(PNG).decode()).image == PNG


def test_a_mask_of_any_size():
    mask = file_of("L", (10, 10))
    asked = ask(image=text(PNG), mask_image=text(mask), mask_blur=2, padding_mask_crop=8)
    assert asked.mask_image == mask
    assert asked.settings.strength == 1.0
    assert (asked.settings.mask_blur, asked.settings.padding_mask_crop) == (2.0, 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_turned_picture_is_measured_as_it_is_seen(kind):
    tags = Image.Exif()
    tags[0x0112] = 6
    asked = ask(image=text(file_of(kind=kind, exif=tags)))
    assert (asked.settings.height, asked.settings.width) == (96, 72)
    assert reading.decode("image", asked.image).size == (72, 100)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"strength": 0.5}, "strength: got 0.5; allowed: none without image"),
        ({"mask_image": text(PNG)}, "mask_image: got .*; allowed: none without image"),
        ({"image": text(PNG), "mask_blur": 3}, "mask_blur: got 3; .* none without mask_image"),
        ({"image": text(PNG), "padding_mask_crop": 3}, "padding_mask_crop: .* without mask_image"),
        ({"image": "a.png"}, "image: got 'a.png'; allowed: base64 of a PNG, JPEG or WebP"),
        ({"image": None}, "image: got null; allowed: base64"),
        ({"image": ""}, "image: got ''; allowed: base64"),
        ({"image": "data:image/png,abc"}, "image: got .*; allowed: base64"),
        ({"image": text(b"nothing")}, "image: got b'nothing'; allowed: a PNG, JPEG or WebP file"),
        ({"image": text(PNG[:20])}, "image: got .*; allowed: a PNG, JPEG or WebP file"),
        ({"image": text(PNG), "mask_image": "!"}, "mask_image: got '!'"),
        ({"image": text(PNG), "strength": 1.5}, r"strength: got 1\.5; .* from 0 to 1"),
        ({"image": text(PNG), "strength": 0}, "strength: got 0.0; .* 20 steps"),
        ({"image": text(file_of(kind="GIF"))}, "image: got .*; allowed: a PNG, JPEG or WebP"),
        ({"image": text(file_of(size=(800, 64)))}, "image: got '800x64'; .* no width in the"),
        ({"image": text(file_of(size=(32, 64)))}, "image: got '32x64'; .* no width in the"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(values, message):
    limits = Limits(max_width=768)
    with pytest.raises(InvalidRequest, match=f"^{message}"):
        ask(limits, **values)


def test_a_model_without_an_encoder_refuses_pictures():
    with pytest.raises(InvalidRequest, match=r"^image: got .* this model has no vae_encoder"):
        ask(takes_pictures=False, image=text(PNG))


def test_bytes_and_pixels_are_limited_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    assert "at most 100 bytes" in refused(limits=Limits(max_picture_bytes=100), image=text(PNG))
    limits = Limits(max_picture_pixels=7199)
    assert refused(limits=limits, image=text(PNG)).startswith("image: got '100x72'; allowed: at ")
    assert ask(limits=Limits(max_picture_pixels=7200), image=text(PNG)).image == PNG


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animated_pictures_are_refused(kind):
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    assert "not animated" in refused(image=text(file.getvalue()))


@pytest.mark.parametrize(
    "mode, kind",
    [
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("L", "PNG"),
        ("1", "PNG"),
        ("I;16", "PNG"),
        ("CMYK", "JPEG"),
        ("RGBA", "WEBP"),
    ],
)
def test_every_mode_becomes_rgb_as_pillow_converts_it(mode, kind):
    if mode == "I;16":
        made = io.BytesIO()
        Image.fromarray(np.arange(6400, dtype=np.uint16).reshape(80, 80)).save(made, "PNG")
        file = made.getvalue()
    else:
        file = file_of(mode, kind=kind)
    decoded = reading.decode("image", file)
    assert decoded.mode == "RGB"
    expected = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decoded), expected)


def test_a_damaged_file_is_refused_when_it_is_decoded():
    file = file_of(kind="JPEG")
    damaged = file[: len(file) // 2]
    assert ask(image=text(damaged)).image == damaged
    with pytest.raises(InvalidRequest, match=r"^image: got .* that is whole$"):
        reading.decode("image", damaged)


def test_a_whole_picture_that_its_format_cannot_hold_is_refused():
    wide, mask = text(file_of(size=(16384, 64))), text(file_of(size=(64, 64)))
    asked = {"image": wide, "mask_image": mask, "width": 512, "height": 64}
    allowed = "output_format: got 'webp'; allowed: png, where the whole picture is 16384x64"
    assert refused(**asked, padding_mask_crop=8, output_format="webp") == allowed
    ask(**asked, padding_mask_crop=8)
    ask(**asked, output_format="webp")  # it is drawn as 512x64
