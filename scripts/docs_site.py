"""A hook of MkDocs: the READMEs as pages of the site, diagrams, and links that lead out of docs/.

On GitHub a page may link to any file of the checkout; the site has the pages of docs/ and the
READMEs alone. So a link to one of these is made relative to docs/, and a link to another file
becomes its text and its path. A link to nothing stays as it is, so that MkDocs warns of it and
`mkdocs build --strict` fails.
"""

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README_CN.md")
LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\((?![a-z]+:|#)([^()\s#]+)(#[^()\s]*)?\)")
IMAGE = re.compile(r"(!\[[^\[\]]*\]\()docs/")


def on_config(config):
    """Have Mermaid draw while the site is built: no page loads its script from elsewhere."""
    fence = {"name": "mermaid", "class": "diagram", "format": diagram}
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [fence]}
    return config


def diagram(source, language, css_class, options, md, **_):
    """A fence of Mermaid's as SVG."""
    import mermaidx

    return f'<div class="{css_class}">{mermaidx.render(source).svg()}</div>'


def on_files(files, config):
    """The READMEs, which lie beside docs/, as pages."""
    from mkdocs.structure.files import File

    for name in READMES:
        files.append(File.generated(config, name, abs_src_path=str(CHECKOUT / name)))
    return files


def on_page_markdown(markdown, page, config, files):
    """The page's Markdown with its links as the site has them."""
    name = page.file.src_uri
    folder = CHECKOUT if name in READMES else CHECKOUT / "docs"

    def link(found):
        text, target, anchor = found[1], found[2], found[3] or ""
        path = (folder / target).resolve()
        if not path.exists():
            return found[0]
        place = path.relative_to(CHECKOUT).as_posix()
        if place in READMES:
            return f"[{text}]({place}{anchor})"
        if place.startswith("docs/"):
            return f"[{text}]({place[len('docs/') :]}{anchor})"
        plain = text.strip("`")
        return f"`{plain}`" if plain.rstrip("/") == place else f"{text} (`{place}`)"

    if name in READMES:
        markdown = IMAGE.sub(r"\1", markdown)
    return LINK.sub(link, markdown)
