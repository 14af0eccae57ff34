"""The page in a real browser, as people use it."""

import time

import grpc
import pytest
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from tests.gateway import browser as chromium
from tests.gateway.fake_triton import TOTAL
from tests.gateway.page import USUAL_IS_SLOW, Page, hand, violations
from tests.gateway.running import wait_for
from triptych.picture.metadata import read_settings


def test_a_picture_is_seen_coming_and_then_is_there(page, triton):
    triton.held_from = 3
    triton.hold.clear()
    page.draw(prompt="a red circle", width="128", height="64", seed="18446744073709551615")
    wait_for(lambda: page.all(".coming .preview:not([hidden])"))
    assert page.one(".coming .steps").text == f"step 2 of {TOTAL}"
    assert page.one(".coming progress").get_property("value") == 2
    assert (
        page.one(".coming .preview").get_attribute("alt") == f"A preview after 2 of {TOTAL} steps"
    )
    triton.hold.set()
    page.settled(1)
    shown = page.one(".card .picture img")
    wait_for(lambda: shown.get_property("naturalWidth") == 128)
    assert (shown.get_property("naturalHeight"), shown.get_attribute("alt")) == (64, "a red circle")
    assert "Drawn in" in page.said()
    assert page.one("[data-does=download]").get_attribute("download") == (
        "triptych-18446744073709551615.png"
    )
    assert "18446744073709551615" in page.settings()
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
    assert "ink 0.5, chalk 4" in page.settings()
    for button in page.all("#chosen-loras button"):
        button.click()
    page.draw(prompt="a red circle")
    page.settled(2)
    assert "loras" not in triton.requests[-1]
    page.use(1)
    assert [one.get_property("value") for one in page.all("#chosen-loras input")] == ["0.5", "4"]


def test_the_syntax_of_prompts_is_chosen_and_remembered(page, triton):
    page.draw(prompt="a red circle")
    page.settled(1)
    assert "prompt_syntax" not in triton.requests[0]
    page["prompt_syntax"].send_keys("the WebUI")
    page["draw"].click()
    page.settled(2)
    assert triton.requests[1]["prompt_syntax"] == "webui"
    page.reload()
    assert page.values("prompt_syntax") == ["webui"]


def test_the_download_is_the_file_with_its_settings(page, tmp_path):
    page.browser.download_to(tmp_path)
    page.draw(prompt="a ☀ over hills", seed="5")
    page.settled(1)
    page.act("download")
    path = tmp_path / "triptych-5.png"
    wait_for(lambda: path.exists() and path.stat().st_size)  # it is empty until it is whole
    settings = read_settings(path.read_bytes())
    assert (settings.prompt, settings.seed) == ("a ☀ over hills", 5)


def test_warnings_stand_beside_the_picture_that_has_some(page, triton):
    triton.warnings = ("prompt is longer than 77 tokens; cut off: 'x'", "eta is not used")
    page.draw(prompt="x")
    page.settled(1)
    shown = ["Prompt is longer than 77 tokens; cut off: 'x'", "eta is not used"]
    assert [one.text for one in page.all(".card .warnings li")] == shown
    assert page.one(".card .warnings").is_displayed()
    triton.warnings = ()
    page.draw(prompt="y")
    page.settled(2)
    assert not page.one(".card .warnings").is_displayed()


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
    names = [link.get_attribute("download") for link in page.all(".small [data-does=download]")]
    assert names == [f"triptych-{seed}.png" for seed in (10, 11, 12, 1)]


def test_zero_is_the_seed_after_the_highest(page):
    page.draw(prompt="x", seed=str(2**64 - 1), count="2")
    page.settled(2)
    names = [link.get_attribute("download") for link in page.all(".small [data-does=download]")]
    assert names == [f"triptych-{2**64 - 1}.png", "triptych-0.png"]


def test_what_was_wrong_is_gone_once_it_is_mended_and_when_anything_else_is_drawn(page):
    page.draw(width="100")
    for field, mend in (("prompt", "x"), ("width", Keys.BACK_SPACE)):
        page["draw"].click()
        assert page[f"{field}-error"].text
        page["height"].send_keys(Keys.END)  # which is not what was wrong
        page[field].send_keys(mend)
        assert page[f"{field}-error"].text == ""
        assert page[field].get_attribute("aria-invalid") is None
    page.draw(width="64")
    page.settled(1)
    page.draw(seed="red")
    page["dice"].click()
    assert page["seed-error"].text == ""
    page.draw(seed="red")
    assert page["seed-error"].text
    page.act("more")
    page.settled(5)
    assert page["seed-error"].text == ""


