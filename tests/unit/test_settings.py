import dataclasses
import json
import sys
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from triptych import schedulers
from triptych.errors import InvalidRequest
from triptych.lora.request import Lora
from triptych.second_pass import SecondPass
from triptych.settings import (
    MAX_SEED,
    OPTIONAL_KEYS,
    OUTPUT_FORMATS,
    PICTURE_KEYS,
    REQUEST_KEYS,
    Defaults,
    Limits,
    Settings,
    parse,
)

DEFAULTS = Defaults(256, 320, 20, 5.0, "pndm")


USUAL = Limits()


def ask(raw, limits=USUAL, **parameters):
    return parse(raw.encode() if isinstance(raw, str) else raw, DEFAULTS, limits, parameters)


def refused(raw, limits=USUAL):
    """The error's field and text; the text is one short line."""
    with pytest.raises(InvalidRequest) as caught:
        ask(raw, limits)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    assert text.startswith(f"{caught.value.field}: got ")
    assert "; allowed: " in text
    return caught.value.field, text


def test_a_prompt_gets_the_models_defaults_and_a_random_seed():
    settings = ask("a red circle")
    assert dataclasses.replace(settings, seed=0) == Settings(
        prompt="a red circle",
        negative_prompt="",
        num_inference_steps=20,
        guidance_scale=5.0,
        seed=0,
        height=256,
        width=320,
        scheduler="pndm",
        output_format="png",
        warnings=(),
    )
    assert len({ask("a red circle").seed for _ in range(8)}) > 1
    assert all(0 <= ask("x").seed < 2**32 for _ in range(8))


def test_a_json_object_sets_everything():
    asked = {
        "prompt": "ein Fuß 🦊",
        "negative_prompt": "blurry",
        "num_inference_steps": 7,
        "guidance_scale": 2,
        "seed": MAX_SEED,
        "height": 512,
        "width": 64,
        "scheduler": "EulerDiscreteScheduler",
        "output_format": "webp",
        "timestep_spacing": "trailing",
        "eta": 0.5,
        "prompt_syntax": "webui",
        "clip_skip": 2,
        "guidance_rescale": 0.7,
        "guidance_start": 0.25,
        "guidance_stop": 0.5,
        "cache_interval": 3,
        "second_pass": {
            "height": 640,
            "width": 128,
            "strength": 0.25,
            "num_inference_steps": 8,
            "interpolation": "nearest",
        },
        "loras": [{"name": "ink", "scale": -0.5}, {"name": "Pastell Töne", "scale": 1}],
        "prompt_2": "a fox",
        "negative_prompt_2": "",
        "original_size": (600, 800),
        "crops_coords_top_left": (0, 16),
        "target_size": (512, 64),
    }
    of_pictures = {"strength": 0.5, "mask_blur": 3.0, "padding_mask_crop": 0}
    settings = ask(json.dumps(asked))
    alone = {name: value for name, value in asked.items() if name != "second_pass"}
    with_picture = ask(json.dumps({**alone, **of_pictures}))
    assert {name: getattr(with_picture, name) for name in of_pictures} == of_pictures
    not_asked = {"warnings": (), "deadline": None, "text_inputs": None, "model": None}
    told = {field.name: settings.json_value(field.name) for field in dataclasses.fields(settings)}
    none_of_them = dict.fromkeys(of_pictures)
    assert told == {**asked, "scheduler": "euler", **not_asked, **none_of_them}
    assert type(settings.guidance_scale) is float
    assert {*asked, *of_pictures, "timeout", "image", "mask_image"} == set(REQUEST_KEYS)


def test_a_second_pass_says_at_least_its_size():
    second = ask('{"prompt": "x", "second_pass": {"height": 512, "width": 640}}').second_pass
    assert second == SecondPass(512, 640, 0.8, 20, "bilinear")


