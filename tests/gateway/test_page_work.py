"""The page at work: progress, a server that goes and comes back, and the first screen."""

import re
import time
from unittest.mock import ANY

import grpc
import pytest
from selenium.webdriver import Keys
from selenium.webdriver.support.ui import Select

from tests.gateway import browser as chromium
from tests.gateway.fake_triton import TOTAL
from tests.gateway.page import DROP, STARTS, Page, another_tab, drop, save_style, violations
from tests.gateway.pictures import flat, text
from tests.gateway.running import Gateway, wait_for


def test_the_progress_of_all_and_cancelling_one(page, triton):
    triton.held_from = 3
    triton.hold.clear()
    page.draw(prompt="a red circle", count="3", num_inference_steps=str(TOTAL))
    wait_for(lambda: page["all-steps"].get_property("value") == 6)
    assert page["all-steps"].get_property("max") == 3 * (TOTAL + 1)
    assert page["all-said"].text.startswith("3 pictures to come, about ")
    assert page["all-said"].text.endswith(" s left")
    page.one(".coming [data-does=give-up]").click()
    wait_for(lambda: triton.left == 1)
    wait_for(lambda: page["all-said"].text.startswith("2 pictures"))
    triton.hold.set()
    page.settled(2)
    wait_for(lambda: page["all-said"].text == "2 pictures")
    assert not page["cancel"].is_displayed()


def test_the_time_that_is_left_goes_down_without_news(page, triton):
    def left():
        told = re.search(r"about (\d+) s left", page["all-said"].text)
        return told and int(told[1])

    triton.held_from = 2
    triton.hold.clear()
    page.draw(prompt="a red circle", num_inference_steps=str(TOTAL))
    wait_for(lambda: page["all-steps"].get_property("value") == 1)
    time.sleep(3)
    triton.held_from = 3
    wait_for(left)
    first = left()
    assert first >= 4
    wait_for(lambda: (left() or first) <= 2)
    wait_for(lambda: left() == 1)
    time.sleep(1.5)
    assert left() == 1


def test_places_in_line(page, triton):
    triton.hold.clear()
    page.draw(prompt="a red circle", count="3")
    texts = ["number 2 in line", "number 3 in line", "starting"]
    wait_for(lambda: sorted(one.text for one in page.all(".steps")) == texts)
    page["cancel"].click()
    page.settled(0)


HEALTH = """
const begun = performance.now();
fetch("healthz").then((answer) => arguments[0]([answer.status, performance.now() - begun]));
"""


def test_eight_pictures_on_their_way_leave_room_for_everything_else(page, triton):
    """A browser opens six connections to an address."""
    triton.hold.clear()
    page.draw(prompt="a red circle", count="8")
    texts = [*(f"number {place} in line" for place in range(2, 9)), "starting"]
    wait_for(lambda: sorted(one.text for one in page.all(".steps")) == texts)
    status, milliseconds = page.browser.execute_async_script(HEALTH)
    assert status == 200 and milliseconds < 2000
    with another_tab(page.browser):
        page.browser.get(f"{page.own[0]}/docs")
        assert page.all("details")
    page.reload()
    wait_for(lambda: sorted(one.text for one in page.all(".steps")) == texts)
    triton.hold.set()
    page.settled(8)
    assert len(triton.requests) == 8


def test_a_gateway_that_ends_and_another_that_begins_pictures_anew(browser, triton):
    """They listen at the same port, one after the other."""
    triton.held_from = 3
    triton.hold.clear()
    with Gateway(triton.url) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        page = Page(browser, gateway.url)
        page.draw(prompt="a red circle", count="2", seed="7")
        wait_for(lambda: len(page.all(".coming .preview:not([hidden])")) == 2)
    wait_for(lambda: "Connection lost" in page["lost"].text)
    with Gateway(triton.url, port=port):
        wait_for(lambda: len(triton.requests) == 4)
        triton.hold.set()
        page.settled(2)
    assert [one["seed"] for one in sorted(triton.requests, key=lambda one: one["seed"])] == [
        7,
        7,
        8,
        8,
    ]
    browser.complaints()