def test_a_model_has_its_title_in_the_sheet(browser, gateway, triton):
    triton.parameters["sd_ensemble"] = {"title": "Triptych's demo model"}
    page = Page(browser, gateway.url)
    page.draw(prompt="x")
    page.settled(1)
    assert "Model\nTriptych's demo model\n" in page.settings()
    triton.models = ["sd_ensemble", "ink"]
    page.reload()
    names = [one.text for one in page.all("#model option")]
    assert names == ["Triptych's demo model (sd_ensemble)", "ink"]
    assert "Model\nTriptych's demo model (sd_ensemble)\n" in page.settings()


# What is told of the model sd_ensemble comes late.
LATE = """
const fetched = window.fetch;
window.late = [];
window.fetch = async (path, ...all) => {
  const model = document.getElementById("model").value;
  const name = String(path);
  if (!/^(api.loras|web.samples)/.test(name)) return fetched(path, ...all);
  if (model === "sd_ensemble") await new Promise((come) => window.late.push(come));
  if (!name.startsWith("api")) return fetched(path, ...all);
  return new Response(JSON.stringify([`${model}'s`]));
};
"""


def test_a_pictures_settings_bring_the_model_that_it_is_of(browser, gateway, triton):
    triton.models = ["sd_ensemble", "ink"]
    triton.parameters["ink"] = {"title": "Ink"}
    triton.parameters["sd_ensemble"] = {"has_samples": "true"}
    page = Page(browser, gateway.url)
    wait_for(lambda: page["model-field"].is_displayed())
    Select(page["model"]).select_by_value("ink")
    wait_for(lambda: page["about"].get_property("textContent").startswith("Ink"))
    page.draw(prompt="first", num_inference_steps="7")
    page.settled(1)
    Select(page["model"]).select_by_value("sd_ensemble")
    wait_for(lambda: page["about"].get_property("textContent").startswith("sd_ensemble"))
    page.use()
    wait_for(lambda: page["about"].get_property("textContent").startswith("Ink"))
    wait_for(lambda: page.values("model", "num_inference_steps") == ["ink", "7"])
    page.draw(prompt="second")
    page.settled(2)
    assert triton.asked_of == ["ink", "ink"]
    assert triton.requests[1]["num_inference_steps"] == 7
    browser.execute_script(LATE)
    Select(page["model"]).select_by_value("sd_ensemble")
    wait_for(lambda: browser.execute_script("return window.late.length") == 2)
    Select(page["model"]).select_by_value("ink")
    wait_for(lambda: page["loras-field"].is_displayed())
    browser.execute_async_script("late.forEach((come) => come()); setTimeout(arguments[0], 100)")
    assert page["loras"].text == "ink's"
    assert not page.all("#samples img")


def test_what_is_typed_while_a_models_settings_come_stays(browser, gateway, triton):
    triton.models = ["sd_ensemble", "ink"]
    triton.parameters["ink"] = {"title": "Ink"}
    page = Page(browser, gateway.url)
    Select(page["model"]).select_by_value("ink")
    wait_for(lambda: page["about"].get_property("textContent").startswith("Ink"))
    page.draw(prompt="first", num_inference_steps="7", guidance_scale="2", seed="3")
    page.settled(1)
    Select(page["model"]).select_by_value("sd_ensemble")
    wait_for(lambda: page["about"].get_property("textContent").startswith("sd_ensemble"))
    browser.execute_script(USUAL_IS_SLOW)
    page.use()
    wait_for(lambda: browser.execute_script("return !!window.come"))
    page.fill(prompt="typed since", num_inference_steps="9", seed="4")
    Select(page["scheduler"]).select_by_value("ddim")
    browser.execute_script("window.come()")
    wait_for(lambda: page["about"].get_property("textContent").startswith("Ink"))
    typed = ["ink", "typed since", "9", "4", "ddim"]
    names = ("model", "prompt", "num_inference_steps", "seed", "scheduler")
    assert page.values(*names, "guidance_scale") == [*typed, "2"]
    browser.execute_script("window.come = null")
    Select(page["model"]).select_by_value("sd_ensemble")
    wait_for(lambda: browser.execute_script("return !!window.come"))
    page.fill(num_inference_steps="11")
    browser.execute_script("window.come()")
    wait_for(lambda: page["about"].get_property("textContent").startswith("sd_ensemble"))
    assert page.values(*names[1:], "guidance_scale") == ["typed since", "11", "4", "pndm", "5"]


def test_the_models_own_scheduler_is_marked(page, triton):
    def marked():
        return [one.text for one in page.all("#scheduler option") if "own" in one.text]

    assert marked() == ["PLMS (the model's own)"]
    page.draw(prompt="x")
    page.settled(1)
    assert "PLMS\n" in page.settings()
    triton.scheduler = "euler"
    page.reload()
    wait_for(lambda: marked() == ["Euler (the model's own)"])


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
    page.use()
    assert page.values(*fields) == list(fields.values())
    again = page.values("seed", "guidance_scale", "width", "scheduler")
    assert again == [seed, "2.25", "72", "unipc"]
    assert page.focused() == "prompt"


