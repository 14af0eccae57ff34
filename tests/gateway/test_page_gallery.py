"""The page's gallery: pictures that stay, are looked at, compared, copied, packed and deleted."""

import io
import re
import time
import zipfile

import pytest
from selenium.webdriver import Keys

from tests.gateway import browser as chromium
from tests.gateway.fake_triton import TOTAL
from tests.gateway.page import Page, another_tab, violations
from tests.gateway.running import wait_for
from triptych.gateway import tabs
from triptych.picture.metadata import read_settings


def seeds(where):
    return [text.text.split(",")[0] for text in where.find_elements("css selector", ".card .told")]


def test_pictures_and_the_form_survive_a_reload(page):
    page.draw(prompt="a red circle", seed="7", count="2", negative_prompt="blue", width="128")
    page.settled(2)
    page.fill(prompt="a green star", seed="9")
    page.draw(count="1")
    page.settled(3)
    page.fill(prompt="not yet drawn")
    page.reload()
    page.settled(3)
    assert [one.text for one in page.all(".batch h3")] == ["a green star", "a red circle"]
    assert seeds(page.browser) == ["seed 9", "seed 7", "seed 8"]
    wait_for(lambda: page.one(".card .picture img").get_property("naturalWidth") == 128)
    fields = ("prompt", "negative_prompt", "width", "seed", "count")
    assert page.values(*fields) == ["not yet drawn", "blue", "128", "", "1"]


def groups(page):
    """[prompt, seeds] of each group, as they stand."""
    return [
        [group.find_element("css selector", "h3").text, seeds(group)]
        for group in page.all(".batch")
    ]


def test_pictures_of_one_prompt_that_follow_each_other_stand_together(page):
    for number, (prompt, seed) in enumerate(zip("AABA", ("1", "5", "7", "9")), 1):
        page.draw(prompt=prompt, seed=seed, count="2")
        page.settled(2 * number)
    drawn = [
        ["A", ["seed 9", "seed 10"]],
        ["B", ["seed 7", "seed 8"]],
        ["A", ["seed 5", "seed 6", "seed 1", "seed 2"]],
    ]
    assert groups(page) == drawn
    page.reload()
    page.settled(8)
    assert groups(page) == drawn


def test_pictures_on_their_way_go_on_after_a_reload(page, triton):
    triton.held_from = 3
    triton.hold.clear()
    page.draw(prompt="a red circle", seed="7", count="2")
    wait_for(lambda: len(page.all(".coming .preview:not([hidden])")) == 2)
    page.reload()
    wait_for(lambda: len(page.all(".coming .preview:not([hidden])")) == 2)
    assert [one.text for one in page.all(".steps")] == [f"step 2 of {TOTAL}"] * 2
    triton.hold.set()
    page.settled(2)
    assert sorted(request["seed"] for request in triton.requests) == [7, 8]
    page.reload()
    page.settled(2)
    assert len(triton.requests) == 2


def test_the_time_that_a_picture_takes_goes_on_after_a_reload(page, triton):
    triton.held_from = 3
    triton.hold.clear()
    page.draw(prompt="a red circle")
    wait_for(lambda: page.all(".coming .preview:not([hidden])"))
    time.sleep(4)
    page.reload()
    triton.hold.set()
    page.settled(1)
    seconds = float(re.search(r", ([\d.]+) s", page.one(".told").text)[1])
    assert seconds >= 4


def test_pictures_are_given_up_some_time_after_their_tab_was_closed(page, triton, monkeypatch):
    monkeypatch.setattr(tabs, "GRACE", 3)
    triton.hold.clear()
    with another_tab(page.browser):
        page.browser.get(page.own[0])
        page.loaded()
        page.draw(prompt="a red circle", count="2")
        wait_for(lambda: len(page.all(".steps")) == len(triton.requests) == 2)
    wait_for(lambda: triton.left == 2)


HELD_PUT = """
const put = IDBObjectStore.prototype.put;
IDBObjectStore.prototype.put = function (...all) {
  const held = () => window.mayKeep || (this.get("none").onsuccess = held);
  const request = put.apply(this, all);
  held();
  return request;
};
"""


def test_a_picture_is_noted_before_it_is_asked_for(page, triton):
    page.browser.execute_script(HELD_PUT)
    page.draw(prompt="a red circle", count="1")
    time.sleep(0.5)
    assert not triton.requests
    page.browser.execute_script("window.mayKeep = true")
    page.settled(1)


