"""What the server says, in the page's words: its warnings, and what it allows where it refuses."""
# ruff: noqa: RUF001 -- Chinese has marks of its own

import importlib
import re

import grpc
import pb_utils_fake as fake
import pytest

from tests.gateway import server_words
from tests.gateway.page import Page, drop
from tests.gateway.running import wait_for
from tests.gateway.test_page_words import chinese
from triptych.gateway.page import Asked


def sentences(said, table):
    """Those of the table that what the server says is made of."""
    for english in table:
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(english))
        found = re.fullmatch(pattern, said, re.DOTALL)
        if found:
            inner = found.groupdict().get("allowed")
            return {english} | (sentences(inner, table) if inner else set())
    raise AssertionError(said)


def test_all_that_the_server_says_has_its_chinese_and_no_more_has(tmp_path, monkeypatch, gateway):
    refused = set(server_words.refusals(tmp_path))
    assert {name for name, _, _ in refused} == set(Asked.model_fields)
    allowed = {allowed for *_, allowed in refused} | {*server_words.refused_by_networks(tmp_path)}
    fake.install(monkeypatch, fake.module("24.10", None))
    for name in ("loras", "deep_cache"):
        allowed.add(importlib.import_module(f"triptych.stages.{name}").NOWHERE)
    table, found = chinese("words_of_server.js"), set()
    for said in {*server_words.warnings(), *allowed, *server_words.other_refusals(gateway.url)}:
        found |= sentences(said, table)
    assert found == set(table)
    shown = {got for name, got, _ in refused if name not in ("image", "mask_image")}
    assert {got for got in shown if not re.fullmatch(PLAIN, got)} == {"a list", "an object"}
    assert {"a list", "an object"} <= set(table)


PLAIN = r"""[-+.\de]+|null|true|false|\[\]|\{\}|(["']).*\1(\.\.\. \(\d+ characters\))?"""
"""A value that the server shows as it is, but for the words of its length."""


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
        "prompt: this model does not know 'xxx'... (300 characters), 'dog', ...",
        "what no table has",
    )
    page = Page(speaking("zh-CN"), gateway.url)
    page.draw(prompt="a red circle")
    page.settled(1)
    assert [one.text for one in page.all(".card .warnings li")] == [
        "提示词超过 77 个词元，截去了：'x'",
        "提示词：'(a:1.2)' 按普通文字读取：不是 LoRA，也不是权重",
        "提示词引导系数为 1 时不使用反向提示词",
        "提示词：这个模型不认识 'xxx'……（共 300 个字符）, 'dog', ...",
        "what no table has",
    ]


def test_a_file_that_says_nothing_in_chinese(speaking, gateway, triton):
    page = Page(speaking("zh-CN"), gateway.url)
    drop(page, b"GIF89a")
    wait_for(lambda: page["alert"].text == "dropped.png: 这不是 PNG、JPEG 或 WebP 文件")


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


@pytest.mark.parametrize(
    ("language", "setting", "said"),
    [
        (
            "en-US",
            'second_pass={"height":8}',
            "Second pass: got an object; allowed: an object with",
        ),
        ("zh-CN", 'second_pass={"height":8}', "第二遍生成：对象 不可用；允许的值：含高度和宽度"),
        ("zh-CN", "timestep_spacing=[1]", "时间步间隔：列表 不可用"),
        (
            "zh-CN",
            "timestep_spacing=" + "x" * 300,
            f"时间步间隔：'{'x' * 60}'……（共 300 个字符） 不可用",
        ),
    ],
)
def test_a_value_is_shown_in_the_pages_words(speaking, gateway, triton, language, setting, said):
    page = Page(speaking(language), gateway.url, f"#prompt=x&{setting}")
    page["draw"].click()
    wait_for(lambda: page["alert"].text.startswith(said))


def test_a_setting_without_a_field_to_be_seen_is_refused_above_the_pictures(page, triton):
    why = "got 0.7; allowed: enough for a step: 1 steps times strength, rounded down"
    triton.abort = (grpc.StatusCode.INVALID_ARGUMENT, f"tokenizer: strength: {why}")
    page.draw(prompt="x")
    said = f"Strength: {why}"
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
            "留空为随机，或输入一个整数",
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