FADED = """
document.addEventListener("transitionend", ({ target, propertyName }) => {
  if (target.matches(".picture")) window.faded = propertyName;
});
"""


def test_a_picture_takes_its_previews_place_slowly_and_without_a_jump(page, triton):
    page.browser.look_like(still=False)
    page.browser.execute_script(FADED)
    triton.held_from = 3
    triton.hold.clear()
    page.draw(prompt="a red circle", width="128", height="64")
    wait_for(lambda: page.all(".coming .preview:not([hidden])"))
    before = page.one(".card").rect
    triton.hold.set()
    wait_for(lambda: page.all(".there"))
    assert page.one(".card").rect == before
    wait_for(lambda: page.browser.execute_script("return window.faded") == "opacity")
    assert page.one(".picture").value_of_css_property("opacity") == "1"


def test_pictures_go_on_when_the_server_is_back(page, triton):
    triton.ready = False
    triton.abort = (grpc.StatusCode.UNAVAILABLE, "Server not ready")
    page.draw(prompt="a red circle", seed="7")
    wait_for(lambda: "not ready at the moment" in page["lost"].text)
    assert page.one(".steps").text == "waiting for the server"
    triton.ready, triton.abort = True, None
    page.settled(1)
    assert page["lost"].text == ""
    assert page["alert"].text == ""


def away(triton, is_away=True):
    triton.ready, triton.starting = not is_away, is_away
    triton.abort = (grpc.StatusCode.UNAVAILABLE, "Server not ready") if is_away else None


def test_a_page_opened_before_the_server_is_there_draws_once_and_then_reads_its_link(
    browser, start, triton
):
    away(triton)
    page = Page(browser, start().url, "#prompt=a+green+star&scheduler=ddim&seed=7")
    wait_for(lambda: page["lost"].text)
    page.draw(prompt="a red circle")
    wait_for(lambda: page.all(".coming"))
    triton.hold.clear()
    away(triton, False)
    wait_for(lambda: page.all("body.ready"))
    assert page.values("prompt", "scheduler", "seed") == ["a green star", "ddim", "7"]
    assert page.all("#notice:not([hidden])") == []
    assert len(page.all(".coming")) == 1
    triton.hold.set()
    page.settled(1)
    assert [one["prompt"] for one in triton.requests] == ["a red circle"]
    assert browser.execute_script("return document.title") == "Triptych"
    browser.complaints()


def test_a_picture_to_start_from_is_meant_also_before_the_server_is_there(page, triton):
    drop(page, flat((320, 240)), "start")
    page.fill(prompt="a red circle")
    wait_for(lambda: page.browser.execute_async_script(STARTS) == 2)
    away(triton)
    page.reload()
    wait_for(lambda: page["picture"].get_property("width") == 320)
    page["draw"].click()
    page.browser.execute_script(DROP, text(flat((240, 320))))
    away(triton, False)
    page.settled(1)
    assert triton.requests[0]["image"].endswith(text(flat((320, 240))))
    wait_for(page["dropped"].is_displayed)
    assert page["alert"].text == ""


# Requests of a kind are answered by something else the first times.
INSTEAD = """
const [method, path, status, body, after, times] = arguments;
const usual = window.fetch;
let left = times;
window.fetch = (address, options = {}) => {
  const isMeant = (options.method ?? "GET") === method && String(address).includes(path);
  if (!isMeant || left-- <= 0) return usual(address, options);
  return Promise.resolve(new Response(body, { status, headers: { "Retry-After": after } }));
};
"""


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxys_own_error_is_a_server_that_is_away(page, triton, status):
    body = "<html>Bad Gateway</html>"
    page.browser.execute_script(INSTEAD, "GET", "api/pictures?", status, body, "", 1)
    page.draw(prompt="a red circle")
    wait_for(lambda: "not ready at the moment" in page["lost"].text)
    page.settled(1)
    assert page["alert"].text == ""