@pytest.mark.parametrize(
    ("asked", "field", "allowed"),
    [
        ("3", "second_pass", "an object with height and width"),
        ("null", "second_pass", "an object with height and width"),
        ('{"height": 512}', "second_pass", "an object with height and width"),
        ('{"height": 512, "width": 640, "seed": 3}', "second_pass", "no keys but height, width"),
        ('{"height": 512, "width": 641}', "second_pass.width", "640 or 648, the nearest sizes"),
        ('{"height": 4096, "width": 640}', "second_pass.height", "from 64 to 920, as 640 x 4096"),
        ('{"height": 512, "width": "640"}', "second_pass.width", "a whole number"),
        ('{"height": 512, "width": 640, "strength": 2}', "second_pass.strength", "from 0 to 1"),
        ('{"height": 512, "width": 640, "strength": 0}', "second_pass.strength", "at least 1"),
        (
            '{"height": 512, "width": 640, "num_inference_steps": 201}',
            "second_pass.num_inference_steps",
            "from 1 to 200",
        ),
        (
            '{"height": 512, "width": 640, "interpolation": "area"}',
            "second_pass.interpolation",
            "one of bilinear, bicubic, nearest, nearest-exact",
        ),
    ],
)
def test_a_second_pass_that_cannot_be_is_refused_by_name(asked, field, allowed):
    found, text = refused(f'{{"prompt": "x", "second_pass": {asked}}}')
    assert found == field and allowed in text


def test_a_second_pass_needs_a_first_one_from_noise():
    second = '"second_pass": {"height": 512, "width": 640}'
    field, text = refused(f'{{"prompt": "x", "strength": 0.5, {second}}}')
    assert field == "second_pass" and "none with image or strength" in text


def test_a_class_of_diffusers_means_what_the_models_file_makes_of_it():
    defaults = dataclasses.replace(DEFAULTS, scheduler_config={"use_karras_sigmas": True})
    for asked, meant in (
        ("DPMSolverMultistepScheduler", "dpmpp_2m_karras"),
        ("dpmpp_2m", "dpmpp_2m"),
        ("DDIMScheduler", "ddim"),
    ):
        text = json.dumps({"prompt": "x", "scheduler": asked}).encode()
        assert parse(text, defaults, Limits()).scheduler == meant


def test_a_timeout_becomes_a_deadline_that_every_process_here_understands():
    before = time.monotonic()
    settings = ask('{"prompt": "x", "timeout": 2.5}')
    assert before + 2.5 <= settings.deadline <= time.monotonic() + 2.5
    assert not settings.expired
    assert Settings.from_json(settings.to_json()) == settings
    assert ask('{"prompt": "x", "timeout": 1e-9}').expired
    assert not ask("x").expired
    assert "deadline" not in json.loads(ask("x").to_json())


@pytest.mark.parametrize("value", ["0", "-1", "NaN", "Infinity", "1e7", "true", "null", '"5"'])
def test_a_timeout_that_is_none_is_refused(value):
    field, message = refused(f'{{"prompt": "x", "timeout": {value}}}')
    assert field == "timeout"
    assert message.endswith("allowed: seconds, over 0 to 1000000")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1" * 400, "true", '"5"', "[1]"])
def test_a_settings_tensors_deadline_is_a_time(value):
    text = ask("x").to_json()[:-1] + f', "deadline": {value}}}'
    with pytest.raises(InvalidRequest, match=r"^deadline: "):
        Settings.from_json(text)


@pytest.mark.parametrize("name", schedulers.NAMES)
def test_every_scheduler_can_be_asked_for(name):
    assert ask(json.dumps({"prompt": "x", "scheduler": name})).scheduler == name