WRONG = [
    ("prompt", "  ", "Say what to draw"),
    ("width", "100", "96 or 104, the nearest sizes"),
    ("num_inference_steps", "0", "From 1 to 200"),
    ("num_inference_steps", "201", "From 1 to 200"),
    ("width", "56", "At least 64 pixels"),
    ("width", "9224", "9224 x 64 is too large: at most 768 x 768 in total"),
    ("guidance_scale", "51", "From 0 to 50"),
    ("num_inference_steps", "2.5", "A whole number"),
    ("count", "9", "From 1 to 8"),
    ("count", "1.5", "A whole number"),
    ("seed", "red", "Leave empty for random, or type a whole number"),
    ("seed", "18446744073709551616", "18446744073709551615"),
]
RIGHT = {"prompt": "x", "width": "64", "num_inference_steps": "2", "guidance_scale": "5"}


def test_what_cannot_be_is_said_at_its_field(page):
    page.fill(**RIGHT)
    for drawn, (field, text, said) in enumerate(WRONG):
        page.draw(**{field: text})
        wait_for(lambda error=page[f"{field}-error"]: error.text)
        assert said in page[f"{field}-error"].text
        assert page[field].get_attribute("aria-invalid") == "true"
        assert page.focused() == field
        assert len(page.all(".card")) == drawn
        page.draw(**{field: RIGHT.get(field, "1")})
        page.settled(drawn + 1)
        assert not page.all("[aria-invalid]")


def test_by_keyboard_alone(page):
    assert page.focused() == "prompt"
    page.press("a red circle")
    page.press_with_control(Keys.ENTER)
    page.settled(1)
    page.press(Keys.TAB)
    assert page.focused() == "image"
    for _ in range(40):
        page.press(Keys.TAB)
        if page.browser.switch_to.active_element.get_attribute("data-does") == "view":
            break
    page.press(Keys.ENTER)
    assert page["viewer"].get_attribute("open") is not None
    page.press(Keys.ESCAPE)
    assert page["viewer"].get_attribute("open") is None
    assert len(page.all(".card")) == 1


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_wrong(page, triton, dark):
    page.browser.look_like(dark=dark)
    assert violations(page.browser) == []
    page.draw(prompt="a red circle", count="2")
    page.settled(2)
    page.draw(width="100")
    assert page.all("[aria-invalid]")
    assert violations(page.browser) == []
    triton.held_from = 3
    triton.hold.clear()
    page.draw(width="64")
    wait_for(lambda: len(page.all(".coming .preview:not([hidden])")) == 2)
    assert violations(page.browser) == []
    triton.hold.set()
    page.settled(4)
    page.one(".picture").click()
    assert violations(page.browser) == []
    page.one("#viewer [data-does=sheet]").click()
    assert violations(page.browser) == []
    page.press(Keys.ESCAPE, Keys.ESCAPE)
    hand(page.browser).move_to_element(page.one(".picture")).perform()
    page.act("delete")
    assert page.one("#bar [data-does=bring-back]").is_displayed()
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
    wait_for(lambda: page["alert"].text == "The server failed: it broke")
    page.settled(0)


def test_the_key_is_asked_for(browser, start):
    page = Page(browser, start(api_key="sesame").url)
    wait_for(lambda: page["key"].get_attribute("open") is not None)
    page.press(Keys.ESCAPE)
    wait_for(lambda: "only with its key" in page["locked"].text)
    page.draw(prompt="x")
    for key in ("wrong", "sesame"):
        wait_for(lambda: page["key"].get_attribute("open") is not None)
        assert page["key-wrong"].text == ("This key is wrong." if key == "sesame" else "")
        page["key-text"].clear()
        page["key-text"].send_keys(key, Keys.ENTER)
    page.settled(1)
    wait_for(lambda: page["scheduler"].get_property("value") == "pndm")
    browser.complaints()


def test_a_wrong_key_can_be_given_up(browser, start):
    page = Page(browser, start(api_key="sesame").url)
    page["key-text"].send_keys("wrong", Keys.ENTER)
    wait_for(lambda: page["key-wrong"].text)
    page.one("#key button[value='']").click()
    wait_for(lambda: "only with its key" in page["locked"].text)
    assert page["key"].get_attribute("open") is None
    assert page["alert"].text == ""
    page["unlock"].click()
    wait_for(lambda: page["key"].get_attribute("open") is not None)
    page["key-text"].clear()
    page["key-text"].send_keys("sesame", Keys.ENTER)
    wait_for(lambda: page["scheduler"].get_property("value") == "pndm")
    assert not page["locked"].is_displayed()
    page.draw(prompt="x")
    page.settled(1)
    browser.complaints()