def test_pictures_wait_for_those_of_the_same_tab_as_long_as_it_takes(page, triton):
    triton.held_from = 2
    triton.hold.clear()
    body = '{"message": "too many"}'
    page.browser.execute_script(INSTEAD, "POST", "%2B1", 429, body, "0.01", 15)
    page.browser.execute_script(INSTEAD, "POST", "+1", 429, body, "0.01", 15)
    page.draw(prompt="a red circle", count="2")
    wait_for(lambda: len(triton.requests) == 2)
    triton.hold.set()
    page.settled(2)
    assert page["alert"].text == ""


def test_keys_that_are_held_down_draw_and_cancel_once(page, triton):
    script = """
    const [key, ctrlKey] = arguments;
    const how = { key, ctrlKey, repeat: true, bubbles: true };
    document.body.dispatchEvent(new KeyboardEvent("keydown", how));
    """
    page.fill(prompt="a red circle")
    page.browser.execute_script(script, "Enter", True)
    assert page.all(".card") == []
    triton.hold.clear()
    page["draw"].click()
    wait_for(lambda: page.all(".coming"))
    page.browser.execute_script(script, "Escape", False)
    triton.hold.set()
    page.settled(1)


def test_the_focus_stays_with_a_picture_that_comes_and_goes_to_draw_from_one_that_does_not(
    page, triton
):
    for held in (False, True):
        triton.hold.clear()
        page.draw(prompt="a red circle")
        wait_for(lambda: page.all(".coming [data-does=give-up]"))
        button = page.one(".coming [data-does=give-up]")
        page.browser.execute_script("arguments[0].focus()", button)
        if held:
            page.press(Keys.ENTER)
            wait_for(lambda: not page.all(".coming"))
            assert page.focused() == "draw"
        triton.hold.set()
        page.settled(1)
        if not held:
            focused = page.browser.switch_to.active_element
            assert focused.get_attribute("aria-label") == "View: a red circle"


def test_a_server_that_comes_back_as_another_is_shown(page, triton):
    triton.models = ["sd_ensemble", "ink"]
    page.reload()
    Select(page["model"]).select_by_value("ink")
    wait_for(lambda: page["about"].text.startswith("ink"))
    triton.ready = False
    triton.abort = (grpc.StatusCode.UNAVAILABLE, "Server not ready")
    page.draw(prompt="a red circle", guidance_scale="3")
    wait_for(lambda: page["lost"].text)
    triton.scheduler = "euler"
    triton.parameters["ink"] = {"title": "Another"}
    triton.ready, triton.abort = True, None
    wait_for(lambda: page["about"].get_property("textContent").startswith("Another"))
    typed = ["ink", "a red circle", "3", "20"]
    assert page.values("model", "prompt", "guidance_scale", "num_inference_steps") == typed
    assert page.values("scheduler") == ["euler"]
    page.settled(1)


def test_the_page_says_that_the_connection_is_lost_and_goes_on(browser, start, triton):
    page = Page(browser, start().url)
    browser.offline(True)
    try:
        page.draw(prompt="a red circle")
        wait_for(lambda: page["lost"].text)
        assert page["lost"].text.startswith("Connection lost. Is `make web` still running?")
    finally:
        browser.offline(False)
    page.settled(1)
    browser.complaints()


def test_samples_are_pictures_of_the_model_that_drew_them(browser, gateway, triton):
    said = {"title": "A small model", "about": "draws shapes.", "has_samples": "true"}
    triton.parameters["sd_ensemble"] = said
    page = Page(browser, gateway.url)
    assert page["about"].text == "A small model draws shapes."
    pictures = page.all("#samples img")
    assert len(pictures) == 6
    wait_for(lambda: all(one.get_property("naturalWidth") == 256 for one in pictures))
    assert violations(browser) == []
    page.one("#samples button").click()
    page.settled(1)
    sample = page.one("#samples button").get_property("textContent")
    assert triton.requests[0]["prompt"] == sample == "a yellow sun over green hills at sunset"
    assert triton.requests[0]["seed"] == 5
    page.reload()
    page.draw(prompt="another")
    page.settled(2)
    assert triton.requests[1]["seed"] != 5  # a sample's is good for one use