@pytest.mark.parametrize(
    "text",
    [
        "[1,2]",
        '"x"',
        "123",
        "null",
        "NaN",
        "{oops",
        "{red|blue} hair, (smile:1.2)",
        "{ a fox }",
        "{portrait: 1.5}",
        "[cat:dog:0.5]",
        "[a|b] {c} [[d]]",
        '["a", "b"]',
        '"quoted" {words}',
        "{",
        "  two words\tand a tab\n",
        "مرحبا بالعالم",
        "👩‍🚀🐎",
        "[" * 5000,
    ],
)
def test_a_text_that_is_no_json_object_is_a_prompt(text):
    assert ask(text).prompt == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{'prompt': 'x', 'seed': 7}", "at character 2: "),
        ("{prompt: 'x'}", "at character 2: "),
        ('{"prompt": "x"', "at character 15: "),
        ('{"prompt": "x",}', "at character 1"),
        ('{"prompt": "x"} and more', "at character 17: Extra data"),
        ('{"prompt": "x"}\n{"prompt": "y"}', "at character 17: Extra data"),
        ("{\u201cprompt\u201d: \u201cx\u201d}", "at character 2: "),
        ('[{"prompt": "x"}]', "a prompt or one JSON object, not a list"),
        ('\n [ {"prompt": "x"}, {"prompt": "y"}]', "not a list"),
        ("[{'prompt': 'x'}]", "at character 3: "),
        (json.dumps(json.dumps({"prompt": "x"})), "not a text with one inside"),
        (json.dumps({"prompt": json.dumps({"prompt": "x"})}), "a text, not a whole request in one"),
    ],
)
def test_what_is_meant_as_an_object_and_is_none_does_not_become_a_prompt(text, why):
    field, message = refused(text)
    assert field in ("INPUT_0", "prompt")
    assert why in message.split("; allowed: ")[1]


def test_parameters_stand_beside_the_text():
    settings = ask("a fox", seed=7, num_inference_steps=2)
    assert (settings.prompt, settings.seed, settings.num_inference_steps) == ("a fox", 7, 2)
    assert ask('{"prompt": "x", "height": 128}', width=64).height == 128
    assert ask("x", seed=str(2**64 - 1), guidance_scale="2.5").guidance_scale == 2.5
    assert ask("x", guidance_scale=repr(1e-7), negative_prompt="7").negative_prompt == "7"


@pytest.mark.parametrize(
    ("parameters", "allowed"),
    [
        ({"seed": "7.5"}, "an integer from 0"),
        ({"seed": "seven"}, "an integer from 0"),
        ({"guidance_scale": "inf"}, "a number from 0"),
        ({"seed": -1}, "an integer from 0"),
        ({"steps": 7}, "only the parameters prompt, negative_prompt"),
        ({"timeout": 7}, "in a JSON object in INPUT_0, in seconds"),
        ({"prompt": "y"}, "each key once, in INPUT_0 or as a parameter"),
    ],
)
def test_parameters_are_refused_by_name(parameters, allowed):
    with pytest.raises(InvalidRequest, match=rf"^{next(iter(parameters))}: got .*{allowed}"):
        ask("x", **parameters)


def test_a_byte_order_mark_and_blanks_before_an_object_do_not_matter():
    assert ask(b'\xef\xbb\xbf \r\n\t{"prompt": "x", "seed": 3}').seed == 3


def test_a_line_break_inside_a_json_text_is_taken():
    assert ask('{"prompt": "two\nlines"}').prompt == "two\nlines"


@pytest.mark.parametrize("text", ["", " ", "\t\r\n", "\u00a0\u2003"])
def test_a_blank_text_is_refused_and_an_empty_prompt_is_not(text):
    field, message = refused(text)
    assert field == "prompt"
    assert "allowed: a text that is not blank" in message
    assert ask(json.dumps({"prompt": text})).prompt == text


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe\x00a", b"caf\xe9", b"\xed\xa0\x80", b'{"prompt": "\xc0"}']
)
def test_bytes_that_are_no_utf8_are_refused(raw):
    field, message = refused(raw)
    assert field == "INPUT_0"
    assert message.endswith("allowed: text in UTF-8")


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
@pytest.mark.parametrize(
    "value", ["a\0b", "\ud800", "x\udfffy", "x" * 16385, "é" * 8193, 1, None, True, ["x"], {"a": 1}]
)
def test_prompts_that_are_no_text_of_this_world_are_refused(name, value):
    field, message = refused(json.dumps({"prompt": "x", name: value}))
    assert field == name
    assert "at most 16384 bytes of UTF-8, without NUL" in message


