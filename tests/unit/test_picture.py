import base64
import dataclasses
import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from triptych.errors import InvalidRequest, NotFinite
from triptych.picture.encode import encode, encode_base64
from triptych.picture.metadata import read_settings
from triptych.picture.pixels import to_pixels
from triptych.second_pass import SecondPass
from triptych.settings import OUTPUT_FORMATS, Settings

SETTINGS = Settings(
    prompt="a red circle",
    negative_prompt="",
    num_inference_steps=20,
    guidance_scale=7.5,
    seed=2**64 - 1,
    height=48,
    width=64,
    scheduler="dpmpp_2m_karras",
    output_format="png",
    warnings=("prompt is longer than 77 tokens; cut off: 'é 🦊'",),
)


def smooth(height=48, width=64):
    """A picture from -1 to 1 without edges, so that JPEG and WebP keep it nearly as it is."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / 20), np.cos(y / 15), np.sin((x + y) / 25)]
    return np.stack(waves).astype(np.float32)


def opened(file):
    picture = Image.open(io.BytesIO(file))
    picture.load()
    return picture


def test_pixels_are_rounded_and_clamped_as_by_diffusers():
    values = np.array([-np.float32(3e38), -1.5, -1, -0.9961, -0.5, 0, 0.00392, 0.5, 1, 1.5, 3e38])
    sample = np.broadcast_to(values.astype(np.float32), (3, 2, len(values)))
    pixels = to_pixels(sample)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (2, len(values), 3)
    # 127.5 is 128 and 0.49725 is 0: half to even, as NumPy's round.
    assert pixels[0, :, 0].tolist() == [0, 0, 0, 0, 64, 128, 128, 191, 255, 255, 255]


def test_every_pixel_value_is_kept():
    exact = np.arange(256, dtype=np.float32).reshape(1, 16, 16) / 255 * 2 - 1
    pixels = to_pixels(np.concatenate([exact, -exact, exact]))
    assert pixels[..., 0].ravel().tolist() == list(range(256))
    assert pixels[..., 1].ravel().tolist() == list(range(255, -1, -1))


def test_a_png_is_the_pixels():
    sample = smooth()
    picture = opened(encode(sample, SETTINGS))
    assert picture.format == "PNG"
    assert np.array_equal(np.asarray(picture), to_pixels(sample))


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_the_other_formats_come_near_to_the_pixels(output_format):
    sample = smooth()
    settings = dataclasses.replace(SETTINGS, output_format=output_format)
    picture = opened(encode(sample, settings))
    assert picture.format == output_format.upper()
    assert picture.size == (64, 48)
    difference = np.asarray(picture, float) - to_pixels(sample)
    assert 10 * np.log10(255**2 / np.mean(difference**2)) > 35


def test_the_output_is_the_base64_of_the_file():
    sample = smooth()
    file = encode(sample, SETTINGS)
    assert base64.b64decode(encode_base64(sample, SETTINGS), validate=True) == file


def test_the_same_image_is_the_same_file():
    assert encode(smooth(), SETTINGS) == encode(smooth(), SETTINGS)


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_a_deadline_leaves_no_mark_on_the_file(output_format):
    usual = dataclasses.replace(SETTINGS, output_format=output_format)
    hurried = dataclasses.replace(usual, deadline=12345.5)
    assert encode(smooth(), hurried) == encode(smooth(), usual)
    assert read_settings(encode(smooth(), hurried)).deadline is None


def test_a_png_tells_its_settings_in_text_chunks_that_any_program_shows():
    settings = dataclasses.replace(SETTINGS, prompt="ein Fuß", negative_prompt="狐")
    texts = opened(encode(smooth(), settings)).text
    assert texts["prompt"] == "ein Fuß"
    assert texts["negative_prompt"] == "狐"
    assert texts["seed"] == "18446744073709551615"
    assert texts["guidance_scale"] == "7.5"
    assert texts["scheduler"] == "dpmpp_2m_karras"
    assert "🦊" in texts["warnings"]
    assert "model" not in texts and "Model" not in texts["parameters"]
    named = opened(encode(smooth(), dataclasses.replace(settings, model="ink"))).text
    assert named["model"] == "ink" and "Model: ink" in named["parameters"]


@given(
    prompt=st.text(min_size=1, max_size=60).filter(lambda text: text.strip() and "\0" not in text),
    negative_prompt=st.text(max_size=60).filter(lambda text: "\0" not in text),
    seed=st.integers(0, 2**64 - 1),
    guidance_scale=st.floats(0, 50),
    output_format=st.sampled_from(OUTPUT_FORMATS),
    timestep_spacing=st.sampled_from([None, "trailing"]),
    eta=st.none() | st.floats(0, 1),
    prompt_syntax=st.sampled_from([None, "webui"]),
    clip_skip=st.sampled_from([None, 2]),
    guidance_rescale=st.sampled_from([None, 0.7]),
    guidance_start=st.sampled_from([None, 0.0, 0.2]),
    guidance_stop=st.sampled_from([None, 0.5]),
    cache_interval=st.sampled_from([None, 3]),
    second_pass=st.sampled_from([None, SecondPass(640, 128, 0.25, 8, "nearest")]),
    model=st.sampled_from([None, "ink"]),
    warnings=st.lists(st.text(max_size=30).filter(lambda text: "\0" not in text), max_size=2),
)
def test_settings_come_back_out_of_the_file(**changes):
    changes["warnings"] = tuple(changes["warnings"])
    settings = dataclasses.replace(SETTINGS, **changes)
    assert read_settings(encode(smooth(8, 8), settings)) == settings


@pytest.mark.parametrize("letter", ["x", "é", "\x01", "🦊"])
@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_the_longest_prompts_fit_or_the_file_says_that_they_were_cut(output_format, letter):
    long = letter * (16384 // len(letter.encode()))
    settings = dataclasses.replace(
        SETTINGS, prompt=long, negative_prompt=long, output_format=output_format
    )
    read = read_settings(encode(smooth(), settings))
    if output_format == "png" or letter == "x":
        assert read == settings
    else:
        assert read.prompt == read.negative_prompt == letter * 2000
        assert read.warnings[:1] == settings.warnings
        assert "stand here cut to 2000 letters" in read.warnings[1]
        assert read.seed == settings.seed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_is_no_picture(bad):
    sample = smooth()
    sample[1, 2, 3] = bad
    with pytest.raises(NotFinite, match=r"the decoded picture is not finite"):
        encode(sample, SETTINGS)


@pytest.mark.parametrize(
    "shape", [(3, 8), (1, 3, 8, 8), (4, 8, 8), (8, 8, 3), (3, 0, 8), (3, 8, 0)]
)
def test_a_sample_of_another_shape_is_refused(shape):
    with pytest.raises(InvalidRequest, match=r"^sample: got \[.*\]; allowed: \[3, height, width\]"):
        encode(np.zeros(shape, np.float32), SETTINGS)


def other_picture(**texts):
    chunks = PngInfo()
    for name, text in texts.items():
        chunks.add_text(name, text, zip=len(text) > 1000)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"text",
        other_picture(),
        other_picture(prompt="x", seed="1"),
        other_picture(prompt="x" * 10**8),
        encode(smooth(), SETTINGS)[:60],
        encode(smooth(), dataclasses.replace(SETTINGS, output_format="jpeg"))[:60],
        encode(smooth(), dataclasses.replace(SETTINGS, output_format="webp"))[:60],
        zlib.compress(bytes(10**6)),
    ],
    ids=range(9),
)
def test_what_is_no_picture_of_ours_is_refused(file):
    with pytest.raises(InvalidRequest, match=r"^image: got .*allowed: a picture by Triptych"):
        read_settings(file)


def test_a_file_over_the_bound_is_refused():
    with pytest.raises(InvalidRequest, match=r"at most 67108864 bytes"):
        read_settings(bytes(64 * 1024 * 1024 + 1))


@pytest.mark.parametrize(
    ("name", "text"), [("seed", "-1"), ("height", "many"), ("warnings", "{}"), ("scheduler", "no")]
)
def test_settings_that_were_changed_to_nonsense_are_refused(name, text):
    texts = {**opened(encode(smooth(), SETTINGS)).text, name: text, "warnings": "[]"}
    texts[name] = text
    with pytest.raises(InvalidRequest, match=rf"^({name}|image): "):
        read_settings(other_picture(**texts))


@given(st.binary(max_size=300), st.integers(0, 400))
def test_damage_gives_settings_or_the_error(noise, at):
    file = encode(smooth(8, 8), SETTINGS)
    for damaged in (noise, file[:at] + noise + file[at + len(noise) :]):
        try:
            read_settings(damaged)
        except InvalidRequest:
            continue
