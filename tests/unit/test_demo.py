"""The demo's own pictures, captions, tokenizer, and the vision that measures what a model draws."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from demo import bpe
from demo.draw import LINE, draw
from demo.palette import NAMES, PALETTE, nearest
from demo.scenes import (
    HELD_OUT,
    RELATIONS,
    SHAPES,
    Landscape,
    caption,
    random_landscape,
    random_picture,
    random_shapes,
)
from demo.vision import hollowness, look, relation
from triptych import trained_words
from triptych.tokenizer import Tokenizer

REPOSITORY = Path(__file__).parents[2] / "model_repository"


def drawn(picture, line=None) -> Image.Image:
    image = draw([picture], line=line)[0]
    return Image.fromarray((image.transpose(1, 2, 0) * 255).round().astype(np.uint8))


@pytest.mark.parametrize("blur", [0, 1.5])
def test_vision_reads_back_what_was_drawn(blur):
    rng = random.Random(11)
    for count in (1, 2) * 30:
        picture = random_shapes(rng, count, held_out=rng.random() < 0.5)
        background, seen = look(np.asarray(drawn(picture).filter(ImageFilter.GaussianBlur(blur))))
        assert background == picture.background_colour
        wanted = [(shape.shape, shape.colour) for shape in picture.shapes]
        found = {(one.shape, one.colour): one for one in seen}
        assert sorted(found) == sorted(wanted)
        if count == 2:
            assert relation(found[wanted[0]], found[wanted[1]]) == picture.relation


@pytest.mark.parametrize("blur", [0, 1])
def test_vision_reads_outlines_and_tells_them_from_solid_shapes(blur):
    rng = random.Random(12)
    for _ in range(60):
        picture = random_shapes(rng, 1, held_out=rng.random() < 0.5)
        (shape,) = picture.shapes
        solid, outlined = (
            np.asarray(drawn(picture, line).filter(ImageFilter.GaussianBlur(blur)))
            for line in (None, LINE)
        )
        background, (seen, *_) = look(outlined, outlines=True)
        assert background == picture.background_colour
        name = "circle" if shape.shape == "ring" else shape.shape
        assert (seen.shape, seen.colour) == (name, shape.colour)
        if shape.size is None:
            assert hollowness(outlined) > 0.2
        if shape.shape != "ring":
            assert hollowness(solid) == 0


def test_an_outline_drawing_has_the_sky_where_the_ground_was():
    picture = Landscape("sun", "yellow", "green", None, "noon", 3)
    solid, outlined = (draw([picture], line=line)[0] for line in (None, LINE))
    top = outlined[:, : outlined.shape[1] // 10]
    np.testing.assert_array_equal(top, solid[:, : solid.shape[1] // 10])
    assert solid[:, -1].mean(1).argmax() == 1  # green
    assert outlined[:, -1].mean(1).argmax() == 2  # blue


def test_every_shape_relation_and_colour_is_drawn_and_named():
    rng = random.Random(3)
    pictures = [random_shapes(rng, 2, held_out=False) for _ in range(2000)]
    assert {shape.shape for p in pictures for shape in p.shapes} == set(SHAPES)
    assert {shape.colour for p in pictures for shape in p.shapes} == set(NAMES)
    assert {p.relation for p in pictures} == set(RELATIONS)
    for picture in pictures[:200]:
        text = caption(picture, rng)
        assert all(f"{s.colour} {s.shape}" in text for s in picture.shapes)
        assert picture.background is None or picture.background in text


def test_training_never_shows_a_held_out_pair():
    rng = random.Random(4)
    for _ in range(5000):
        picture = random_picture(rng)
        if not isinstance(picture, Landscape):
            assert not any((shape.shape, shape.colour) in HELD_OUT for shape in picture.shapes)
    assert {shape for shape, _ in HELD_OUT} == set(SHAPES)


def test_each_palette_colour_is_its_own_nearest():
    assert [NAMES[i] for i in nearest(np.array(list(PALETTE.values())))] == list(NAMES)


def test_a_batch_draws_each_picture_as_alone():
    rng = random.Random(5)
    for pictures in (
        [random_shapes(rng, 1 + i % 2, held_out=False) for i in range(4)],
        [random_landscape(rng) for _ in range(4)],
    ):
        together = draw(pictures, size=64)
        assert together.shape == (4, 3, 64, 64)
        assert together.min() >= 0 and together.max() <= 1
        for picture, image in zip(pictures, together):
            np.testing.assert_array_equal(draw([picture], size=64)[0], image)


def test_the_tokenizer_has_a_token_for_each_word_of_a_caption(tmp_path):
    bpe.train(tmp_path)
    tokenizer = Tokenizer(tmp_path)
    ids = np.asarray(tokenizer.encode(["a red circle on a blue background", ""])[0])
    start, end = ids[1, 0], ids[1, 1]
    assert (ids[:, 0] == start).all()
    assert list(ids[0]).index(end) == 8
    assert len(set(ids[0, 1:8])) == 6  # "a" stands twice
    served = REPOSITORY / "tokenizer" / "1"
    for name in ("vocab.json", "merges.txt", "words.txt"):
        assert (tmp_path / name).read_text("utf-8") == (served / name).read_text("utf-8")


def test_words_txt_has_every_word_of_a_caption_but_those_made_up():
    rng = random.Random(6)
    known = trained_words.read(REPOSITORY / "tokenizer" / "1")
    captions = [caption(random_picture(rng), rng) for _ in range(5000)]
    said = [set(trained_words.words_in(text)) for text in captions]
    assert set().union(*said) >= known >= {*NAMES, *SHAPES, "sun", "moon", "beautiful"}
    assert np.mean([words <= known for words in said]) > 0.98