def test_nul_in_a_plain_prompt_is_refused():
    assert refused("a\0b") == (
        "prompt",
        "prompt: got 'a\\x00b'; allowed: a text of at most 16384 bytes of UTF-8, without NUL",
    )


@pytest.mark.parametrize("size", [16385, 10**6, 4 * 10**6])
def test_a_prompt_over_the_limit_is_refused_and_shown_short(size):
    field, message = refused("x" * size)
    assert field == ("prompt" if size < 10**5 else "INPUT_0")
    assert f"({size} " in message
    assert ask("x" * 16384).prompt == "x" * 16384


def test_the_longest_prompt_may_be_escaped_in_full():
    prompts = {"prompt": "\U0001f600" * 4096, "negative_prompt": "\x01" * 16384}
    settings = ask(json.dumps(prompts))
    assert settings.prompt == prompts["prompt"]
    assert settings.negative_prompt == prompts["negative_prompt"]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("num_inference_steps", "0", "an integer from 1 to 200"),
        ("num_inference_steps", "-1", "an integer from 1 to 200"),
        ("num_inference_steps", "201", "an integer from 1 to 200"),
        ("num_inference_steps", "1000000000", "an integer from 1 to 200"),
        ("num_inference_steps", "20.0", "an integer from 1 to 200"),
        ("num_inference_steps", "true", "an integer from 1 to 200"),
        ("num_inference_steps", '"20"', "an integer from 1 to 200"),
        ("num_inference_steps", "null", "an integer from 1 to 200"),
        ("num_inference_steps", "[20]", "an integer from 1 to 200"),
        ("num_inference_steps", '{"n": 20}', "an integer from 1 to 200"),
        ("guidance_scale", "-0.1", "a number from 0 to 50.0"),
        ("guidance_scale", "50.1", "a number from 0 to 50.0"),
        ("guidance_scale", "NaN", "a number from 0 to 50.0"),
        ("guidance_scale", "Infinity", "a number from 0 to 50.0"),
        ("guidance_scale", "-Infinity", "a number from 0 to 50.0"),
        ("guidance_scale", "1e999", "a number from 0 to 50.0"),
        ("guidance_scale", "false", "a number from 0 to 50.0"),
        ("guidance_scale", '"7.5"', "a number from 0 to 50.0"),
        ("guidance_scale", "1" * 5000, "a number from 0 to 50.0"),
        ("seed", "-1", "an integer from 0 to 18446744073709551615"),
        ("seed", "18446744073709551616", "an integer from 0 to 18446744073709551615"),
        ("seed", "9" * 30, "an integer from 0 to 18446744073709551615"),
        ("seed", "9" * 100000, "an integer from 0 to 18446744073709551615"),
        ("seed", "-" + "9" * 100000, "an integer from 0 to 18446744073709551615"),
        ("seed", "1.5", "an integer from 0 to 18446744073709551615"),
        ("seed", "null", "an integer from 0 to 18446744073709551615"),
        ("scheduler", '"restart"', "ddim, ddpm"),
        ("scheduler", '""', "ddim, ddpm"),
        ("scheduler", "3", "ddim, ddpm"),
        ("scheduler", '["ddim"]', "ddim, ddpm"),
        ("timestep_spacing", '"log"', "one of leading, linspace, trailing"),
        ("timestep_spacing", "null", "one of leading, linspace, trailing"),
        ("eta", "1.5", "a number from 0 to 1"),
        ("eta", "null", "a number from 0 to 1"),
        ("prompt_syntax", '"compel"', "one of plain, webui"),
        ("prompt_syntax", "null", "one of plain, webui"),
        ("clip_skip", "-1", "an integer from 0 to 31"),
        ("clip_skip", "32", "an integer from 0 to 31"),
        ("clip_skip", "1.0", "an integer from 0 to 31"),
        ("guidance_rescale", "1.1", "a number from 0 to 1"),
        ("guidance_rescale", "-0.1", "a number from 0 to 1"),
        ("guidance_start", "-0.1", "a number from 0 to 1"),
        ("guidance_stop", "1.1", "a number from 0 to 1"),
        ("guidance_stop", "null", "a number from 0 to 1"),
        ("cache_interval", "0", "an integer from 1 to 20"),
        ("cache_interval", "2.5", "an integer from 1 to 20"),
        ("output_format", '"gif"', "one of png, jpeg, webp"),
        ("output_format", '"PNG"', "one of png, jpeg, webp"),
        ("output_format", "null", "one of png, jpeg, webp"),
        ("output_format", "{}", "one of png, jpeg, webp"),
    ],
)
def test_a_value_out_of_range_or_of_another_type_is_refused(name, value, allowed):
    field, message = refused(f'{{"prompt": "x", "{name}": {value}}}')
    assert field == name
    assert f"allowed: {allowed}" in message