def test_a_picture_is_kept_before_it_is_shown(page, triton):
    """So that a reload draws none again that somebody has seen."""
    page.browser.execute_script(f"window.mayKeep = true;{HELD_PUT}")
    triton.hold.clear()
    page.draw(prompt="a red circle", count="1")
    wait_for(lambda: triton.requests)
    page.browser.execute_script("window.mayKeep = false")
    triton.hold.set()
    time.sleep(0.5)
    assert len(page.all(".coming")) == 1
    page.browser.execute_script("window.mayKeep = true")
    page.settled(1)


def test_a_tab_that_is_duplicated_while_it_draws_leaves_the_pictures_to_the_first(page, triton):
    triton.held_from = 3
    triton.hold.clear()
    page.draw(prompt="a red circle", seed="7", count="1")
    wait_for(lambda: len(triton.requests) == 1)
    of_the_other = page.browser.execute_script
    of_the_other("window.other = open(location.href)")  # with what this tab has noted
    ready = "return other.document.body?.classList.contains('ready')"
    names = "return [window, other].map((one) => one.sessionStorage.getItem('triptych tab'))"
    notice = "return other.document.getElementById('notice').checkVisibility()"
    for _ in range(2):  # also once it is reloaded
        wait_for(lambda: of_the_other(ready))
        assert len(set(of_the_other(names))) == 2
        assert not of_the_other(notice)
        of_the_other("other.document.body.classList.remove('ready'); other.location.reload()")
    wait_for(lambda: of_the_other(ready))
    of_the_other("other.close()")
    triton.hold.set()
    page.settled(1)
    assert len(triton.requests) == 1


@pytest.mark.parametrize("wanted", [2, 1, 0])
def test_pictures_on_their_way_are_asked_about_when_the_page_is_opened_again(page, triton, wanted):
    count = wanted or 2
    triton.hold.clear()
    page.draw(prompt="a red circle", count=str(count))
    wait_for(lambda: len(triton.requests) == count)
    url = page.browser.current_url
    page.browser.get("about:blank")
    triton.hold.set()
    page.browser.get(url)
    page.loaded()
    said = "1 picture was on its way" if count == 1 else "2 pictures were on their way"
    assert said in page["notice"].text
    page["notice-do" if wanted else "notice-not"].click()
    page.settled(wanted)
    page.reload()
    page.settled(wanted)
    assert not page["notice"].is_displayed()


def undo(page, place="#bar"):
    return page.one(f"{place} [data-does=bring-back]")


def test_deleted_pictures_are_brought_back_to_their_places(page):
    page.draw(prompt="A", seed="1", count="2")
    page.settled(2)
    page.draw(prompt="B", seed="5", count="1")
    page.settled(3)
    page.draw(prompt="A", seed="7")
    page.settled(4)
    drawn = groups(page)
    assert not undo(page).is_displayed()
    page.act("delete", 1)
    page.act("delete", 1)
    page.settled(2)
    assert page.said() == "The picture is deleted."
    undo(page).click()
    page.settled(3)
    page.press_with_control("z")
    page.settled(4)
    assert groups(page) == drawn
    assert not undo(page).is_displayed()
    page.press_with_control("z")  # with nothing to undo
    page.act("delete", 3)
    page.reload()
    page.settled(3)
    assert not undo(page).is_displayed()
    assert groups(page) == [*drawn[:2], ["A", ["seed 1"]]]


def test_the_only_one_is_deleted_and_brought_back_by_keys(page):
    page.draw(prompt="a red circle")
    page.settled(1)
    page.act("delete")
    page.settled(0)
    assert page["samples"].is_displayed()
    assert page.browser.switch_to.active_element == undo(page)
    page.press(Keys.ENTER)
    page.settled(1)
    page.reload()
    page.settled(1)


def test_one_is_deleted_and_brought_back_in_full_size(page):
    for number, prompt in enumerate("AB", 1):
        page.draw(prompt=prompt, seed=str(number))
        page.settled(number)
    page.all(".card .picture")[1].click()
    delete = page.one("#viewer [data-does=delete]")
    for keys in (False, True):
        assert "seed 1" in shown(page)
        delete.click()
        page.settled(1)
        assert "seed 2" in shown(page)
        assert page["viewer-said"].text == "The picture is deleted."
        assert violations(page.browser) == []
        page.press_with_control("z") if keys else undo(page, "#viewer").click()
        page.settled(2)
        assert page["viewer-said"].text == "The picture is back."
        assert not undo(page, "#viewer").is_displayed()
        assert page.browser.switch_to.active_element == delete
    delete.click()
    delete.click()
    page.settled(0)
    assert page["viewer"].get_attribute("open") is None
    wait_for(lambda: page.browser.switch_to.active_element == undo(page))
    assert groups(page) == []


