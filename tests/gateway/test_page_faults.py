"""The page where something is missing: room, storage, a picture that is as it should be."""

import base64
import io

import pytest
from PIL import Image
from selenium.webdriver import Keys
from selenium.webdriver.support.ui import Select

from tests.gateway.page import DROP, Page, another_tab, drop
from tests.gateway.pictures import flat, text
from tests.gateway.running import wait_for
from triptych.gateway import page as gateways_page

NO_ROOM_FOR_FILES = """
const put = IDBObjectStore.prototype.put;
IDBObjectStore.prototype.put = function (value, key) {
  if (value.file) throw new DOMException("full", "QuotaExceededError");
  return put.call(this, value, key);
};
"""
FULL = "This browser keeps no more pictures"


def test_a_browser_that_lets_pages_keep_nothing(browser, start, triton):
    gateway = start(api_key="sesame")
    page = Page(browser, gateway.url, sees_all=False)
    browser.keep_nothing(True)
    try:
        page.reload()
        page["key-text"].send_keys("sesame", Keys.ENTER)
        wait_for(lambda: page["scheduler"].get_property("value") == "pndm")
        page.draw(prompt="a red circle")
        page.settled(1)
        assert FULL in page["alert"].text
        page.draw(prompt="a green star")
        page.settled(2)
        page["prompts-open"].click()
        page["style-name"].send_keys("Ink", Keys.ENTER)
        assert page["style-error"].text == "This browser does not keep the style."
        page["prompts"].find_element("css selector", "[data-does=close]").click()
        page.browser.execute_script("document.getElementById('alert').textContent = ''")
        page.act("delete")
        page.one("#bar [data-does=bring-back]").click()
        wait_for(lambda: FULL in page["alert"].text)
        Select(page["language"]).select_by_value("zh")
        assert page.values("language") == [""]
        page.one(".picture").click()
        assert "a green star" in page.one("#viewer figcaption").text
    finally:
        browser.keep_nothing(False)
    browser.complaints()


def test_a_browser_without_room(page):
    if page.browser.name == "firefox":
        pytest.skip("only in Chromium can room be taken away")
    page.browser.leave_room(page.own[0], 1000)
    page.draw(prompt="a red circle", width="768", height="768")
    page.settled(1)
    assert FULL in page["alert"].text
    drop(page, flat((320, 240)), "start")
    wait_for(lambda: page["start"].is_displayed())
    page.browser.leave_room(page.own[0], None)
    page.reload()
    page.settled(0)


def test_where_there_is_no_room_for_a_picture_its_mask_is_on_no_other_one(page):
    drop(page, flat((320, 240)), "start")
    wait_for(lambda: page["start"].is_displayed())
    page.browser.execute_script(NO_ROOM_FOR_FILES)
    drop(page, flat((240, 320)), "start")
    wait_for(lambda: page["picture"].get_property("width") == 240)
    page.reload()
    assert page.all("body.ready")
    assert not page["start"].is_displayed()


def test_a_new_tab_takes_no_picture_of_one_that_had_no_room(page):
    page.browser.execute_script(NO_ROOM_FOR_FILES)
    drop(page, flat((320, 240)), "start")
    wait_for(lambda: page["start"].is_displayed())
    first = page.browser.current_window_handle
    with another_tab(page.browser):
        second = page.browser.current_window_handle
        page.browser.get(page.own[0])
        page.loaded()
        page.browser.switch_to.window(first)
        page.reload()  # there is room again
        drop(page, flat((240, 320)), "start")
        wait_for(lambda: page["start"].is_displayed())
        page.reload()
        assert page["start"].is_displayed()
        page.browser.switch_to.window(second)
        page.reload()
        assert not page["start"].is_displayed()


def test_a_picture_that_the_server_would_not_take_is_made_smaller(page, triton):
    triton.parameters["tokenizer"] = {"max_picture_pixels": str(2048 * 2048)}
    page.reload()
    drop(page, flat((3000, 1500)), "start")
    wait_for(lambda: page["start"].is_displayed())
    page.draw(prompt="x")
    page.settled(1)
    sent = base64.b64decode(triton.requests[0]["image"].partition(",")[2])
    assert Image.open(io.BytesIO(sent)).size == (2048, 1024)