def test_guidance_that_stops_before_it_starts_is_refused():
    both = '{"prompt": "x", "guidance_start": %s, "guidance_stop": %s}'
    field, message = refused(both % (0.6, 0.5))
    assert field == "guidance_start"
    assert "got 0.6; allowed: at most guidance_stop, which is 0.5" in message
    assert ask(both % (0.5, 0.5)).guidance_stop == 0.5


@pytest.mark.parametrize(
    ("start", "stop", "steps", "guided"),
    [
        (None, None, 7, range(7)),
        (0.0, 1.0, 7, range(7)),
        (None, 0.5, 7, range(3)),
        (0.25, None, 7, range(1, 7)),
        (0.3, 0.7, 10, range(3, 7)),
        (0.58, 0.58, 50, range(28, 28)),  # 0.58 * 50 is a little less than 29
        (1.0, None, 5, range(5, 5)),
    ],
)
def test_the_steps_with_guidance_are_those_of_diffusers_guiders(start, stop, steps, guided):
    settings = dataclasses.replace(ask("x"), guidance_start=start, guidance_stop=stop)
    assert settings.guided_steps(steps) == guided


@pytest.mark.parametrize("name", ["height", "width"])
@pytest.mark.parametrize("value", ["0", "-8", "8", "63", "1000000", "256.0", "true", '"256"'])
def test_a_side_that_makes_no_picture_is_refused(name, value):
    field, message = refused(f'{{"prompt": "x", "{name}": {value}}}')
    assert field == name
    most = {"width": 9216, "height": 1840}[name]  # beside a width of 320
    assert f"; allowed: a whole number from 64 to {most}" in message


def told(width, height, limits=USUAL):
    """What is said of a size: the field, and what is allowed."""
    field, text = refused(f'{{"prompt": "x", "width": {width}, "height": {height}}}', limits)
    return field, text.split("allowed: ")[1]


@pytest.mark.parametrize(
    ("size", "field", "allowed"),
    [
        ((65, 64), "width", "64 or 72, the nearest sizes"),
        ((64, 260), "height", "256 or 264, the nearest sizes"),
        (
            (1024, 1024),
            "height",
            "a whole number from 64 to 576, as 1024 x 1024 is too large:"
            " at most 768 x 768 in total",
        ),
        (
            (10000, 64),
            "width",
            "a whole number from 64 to 9216, as 10000 x 64 is too large:"
            " at most 768 x 768 in total",
        ),
    ],
)
def test_a_size_is_refused_by_what_there_is_in_its_place(size, field, allowed):
    assert told(*size) == (field, allowed)


