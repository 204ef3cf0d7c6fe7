"""The page in the browser, and the page of routes: files that use the protocol like any other client. Nothing of them
comes from another server.
"""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

FOLDER = Path(__file__).parent / "page"
FILES = {
    "/": ("page.html", "text/html"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in ("page", "client", "form", "card", "gallery")},
    "/page.css": ("page.css", "text/css"),
    "/docs": ("docs.html", "text/html"),
    "/docs.js": ("docs.js", "text/javascript"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data: blob:; media-src blob:"
)
"""Nothing of a stranger's runs or is loaded, whatever a prompt holds."""


def add_page(app: FastAPI) -> None:
    """Add the page's files."""
    for path, (name, media) in FILES.items():
        _add_file(app, path, FOLDER / name, media)


def _add_file(app: FastAPI, path: str, file: Path, media: str) -> None:
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}

    @app.get(path, include_in_schema=False)
    def show() -> FileResponse:
        return FileResponse(file, media_type=media, headers=headers)
