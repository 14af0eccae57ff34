"""The page in a real browser, as people use it."""

import io

import grpc
import pytest
from PIL import Image, PngImagePlugin
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from tests.gateway import browser as chromium
from tests.gateway.fake_triton import TOTAL
from tests.gateway.page import Page, drop, violations
from tests.gateway.running import wait_for
from triptych.client import Client
from triptych.picture.metadata import read_settings

pytestmark = pytest.mark.skipif(chromium.missing() is not None, reason=str(chromium.missing()))


def test_a_picture_is_seen_coming_and_then_is_there(page, triton):
    triton.held_from = 3
    triton.hold.clear()
    page.draw(prompt="a red circle", width="128", height="64", seed="18446744073709551615")
    wait_for(lambda: page.all(".coming img:not([hidden])"))
    assert page.one(".coming .steps").text == f"step 2 of {TOTAL}"
    assert page.one("progress").get_property("value") == 2
    assert page.one(".coming img").get_attribute("alt") == f"A preview after 2 of {TOTAL} steps"
    triton.hold.set()
    page.settled(1)
    shown = page.one(".card img")
    wait_for(lambda: shown.get_property("naturalWidth") == 128)
    assert (shown.get_property("naturalHeight"), shown.get_attribute("alt")) == (64, "a red circle")
    assert page.one("[data-does=download]").get_attribute("download") == (
        "triptych-18446744073709551615.png"
    )
    page.one("summary").click()
    assert "18446744073709551615" in page.one("dl").text
    assert "Drawn in" in page.said()
    assert not page["cancel"].is_displayed()


def test_loras_are_chosen_and_taken_from_a_picture(browser, gateway, triton):
    triton.loras = ["ink", "chalk"]
    page = Page(browser, gateway.url)
    wait_for(lambda: page["loras-field"].is_displayed())
    for name in ("ink", "chalk", "ink"):
        Select(page["loras"]).select_by_value(name)
        page["add-lora"].click()
    scales = page.all("#chosen-loras input")
    assert [one.get_attribute("aria-label") for one in scales] == ["Scale of ink", "Scale of chalk"]
    for scale, text in zip(scales, ("0.5", "9")):
        scale.send_keys(Keys.CONTROL, "a")
        scale.send_keys(text)
    assert violations(browser) == []
    page.draw(prompt="a red circle")
    page.settled(1)
    asked = [{"name": "ink", "scale": 0.5}, {"name": "chalk", "scale": 4}]
    assert triton.requests[-1]["loras"] == asked
    page.one("summary").click()
    assert "ink 0.5, chalk 4" in page.one("dl").text
    for button in page.all("#chosen-loras button"):
        button.click()
    page.draw(prompt="a red circle")
    page.settled(2)
    assert "loras" not in triton.requests[-1]
    page.all("[data-does=use]")[1].click()
    assert [one.get_property("value") for one in page.all("#chosen-loras input")] == ["0.5", "4"]


def test_the_syntax_of_prompts_is_chosen_and_remembered(page, triton):
    page.draw(prompt="a red circle")
    page.settled(1)
    assert "prompt_syntax" not in triton.requests[0]
    page["prompt_syntax"].send_keys("the WebUI")
    page["draw"].click()
    page.settled(2)
    assert triton.requests[1]["prompt_syntax"] == "webui"
    page.browser.refresh()
    wait_for(lambda: page["scheduler"].get_property("value") == "pndm")
    assert page.values("prompt_syntax") == ["webui"]
    page.browser.execute_script("localStorage.clear()")


def test_the_download_is_the_file_with_its_settings(page, tmp_path):
    page.browser.download_to(tmp_path)
    page.draw(prompt="a ☀ over hills", seed="5")
    page.settled(1)
    page.one("[data-does=download]").click()
    path = tmp_path / "triptych-5.png"
    wait_for(path.exists)
    settings = read_settings(path.read_bytes())
    assert (settings.prompt, settings.seed) == ("a ☀ over hills", 5)


def test_warnings_stand_beside_the_picture_that_has_some(page, triton):
    triton.warnings = ("prompt is longer than 77 tokens; cut off: 'x'", "eta is not used")
    page.draw(prompt="x")
    page.settled(1)
    assert [one.text for one in page.all(".card .warnings li")] == list(triton.warnings)
    assert page.one(".card .warnings").is_displayed()
    triton.warnings = ()
    page.draw(prompt="y")
    page.settled(2)
    assert not page.one(".card:first-child .warnings").is_displayed()