def test_sizes_that_are_named_are_allowed():
    limits = Limits(max_pixels=150 * 150, min_side=60, max_width=130)
    assert told(30, 64, limits)[1] == "a whole number from 64 to 128"
    assert told(129, 64, limits)[1] == "a whole number from 64 to 128"
    assert told(128, 300, limits)[1].startswith("a whole number from 64 to 168, as 128 x 300")
    assert told(128, 300, limits)[1].endswith("at most 144 x 144 in total")
    small = Limits(max_pixels=150 * 150, max_width=128, max_height=96)
    said = "a whole number from 64 to 128, as 256 x 96 is too large: at most 128 x 96 in total"
    assert told(256, 96, small) == ("width", said)
    assert ask('{"prompt": "x", "width": 128, "height": 168}', limits).height == 168
    assert ask('{"prompt": "x", "width": 128, "height": 64}', limits).width == 128


def test_pixels_are_limited_whatever_the_shape():
    assert ask('{"prompt": "x", "height": 9216, "width": 64}').height == 9216
    assert refused('{"prompt": "x", "height": 9224, "width": 64}')[0] == "height"
    assert refused('{"prompt": "x", "height": 776, "width": 768}')[0] == "height"


def test_a_value_is_shown_as_json_has_it():
    def shown(value):
        return refused(f'{{"prompt": "x", "seed": {value}}}')[1].split("got ")[1].split("; ")[0]

    assert shown("true") == "true"
    assert shown("null") == "null"
    assert shown("-Infinity") == "-Infinity"
    assert shown("NaN") == "NaN"
    assert shown("[1, 2]") == "a list"
    assert [shown("[]"), shown("{}")] == ["[]", "{}"]
    assert shown('{"a": 1}') == "an object"
    assert shown(json.dumps("y" * 1000)) == "'" + "y" * 60 + "'... (1000 characters)"


@pytest.mark.parametrize("key", ["Prompt", "steps", "", "warnings", "a\0b", "\ud800", "k" * 1000])
def test_an_unknown_key_is_refused_by_name(key):
    field, message = refused(json.dumps({"prompt": "x", key: 5}))
    assert field == key or field.startswith(("'", "kkkk"))
    assert "got 5; allowed: only the keys prompt, negative_prompt, num_inference_steps" in message


@pytest.mark.parametrize("key", ["prompt", "seed", "steps"])
def test_a_repeated_key_is_refused(key):
    field, message = refused(f'{{"prompt": "x", "{key}": 1, "seed": 2, "{key}": 3}}')
    assert field in (key, "prompt")
    assert message.endswith("allowed: each key once")


@pytest.mark.parametrize(
    ("key", "inside"),
    [
        ("strength", '"second_pass": {"height": 64, "strength": 0.5, "width": 64, "strength": 1}'),
        ("name", '"loras": [{"name": "ink", "name": "chalk"}]'),
    ],
)
def test_a_repeated_key_inside_is_refused_too(key, inside):
    field, message = refused(f'{{"prompt": "x", {inside}}}')
    assert field == key
    assert message.endswith("allowed: each key once")


def test_an_object_without_a_prompt_is_refused():
    assert refused("{}")[0] == refused('{"seed": 1}')[0] == "prompt"


@pytest.mark.parametrize("inside", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [10, 900, 30000])
def test_deep_nesting_is_refused(inside, depth):
    end = {"[": "]", '{"a":': "}"}[inside]
    text = '{"prompt": ' + inside * depth + "1" + end * depth + "}"
    assert refused(text)[0] in ("prompt", "INPUT_0")


def test_deep_nesting_is_refused_with_little_stack_left():
    def at_depth(depth):
        return refused(nested) if depth == 0 else at_depth(depth - 1)

    nested = '{"prompt": ' + "[" * 900 + "]" * 900 + "}"
    assert at_depth(sys.getrecursionlimit() - 400)[0] in ("prompt", "INPUT_0")