def test_a_key_that_no_header_can_have_is_wrong(browser, start):
    """As where an input method was left on."""
    page = Page(browser, start(api_key="sesame").url)
    page["key-text"].send_keys("密钥", Keys.ENTER)
    wait_for(lambda: page["key-wrong"].text == "This key is wrong.")
    assert page["key"].get_attribute("open") is not None
    page["key-text"].clear()
    page["key-text"].send_keys(" sesame ", Keys.ENTER)
    wait_for(lambda: page["scheduler"].get_property("value") == "pndm")
    assert page["lost"].text == ""
    browser.complaints()


@pytest.mark.parametrize("how", ["cancel", "escape"])
def test_after_the_dialog_of_the_key_the_prompt_takes_keys(browser, start, how):
    page = Page(browser, start(api_key="sesame").url, sees_all=False)
    wait_for(lambda: page["key"].get_attribute("open") is not None)
    page.one("#key button[value='']").click() if how == "cancel" else page.press(Keys.ESCAPE)
    wait_for(lambda: page["unlock"].is_displayed())
    assert page.focused() == "prompt"
    page.press("a star")
    assert page.values("prompt") == ["a star"]
    browser.complaints()


def test_after_the_settings_are_used_from_full_size_the_prompt_takes_keys(page):
    page.draw(prompt="a red circle")
    page.settled(1)
    page.one(".picture").click()
    page.one("#viewer [data-does=sheet]").click()
    page.one("#sheet [data-does=new-seed]").click()
    time.sleep(0.3)  # until the dialogs have told that they are closed
    assert page.focused() == "prompt"
    page.press(Keys.END, "s")
    assert page.values("prompt") == ["a red circles"]


@pytest.mark.parametrize("size", [(320, 640), chromium.PHONE, (768, 1024), chromium.WIDE])
def test_it_fits_the_screen(page, triton, size):
    page.browser.look_like(size)
    page.draw(prompt="x" * 300, negative_prompt="y" * 300, count="2")
    page.settled(2)
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


def test_the_description_of_the_api_on_a_phone(browser, gateway):
    browser.look_like(chromium.PHONE)
    browser.get(f"{gateway.url}/docs")
    header = browser.find_element(By.CSS_SELECTOR, "header")
    assert header.rect["height"] < 60
    (details,) = (
        one
        for one in browser.find_elements(By.CSS_SELECTOR, "details")
        if "POST /v1/images/generations" in one.text
    )
    details.click()
    table = details.find_element(By.CSS_SELECTOR, "table")
    cells = [cell.rect for cell in table.find_elements(By.CSS_SELECTOR, "td") if cell.text]
    assert len({cell["x"] for cell in cells}) == 1
    assert len({cell["y"] for cell in cells}) == len(cells) > 40
    assert max(cell["x"] + cell["width"] for cell in cells) < chromium.PHONE[0]
    assert violations(browser) == []


def test_the_description_of_the_api_needs_nothing_from_elsewhere(browser, gateway):
    browser.requested()
    browser.get(f"{gateway.url}/docs")
    assert browser.find_elements(By.CSS_SELECTOR, "details")
    own = (gateway.url, "data:")
    assert [url for url in browser.requested() if not url.startswith(own)] == []
    assert browser.complaints() == []
    assert violations(browser) == []


DROP_TEXT = """
const transfer = new DataTransfer();
transfer.setData("text/plain", "a fox");
const drop = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
return document.getElementById(arguments[0]).dispatchEvent(drop);
"""


def test_a_field_takes_a_text_that_is_dropped_on_it(page):
    assert page.browser.execute_script(DROP_TEXT, "prompt")
    assert not page.browser.execute_script(DROP_TEXT, "pictures")


COMPOSE = """
const escape = { key: "Escape", isComposing: true, bubbles: true };
document.getElementById("prompt").dispatchEvent(new KeyboardEvent("keydown", escape));
"""


def test_esc_that_ends_the_writing_of_a_chinese_word_cancels_no_picture(page, triton):
    triton.hold.clear()
    page.draw(prompt="x")
    wait_for(lambda: triton.requests)
    page.browser.execute_script(COMPOSE)
    assert page.said() == "Drawing a picture"
    triton.hold.set()
    page.settled(1)


def test_a_click_in_the_blank_part_of_the_sheet_leaves_it_open(page):
    page.draw(prompt="x")
    page.settled(1)
    page.act("sheet")
    sheet = page["sheet"]
    below = hand(page.browser).move_to_element_with_offset
    below(sheet, 0, sheet.size["height"] // 2 - 10).click().perform()
    assert sheet.is_displayed()
    hand(page.browser).move_by_offset(-sheet.size["width"], 0).click().perform()
    assert not sheet.is_displayed()