def test_a_sample_is_drawn_as_the_model_draws_by_itself(page, triton):
    triton.loras = ["ink"]
    page.reload()
    wait_for(lambda: page["loras-field"].is_displayed())
    page["add-lora"].click()
    drop(page, flat((128, 64)), "start")
    wait_for(lambda: page["start"].is_displayed())
    page["scheduler"].send_keys("UniPC")
    page["prompt_syntax"].send_keys("the WebUI")
    fields = {"num_inference_steps": "7", "guidance_scale": "2", "count": "3", "seed": "7"}
    page.fill(prompt="x", negative_prompt="y", **fields)
    page.one("#samples button").click()
    page.settled(1)
    (asked,) = triton.requests
    assert asked.pop("seed") != 7
    assert asked == {
        **dict.fromkeys(("output_format", "timeout"), ANY),
        "prompt": page.one("#samples button").get_property("textContent"),
        "negative_prompt": "",
        "scheduler": "pndm",
        "num_inference_steps": 20,
        "guidance_scale": 5,
        "width": 64,
        "height": 64,
    }
    assert not page["start"].is_displayed()


def test_another_model_has_its_name_and_prompts_alone(page, triton):
    assert page["about"].text.startswith("sd_ensemble. ")
    assert not page.all("#samples img")
    page.one("#samples button").click()
    page.settled(1)


def test_shapes_have_the_models_number_of_pixels(page, triton):
    for shape, size in (("portrait", ["64", "80"]), ("landscape", ["80", "64"])):
        page.browser.execute_script(f"document.querySelector('[value={shape}]').click()")
        assert page.values("width", "height") == size
    page.draw(prompt="x")
    page.settled(1)
    assert (triton.requests[0]["width"], triton.requests[0]["height"]) == (80, 64)
    page.fill(width="72")
    assert not page.all("[name=shape]:checked")


def test_limits_are_the_servers_own(browser, gateway, triton):
    triton.parameters["tokenizer"] = {"max_pixels": "16384", "max_prompt_bytes": "2000"}
    triton.max_latents = "2 4 14 14"
    page = Page(browser, gateway.url)
    page.draw(prompt="x", width="136", height="128")
    text = "136 x 128 is too large: at most 112 x 112 in total"
    assert page["width-error"].text == text
    page.draw(width="64", height="120")
    assert page["height-error"].text == "At most 112 pixels"
    page.fill(height="64")
    page.draw(prompt="x" * 2001, width="64")
    text = "This prompt is too long (about 2,000 letters at most)"
    assert page["prompt-error"].text == text
    assert triton.requests == []


def test_no_number_of_pictures_is_one_and_a_seed_of_minus_one_is_random(page, triton):
    page.draw(prompt="x", count="", seed="-1")
    page.settled(1)
    page["draw"].click()
    page.settled(2)
    assert triton.requests[0]["seed"] != triton.requests[1]["seed"]


def test_a_seed_is_used_once_unless_it_is_kept(page, triton):
    page.draw(prompt="x", seed="4294967295")
    page.settled(1)
    assert page.values("seed") == [""]
    page["dice"].click()
    page.draw()
    page.settled(2)
    assert page.values("seed") == [""]
    page["keep-seed"].click()
    page.fill(seed="7")
    page.reload()
    for number in (3, 4):
        page.draw()
        page.settled(number)
    assert [one["seed"] for one in triton.requests[2:]] == [7, 7]
    assert page.values("seed") == ["7"]
    page.use()
    assert not page["keep-seed"].is_selected()