def test_many_repeated_keys_take_no_time():
    members = ",".join(f'"{at}":1' for at in range(12000))
    assert refused(f'{{"prompt":"x",{members},"0":1}}')[0] == "'0'"


@given(
    st.binary(max_size=200)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))
)
@example(b"{")
@example(b'{"prompt"')
def test_any_bytes_give_settings_or_the_error(raw):
    try:
        settings = ask(raw)
    except InvalidRequest as error:
        str(error).encode()
    else:
        assert Settings.from_json(settings.to_json()) == settings


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
LIKELY = (
    st.sampled_from([0, 1, 8, 64, 256, 2**32, 2**64, 7.5, *schedulers.NAMES, *OUTPUT_FORMATS])
    | ANY_JSON
)


@given(st.dictionaries(st.sampled_from(REQUEST_KEYS) | st.text(max_size=8), LIKELY))
def test_any_json_object_gives_settings_within_the_limits_or_the_error(asked):
    try:
        settings = ask(json.dumps(asked))
    except InvalidRequest as error:
        assert error.field
        str(error).encode()
    else:
        assert settings.prompt == asked["prompt"]
        assert 1 <= settings.num_inference_steps <= 200
        assert 0 <= settings.guidance_scale <= 50
        assert 0 <= settings.seed <= MAX_SEED
        assert settings.height * settings.width <= 768 * 768
        assert settings.height % 8 == settings.width % 8 == 0
        assert settings.scheduler in schedulers.NAMES
        assert settings.output_format in OUTPUT_FORMATS
        assert Settings.from_json(settings.to_json()) == settings


SETTINGS = st.builds(
    Settings,
    prompt=st.text(min_size=1, max_size=40).filter(lambda text: text.strip() and "\0" not in text),
    negative_prompt=st.text(max_size=40).filter(lambda text: "\0" not in text),
    num_inference_steps=st.integers(1, 1000),
    guidance_scale=st.floats(0, 1000),
    seed=st.integers(0, MAX_SEED),
    height=st.integers(1, 512).map(lambda n: 8 * n),
    width=st.integers(1, 512).map(lambda n: 8 * n),
    scheduler=st.sampled_from(schedulers.NAMES),
    output_format=st.sampled_from(OUTPUT_FORMATS),
    timestep_spacing=st.none() | st.sampled_from(schedulers.SPACINGS),
    eta=st.none() | st.floats(0, 1),
    prompt_syntax=st.sampled_from([None, "webui"]),
    clip_skip=st.none() | st.integers(1, 31),
    guidance_rescale=st.none() | st.floats(0.01, 1),
    guidance_start=st.none() | st.floats(0, 0.4),
    guidance_stop=st.none() | st.floats(0.4, 1),
    cache_interval=st.none() | st.integers(1, 20),
    second_pass=st.none() | st.just(SecondPass(640, 128, 0.25, 8, "nearest")),
    loras=st.none() | st.just((Lora("ink", 0.8), Lora("chalk", -4.0))),
    text_inputs=st.none() | st.just({"input_ids": [1, 2]}),
    warnings=st.lists(st.text(max_size=20), max_size=2).map(tuple),
    deadline=st.none() | st.floats(0, 1e9),
    model=st.none() | st.just("ink"),
)


@given(SETTINGS)
def test_settings_survive_json(settings):
    text = settings.to_json()
    assert Settings.from_json(text) == settings
    assert Settings.from_json(text.encode()) == settings


@given(
    SETTINGS, st.sampled_from([*PICTURE_KEYS, "warnings", "deadline", "model", "more"]), ANY_JSON
)
def test_settings_with_one_value_changed_are_settings_or_the_error(settings, key, value):
    changed = {**json.loads(settings.to_json()), key: value}
    try:
        Settings.from_json(json.dumps(changed))
    except InvalidRequest:
        assert json.dumps(changed) != settings.to_json()