TAKEN = """
const told = arguments[0];
import("/web/store.js").then(async ({ keep, kept }) => {
  const one = (await kept("coming"))[0];
  await keep("coming", `${one.batch} ${one.index}`, { ...one, tab: "another" });
}).then(told);
"""


def test_pictures_of_a_tab_that_was_closed_are_asked_about_in_another(page, triton):
    triton.hold.clear()
    page.draw(prompt="a red circle", count="2")
    wait_for(lambda: len(triton.requests) == 2)
    url = page.browser.current_url
    page.browser.execute_script("sessionStorage.clear()")  # what another tab does not have
    page.browser.get("about:blank")
    page.browser.get(url)
    page.loaded()
    assert "2 pictures were on their way" in page["notice"].text
    page.browser.execute_async_script(TAKEN)  # since then, as where another tab has asked too
    page.draw(prompt="a green star", count="1")
    page["notice-do"].click()
    triton.hold.set()
    page.settled(2)
    assert [prompt for prompt, _ in groups(page)] == ["a green star", "a red circle"]
    page.reload()
    page.settled(2)
    assert "1 picture was on its way" in page["notice"].text


PERSISTS = """
window.asked = 0;
StorageManager.prototype.persist = function () {
  window.asked += 1;
  return Promise.resolve(true);
};
"""


def test_the_browser_is_asked_once_not_to_drop_pictures(page):
    run = page.browser.execute_script
    run(PERSISTS)
    page.draw(prompt="a red circle", count="2")
    page.settled(2)
    assert run("return window.asked") == 1


def test_all_are_deleted_once_that_is_sure(page, triton):
    page.draw(prompt="a red circle", count="2")
    page.settled(2)
    page["clear-all"].click()
    assert violations(page.browser) == []
    page.one("#sure button[value='']").click()
    page.settled(2)
    triton.hold.clear()
    page.draw(count="1")
    wait_for(lambda: page.all(".coming"))
    page["clear-all"].click()
    triton.hold.set()
    page.settled(3)
    page.one("#sure button[value=yes]").click()
    page.settled(1)  # which nobody had seen
    page["clear-all"].click()
    page.one("#sure button[value=yes]").click()
    page.settled(0)
    assert page["samples"].is_displayed()
    page.reload()
    page.settled(0)


def test_all_are_downloaded_as_one_file(page, tmp_path):
    page.browser.download_to(tmp_path)
    page.draw(prompt="a ☀ over hills", seed="5", count="2")
    page.settled(2)
    page["download-all"].click()
    path = tmp_path / "triptych.zip"
    wait_for(lambda: path.exists() and path.stat().st_size)  # it is empty until it is whole
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["001-6.png", "002-5.png"]
        settings = read_settings(archive.read("001-6.png"))
    assert (settings.prompt, settings.seed) == ("a ☀ over hills", 6)


def shown(page):
    return page.one("#viewer figcaption").text


def test_pictures_are_seen_in_their_own_size_and_walked_through_by_keys(page, triton):
    page.draw(prompt="a red circle", seed="3", width="128", height="64")
    page.settled(1)
    triton.hold.clear()
    page.draw(seed="1", count="2")
    wait_for(lambda: len(page.all(".coming")) == 2)
    page.one(".card:not(.coming) .picture").click()
    assert "1 / 1" in shown(page)
    triton.hold.set()
    wait_for(lambda: "3 / 3" in shown(page))  # the others have come
    assert not page.one("#viewer [data-does=after]").is_enabled()
    page.one("#viewer [data-does=before]").click()
    page.press(Keys.ARROW_LEFT)
    assert "a red circle" in shown(page) and "128 \N{MULTIPLICATION SIGN} 64" in shown(page)
    assert "1 / 3" in shown(page)
    image = page.one("#viewer img")
    assert (image.rect["width"], image.rect["height"]) == (128, 64)
    assert violations(page.browser) == []
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "seed 3" in shown(page) and "3 / 3" in shown(page)
    page.press(Keys.ARROW_LEFT)
    assert "seed 2" in shown(page)
    page.one("#viewer [data-does=zoom]").click()
    assert image.rect["width"] == 256
    assert image.value_of_css_property("image-rendering") == "pixelated"
    page.one("#viewer [data-does=delete]").click()
    assert "seed 3" in shown(page) and "2 / 2" in shown(page)
    page.press(Keys.ESCAPE)
    page.settled(2)
    focused = page.browser.switch_to.active_element
    assert focused.get_attribute("aria-label") == "View: a red circle"