def test_a_pictures_seed_is_used_once(page, triton):
    page.draw(prompt="x", seed="4294967295")
    page.settled(1)
    page.use(seed="new")
    assert page.values("seed") == [""]
    page.use(seed="same")
    assert page.values("seed") == ["4294967295"]
    field = page["seed"]
    assert field.get_property("scrollWidth") <= field.get_property("clientWidth")
    page["draw"].click()
    page.settled(2)
    assert [one["seed"] for one in triton.requests] == [4294967295] * 2
    assert page.values("seed") == [""]


def test_recent_prompts_and_styles(page):
    for number, prompt in enumerate(("a red circle", "a green star", "a red circle"), 1):
        page.draw(prompt=prompt)
        page.settled(number)
    page.fill(prompt="ink drawing of {prompt}", negative_prompt="blurred")
    page["prompts-open"].click()
    recent = [one.text for one in page.all("#recent .take")]
    assert recent == ["a red circle", "a green star"]
    page["style-name"].send_keys("Ink", Keys.ENTER)
    assert "ink drawing of {prompt}" in page.one("#styles .take").text
    assert violations(page.browser) == []
    page["style-whole"].click()
    page["style-name"].send_keys("Sharp", Keys.ENTER)
    assert page.all("#styles .take")[1].text == "Sharp\nnot blurred"
    page.all("#recent .take")[1].click()
    assert page.values("prompt") == ["a green star"]
    page.fill(negative_prompt="red")
    page.reload()
    page["prompts-open"].click()
    page.one("#styles .take").click()
    wanted = ["ink drawing of a green star", "red, blurred"]
    assert page.values("prompt", "negative_prompt") == wanted


def test_what_a_style_lacks_is_said(page):
    page["prompts-open"].click()
    page.one("#new-style button").click()
    assert page["style-error"].text == "Give the style a name"
    assert page.focused() == "style-name"
    page["style-name"].send_keys("Ink", Keys.ENTER)
    assert page["style-error"].text == "The form has no prompt and no negative prompt"
    assert violations(page.browser) == []
    page.press(Keys.ESCAPE)
    page.fill(prompt="ink")
    page["prompts-open"].click()
    assert page["style-error"].text == ""
    page["style-whole"].click()
    page["style-name"].send_keys(Keys.ENTER)
    assert page["style-error"].text == "The form has no negative prompt"
    assert not page.all("#styles li")
    page["style-whole"].click()
    page["style-name"].send_keys(Keys.ENTER)
    assert page["style-error"].text == ""
    assert page.one("#styles .take").text == "Ink\nink"


def ground(browser):
    script = "return getComputedStyle(document.body).backgroundColor"
    return browser.execute_script(script)


def test_colours_can_be_chosen(page):
    choices = [one.text for one in page.all("#look option")]
    assert choices == ["System", "Light", "Dark"]
    light = ground(page.browser)
    Select(page["look"]).select_by_visible_text("Dark")
    dark = ground(page.browser)
    assert dark != light
    page.reload()
    assert ground(page.browser) == dark
    page.browser.look_like(dark=True)
    Select(page["look"]).select_by_visible_text("Light")
    assert ground(page.browser) == light
    Select(page["look"]).select_by_visible_text("System")
    page.reload()
    assert page.values("look") == [""]
    assert ground(page.browser) == dark
    page.browser.look_like()
    assert ground(page.browser) == light


def test_the_description_of_the_api_has_the_same_choices(page):
    light = ground(page.browser)
    Select(page["look"]).select_by_visible_text("Dark")
    dark = ground(page.browser)
    page.one("header a[href=docs]").click()
    wait_for(lambda: page.all("details"))
    wait_for(lambda: page.values("look") == ["dark"])
    assert ground(page.browser) == dark != light
    Select(page["language"]).select_by_visible_text("中文")
    wait_for(lambda: page.all("html[lang=zh]"))
    assert page.one("h2").text == "程序可以向此服务器请求什么"
    assert page.one("main section").get_attribute("lang") == "en"
    assert violations(page.browser) == []
    Select(page["look"]).select_by_value("")
    assert ground(page.browser) == light
    page.browser.execute_script("history.back()")  # to the page as it was left
    wait_for(lambda: page.all("html[lang=zh] body.ready"))
    assert ground(page.browser) == light
    page.one("header a[href=docs]").click()
    wait_for(lambda: page.all("details"))
    page.one("header a[href='.']").click()
    page.loaded()
    assert ground(page.browser) == light and page.all("html[lang=zh]")


