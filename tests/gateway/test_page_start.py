"""The page where drawing starts from a picture, and the mask that is painted over it."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Keys
from selenium.webdriver.support.ui import Select

from tests.gateway import browser as chromium
from tests.gateway.page import (
    DROP,
    STARTS,
    USUAL_IS_SLOW,
    Page,
    another_tab,
    drop,
    hand,
    release,
    violations,
)
from tests.gateway.pictures import file_of, flat
from tests.gateway.running import wait_for
from triptych.client import Client

IMAGE = flat((320, 240), "gold")
COPY = """
const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
const item = new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) });
navigator.clipboard.write([item]).then(() => arguments[1]("copied"), arguments[1]);
"""


def sent_file(text):
    return base64.b64decode(text.partition(",")[2])


def start(page, data=IMAGE):
    drop(page, data, "start")
    wait_for(lambda: page["start"].is_displayed())


def paint(page, *moves, at=(-30, 0)):
    """A stroke from a place, counted from the middle of the picture."""
    script = "arguments[0].scrollIntoView({ block: 'center' })"
    page.browser.execute_script(script, page["mask"])
    stroke = hand(page.browser).move_to_element_with_offset(page["mask"], *at)
    stroke = stroke.click_and_hold()
    for move in moves or [(60, 0)]:
        stroke = stroke.move_by_offset(*move)
    stroke.release().perform()


def test_a_picture_to_start_from_is_sent_and_left_out_again(page, triton):
    start(page)
    assert page.focused() == "prompt"
    assert page.values("width", "height", "strength") == ["72", "64", "0.8"]
    page.press("typed at once")
    assert page.values("prompt") == ["typed at once"]
    page["draw"].click()
    page.settled(1)
    sent = triton.requests[0]
    assert sent_file(sent["image"]) == IMAGE
    assert (sent["strength"], sent["width"], sent["height"]) == (0.8, 72, 64)
    assert "mask_image" not in sent
    page["start-drop"].click()
    assert not page["start"].is_displayed()
    page.use()
    page["draw"].click()
    page.settled(2)
    assert not {"image", "strength", "mask_image"} & triton.requests[1].keys()


def test_a_folded_form_says_that_it_starts_from_a_picture(browser, gateway, triton):
    browser.look_like(chromium.PHONE)
    page = Page(browser, gateway.url, sees_all=False)
    assert not page["start-field"].is_displayed()
    start(page)
    page["unfold"].click()
    assert page["start-title"].text == "Start from this picture"
    assert 0 < page["picture"].rect["width"] < 80
    assert not page["strength"].is_displayed()
    assert violations(browser) == []
    page["start-drop"].click()
    assert not page["start-field"].is_displayed()
    assert page.focused() == "unfold"
    browser.execute_script("document.getElementById('prompt').value = 'x'")
    page["draw"].click()
    page.settled(1)
    assert "image" not in triton.requests[0]
    browser.look_like()


def test_what_is_painted_over_is_drawn_anew(page, triton):
    start(page)
    paint(page)
    assert page.values("strength") == ["1"]
    page.draw(prompt="x")
    page.settled(1)
    mask = np.asarray(Image.open(io.BytesIO(sent_file(triton.requests[0]["mask_image"]))))
    assert mask.shape == (240, 320, 4) and (mask[..., 3] == 255).all()
    assert mask[120, 160, :3].tolist() == [255] * 3
    assert (mask[:80, :, :3] == 0).all() and (mask[160:, :, :3] == 0).all()
    page["eraser"].click()
    paint(page, (120, 0), at=(-60, 0))
    assert page.values("strength") == ["0.8"]
    page["undo"].click()
    assert page.values("strength") == ["1"]
    page["clear"].click()
    assert page.values("strength") == ["0.8"]
    page["mask"].send_keys(Keys.CONTROL, "z")
    page["undo"].click()
    page["undo"].click()
    assert not page["undo"].is_enabled()
    page["draw"].click()
    page.settled(2)
    assert "mask_image" not in triton.requests[1]


def press_in_a_stroke(page, held, *keys):
    """Press keys in the midst of a stroke, the first one through; it goes on afterwards."""
    page.browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", page["mask"])
    stroke = hand(page.browser).move_to_element(page["mask"]).click_and_hold()
    stroke = stroke.move_by_offset(20, 0).key_down(held).send_keys(*keys).key_up(held)
    stroke.pause(0.3).move_by_offset(20, 0).release().perform()


DAYS_LATER = """
const told = arguments[0];
import("/web/store.js").then(async ({ keep, kept }) => {
  const put = (one, days) =>
    keep("start", one.key, { ...one, when: Date.now() - days * 24 * 60 * 60 * 1000 });
  for (const one of await kept("start")) await put(one, 2);
  await put({ key: "closed today", tab: "closed today" }, 0.9);
  await put({ key: "closed yesterday", tab: "closed yesterday" }, 1.1);
}).then(told);
"""


def test_form_picture_and_mask_are_each_tabs_own_and_survive_a_reload(page, triton):
    start(page)
    paint(page)
    page.fill(prompt="x", width="80")
    page.browser.execute_async_script(DAYS_LATER)
    with another_tab(page.browser):
        page.browser.get(page.own[0])
        page.loaded()
        assert page["picture"].get_property("width") == 320
        assert page.values("prompt", "strength") == ["x", "1"]  # as they were last
        start(page, flat((240, 320), "navy"))
        wait_for(lambda: page["picture"].get_property("width") == 240)
        page["prompt"].send_keys(" and more")
        wait_for(lambda: page.browser.execute_async_script(STARTS) == 5)  # two tabs', closed today
    page.reload()
    assert page.values("prompt") == ["x"]
    page["draw"].click()
    page.settled(1)
    sent = triton.requests[0]
    assert sent_file(sent["image"]) == IMAGE
    mask = np.asarray(Image.open(io.BytesIO(sent_file(sent["mask_image"]))))
    assert mask[120, 160, 0] == 255 and (mask[:80, :, :3] == 0).all()
    assert (sent["width"], sent["strength"]) == (80, 1)
    page["start-drop"].click()
    wait_for(lambda: page.browser.execute_async_script(STARTS) == 3)
    page.reload()
    assert not page["start"].is_displayed()


def test_a_mask_is_painted_by_keyboard_alone(page, triton):
    drop(page, IMAGE, "start")
    wait_for(lambda: page["start"].is_displayed())
    page.press(Keys.TAB)
    assert page.focused() == "start-drop"
    page.press(Keys.TAB, Keys.SPACE, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.SPACE)
    assert page.said() == "The brush is up"
    page.press(Keys.ARROW_DOWN * 9)
    page.draw(prompt="x")
    page.settled(1)
    mask = np.asarray(Image.open(io.BytesIO(sent_file(triton.requests[0]["mask_image"]))))
    white = mask[..., 0] > 127
    assert white[120, 160] and white[120, 172]
    assert not white[120 + 54 :].any() and not white[:60].any()


def test_a_strength_that_was_chosen_stays(page, triton):
    start(page)
    page["strength"].send_keys(Keys.ARROW_LEFT * 10)
    assert page["strength-said"].text == "0.70"
    paint(page)
    assert page.values("strength") == ["0.7"]
    page["strength"].send_keys(Keys.HOME)
    page.draw(prompt="x", num_inference_steps="4")
    wait_for(lambda: page["strength-error"].text)
    assert "enough for a step" in page["strength-error"].text
    assert page.focused() == "strength"


def test_a_strength_that_was_chosen_stays_over_a_reload_and_not_for_another_picture(page):
    start(page)
    page["strength"].send_keys(Keys.ARROW_LEFT * 10)
    wait_for(lambda: page.browser.execute_async_script(STARTS) == 2)
    for _ in range(2):
        page.reload()
        wait_for(lambda: page["start"].is_displayed())
        assert page.values("strength") == ["0.7"]
    start(page)
    wait_for(lambda: page.values("strength") == ["0.8"])


def test_a_picture_of_a_kind_that_the_server_does_not_take_is_sent_as_another(page, triton):
    file = io.BytesIO()
    Image.new("RGB", (320, 240), "gold").save(file, "BMP")
    script = DROP.replace('"dropped.png")', '"dropped.bmp", { type: "image/bmp" })')
    page.browser.execute_script(script, base64.b64encode(file.getvalue()).decode())
    page.one("#dropped button[value=start]").click()
    wait_for(lambda: page["start"].is_displayed())
    page.draw(prompt="x")
    page.settled(1)
    frames = [Image.new("RGB", (320, 240), color) for color in ("gold", "navy")]
    moving = {"save_all": True, "append_images": frames[1:], "icc_profile": bytes(3000)}
    for number, kind in enumerate(("WEBP", "PNG"), 2):
        drop(page, file_of(frames[0], kind, **moving), "start")
        wait_for(lambda: page.said() == "Drawing starts from this picture")
        page["draw"].click()
        page.settled(number)
    for request in triton.requests:
        sent = Image.open(io.BytesIO(sent_file(request["image"])))
        assert (sent.format, sent.size) == ("JPEG", (320, 240))
        red, _, blue = sent.getpixel((160, 120))
        assert red > 200 and blue < 50  # the first frame's


def test_a_file_is_what_its_bytes_are_whatever_its_name(page, triton):
    drop(page, flat((320, 240), "gold", "GIF"), "start")
    wait_for(lambda: page["start"].is_displayed())
    page.draw(prompt="x")
    page.settled(1)
    assert Image.open(io.BytesIO(sent_file(triton.requests[0]["image"]))).format == "JPEG"


FIRST_IS_SLOW = """
const usual = window.createImageBitmap;
window.createImageBitmap = async (...all) => {
  window.createImageBitmap = usual;
  await new Promise((come) => (window.come = come));
  return usual(...all);
};
"""


def test_of_several_pictures_the_last_is_meant_and_none_once_it_is_left_out(page, triton):
    page.browser.execute_script(FIRST_IS_SLOW)
    drop(page, flat((64, 64), "teal"), "start")
    for colour in ("gold", "navy"):
        file = base64.b64encode(flat((64, 64), colour)).decode()
        page.browser.execute_script(DROP, file)
    page.one("#dropped button[value=start]").click()
    wait_for(lambda: page["start"].is_displayed())
    release(page)
    page.draw(prompt="x")
    page.settled(1)
    assert sent_file(triton.requests[0]["image"]) == flat((64, 64), "navy")
    page.browser.execute_script(FIRST_IS_SLOW)
    drop(page, flat((64, 64), "teal"), "start")
    page["start-drop"].click()
    release(page)
    assert not page["start"].is_displayed()
    page.browser.execute_script(FIRST_IS_SLOW)
    drop(page, b"GIF8", "start")
    start(page)
    release(page)
    assert page["image-error"].text == ""


def test_what_is_typed_while_a_picture_to_start_from_is_read_stays(page):
    page.browser.execute_script(FIRST_IS_SLOW)
    drop(page, IMAGE, "start")
    wait_for(lambda: page.browser.execute_script("return !!window.come"))
    page.fill(width="96")
    page.browser.execute_script("come()")
    wait_for(lambda: page["start"].is_displayed())
    assert page.values("width", "height") == ["96", "64"]
    assert page.focused() == "width"


UNREADABLE = """
const told = arguments[0];
import("/web/store.js").then(async ({ keep, kept }) => {
  const file = new Blob(["no picture"]);
  for (const one of await kept("start")) await keep("start", one.key, { ...one, file });
}).then(told);
"""


def test_a_kept_picture_that_cannot_be_read_any_more_is_forgotten(page):
    start(page)
    page.browser.execute_async_script(UNREADABLE)
    page.reload()
    assert page.all("body.ready")
    assert not page["start"].is_displayed()
    assert page.browser.execute_async_script(STARTS) == 0


def test_undo_waits_for_the_end_of_a_stroke_and_clear_lifts_the_keys_brush(page):
    start(page)
    script = "arguments[0].scrollIntoView({ block: 'center' }); arguments[0].focus()"
    page.browser.execute_script(script, page["mask"])
    stroke = hand(page.browser).move_to_element(page["mask"]).click_and_hold()
    stroke = stroke.move_by_offset(20, 0).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL)
    stroke.move_by_offset(20, 0).release().perform()
    assert page["undo"].is_enabled()
    page.press_with_control("z")
    assert not page["undo"].is_enabled()
    page.press(Keys.SPACE, Keys.ARROW_RIGHT)
    page["clear"].click()
    page.press(Keys.ARROW_RIGHT)
    assert not page["clear"].is_enabled()


def test_a_pasted_picture(page):
    if page.browser.name == "firefox":
        pytest.skip("Firefox without a window has a clipboard for texts alone")
    page.browser.allow_clipboard(page.own[0])
    copied = page.browser.execute_async_script(COPY, base64.b64encode(IMAGE).decode())
    assert copied == "copied"
    page["prompt"].send_keys(Keys.CONTROL, "v")
    wait_for(lambda: page["start"].is_displayed())
    page["start-drop"].click()
    start(page, flat((240, 320), "navy"))
    press_in_a_stroke(page, Keys.CONTROL, "v")
    wait_for(lambda: page["picture"].get_property("width") == 320)
    assert not page["undo"].is_enabled()


def test_what_is_pressed_in_the_midst_of_a_stroke_ends_it(page):
    start(page)
    paint(page)
    press_in_a_stroke(page, Keys.TAB, Keys.TAB * 3, Keys.SPACE)
    assert not page["clear"].is_enabled()
    page["undo"].click()
    assert page["clear"].is_enabled()
    press_in_a_stroke(page, Keys.SHIFT, Keys.TAB, Keys.SPACE)
    assert not page["start"].is_displayed()
    page.browser.execute_async_script("setTimeout(arguments[0], 100)")
    assert page.browser.execute_async_script(STARTS) == 0


@pytest.mark.parametrize("purpose", ["settings", "start"])
def test_what_is_dropped_on_a_picture_in_full_size_is_seen_in_the_form(page, triton, purpose):
    page.draw(prompt="x")
    page.settled(1)
    page.one(".picture").click()
    page.one("#viewer [data-does=sheet]").click()
    with Client(triton.url) as client:
        *_, picture = client.stream("as before")
    drop(page, picture.file, purpose)
    wait_for(lambda: page.focused() == "prompt")
    assert page.all("dialog[open]") == []


def test_chosen_and_drawn_pictures(page, triton, tmp_path):
    (tmp_path / "chosen.png").write_bytes(flat((64, 128)))
    page["image"].send_keys(str(tmp_path / "chosen.png"))
    wait_for(lambda: page.values("width", "height") == ["64", "88"])
    page["start-drop"].click()
    page.draw(prompt="a red circle", width="64", height="64")
    page.settled(1)
    page.act("start")
    wait_for(lambda: page["start"].is_displayed())
    page["draw"].click()
    page.settled(2)
    drawn = Image.open(io.BytesIO(sent_file(triton.requests[1]["image"])))
    assert drawn.text["prompt"] == "a red circle"


def test_a_file_that_is_no_picture_is_said_at_the_field(page, triton):
    drop(page, b"GIF8", "start")
    wait_for(lambda: page["image-error"].text)
    assert page.focused() == "image"
    page.browser.execute_script(DROP, base64.b64encode(IMAGE).decode())
    page.press(Keys.ESCAPE)
    page.draw(prompt="x")
    page.settled(1)
    assert "image" not in triton.requests[0]
    assert not page["start"].is_displayed()


def test_a_pictures_strength_goes_nowhere_without_a_picture(page, triton):
    with Client(triton.url) as client:
        *_, picture = client.stream("as before", image=IMAGE, width=64, height=64, strength=0.4)
    drop(page, picture.file)
    wait_for(lambda: page.values("prompt") == ["as before"])
    assert "began from another one" in page["alert"].text
    page.draw()
    page.settled(1)
    assert "strength" not in triton.requests[-1]
    start(page)
    drop(page, picture.file)
    wait_for(lambda: page.values("strength") == ["0.4"])


def test_a_model_without_an_encoder_is_offered_no_pictures(page, triton):
    triton.takes_pictures = False
    page.reload()
    assert not page["start-field"].is_displayed()
    page.draw(prompt="x")
    page.settled(1)
    assert not page.one(".card [data-does=start]").is_displayed()
    page.browser.execute_script(DROP, base64.b64encode(IMAGE).decode())
    wait_for(lambda: "does not say how" in page["alert"].text)
    assert page["dropped"].get_attribute("open") is None


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_wrong(page, dark):
    page.browser.look_like(dark=dark)
    page.browser.execute_script(DROP, base64.b64encode(IMAGE).decode())
    assert violations(page.browser) == []
    page.one("#dropped button[value=start]").click()
    wait_for(lambda: page["start"].is_displayed())
    assert violations(page.browser) == []
    paint(page)
    assert violations(page.browser) == []


@pytest.mark.parametrize("size", [(320, 640), chromium.PHONE, (768, 1024), chromium.WIDE])
def test_it_fits_the_screen(page, size):
    page.browser.look_like(size)
    page.browser.execute_script(DROP, base64.b64encode(IMAGE).decode())
    dialog = page["dropped"]
    assert dialog.get_property("scrollWidth") <= dialog.get_property("clientWidth")
    page.one("#dropped button[value=start]").click()
    wait_for(lambda: page["start"].is_displayed())
    width = page.browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= size[0]
    for name in ("mask", "strength", "undo"):
        box = page[name].rect
        assert box["x"] >= 0 and box["x"] + box["width"] <= size[0]


def test_another_model_keeps_the_shape_of_the_picture_to_start_from(browser, gateway, triton):
    triton.models = ["sd_ensemble", "ink"]
    triton.parameters["ink"] = {"title": "Ink"}
    page = Page(browser, gateway.url)
    drop(page, flat((640, 320)), "start")
    wait_for(lambda: page.values("width", "height") == ["88", "64"])
    Select(page["model"]).select_by_value("ink")
    wait_for(lambda: page["about"].get_property("textContent").startswith("Ink"))
    wait_for(lambda: page.values("width", "height") == ["88", "64"])
    page["start-drop"].click()
    Select(page["model"]).select_by_value("sd_ensemble")
    wait_for(lambda: page.values("width", "height") == ["64", "64"])
    start(page)
    browser.execute_script(USUAL_IS_SLOW)
    Select(page["model"]).select_by_value("ink")
    wait_for(lambda: browser.execute_script("return !!window.come"))
    page.fill(width="96")
    browser.execute_script("come()")
    wait_for(lambda: page["about"].get_property("textContent").startswith("Ink"))
    page.browser.execute_async_script("setTimeout(arguments[0], 100)")
    assert page.values("width", "height") == ["96", "64"]
