"""The files of the page, as they stand in web/: no build step, nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

from triptych.gateway.errors import Problem

FOLDER = Path(__file__).with_name("web")
TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
PARTS = ("choices.html", "dialogs.html")
router = APIRouter(include_in_schema=False)


def html(name: str) -> str:
    """A page, with the parts in it that its comments name."""
    whole = (FOLDER / name).read_text("utf-8")
    for part in PARTS:
        whole = whole.replace(f"<!-- {part} -->", (FOLDER / part).read_text("utf-8"))
    return whole


@router.get("/")
def page() -> Response:
    return Response(html("page.html"), media_type="text/html", headers=HEADERS)


@router.get("/web/{name}")
def page_file(name: str) -> Response:
    media_type = TYPES.get(Path(name).suffix)
    if media_type is None or name not in {path.name for path in FOLDER.iterdir()}:
        raise Problem(404, "no such file")
    return Response((FOLDER / name).read_bytes(), media_type=media_type, headers=HEADERS)


@router.get("/favicon.ico")
def icon() -> Response:
    """What browsers ask for beside an answer that is no page, as a picture."""
    return page_file("icon.svg")
