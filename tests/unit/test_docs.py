"""The pages of docs/: each is for one reader, in the READMEs' lists and in mkdocs.yml alike."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from scripts import docs_site

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.name for path in (CHECKOUT / "docs").glob("*.md"))


class Loader(yaml.SafeLoader):
    """mkdocs.yml without the Python objects in it."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def site_groups():
    """The pages of each group in mkdocs.yml's nav."""
    config = yaml.load((CHECKOUT / "mkdocs.yml").read_text(), Loader)
    entries = [value for entry in config["nav"] for value in entry.values()]
    groups = [entry for entry in entries if isinstance(entry, list)]
    return [[page for entry in group for page in entry.values()] for group in groups]


def readme_groups(name):
    """The pages of each row in a README's last table."""
    table = re.findall(r"(?:^\|.*\n)+", (CHECKOUT / name).read_text(), re.M)[-1]
    return [re.findall(r"\(docs/(\w+\.md)\)", row) for row in table.splitlines()[2:]]


def without_translations(groups):
    """The groups' pages, sorted; a page and its translation are one."""
    return [sorted({page.replace("_cn.md", ".md") for page in group}) for group in groups]


def test_the_site_has_each_page_once():
    assert sorted(page for group in site_groups() for page in group) == PAGES


@pytest.mark.parametrize("name", docs_site.READMES)
def test_readmes_list_each_page_once_for_the_same_reader(name):
    listed = readme_groups(name)
    assert [len(set(row)) for row in listed] == [len(row) for row in listed]
    assert without_translations(listed) == without_translations(site_groups())


@pytest.mark.parametrize("page", PAGES)
def test_the_first_sentence_says_for_which_one_reader_the_page_is(page):
    first = (CHECKOUT / "docs" / page).read_text().split("\n\n")[1]
    assert first.startswith(("For those ", "For everyone", "写给")), first
    assert first.lower().count("for those ") <= 1, first


@pytest.mark.parametrize("page", PAGES)
def test_what_goes_on_with_a_list_is_indented_by_four(page):
    """MkDocs ends a list before a paragraph or a fence with less, where GitHub does not, and takes
    an item after these for one only where a blank line is between."""
    text = (CHECKOUT / "docs" / page).read_text()
    assert not re.findall(r"^ {1,3}```.*|(?<=\n\n) {1,3}\S.*", text, re.M)
    assert not re.findall(r"^    \S.*\n(?:- |\d+\. ).*", text, re.M)


def test_the_glossary_explains_the_words_that_newcomers_meet():
    glossary = (CHECKOUT / "docs" / "glossary.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \|", glossary, re.M)
    explained = {word for row in rows for word in row.split(", ")}
    met = "tokenizer, text encoder, token, prompt, negative prompt, weights, strength, mask, SDXL"
    met += ", CUDA, gRPC, Triton, ensemble, model repository, UNet, VAE, scheduler, seed, LoRA"
    assert set(met.split(", ")) - explained == set()


def test_what_the_page_is_said_to_show_it_shows():
    troubleshooting = (CHECKOUT / "docs" / "troubleshooting.md").read_text()
    rows = troubleshooting.split("## The page\n")[1].split("\n## ")[0].splitlines()
    symptoms = [row.split("|")[1] for row in rows if row]
    shown = [words for symptom in symptoms for words in re.findall(r'"(.+?)"', symptom)]
    web = CHECKOUT / "triptych" / "gateway" / "web"
    texts = "".join(path.read_text() for path in web.iterdir() if path.suffix in (".js", ".html"))
    texts = re.sub(r"\{\w+\}", "2", texts)
    assert len(shown) > 8
    assert [words for words in shown if words not in texts] == []


def test_links_lead_to_files():
    readmes = [CHECKOUT / name for name in docs_site.READMES]
    for page in (*readmes, *(CHECKOUT / "docs" / name for name in PAGES)):
        for target in re.findall(r"\]\((?![a-z]+:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


@pytest.mark.parametrize(
    ("page", "link", "in_the_site"),
    [
        ("README.md", "[a](docs/code.md#b)", "[a](code.md#b)"),
        ("README.md", "![a](docs/page.webp)", "![a](page.webp)"),
        ("README.md", "[中文](README_CN.md)", "[中文](README_CN.md)"),
        ("README.md", "[triptych/](triptych)", "`triptych/`"),
        ("code.md", "[a](../README.md#b)", "[a](README.md#b)"),
        ("code.md", "[a](stages.md)", "[a](stages.md)"),
        ("code.md", "[a](../mkdocs.yml)", "a (`mkdocs.yml`)"),
        ("code.md", "[a](../nothing.yml)", "[a](../nothing.yml)"),
        ("code.md", "[a](#b), [c](https://example.com/d)", "[a](#b), [c](https://example.com/d)"),
    ],
)
def test_links_of_the_site(page, link, in_the_site):
    file = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert docs_site.on_page_markdown(link, file, None, None) == in_the_site
