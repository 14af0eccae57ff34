"""What the server says, in the page's words: its warnings, and what it allows where it refuses."""
# ruff: noqa: RUF001 -- Chinese has marks of its own

import dataclasses
import re
from typing import NamedTuple

import grpc
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from tests.gateway.page import Page
from tests.gateway.pictures import file_of, flat, text
from tests.gateway.running import wait_for
from tests.gateway.test_page_words import CONFIG, chinese
from tests.gateway.test_reading import SETTINGS, own, png
from triptych import webui_prompt
from triptych.denoise.conditioning import of_prompts
from triptych.denoise.denoising import Denoising
from triptych.denoise.start import encoded
from triptych.errors import InvalidRequest
from triptych.gateway.errors import Problem, invalid
from triptych.gateway.keys import Caller, Key, NotAllowed
from triptych.gateway.page import Asked
from triptych.gateway.reading import read
from triptych.limits import Limits
from triptych.lora.folder import LoraFolder
from triptych.model_files import ModelFiles
from triptych.names import chosen
from triptych.picture.request import read_request
from triptych.second_pass import SecondPass
from triptych.tokenizer import Tokenizer
from triptych.unread import warnings_of

REPOSITORY = CONFIG.parents[1]
TOKENIZER = Tokenizer(REPOSITORY / "tokenizer" / "1")
MODEL_FILES = ModelFiles.load(REPOSITORY / "unet_loop" / "1")
LIMITS = Limits()
EMBEDS = np.zeros((77, 16), np.float32)


def warnings():
    """Warnings of every kind that the server writes, by what asks for them."""
    asked = dataclasses.replace(SETTINGS, prompt="(red:1.2) " * 30, negative_prompt="blue")
    plain = dataclasses.replace(asked, guidance_scale=1.0)
    between = dataclasses.replace(asked, guidance_start=0.51, guidance_stop=0.52)
    webui = dataclasses.replace(
        asked, prompt="(red __x__ {a|b}", negative_prompt="b) c", prompt_syntax="webui"
    )
    _, warned = TOKENIZER.encode_settings([plain, between, webui], MODEL_FILES)
    for settings in warned:
        yield from settings.warnings
    yield from warnings_of(plain, False, lambda text: False)

    long = "\u00e9" * 8192
    for file in (
        own(prompt=long, negative_prompt=long, output_format="jpeg", strength=0.5),
        own(second_pass=SecondPass(128, 192, 0.5, 8, "bilinear")),
    ):
        yield from read(file).settings["warnings"]
    told = "red\nSteps: 25, Sampler: Exotic, CFG scale: 7, Seed: 1, Size: 64x64, Hires upscale: 2"
    yield from read(png(parameters=told)).settings["warnings"]


class Served(NamedTuple):
    """What a server has."""

    model_files: ModelFiles = MODEL_FILES
    loras: tuple[str, ...] = ("ink", "chalk")
    takes_pictures: bool = True


def with_scheduler(**config):
    return dataclasses.replace(MODEL_FILES, scheduler_config=config)


