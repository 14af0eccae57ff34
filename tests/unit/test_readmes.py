"""The Chinese pages say what the English ones do, as far as a test can tell."""

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


def test_links_lead_to_files():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", (CHECKOUT / page).read_text()):
            assert (CHECKOUT / target).exists(), (page, target)