@given(st.binary(max_size=100))
def test_any_bytes_as_a_settings_tensor_give_the_error(raw):
    with pytest.raises(InvalidRequest):
        Settings.from_json(raw)


@pytest.mark.parametrize("key", sorted({*PICTURE_KEYS} - {*OPTIONAL_KEYS}))
def test_a_settings_tensor_must_be_whole(key):
    values = json.loads(ask("x").to_json())
    del values[key]
    with pytest.raises(InvalidRequest, match=rf"settings: .* with {key}$"):
        Settings.from_json(json.dumps(values))


@pytest.mark.parametrize("warnings", [3, "text", None, [3], ["\ud800"], [None]])
def test_a_settings_tensors_warnings_are_texts(warnings):
    values = {**json.loads(ask("x").to_json()), "warnings": warnings}
    with pytest.raises(InvalidRequest, match=r"^warnings: "):
        Settings.from_json(json.dumps(values))


def test_the_model_is_the_servers_to_say():
    ink = dataclasses.replace(DEFAULTS, model="ink")
    assert parse(b"x", ink, USUAL).model == "ink"
    with pytest.raises(InvalidRequest, match=r"^model: got 'ink'; allowed: only the keys "):
        ask('{"prompt": "x", "model": "ink"}')


def test_a_stage_called_alone_is_still_limited():
    values = {**json.loads(ask("x").to_json()), "num_inference_steps": 10**9}
    with pytest.raises(InvalidRequest, match=r"from 1 to 1000$"):
        Settings.from_json(json.dumps(values))


def test_an_operator_can_change_the_limits():
    changed = {
        "max_num_inference_steps": "5",
        "max_guidance_scale": "2.5",
        "max_pixels": "4096",
        "min_side": "32",
        "max_prompt_bytes": "3",
        "max_prompt_chunks": "7",
        "max_height": "128",
        "max_width": "64",
        "EXECUTION_ENV_PATH": "$$TRITON_MODEL_DIRECTORY/env.tar.gz",
    }
    limits = Limits.from_parameters(changed)
    assert limits == Limits(5, 2.5, 4096, 32, 3, 128, 64, max_prompt_chunks=7)
    small = {"prompt": "abc", "height": 64, "width": 64}
    small.update(num_inference_steps=5, guidance_scale=1)
    assert ask(json.dumps(small), limits).height == 64
    too_much = {"prompt": "abcd", "height": 128, "num_inference_steps": 6, "guidance_scale": 3}
    for key, value in too_much.items():
        assert refused(json.dumps({**small, key: value}), limits)[0] == key
    assert Limits.from_parameters({}) == Limits()


def test_each_side_has_its_own_limit():
    limits = Limits(max_height=128, max_width=256)
    assert ask('{"prompt": "x", "height": 128, "width": 256}', limits).width == 256
    field, message = refused('{"prompt": "x", "height": 136, "width": 256}', limits)
    assert field == "height" and message.endswith("allowed: a whole number from 64 to 128")
    assert refused('{"prompt": "x", "height": 64, "width": 264}', limits)[0] == "width"


def test_a_default_over_the_limits_is_refused_too():
    assert refused("x", Limits(max_num_inference_steps=10))[0] == "num_inference_steps"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_steps", "5"),
        ("max_pixels", "many"),
        ("max_pixels", ""),
        ("max_pixels", "1.5"),
        ("max_pixels", "0"),
        ("max_pixels", "-1"),
        ("max_pixels", str(10**12)),
        ("max_guidance_scale", "nan"),
        ("max_guidance_scale", "inf"),
        ("max_num_inference_steps", "1001"),
    ],
)
def test_a_limit_that_makes_no_sense_is_an_error_that_names_it(name, value):
    with pytest.raises(ValueError, match=rf"^parameter {name}: "):
        Limits.from_parameters({name: value})