def test_requests_that_reach_several_gateways_do_not_draw_for_ever(page, triton, monkeypatch):
    """The stream comes from one that does not know the picture."""

    async def nothing(_):
        return
        yield

    monkeypatch.setattr(gateways_page, "_events", nothing)
    page.draw(prompt="a red circle")
    wait_for(lambda: "several gateways" in page["alert"].text, 60)
    assert len(triton.requests) == 1  # here all POSTs reach the gateway that knows it
    assert page.all(".coming") == []


@pytest.mark.parametrize("loras", ["5", "{}", "[null, 1]", "ink"])
def test_a_link_with_loras_that_are_none(page, loras):
    page.browser.get("about:blank")
    page.browser.get(f"{page.own[0]}/#prompt=x&loras={loras}")
    page.loaded()
    assert page.values("prompt") == ["x"]
    assert page.all("#chosen-loras li") == []


def test_a_link_to_what_this_server_does_not_have(page):
    page.browser.get("about:blank")
    page.browser.get(f"{page.own[0]}/#prompt=x&model=ink&scheduler=none")
    page.loaded()
    assert page["alert"].text == "not taken from the picture: Model ink, Scheduler none"
    page.draw()
    page.settled(1)
    assert page["alert"].text == ""
    page.use()
    assert page["alert"].text == ""


def test_a_link_to_a_plain_picture_is_not_read_in_the_webuis_syntax(page, triton):
    page.browser.execute_script("document.getElementById('prompt_syntax').value = 'webui'")
    page.browser.get(f"{page.own[0]}/#prompt=a+(red)+circle")
    wait_for(lambda: page.values("prompt") == ["a (red) circle"])
    assert page.values("prompt_syntax") == [""]


DELETED = """
const done = arguments[0];
indexedDB.deleteDatabase("triptych").onsuccess = () => done();
"""


def test_what_is_drawn_after_the_browser_deleted_everything_is_kept(page):
    page.draw(prompt="a red circle")
    page.settled(1)
    page.browser.execute_async_script(DELETED)
    page.draw(prompt="a green star")
    page.settled(2)
    assert page["alert"].text == ""
    page.reload()
    assert [card.get_attribute("data-prompt") for card in page.all(".card")] == ["a green star"]


CHOOSER = """
document.body.insertAdjacentHTML("beforeend", "<input type=file id=chooser>");
"""
DROP_CHOSEN = """
const transfer = new DataTransfer();
transfer.items.add(document.getElementById("chooser").files[0]);
const drop = { dataTransfer: transfer, bubbles: true, cancelable: true };
document.body.dispatchEvent(new DragEvent("drop", drop));
"""


@pytest.mark.parametrize(("purpose", "where"), [("settings", "alert"), ("start", "image-error")])
def test_a_file_that_cannot_be_read(page, tmp_path, purpose, where):
    file = tmp_path / "gone.png"
    file.write_bytes(flat((8, 8)))
    page.browser.execute_script(CHOOSER)
    page["chooser"].send_keys(str(file))
    file.unlink()
    page.browser.execute_script(DROP_CHOSEN)
    page.one(f"#dropped button[value={purpose}]").click()
    wait_for(lambda: page[where].text)
    assert page[where].text.endswith("A picture that this browser can show")
    assert page["lost"].text == ""


DROP_SEVERAL = DROP.replace(
    "for (const kind", 'transfer.items.add(new File(["x"], "other.txt"));\nfor (const kind'
)


@pytest.mark.parametrize("purpose", ["settings", "start"])
def test_of_several_files_the_first_is_read_and_the_page_says_so(page, purpose):
    page.browser.execute_script(DROP_SEVERAL, text(flat((320, 240))))
    page.one(f"#dropped button[value={purpose}]").click()
    said = "Of 2 files only the first was read: dropped.png"
    wait_for(lambda: page["alert"].text.endswith(said))
    assert page["start"].is_displayed() == (purpose == "start")
    drop(page, flat((320, 240)), "start")
    wait_for(lambda: not page["alert"].text)