SERVED = (
    Served(),
    Served(loras=(), takes_pictures=False),
    Served(dataclasses.replace(MODEL_FILES, text_encoder_layers=None)),  # exported through Paddle
    Served(dataclasses.replace(MODEL_FILES, pad_token_id_2=0)),  # SDXL
    Served(dataclasses.replace(MODEL_FILES, unet_in_channels=9)),  # made to paint in pictures
    Served(with_scheduler(_class_name="PNDMScheduler")),
    Served(with_scheduler(_class_name="DDIMScheduler", num_train_timesteps=100, steps_offset=1)),
)
ODD = ("", "odd", "\0", "x" * 20_000, -1, 0, 1.5, 3, 30, 900, 2**64, True, [], {}, ["odd"])
PROMPTS = (
    *('{"prompt": "x"}', "x" * 2**21, "word " * 500, "(red)", "(red:1000)", "(" * 80),
    *("a AND b", "[a|b]", "[a:b:0.4]", "<hypernet:ink:1>"),
    *("<lora:ink:much>", "<lora:ink:9>", "<lora:ink:1>" * 2, "<lora:inc:1>", "<lora:odd:1>"),
    "".join(f"<lora:{number}:1>" for number in range(9)),
)
PICTURES = tuple(
    text(file)
    for file in (
        *(flat((64, 64)), flat((64, 100)), flat((9, 9)), flat((5000, 4000)), flat()[:90], b"odd"),
        file_of(Image.new("L", (64, 64)), "GIF"),
        file_of(
            Image.new("L", (64, 64)),
            "WEBP",
            save_all=True,
            append_images=[Image.new("L", (64, 64), 9)],
        ),
    )
)
LORA = {"name": "ink"}
TOGETHER = (
    {"guidance_start": 0.6, "guidance_stop": 0.5},
    {"num_inference_steps": 3, "strength": 0.1, "image": PICTURES[0]},
    {"cache_interval": 2, "scheduler": "heun"},
    {"cache_interval": 2, "loras": [LORA]},
    {"loras": [LORA] * 2},
    {"loras": [LORA] * 9},
    *({"loras": [one]} for one in ({"name": ""}, {"name": "../ink"}, {"name": "ink", "scale": 9})),
    {"eta": 0.5, "scheduler": "euler"},
    {"timestep_spacing": "leading", "scheduler": "lcm"},
    {"num_inference_steps": 60, "scheduler": "lcm"},
    {"num_inference_steps": 150, "scheduler": "ddim"},
    {"num_inference_steps": 100, "scheduler": "ddim", "timestep_spacing": "leading"},
    {"num_inference_steps": 100, "scheduler": "dpmpp_2m", "timestep_spacing": "linspace"},
)
"""Settings that are odd beside each other alone."""

ASKED = (
    *({field: odd} for field in Asked.model_fields for odd in ODD),
    *({"prompt": prompt} for prompt in PROMPTS),
    *(
        {field: prompt, "prompt_syntax": "webui"}
        for field in ("prompt", "negative_prompt")
        for prompt in PROMPTS
    ),
    *({"image": one} for one in PICTURES),
    *({"image": PICTURES[0], "mask_image": one, "width": 64} for one in PICTURES),
    *TOGETHER,
)


def refusal(asked, served, folder):
    """What the gateway or its server says where one refuses what is asked; None if none does."""
    try:
        known = Asked.model_validate({"prompt": "x", **asked}, from_attributes=True)
    except ValidationError as error:
        return invalid(error.errors()).detail
    files = served.model_files
    try:
        chosen(known.model, [])
        request = known.model_dump_json(exclude={"model"}, exclude_none=True).encode()
        takes_pictures = served.takes_pictures
        one = read_request(request, files.defaults(), LIMITS, takes_pictures=takes_pictures)
        loras = LoraFolder(folder).find(webui_prompt.loras_of(one.settings))
        TOKENIZER.encode_settings([one.settings], files, LIMITS)
        start = encoded(*one, files, moments_of) if one.image else None
        Denoising(one.settings, *of_prompts(EMBEDS, EMBEDS), files, start, loras)
    except InvalidRequest as error:
        return str(error)
    return None