@pytest.mark.parametrize("how", ["button", "key"])
def test_cancelling_gives_every_picture_up(page, triton, how):
    triton.hold.clear()
    page.draw(prompt="x", count="3")
    wait_for(lambda: len(triton.requests) == 3)
    page["cancel"].click() if how == "button" else page.press(Keys.ESCAPE)
    wait_for(lambda: triton.left == 3)
    page.settled(0)
    assert page.said() == "Cancelled"
    assert page["alert"].text == ""
    if how == "button":
        assert page.focused() == "draw"


def test_several_pictures_have_seeds_one_after_the_other_and_the_newest_stand_first(page):
    page.draw(prompt="old", seed="1")
    page.settled(1)
    page.draw(prompt="new", seed="10", count="3")
    page.settled(4)
    names = [link.get_attribute("download") for link in page.all("[data-does=download]")]
    assert names == [f"triptych-{seed}.png" for seed in (10, 11, 12, 1)]


def test_the_dice_and_using_a_pictures_settings_again(page):
    page["dice"].click()
    (seed,) = page.values("seed")
    assert 0 <= int(seed) < 2**32
    fields = {"prompt": "first", "negative_prompt": "blue", "num_inference_steps": "7"}
    page["scheduler"].send_keys("UniPC")
    page.draw(**fields, guidance_scale="2.25", width="72", height="64")
    page.settled(1)
    page["scheduler"].send_keys("DDIM")
    page.fill(prompt="second", negative_prompt="", num_inference_steps="9", seed="", width="64")
    page.one("[data-does=use]").click()
    assert page.values(*fields) == list(fields.values())
    again = page.values("seed", "guidance_scale", "width", "scheduler")
    assert again == [seed, "2.25", "72", "unipc"]
    assert page.focused() == "prompt"


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("prompt", "  ", "Say what to draw"),
        ("width", "100", "nearest valid values"),
        ("num_inference_steps", "0", "greater than or equal to 1"),
        ("num_inference_steps", "201", "Allowed: "),  # by the server
        ("seed", "red", "A whole number"),
        ("seed", "18446744073709551616", "18446744073709551615"),
    ],
)
def test_what_cannot_be_is_said_at_its_field(page, field, text, said):
    page.draw(**{"prompt": "x", field: text})
    wait_for(lambda: page[f"{field}-error"].text)
    assert said in page[f"{field}-error"].text
    assert page[field].get_attribute("aria-invalid") == "true"
    assert page.focused() == field
    wait_for(lambda: not page.all(".card"))
    page.draw(prompt="x", width="64", num_inference_steps="2", seed="1")
    page.settled(1)
    assert not page.all("[aria-invalid]")


@pytest.fixture
def file(triton, tmp_path):
    """A PNG of this server's."""
    path = tmp_path / "own.png"
    with Client(triton.url) as client:
        *_, picture = client.stream("a ☀, naïve", seed=2**63, scheduler="lms", guidance_scale=3)
    picture.save(path)
    return path


@pytest.mark.parametrize("how", ["dropped", "chosen"])
def test_the_settings_of_a_png(page, file, how):
    page.fill(negative_prompt="stays not")
    drop(page, file.read_bytes()) if how == "dropped" else page["file"].send_keys(str(file))
    wait_for(lambda: page.values("prompt") == ["a ☀, naïve"])
    assert page.values("negative_prompt", "seed", "scheduler") == ["", str(2**63), "lms"]
    assert float(*page.values("guidance_scale")) == 3
    assert page.values("width", "height") == ["64", "64"]


def test_a_pictures_settings_without_a_field_are_kept_and_shown(page, triton):
    own = {"scheduler": "ddim", "timestep_spacing": "trailing", "eta": 0.5}
    with Client(triton.url) as client:
        *_, picture = client.stream("as before", width=64, height=64, **own)
    drop(page, picture.file)
    wait_for(lambda: page.values("prompt") == ["as before"])
    assert page["others"].text.startswith(
        "Also as in the picture: timestep spacing trailing, eta 0.5."
    )
    page.draw()
    page.settled(1)
    assert {key: triton.requests[-1].get(key) for key in own} == own
    page["others-drop"].click()
    assert not page["others"].is_displayed()
    page.draw()
    page.settled(2)
    assert not {"timestep_spacing", "eta"} & triton.requests[-1].keys()


