"""The page, as tests use it."""

import base64
import contextlib
from importlib.resources import files

from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

from tests.gateway.running import wait_for


def hand(browser):
    """The pointer and the keys; the pointer is at once where it is moved to."""
    return ActionChains(browser, duration=0)


class Page:
    """The page at an address, by what is on it."""

    def __init__(self, browser, url, path="", sees_all=True):
        """The page as at a first visit; with `sees_all` the whole form is open."""
        self.browser = browser
        self.own = (url, f"blob:{url}", "data:")
        browser.get(f"{url}/web/icon.svg")  # a page that keeps nothing itself
        browser.execute_script("sessionStorage.clear()")
        browser.forget(url)
        browser.requested()
        browser.get(f"{url}/{path}")
        self.loaded()
        if sees_all:
            self.open_form()

    def loaded(self):
        """Wait for the page's own beginning."""
        wait_for(lambda: self.all("body.ready, dialog[open], #lost:not(:empty)"))

    def reload(self):
        self.browser.refresh()
        self.loaded()

    def open_form(self):
        if self["unfold"].is_displayed() and self.all("form.folded"):
            self["unfold"].click()
        if not self["advanced"].get_property("open"):
            self.browser.execute_script("document.getElementById('advanced').open = true")

    def act(self, name, card=0):
        """Press one of a picture's small buttons, which show under the pointer."""
        frame = self.all(".card:not(.coming) .frame")[card]
        self.browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", frame)
        hand(self.browser).move_to_element(frame).move_by_offset(2, 2).perform()
        button = frame.find_element(By.CSS_SELECTOR, f".small [data-does={name}]")
        wait_for(lambda: button.value_of_css_property("pointer-events") == "auto")
        button.click()

    def settings(self, card=0):
        """What the sheet says of a picture."""
        self.act("sheet", card)
        text = self.one("#sheet dl").text
        self.one("#sheet [data-does=close]").click()
        return text

    def use(self, card=0, seed="same"):
        """Take a picture's settings into the form."""
        self.act("sheet", card)
        self.one(f"#sheet [data-does={seed}-seed]").click()

    def __getitem__(self, name):
        return self.browser.find_element(By.ID, name)

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def fill(self, **fields):
        self.open_form()
        for name, text in fields.items():
            self[name].clear()
            self[name].send_keys(text)

    def values(self, *names):
        return [self[name].get_property("value") for name in names]

    def draw(self, **fields):
        self.fill(**fields)
        self["draw"].click()

    def settled(self, pictures):
        """Wait for so many pictures and none on its way."""
        wait_for(lambda: len(self.all(".card:not(.coming)")) == pictures)
        wait_for(lambda: not self.all(".coming"))

    def focused(self):
        return self.browser.switch_to.active_element.get_attribute("id")

    def press(self, *keys):
        hand(self.browser).send_keys(*keys).perform()

    def press_with_control(self, key):
        keys = hand(self.browser).key_down(Keys.CONTROL).send_keys(key)
        keys.key_up(Keys.CONTROL).perform()

    def said(self):
        """What a screen reader was told last."""
        return self["status"].get_property("textContent")


@contextlib.contextmanager
def another_tab(browser):
    """A tab beside the one that is there, which is back when this one is closed, at the end."""
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    try:
        yield
    finally:
        browser.close()
        browser.switch_to.window(first)


DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "dropped.png"));
for (const kind of ["dragover", "drop"])
  document.body.dispatchEvent(
    new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
"""


def drop(page, data, purpose="settings"):
    """Drop a file and say what it is for."""
    page.browser.execute_script(DROP, base64.b64encode(data).decode())
    page.one(f"#dropped button[value={purpose}]").click()


def save_style(page, prompt):
    """Save a prompt as the style "Ink"."""
    page.fill(prompt=prompt)
    page["prompts-open"].click()
    page["style-name"].send_keys("Ink", Keys.ENTER)
    page.press(Keys.ESCAPE)


def release(page):
    """Have what a script of a test holds back come."""
    page.browser.execute_async_script("come(); setTimeout(arguments[0], 100)")


# What a model does by itself comes late.
USUAL_IS_SLOW = """
const fetched = window.fetch;
window.fetch = async (path, ...all) => {
  const answer = await fetched(path, ...all);
  if (String(path).startsWith("api/usual")) await new Promise((come) => (window.come = come));
  return answer;
};
"""


# How many parts of pictures to start from are kept.
STARTS = """
const told = arguments[0];
indexedDB.open("triptych").onsuccess = ({ target }) => {
  const request = target.result.transaction("start").objectStore("start").count();
  request.onsuccess = () => told(request.result);
};
"""


# Of texts whose ground axe-core does not see, as in a dialog over the page: those too pale to read.
PALE = """
const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
const pixel = canvas.getContext("2d", { willReadFrequently: true });
const light = (colors) => {
  for (const color of ["Canvas", ...colors]) {
    pixel.fillStyle = color;
    pixel.fillRect(0, 0, 1, 1);
  }
  const [red, green, blue] = [...pixel.getImageData(0, 0, 1, 1).data]
    .map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05;
};
return arguments[0].filter((selector) => {
  const text = document.querySelector(selector);
  const grounds = [];
  for (let one = text; one; one = one.parentElement)
    grounds.unshift(getComputedStyle(one).backgroundColor);
  const [ground, ink] = [light(grounds), light([...grounds, getComputedStyle(text).color])];
  return Math.max(ground, ink) / Math.min(ground, ink) < 4.5;
});
"""


# What passes is only counted: all of its places take longer to send than to find.
AXE = """
const [done] = arguments;
const asked = axe.run({ resultTypes: ["violations", "incomplete"] });
asked.then(({ violations, incomplete, passes }) =>
  done({ violations, incomplete, passes: passes.length }));
"""


def violations(browser):
    """What axe-core finds wrong for people with disabilities, with where it is."""
    if not browser.execute_script("return Boolean(window.axe)"):
        axe = files("axe_core_python") / "axe.min.js"
        browser.execute_script(axe.read_text(encoding="utf-8"))
    found = browser.execute_async_script(AXE)
    assert found["passes"] > 10
    assert [one["message"] for one in found["incomplete"] if "error" in one] == []
    wrong = [(one["id"], node["html"]) for one in found["violations"] for node in one["nodes"]]
    unsure = (one for one in found["incomplete"] if one["id"] == "color-contrast")
    texts = [node["target"][0] for one in unsure for node in one["nodes"]]
    return wrong + [("color-contrast", text) for text in browser.execute_script(PALE, texts)]