def test_on_a_phone_the_prompt_and_draw_stay_in_reach(page):
    page.browser.look_like(chromium.PHONE)
    page.draw(prompt="a red circle", count="4")
    page.settled(4)
    assert not page["width"].is_displayed()
    page.browser.execute_script("scrollTo(0, document.body.scrollHeight)")
    script = "return document.getElementById(arguments[0]).getBoundingClientRect().bottom"
    assert page.browser.execute_script(script, "draw") <= chromium.PHONE[1]
    last = page.all(".card")[-1].find_element("css selector", ".told")
    bottom = page.browser.execute_script("return arguments[0].getBoundingClientRect().bottom", last)
    top = "return document.getElementById('form').getBoundingClientRect().top"
    assert bottom <= page.browser.execute_script(top)
    assert violations(page.browser) == []


ROWS = """
const rows = new Map();
for (const card of document.querySelectorAll(".card")) {
  const { left, right } = card.getBoundingClientRect();
  rows.set(card.offsetTop, [...(rows.get(card.offsetTop) ?? []), [left, right]]);
}
const { left, right } = document.getElementById("gallery").getBoundingClientRect();
return [[left, right], [...rows.values()]];
"""
SAID = """
const [card] = arguments;
const { content } = getComputedStyle(card, "::before");
return [card.dataset.prompt, content === "none" ? "" : content];
"""


def test_several_groups_fill_a_large_screen(page):
    page.browser.look_like((2560, 1300))
    groups = (4, 1, 4, 3, 8, 2, 1, 4)
    for number, count in enumerate(groups):
        page.draw(prompt=f"a sun, {number}", count=str(count))
        page.settled(sum(groups[: number + 1]))
    (left, right), (*whole, last) = page.browser.execute_script(ROWS)
    assert right - left > 2000
    assert len(whole) >= 2 and len({len(row) for row in whole}) == 1
    assert len(last) <= len(whole[0])
    for row in whole:
        ends = [(left, left), *row, (right, right)]
        assert max(after[0] - before[1] for before, after in zip(ends, ends[1:])) < 30
    _says_prompts(page, groups, len(whole[0]))
    page.browser.look_like((1920, 1300))
    columns = len(page.browser.execute_script(ROWS)[1][0])
    assert columns < len(whole[0])
    wait_for(lambda: len(page.all(".goes-on")) != 0)
    _says_prompts(page, groups, columns)


def _says_prompts(page, groups, columns):
    """Assert that a group's first card says its prompt, and so does the first of a row."""
    said = [page.browser.execute_script(SAID, one) for one in page.all(".card")]
    prompts = [f"a sun, {i}" for i in reversed(range(len(groups))) for _ in range(groups[i])]
    assert [prompt for prompt, _ in said] == prompts
    is_firefox = page.browser.name == "firefox"  # which tells where a text is from
    for i, (prompt, shown) in enumerate(said):
        begins = i % columns == 0 or prompt != prompts[i - 1]
        text = f"""{"attr(data-prompt)" if is_firefox else f'"{prompt}"'} / \"\""""
        assert shown == (text if begins else "")


def test_a_style_takes_a_prompt_with_dollar_signs_as_it_is(page):
    save_style(page, "{prompt} in ink, {prompt}")
    page.fill(prompt="$& for $$5")
    page["prompts-open"].click()
    page.one("#styles .take").click()
    assert page.values("prompt") == ["$& for $$5 in ink, $& for $$5"]