def test_what_is_not_taken_from_a_picture_is_said(page):
    chunks, file = PngImagePlugin.PngInfo(), io.BytesIO()
    chunks.add_text("parameters", "a fox\nSteps: 5, Sampler: DPM++ SDE, Seed: 1, Size: 64x64")
    Image.new("RGB", (4, 4)).save(file, "PNG", pnginfo=chunks)
    drop(page, file.getvalue())
    wait_for(lambda: page.values("prompt") == ["a fox"])
    assert "sampler is not one of those here" in page["alert"].text


def test_files_that_say_nothing(page):
    plain = io.BytesIO()
    Image.new("RGB", (4, 4)).save(plain, "PNG")
    for data, said in ((plain.getvalue(), "does not say"), (b"GIF89a", "is no PNG")):
        drop(page, data)
        wait_for(lambda said=said: said in page["alert"].text)


def test_by_keyboard_alone(page):
    assert page.focused() == "prompt"
    page.press("a red circle")
    ActionChains(page.browser).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(
        Keys.CONTROL
    ).perform()
    page.settled(1)
    page.press(Keys.TAB)
    assert page.focused() == "negative_prompt"
    for _ in range(30):
        page.press(Keys.TAB)
        if page.browser.switch_to.active_element.get_attribute("data-does") == "enlarge":
            break
    page.press(Keys.ENTER)
    assert page["large"].get_attribute("open") is not None
    page.press(Keys.ESCAPE)
    assert page["large"].get_attribute("open") is None
    assert len(page.all(".card")) == 1


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_wrong(page, triton, dark):
    page.browser.look_like(dark=dark)
    assert violations(page.browser) == []
    page.draw(prompt="a red circle", count="2")
    page.settled(2)
    page.one("summary").click()
    page.draw(width="100")
    assert page.all("[aria-invalid]")
    assert violations(page.browser) == []
    triton.held_from = 3
    triton.hold.clear()
    page.draw(width="64")
    wait_for(lambda: len(page.all(".coming img:not([hidden])")) == 2)
    assert violations(page.browser) == []
    triton.hold.set()
    page.settled(4)
    page.one("[data-does=enlarge]").click()
    assert violations(page.browser) == []


def test_a_busy_server_is_asked_again(page, triton):
    triton.abort = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    page.draw(prompt="x")
    wait_for(lambda: "busy, again in 2 s" in page.one(".steps").text)
    triton.abort = None
    page.settled(1)


def test_a_failure_is_said_above_the_pictures(page, triton):
    triton.abort_after = (grpc.StatusCode.INTERNAL, "it broke")
    page.draw(prompt="x")
    wait_for(lambda: "it broke" in page["alert"].text)
    page.settled(0)


def test_the_key_is_asked_for(browser, start):
    page = Page(browser, start(api_key="sesame").url)
    wait_for(lambda: page["key"].get_attribute("open") is not None)
    page.press(Keys.ESCAPE)
    wait_for(lambda: "asks for a key" in page["alert"].text)
    page.draw(prompt="x")
    for key in ("wrong", "sesame"):
        wait_for(lambda: page["key"].get_attribute("open") is not None)
        page["key-text"].clear()
        page["key-text"].send_keys(key, Keys.ENTER)
    page.settled(1)
    browser.complaints()


@pytest.mark.parametrize("size", [(320, 640), chromium.PHONE, (768, 1024), chromium.WIDE])
def test_it_fits_the_screen(page, triton, size):
    page.browser.look_like(size)
    page.draw(prompt="x" * 300, negative_prompt="y" * 300, count="2")
    page.settled(2)
    page.one("summary").click()
    width = page.browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= size[0]
    card = page.one(".card").rect
    assert card["x"] >= 0 and card["x"] + card["width"] <= size[0]


def test_dark_and_light(page):
    seen = set()
    for dark in (False, True):
        page.browser.look_like(dark=dark)
        seen.add(page.one("body").value_of_css_property("background-color"))
    assert len(seen) == 2


def test_the_description_of_the_api_needs_nothing_from_elsewhere(browser, gateway):
    browser.requested()
    browser.get(f"{gateway.url}/docs")
    assert browser.find_elements(By.CSS_SELECTOR, "details")
    own = (gateway.url, "data:")
    assert [url for url in browser.requested() if not url.startswith(own)] == []
    assert browser.complaints() == []
    assert violations(browser) == []
