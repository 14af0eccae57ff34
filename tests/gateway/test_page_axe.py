"""The page for people with disabilities, where something is wrong, and on screens of all sizes."""

import base64

import pytest
from selenium.webdriver import Keys

from tests.gateway import browser as chromium
from tests.gateway.page import DROP, Page, violations
from tests.gateway.pictures import flat
from tests.gateway.running import wait_for

SCREENS = (chromium.PHONE, chromium.WIDE, (2560, 1300))
LOOKS = [(size, dark) for size in SCREENS for dark in (False, True)]
BOTH = pytest.mark.parametrize(("size", "dark"), [(chromium.PHONE, True), (chromium.WIDE, False)])


def assert_fine_in_all_looks(browser):
    """Nothing is wrong with what is on the page, on any screen."""
    for size, dark in LOOKS:
        browser.look_like(size, dark)
        assert violations(browser) == [], (size, dark)
    browser.look_like()


def test_the_server_is_lost(browser, start):
    page = Page(browser, start().url)
    page.draw(prompt="a red circle", count="2")
    page.settled(2)
    browser.offline(True)
    try:
        page.draw(prompt="a green star")
        wait_for(lambda: page["lost"].text.startswith("Connection lost."))
        assert "waiting for the server" in page.one(".coming .steps").text
        assert_fine_in_all_looks(browser)
    finally:
        browser.offline(False)
    page.settled(4)
    browser.complaints()


def test_a_wrong_key(browser, start):
    page = Page(browser, start(api_key="sesame").url, sees_all=False)
    page["key-text"].send_keys("wrong", Keys.ENTER)
    wait_for(lambda: page["key-wrong"].text)
    assert_fine_in_all_looks(browser)
    page.press(Keys.ESCAPE)
    wait_for(lambda: page["unlock"].is_displayed())
    assert_fine_in_all_looks(browser)
    browser.complaints()


def test_empty_at_work_and_in_full_size(page, triton):
    assert_fine_in_all_looks(page.browser)
    triton.warnings = ("prompt is longer than 77 tokens; cut off: 'x'",)
    for number, prompt in enumerate(("a red circle", "a green star", "a blue moon")):
        page.draw(prompt=prompt, count="3")
        page.settled(3 * number + 3)
    assert_fine_in_all_looks(page.browser)
    triton.held_from = 3
    triton.hold.clear()
    page.draw(prompt="a sun", count="2")
    wait_for(lambda: len(page.all(".coming .preview:not([hidden])")) == 2)
    assert_fine_in_all_looks(page.browser)
    page["cancel"].click()
    page.settled(9)
    page.one(".picture").click()
    assert_fine_in_all_looks(page.browser)


@BOTH
def test_the_dialogs(page, size, dark):
    page.browser.look_like(size, dark)
    page.draw(prompt="a red circle", count="2")
    page.settled(2)
    page["prompts-open"].click()
    assert violations(page.browser) == []
    color = "document.getElementById('prompts-title').style.color = arguments[0]"
    page.browser.execute_script(color, "light-dark(#999, #777)")
    assert [name for name, _ in violations(page.browser)] == ["color-contrast"]
    page.browser.execute_script(color, "")
    page.press(Keys.ESCAPE)
    page["clear-all"].click()
    assert violations(page.browser) == []
    page.press(Keys.ESCAPE)
    page.browser.execute_script(DROP, base64.b64encode(flat((32, 24))).decode())
    assert page["dropped"].is_displayed()
    assert violations(page.browser) == []


@BOTH
def test_a_prompt_of_several_screens(page, size, dark):
    page.browser.look_like(size, dark)
    fill = "document.getElementById('prompt').value = arguments[0]"
    page.browser.execute_script(fill, "many words " * 500)
    page["draw"].click()
    page.settled(1)
    page["prompts-open"].click()
    assert page.one("#recent li").size["height"] < 100
    assert violations(page.browser) == []
    page.press(Keys.ESCAPE)
    page.one(".picture").click()
    assert violations(page.browser) == []
    page.one("#viewer [data-does=sheet]").click()
    assert violations(page.browser) == []