@pytest.mark.parametrize(
    ("window", "size"),
    [((1280, 650), (512, 512)), ((844, 391), (512, 768)), ((390, 844), (768, 512))],
)
def test_a_picture_larger_than_the_window_keeps_its_shape_and_is_seen_whole_or_as_it_is(
    page, window, size
):
    page.draw(prompt="a red circle", width=str(size[0]), height=str(size[1]))
    page.settled(1)
    page.browser.look_like(window)
    page.one(".card .picture").click()
    image = page.one("#viewer img")
    zoom = page.one("#viewer [data-does=zoom]")
    wait_for(lambda: image.get_property("naturalWidth") == size[0])
    wait_for(lambda: zoom.get_attribute("title") == "In its own size")
    assert zoom.get_attribute("aria-label") == "In its own size"
    seen = image.rect
    assert seen["width"] < min(size[0], window[0]) and seen["height"] < min(size[1], window[1])
    assert seen["width"] / seen["height"] == pytest.approx(size[0] / size[1], rel=0.01)
    zoom.click()
    scale = page.browser.execute_script("return devicePixelRatio")
    assert (image.rect["width"], image.rect["height"]) == (size[0] / scale, size[1] / scale)
    assert violations(page.browser) == []
    page.browser.execute_script("document.getElementById('stage').focus()")
    page.press(Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    ways = ("scrollTop", "scrollLeft")
    wait_for(lambda: any(page["stage"].get_property(way) > 0 for way in ways))


def test_what_the_viewer_offers_follows_the_windows_size(page):
    page.draw(prompt="a red circle " * 15, width="512", height="512")
    page.settled(1)
    page.one(".card .picture").click()
    zoom = page.one("#viewer [data-does=zoom]")
    wait_for(lambda: zoom.get_attribute("title") == "Twice as large")
    prompt = page.one("#viewer figcaption p")
    assert prompt.get_attribute("tabindex") is None
    page.browser.look_like((390, 391))
    wait_for(lambda: zoom.get_attribute("title") == "In its own size")
    assert prompt.get_attribute("tabindex") == "0"
    zoom.click()
    page.browser.look_like()
    wait_for(lambda: zoom.get_attribute("title") == "Twice as large")
    assert page.one("#viewer img").rect["width"] == 1024
    assert prompt.get_attribute("tabindex") is None


def test_a_pictures_own_size_is_in_the_screens_own_pixels(page):
    if page.browser.name == "firefox":
        pytest.skip("only Chromium is given a finer screen")
    page.draw(prompt="a red circle", width="128", height="64")
    page.settled(1)
    page.one(".card .picture").click()
    image = page.one("#viewer img")
    assert (image.rect["width"], image.rect["height"]) == (128, 64)
    page.browser.look_like(chromium.PHONE)
    assert page.browser.execute_script("return devicePixelRatio") == 2
    wait_for(lambda: (image.rect["width"], image.rect["height"]) == (64, 32))
    zoom = page.one("#viewer [data-does=zoom]")
    assert zoom.get_attribute("title") == "Twice as large"
    zoom.click()
    assert (image.rect["width"], image.rect["height"]) == (128, 64)


def test_more_like_a_picture_of_one_step(page, triton):
    page.draw(prompt="a red circle", num_inference_steps="1")
    page.settled(1)
    page.act("more")
    page.settled(5)
    assert {one["num_inference_steps"] for one in triton.requests[1:]} == {2}


def test_two_are_compared(page):
    page.draw(prompt="a red circle", seed="1", guidance_scale="3", count="2")
    page.settled(2)
    page.draw(seed="1", guidance_scale="7", count="1")
    page.settled(3)
    page["compare"].click()
    for picture in page.all(".picture")[:2]:
        picture.click()
    captions = [one.text for one in page.all("#viewer figcaption")]
    assert captions == ["Guidance: 7", "Guidance: 3"]
    assert violations(page.browser) == []
    page.press(Keys.ESCAPE)
    page["compare"].click()
    page.press(Keys.ESCAPE)
    page.one(".picture").click()
    assert len([one for one in page.all("#viewer figure") if one.is_displayed()]) == 1
    page.press(Keys.ESCAPE)
    page["compare"].click()
    page.one(".picture").click()
    page.act("delete")
    page.one(".picture").click()
    assert page.said() == "Choose the other one"  # to the one in the place of the deleted
    page.act("delete")
    assert not page.all("body.comparing")  # there is one left


def test_two_are_compared_on_a_phone_while_others_come(page, triton):
    page.browser.look_like(chromium.PHONE)
    page.draw(prompt="a red circle", count="2")
    page.settled(2)
    triton.hold.clear()
    page["draw"].click()
    wait_for(lambda: len(page.all(".coming")) == 2)
    assert page["compare"].is_displayed() and page["cancel"].is_displayed()
    page["compare"].click()
    for picture in page.all(".card:not(.coming) .picture"):
        picture.click()
    assert len([one for one in page.all("#viewer figure") if one.is_displayed()]) == 2
    page.press(Keys.ESCAPE)
    triton.hold.set()
    page.settled(4)


def test_a_pictures_small_buttons_are_in_its_frame_in_the_narrowest_of_two_columns(page):
    page.browser.look_like((362, 640))
    page.draw(prompt="x", count="2")
    page.settled(2)
    frame = page.one(".card .frame").rect
    for button in page.all(".card:first-child .small > *"):
        box = button.rect
        assert frame["x"] <= box["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"]


def test_a_picture_and_a_link_to_its_settings_are_copied(page, triton):
    page.browser.allow_clipboard(page.own[0])
    triton.loras = ["ink"]
    page["scheduler"].send_keys("UniPC")
    page.draw(prompt="a ☀ & hills", negative_prompt="50%", seed="18446744073709551615", width="96")
    page.settled(1)
    page.one(".picture").click()
    page.one("#viewer [data-does=copy]").click()
    wait_for(lambda: "The picture is copied." in page["viewer-said"].text)
    page.one("#viewer [data-does=link]").click()
    wait_for(lambda: "The link is copied." in page["viewer-said"].text)
    read = "navigator.clipboard.readText().then(arguments[0])"
    link = page.browser.execute_async_script(read)
    assert link.startswith(page.own[0])
    opened = Page(page.browser, page.own[0], link.removeprefix(f"{page.own[0]}/"))
    fields = ("prompt", "negative_prompt", "seed", "width", "scheduler")
    wanted = ["a ☀ & hills", "50%", "18446744073709551615", "96", "unipc"]
    assert opened.values(*fields) == wanted
    assert "#" not in page.browser.current_url
    opened.draw()
    opened.settled(1)


def test_a_link_that_is_followed_in_the_open_page_fills_the_form(page):
    page.draw(prompt="a red circle")
    page.settled(1)
    link = f"{page.own[0]}/#prompt=a+green+star&seed=5"
    page.browser.execute_script("window.stays = true")
    page.browser.get(link)
    wait_for(lambda: page.values("prompt", "seed") == ["a green star", "5"])
    assert page.browser.execute_script("return window.stays")
    assert "#" not in page.browser.current_url


def test_another_open_tab_shows_what_was_drawn_and_deleted(page):
    page.draw(prompt="a red circle")
    page.settled(1)
    page.one(".picture").click()
    with another_tab(page.browser):
        page.browser.get(page.own[0])
        page.loaded()
        page.draw(prompt="a green star", seed="7", count="2")
        page.settled(3)
        page.act("delete")
        undo(page).click()
        page.act("delete", 2)
        page.settled(2)
        drawn = groups(page)
    page.settled(2)
    assert page["viewer"].get_attribute("open") is None  # its picture is gone
    assert groups(page) == drawn
    page.reload()
    page.settled(2)


def larger(page, card=0):
    page.all(".card .picture")[card].click()
    page.one("#viewer [data-does=larger]").click()


NOT_LARGER = "The server draws no larger picture: at most 768 x 768 in total."


def test_one_is_drawn_larger_in_a_second_pass(page, triton):
    triton.takes_pictures = False  # none is needed
    page.reload()
    page["scheduler"].send_keys("UniPC")
    page.draw(prompt="a red circle", seed="7", width="256", height="256", guidance_scale="3")
    page.settled(1)
    larger(page)
    page.settled(2)
    first, second = triton.requests
    expected = {"width": 512, "height": 512, "strength": 0.3, "num_inference_steps": 20}
    assert second == {**first, "second_pass": expected}
    assert "Second pass\n512 \N{MULTIPLICATION SIGN} 512" in page.settings()
    larger(page)
    page.settled(3)
    expected = {**expected, "width": 768, "height": 768}
    assert triton.requests[2] == {**first, "second_pass": expected}
    larger(page)
    assert shown(page).split("\n")[1].startswith("768 \N{MULTIPLICATION SIGN} 768")
    assert page["viewer-said"].text == NOT_LARGER
    button = page.one("#viewer [data-does=larger]")
    assert button.get_attribute("title") == NOT_LARGER
    assert button.get_attribute("aria-disabled") == "true"
    assert violations(page.browser) == []
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert button.get_attribute("title") == "Draw it larger"
    assert button.get_attribute("aria-disabled") == "false"
    assert page["viewer-said"].text == ""
    assert len(triton.requests) == 3


def test_the_settings_of_one_that_was_drawn_larger_draw_it_again(page, triton):
    steps = {"num_inference_steps": "1"}
    page.draw(prompt="a red circle", seed="7", width="64", height="128", **steps)
    page.settled(1)
    larger(page)
    page.settled(2)
    assert triton.requests[1]["second_pass"]["num_inference_steps"] == 4
    frame = page.one(".card .frame").rect
    assert frame["height"] == pytest.approx(2 * frame["width"], rel=0.02)
    page.use()
    assert "second pass 128 \N{MULTIPLICATION SIGN} 256." in page["others"].text
    page["draw"].click()
    page.settled(3)
    again = {**triton.requests[1], "second_pass": triton.requests[2]["second_pass"]}
    assert again == triton.requests[2]
    assert again["second_pass"]["interpolation"] == "bilinear"
    page.fill(num_inference_steps="20")
    page.draw()
    page.settled(4)
    page.act("more")
    page.settled(8)
    more = triton.requests[4]
    assert (more["width"], more["height"], "second_pass" in more) == (128, 256, False)


def test_one_that_began_from_a_picture_is_drawn_larger_from_itself(page, triton):
    page.draw(prompt="a red circle", seed="1", width="512", height="256")
    page.settled(1)
    page.act("start")
    wait_for(lambda: page["start"].is_displayed())
    page.draw(width="512", height="256", seed="5")
    page.settled(2)
    larger(page)
    page.settled(3)
    third = triton.requests[2]
    assert (third["width"], third["height"], third["strength"]) == (1024, 512, 0.3)
    assert third["seed"] == 5 and third["image"].startswith("data:image/png;base64,")
    assert "second_pass" not in third
    triton.takes_pictures = False
    page.reload()
    larger(page, 1)
    said = "Drawn from another picture, and this model takes none."
    assert page["viewer-said"].text == said


def test_more_like_one_start_from_it(page, triton):
    page.draw(prompt="a red circle", seed="1")
    page.settled(1)
    page.act("more")
    page.settled(5)
    assert {request.get("strength") for request in triton.requests[1:]} == {0.7}
    assert len({request["seed"] for request in triton.requests}) == 5


RESTORE = """
const done = arguments[arguments.length - 1];
const looked = window.getComputedStyle;
let looks = 0;
window.getComputedStyle = (...all) => (looks++, looked(...all));
const searched = document.querySelectorAll;
let searches = 0;
document.querySelectorAll = (...all) => (searches++, searched.apply(document, all));
Promise.all([import("/web/store.js"), import("/web/gallery.js")]).then(async ([store, gallery]) => {
  const [one] = await store.kept("pictures");
  for (let batch = 1; batch <= 40; batch++)
    await store.keep("pictures", `${batch} 0`, { ...one, key: `${batch} 0`, batch });
  await gallery.restore();
  await new Promise(requestAnimationFrame);
  window.getComputedStyle = looked;
  delete document.querySelectorAll;
  done([looks, searches]);
});
"""


def test_many_pictures_of_earlier_visits_are_laid_out_and_counted_together(page):
    if page.browser.name == "firefox":
        pytest.skip("a test's script has modules of its own there")
    page.draw(prompt="x")
    page.settled(1)
    looks, searches = page.browser.execute_async_script(RESTORE)
    assert looks < 5
    assert searches < 60
    page.settled(41)
