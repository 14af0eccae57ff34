"""The page's words: each has its Chinese, in the scripts and in the HTML."""

# ruff: noqa: RUF001 -- Chinese has marks of its own

import re
from html.parser import HTMLParser

from selenium.webdriver.common.by import By

from tests.gateway.page import Page, violations
from tests.gateway.running import wait_for
from triptych.gateway.web_files import FOLDER, PARTS

ATTRIBUTES = ("aria-label", "placeholder", "title")
ONLY_ENGLISH = (
    *("a yellow sun over green hills at sunset", "Triptych", "English"),
    *("Ctrl", "Enter", "Esc", "API", "Triptych API", "openapi.json"),
)
CONFIG = FOLDER.parents[2] / "model_repository" / "sd_ensemble" / "config.pbtxt"
SWITCH = """
const choice = document.getElementById("language");
choice.value = arguments[0];
choice.dispatchEvent(new Event("change"));
"""
TEXT = r'"((?:[^"\\]|\\.)*)"'


class Texts(HTMLParser):
    """Every text of an HTML page that a reader sees or hears."""

    def __init__(self):
        super().__init__()
        self.found = set()
        self._skipped = 0

    def handle_starttag(self, tag, attrs):
        self._skipped += tag == "script"
        self.found |= {value for name, value in attrs if name in ATTRIBUTES and value}

    def handle_endtag(self, tag):
        self._skipped -= tag == "script"

    def handle_data(self, data):
        text = " ".join(data.split())
        if re.search("[A-Za-z]", text) and not self._skipped:
            self.found.add(text)


def said():
    """Every text that the page says."""
    texts = Texts()
    for name in ("page.html", *PARTS, "docs.html"):
        texts.feed((FOLDER / name).read_text("utf-8"))
    scripts = "".join(path.read_text("utf-8") for path in sorted(FOLDER.glob("*.js")))
    called = set(re.findall(rf"\bt\({TEXT}", scripts))
    labels = re.search(r"LABELS = \{(.*?)\}", scripts, re.DOTALL)[1]
    return (texts.found - set(ONLY_ENGLISH)) | called | set(re.findall(TEXT, labels))


def chinese(name="words_zh.js"):
    """The table of a file."""
    text = (FOLDER / name).read_text("utf-8")
    return dict(re.findall(rf"^  {TEXT}:\s+{TEXT},$", text, re.MULTILINE))


def test_every_word_has_its_chinese_and_no_other_has():
    demo = re.findall(r'"(?:title|about)" value \{ string_value: "(.*)" \}', CONFIG.read_text())
    assert len(demo) == 2
    assert set(chinese()) == said() | {*demo, "Time", "Drawn"}


def test_the_chinese_has_the_same_values_in_it():
    def values(text):
        return sorted(re.findall(r"\{(\w+)\}", text))

    pairs = [*chinese().items(), *chinese("words_of_server.js").items()]
    assert [text for text, other in pairs if values(text) != values(other)] == []


def test_pictures_on_their_way_go_on_in_another_language(page, triton):
    triton.hold.clear()
    page.draw(prompt="a red circle")
    wait_for(lambda: len(triton.requests) == 1)
    page.browser.execute_script(SWITCH, "zh")
    wait_for(lambda: page.all("html[lang=zh] body.ready"))
    triton.hold.set()
    page.settled(1)
    assert len(triton.requests) == 1
    page.browser.execute_script(SWITCH, "")
    wait_for(lambda: page.all("html[lang=en] body.ready"))


def test_what_is_described_in_english_stays_english(browser, gateway):
    browser.speak("zh-CN")
    browser.get(f"{gateway.url}/docs")
    wait_for(lambda: "程序可以" in browser.find_element(By.CSS_SELECTOR, "h2").text)
    for details in browser.find_elements(By.CSS_SELECTOR, "details"):
        text = details.get_property("textContent")
        assert not re.search("[\u3400-\u9fff]", text), text
    browser.speak("en-US")


def test_chinese_by_the_browser_and_by_the_switch(browser, gateway, triton):
    browser.speak("zh-CN")
    page = Page(browser, gateway.url)
    assert page.one("html").get_attribute("lang") == "zh"
    assert page["draw"].text == "生成"
    assert violations(browser) == []
    page.draw(prompt="")
    assert page["prompt-error"].text == "请写出要画什么"
    page.draw(prompt="a red circle", seed="7")
    page.settled(1)
    assert page.one(".card .told").text.startswith("种子 7")
    assert "提示词引导系数 (CFG)" in page.settings()
    own = page.one("#scheduler option[value=pndm]").get_property("textContent")
    assert own == "PLMS（模型自带）"
    browser.execute_script(SWITCH, "en")
    wait_for(lambda: page.all("html[lang=en] body.ready"))
    assert page["draw"].text == "Draw"
    assert page.values("prompt") == ["a red circle"]
    page.settled(1)
    browser.speak("en-US")
    browser.execute_script(SWITCH, "zh")
    wait_for(lambda: page.all("html[lang=zh] body.ready"))
    browser.execute_script(SWITCH, "")  # as the browser
    wait_for(lambda: page.all("html[lang=en] body.ready"))
    choices = [one.text for one in page.all("#language option")]
    assert choices == ["As the browser", "English", "中文"]
    browser.speak("zh-CN")
    page.reload()
    assert page.values("language") == [""] and page.all("html[lang=zh]")
    browser.speak("en-US")
    browser.complaints()
