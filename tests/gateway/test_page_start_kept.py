"""What a tab keeps of the picture that drawing starts from, and what a load makes of it."""

import contextlib

import pytest

from tests.gateway.page import STARTS, another_tab, drop
from tests.gateway.pictures import flat
from tests.gateway.running import wait_for

HOLD = """
indexedDB.open("triptych").onsuccess = ({ target }) => {
  const starts = target.result.transaction("start", "readwrite").objectStore("start");
  const goOn = () => window.isReleased || (starts.count().onsuccess = goOn);
  goOn();
};
"""


def shows(page, width):
    return page["start"].is_displayed() and page["picture"].get_property("width") == width


@contextlib.contextmanager
def a_slow_load(page):
    """The page before the start picture of before has been read, which it is at the end."""
    first = page.browser.current_window_handle
    with another_tab(page.browser):
        second = page.browser.current_window_handle
        page.browser.get(f"{page.own[0]}/web/icon.svg")
        page.browser.execute_script(HOLD)
        page.browser.switch_to.window(first)
        page.browser.refresh()
        wait_for(lambda: page["start-field"].is_displayed())
        yield
        page.browser.switch_to.window(second)
        page.browser.execute_script("window.isReleased = true")
    page.loaded()


@pytest.mark.parametrize("how", ["another", "none"])
def test_what_is_done_in_the_midst_of_a_load_is_meant_and_not_what_was_before(page, how):
    drop(page, flat((320, 240)), "start")
    wait_for(lambda: page.browser.execute_async_script(STARTS) == 2)
    with a_slow_load(page):
        assert not page["start"].is_displayed()
        if how == "another":
            drop(page, flat((240, 320)), "start")
            wait_for(lambda: shows(page, 240))
        else:
            page.one("#samples button").click()
    for _ in range(2):
        assert shows(page, 240) if how == "another" else not page["start"].is_displayed()
        page.reload()


AS_OLD_PAGES_DID = """
const [done] = arguments;
localStorage.setItem("triptych strength", "0.7");
import("/web/store.js")
  .then(({ keep }) => Promise.all([
    keep("start", "image", new Blob(["a picture"])), keep("start", "strokes", [{ clears: true }]),
  ]))
  .then(done);
"""


def test_what_old_pages_kept_for_all_tabs_is_removed(page):
    page.browser.execute_async_script(AS_OLD_PAGES_DID)
    page.reload()
    wait_for(lambda: page.browser.execute_async_script(STARTS) == 0)
    assert page.browser.execute_script("return localStorage.getItem('triptych strength')") is None


def test_drawing_in_the_midst_of_a_load_starts_from_the_picture_of_before(page, triton):
    drop(page, flat((320, 240)), "start")
    page.fill(prompt="a red circle")
    wait_for(lambda: page.browser.execute_async_script(STARTS) == 2)
    with a_slow_load(page):
        page["draw"].click()
    page.settled(1)
    assert "image" in triton.requests[0]


# The tab waits for an answer to whether another has its name as long as it takes.
PATIENT = """
const usual = window.setTimeout;
window.setTimeout = (work, after) => usual(work, after === 300 ? 1e6 : after);
"""
# And it does not ask until `ask()`.
UNSURE = f"""{PATIENT}
const {{ postMessage }} = BroadcastChannel.prototype;
BroadcastChannel.prototype.postMessage = function (question) {{
  window.ask = () => {{
    BroadcastChannel.prototype.postMessage = postMessage;
    this.postMessage(question);
  }};
}};
"""


@contextlib.contextmanager
def a_duplicate(page, script=""):
    """A tab with what the shown one has noted, and the page in it, with a script before its own."""
    noted = page.browser.execute_script("return { ...sessionStorage }")
    with another_tab(page.browser):
        page.browser.get(f"{page.own[0]}/web/icon.svg")
        page.browser.execute_script("Object.assign(sessionStorage, arguments[0])", noted)
        with page.browser.before_pages(script):
            page.browser.get(page.own[0])
        yield page.browser.current_window_handle


def test_a_duplicated_tab_has_a_picture_of_its_own_from_the_first_moment(page):
    if page.browser.name == "firefox":
        pytest.skip("only Chromium runs a script before a page's own")
    first = page.browser.current_window_handle
    with a_duplicate(page, UNSURE) as duplicate:
        wait_for(lambda: page["start-field"].is_displayed())
        drop(page, flat((240, 320)), "start")
        page.browser.execute_async_script("setTimeout(arguments[0], 100)")  # it is read
        page.browser.execute_script("ask()")
        wait_for(lambda: page.browser.execute_async_script(STARTS) == 2)
        page.browser.switch_to.window(first)
        drop(page, flat((320, 240)), "start")
        wait_for(lambda: page.browser.execute_async_script(STARTS) == 4)
        page.browser.switch_to.window(duplicate)
        page.reload()
        assert shows(page, 240)


def test_a_tab_that_is_duplicated_before_it_is_sure_of_its_name_keeps_it(page):
    if page.browser.name == "firefox":
        pytest.skip("only Chromium runs a script before a page's own")
    name = "return sessionStorage.getItem('triptych tab')"
    own = page.browser.execute_script(name)
    with page.browser.before_pages(PATIENT):
        page.browser.refresh()
    wait_for(lambda: page["start-field"].is_displayed())
    with a_duplicate(page):
        page.loaded()
        assert page.browser.execute_script(name) != own
    page.reload()
    assert page.browser.execute_script(name) == own
