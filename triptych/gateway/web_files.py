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
router = APIRouter(include_in_schema=False)


@router.get("/")
def page() -> Response:
    page, dialogs = ((FOLDER / name).read_text("utf-8") for name in ("page.html", "dialogs.html"))
    whole = page.replace("<!-- dialogs.html -->", dialogs)
    return Response(whole, media_type="text/html", headers=HEADERS)


@router.get("/web/{name}")
def page_file(name: str) -> Response:
    media_type = TYPES.get(Path(name).suffix)
    if media_type is None or name not in {path.name for path in FOLDER.iterdir()}:
        raise Problem(404, "no such file")
    return Response((FOLDER / name).read_bytes(), media_type=media_type, headers=HEADERS)
