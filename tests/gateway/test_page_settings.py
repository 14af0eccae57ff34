"""The settings of a picture's file, in the page's form."""

import io

import pytest
from PIL import Image, PngImagePlugin
from selenium.webdriver.support.ui import Select

from tests.gateway.page import Page, drop, release, save_style
from tests.gateway.pictures import file_of
from tests.gateway.running import wait_for
from triptych.client import Client


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


def test_a_long_word_of_a_link_or_of_the_server_wraps(browser, gateway, triton):
    triton.parameters["sd_ensemble"] = {"title": "x" * 300}
    page = Page(browser, gateway.url, f"#prompt=x&eta={'x' * 300}")
    for size in ((320, 640), (768, 1024), (1280, 800)):
        browser.look_like(size)
        page.fill(width="9" * 60)
        assert page["others-said"].text == f"Also as in the picture: eta {'x' * 300}."
        assert page["about"].text.startswith("x" * 300)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
        fields = page["fields"]
        assert fields.get_property("scrollWidth") <= fields.get_property("clientWidth")


def test_the_prompts_of_a_second_text_encoder(page, triton):
    assert not page["second-prompts"].is_displayed()
    triton.is_sdxl = True
    page.reload()
    page["advanced"].click()
    wait_for(page["second-prompts"].is_displayed)
    page.draw(prompt="x", prompt_2="second", negative_prompt_2="7")
    page.settled(1)
    own = {"prompt_2": "second", "negative_prompt_2": "7"}
    assert {key: triton.requests[-1].get(key) for key in own} == own
    page.fill(prompt_2="", negative_prompt_2="")
    page.draw()
    page.settled(2)
    assert not own.keys() & triton.requests[-1].keys()


def test_sdxls_settings_of_a_picture_are_kept_and_refused_by_another_model(page, triton):
    triton.is_sdxl = True
    own = {"prompt_2": "second", "target_size": [96, 64]}
    with Client(triton.url) as client:
        *_, picture = client.stream("as before", width=64, height=64, **own)
    triton.is_sdxl = False
    drop(page, picture.file)
    wait_for(lambda: page.values("prompt") == ["as before"])
    assert page.values("prompt_2", "negative_prompt_2") == ["second", ""]
    assert "target height, width 96,64." in page["others"].text
    page.draw()
    wait_for(lambda: "has one text encoder" in page["prompt_2-error"].text)
    assert page["prompt_2-error"].is_displayed()
    triton.is_sdxl = True
    page.draw()
    page.settled(1)
    assert {key: triton.requests[-1].get(key) for key in own} == own


def saying(prompt, sampler="Euler"):
    """A PNG of the WebUI's."""
    chunks = PngImagePlugin.PngInfo()
    settings = f"Steps: 5, Sampler: {sampler}, Seed: 1, Size: 64x64"
    chunks.add_text("parameters", f"{prompt}\n{settings}")
    return file_of(Image.new("RGB", (4, 4)), pnginfo=chunks)


def test_what_is_not_taken_from_a_picture_is_said(page):
    drop(page, saying("a fox", "DPM++ SDE"))
    wait_for(lambda: page.values("prompt") == ["a fox"])
    assert "sampler is not one of those here" in page["alert"].text


def test_files_that_say_nothing(page):
    plain = io.BytesIO()
    Image.new("RGB", (4, 4)).save(plain, "PNG")
    for data, said in ((plain.getvalue(), "does not say"), (b"GIF89a", "is no PNG")):
        drop(page, data)
        wait_for(lambda said=said: said in page["alert"].text)


FIRST_IS_SLOW = """
const usual = window.fetch;
window.fetch = async (...all) => {
  window.fetch = usual;
  const answer = await usual(...all);
  await new Promise((come) => (window.come = come));
  return answer;
};
"""


@pytest.mark.parametrize("said", ["its settings", "nothing"])
def test_of_two_files_the_later_ones_settings_are_meant(page, said):
    page.browser.execute_script(FIRST_IS_SLOW)
    drop(page, saying("a fox") if said == "its settings" else b"GIF89a")
    wait_for(lambda: page.browser.execute_script("return !!window.come"))
    drop(page, saying("a hare"))
    wait_for(lambda: page.values("prompt") == ["a hare"])
    release(page)
    assert page.values("prompt") == ["a hare"]
    assert page["alert"].text == ""


def test_what_is_typed_while_a_files_settings_are_read_stays(page, triton):
    triton.loras = ["ink", "chalk"]
    triton.models = ["sd_ensemble", "ink"]
    page.reload()
    wait_for(lambda: page["model-field"].is_displayed() and page["loras-field"].is_displayed())
    own = {"guidance_scale": 3, "width": 128, "height": 128, "num_inference_steps": 5, "seed": 1}
    own["loras"] = [{"name": "chalk", "scale": 2}]
    with Client(triton.url) as client:
        *_, picture = client.stream("as before", model="ink", negative_prompt="blue", **own)
    page["keep-seed"].click()
    page.browser.execute_script(FIRST_IS_SLOW)
    drop(page, picture.file)
    wait_for(lambda: page.browser.execute_script("return !!window.come"))
    page["dice"].click()
    (seed,) = page.values("seed")
    page.browser.execute_script("document.querySelector('[value=portrait]').click()")
    Select(page["loras"]).select_by_value("ink")
    page["add-lora"].click()
    page["scheduler"].send_keys("DDIM")
    page.fill(num_inference_steps="7")
    release(page)
    wait_for(lambda: page["about"].get_property("textContent").startswith("ink"))
    typed = ["7", seed, "64", "80", "ddim"]
    assert page.values("num_inference_steps", "seed", "width", "height", "scheduler") == typed
    assert page["keep-seed"].get_property("checked")
    assert [one.text for one in page.all("#chosen-loras span")] == ["ink"]
    assert page.focused() == "num_inference_steps"
    of_the_file = ["ink", "as before", "blue", "3"]
    assert page.values("model", "prompt", "negative_prompt", "guidance_scale") == of_the_file


def test_settings_that_are_used_while_a_file_is_read_are_meant(page):
    page.draw(prompt="a red circle", num_inference_steps="7")
    page.settled(1)
    page.browser.execute_script(FIRST_IS_SLOW)
    drop(page, saying("a fox"))
    wait_for(lambda: page.browser.execute_script("return !!window.come"))
    page.use()
    release(page)
    assert page.values("prompt", "num_inference_steps") == ["a red circle", "7"]


def test_a_style_and_half_a_number_that_come_while_a_file_is_read_stay(page):
    save_style(page, "in ink")
    page.fill(prompt="a star")
    page.browser.execute_script(FIRST_IS_SLOW)
    drop(page, saying("a fox"))
    wait_for(lambda: page.browser.execute_script("return !!window.come"))
    page["prompts-open"].click()
    page.one("#styles .take").click()
    page.fill(guidance_scale="2e")
    release(page)
    page.press("1")
    typed = ["a star, in ink", "2e1"]
    assert page.values("prompt", "guidance_scale", "num_inference_steps") == [*typed, "5"]
