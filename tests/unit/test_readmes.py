"""The Chinese pages say what the English ones do, as far as a test can tell, set as Chinese is."""

# ruff: noqa: RUF001 -- Chinese has marks of its own

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "README_CN.md")
REQUESTS = ("docs/requests.md", "docs/requests_cn.md")


def headings(page):
    """The levels of its headings, in their order."""
    text = re.sub(r"^```.*?^```$", "", (CHECKOUT / page).read_text(), flags=re.S | re.M)
    return [len(marks) for marks in re.findall(r"^(#+) ", text, re.M)]


def blocks(page):
    """What stands in its blocks of code, without comments."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", (CHECKOUT / page).read_text(), re.S | re.M)
    return [(kind, re.sub(r" *# .*", "", text)) for kind, text in found]


def rows(page):
    """How many rows each of its tables has."""
    tables = re.findall(r"(?:^\|.*\n)+", (CHECKOUT / page).read_text(), re.M)
    return [table.count("\n") for table in tables]


def links(page):
    """Where its links lead and its images are, in no order; a translation is what it translates."""
    found = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", (CHECKOUT / page).read_text())
    within = r"^#.*|(?<=README)_CN(?=\.md)|_cn(?=\.md)"
    return sorted((kind, re.sub(within, "", target)) for kind, target in found)


@pytest.mark.parametrize(
    ("pages", "part"),
    [
        *((PAGES, part) for part in (headings, blocks, rows, links)),
        (REQUESTS, rows),
        (REQUESTS, links),
    ],
)
def test_both_have_the_same_parts(pages, part):
    english, chinese = map(part, pages)
    assert english
    assert english == chinese


def test_the_demo_model_has_one_name_in_chinese():
    assert "示例模型" not in (CHECKOUT / "README_CN.md").read_text()


CHINESE = ("README_CN.md", "docs/moving_cn.md", "docs/requests_cn.md")
HAN = r"[\u3400-\u9fff]"


def prose(page):
    """The lines of a page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", (CHECKOUT / page).read_text("utf-8"), flags=re.S | re.M)


@pytest.mark.parametrize("page", CHINESE)
def test_no_line_ends_within_a_paragraph_of_chinese(page):
    # Where one does, browsers and GitHub show a blank.
    begins = r"(?!\n|\||#| *- | *\d+\. |!\[)"
    assert re.findall(rf"^(?![|#]|!\[).*\S\n{begins}.+", prose(page), re.M) == []


@pytest.mark.parametrize("page", CHINESE)
def test_chinese_has_its_own_punctuation(page):
    said = re.sub(r"`[^`\n]*`", "`", prose(page))
    said = re.sub(r"\]\([^)]*\)", "]", said)
    assert re.findall(rf".*(?:[,:;()]{HAN}|{HAN}[,:;()]|`[,;:]|\d[,;:]\S).*", said) == []


@pytest.mark.parametrize("page", CHINESE)
def test_links_with_chinese_names_to_english_pages_say_so(page):
    said, _, more = prose(page).partition("## 更多文档")
    assert not more or "这些页面都是英文的" in more
    named = rf"\[[^\]]*{HAN}[^\]]*\]\(([\w/]+\.md)[^)]*\)(，英文）|（英文）)?"
    english = [one for one in re.findall(named, said) if not one[0].endswith("_cn.md")]
    assert len(english) > 1
    assert [target for target, told in english if not told] == []


def test_links_lead_to_files():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", (CHECKOUT / page).read_text()):
            assert (CHECKOUT / target).exists(), (page, target)