def moments_of(sample):
    """What a VAE's encoder gives, of a picture of nothing."""
    return np.zeros((1, 8, sample.shape[2] // 8, sample.shape[3] // 8), np.float32)


def refusals(tmp_path):
    """What is said of each setting of the page, by odd ones: its name, and what is allowed."""
    for number, served in enumerate(SERVED):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in served.loras:
            (folder / f"{name}.safetensors").touch()
        for asked in ASKED:
            told = refusal(asked, served, folder)
            if told is not None:
                named = re.fullmatch(r"(\w+)\S*: got .*?; allowed: (.*)", told, re.DOTALL)
                yield named.groups()


def other_refusals():
    """What else the page is told: of a picture whose settings it asks for, and of a key."""
    for file in (flat(), b"odd"):
        with pytest.raises(Problem) as caught:
            read(file)
        yield caught.value.detail.removeprefix("image: ")
    with pytest.raises(NotAllowed) as caught:
        Caller(Key(name="a", sha256="0" * 64, models=["ink"])).check(1, "oil")
    yield str(caught.value)


def sentences(said, table):
    """Those of the table that what the server says is made of."""
    for english in table:
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(english))
        found = re.fullmatch(pattern, said, re.DOTALL)
        if found:
            inner = found.groupdict().get("allowed")
            return {english} | (sentences(inner, table) if inner else set())
    raise AssertionError(said)


def test_all_that_the_server_says_has_its_chinese_and_no_more_has(tmp_path):
    refused = set(refusals(tmp_path))
    assert {name for name, _ in refused} == set(Asked.model_fields)
    allowed = {allowed for _, allowed in refused}
    table, found = chinese("words_of_server.js"), set()
    for said in {*warnings(), *allowed, *other_refusals()}:
        found |= sentences(said, table)
    assert found == set(table)


@pytest.fixture
def speaking(browser):
    """`speaking(language)`: the browser, in that language until the test is over."""
    yield lambda language: browser.speak(language) or browser
    browser.speak("en-US")
    browser.complaints()


def test_warnings_in_chinese(speaking, gateway, triton):
    triton.warnings = (
        "prompt is longer than 77 tokens; cut off: 'x'",
        "prompt: '(a:1.2)' is read as words: no LoRA, no weights",
        "negative_prompt is not used at guidance_scale 1",
        "what no table has",
    )
    page = Page(speaking("zh-CN"), gateway.url)
    page.draw(prompt="a red circle")
    page.settled(1)
    assert [one.text for one in page.all(".card .warnings li")] == [
        "提示词超过 77 个词元，截去了：'x'",
        "提示词：'(a:1.2)' 按普通文字读取：不是 LoRA，也不是权重",
        "引导强度为 1 时不使用反向提示词",
        "what no table has",
    ]


@pytest.mark.parametrize(
    ("language", "at_its_field", "above", "unknown"),
    [
        (
            "en-US",
            "Allowed: a text, not a whole request in one",
            "Guidance start: got 0.9; allowed: at most Guidance stop, which is 0.5",
            "Cache interval: got 2; allowed: what no table has",
        ),
        (
            "zh-CN",
            "允许的值：文字，而不是写成文字的整个请求",
            "引导起点：0.9 不可用；允许的值：不大于引导终点（0.5）",
            "缓存间隔：2 不可用；允许的值：what no table has",
        ),
    ],
)
def test_what_is_allowed_is_said_in_the_pages_words(
    speaking, gateway, triton, language, at_its_field, above, unknown
):
    page = Page(speaking(language), gateway.url, "#prompt=x&guidance_start=0.9&guidance_stop=0.5")
    page.draw(prompt='{"prompt": "x"}')
    wait_for(lambda: page["prompt-error"].text == at_its_field)
    page.draw(prompt="x")
    wait_for(lambda: page["alert"].text == above)
    page["others-drop"].click()
    code = grpc.StatusCode.INVALID_ARGUMENT
    triton.abort = (code, "sd_ensemble_stream: cache_interval: got 2; allowed: what no table has")
    page["draw"].click()
    wait_for(lambda: page["alert"].text == unknown)


def test_a_setting_without_a_field_to_be_seen_is_refused_above_the_pictures(page):
    page.draw(prompt="x", num_inference_steps="1")
    page.settled(1)
    page.act("more")
    said = "Strength: got 0.7; allowed: enough for a step: 1 steps times strength, rounded down"
    wait_for(lambda: page["alert"].text.startswith(said))
    assert not page["strength-error"].is_displayed()


@pytest.mark.parametrize(
    ("language", "size", "prompt", "seed", "lost"),
    [
        (
            "en-US",
            "1024 x 1024 is too large: at most 768 x 768 in total",
            "This prompt is too long (about 16,000 letters at most)",
            "Leave empty for random, or type a whole number",
            "Connection lost. Is `make web` still running?",
        ),
        (
            "zh-CN",
            "1024 x 1024 太大：总共最多 768 x 768",
            "提示词太长（最多约 16,000 个英文字母；一个汉字算三个）",
            "留空则随机，或输入一个整数",
            "连接已断开。`make web` 还在运行吗？",
        ),
    ],
)
def test_errors_for_people(speaking, gateway, triton, language, size, prompt, seed, lost):
    browser = speaking(language)
    page = Page(browser, gateway.url)
    page.draw(prompt="x", width="1024", height="1024")
    assert page["width-error"].text == size
    page.draw(width="64", height="64", seed="red")
    assert page["seed-error"].text == seed
    page.fill(seed="")
    browser.execute_script("document.getElementById('prompt').value = 'x'.repeat(16385)")
    page["draw"].click()
    assert page["prompt-error"].text == prompt
    assert triton.requests == []
    browser.offline(True)
    try:
        page.draw(prompt="x")
        wait_for(lambda: page["lost"].text.startswith(lost))
    finally:
        browser.offline(False)
    page.settled(1)
