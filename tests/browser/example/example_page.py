"""The example in a browser: its server, and pages of visitors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.support.servers import ROOT, Server

#: What the script of the article on Spring's SseEmitter reads: the only page elsewhere that may be asked for.
SPRING = "http://localhost:8080/connect"


def example_server(folder: Path, app: str = "example_app:app", kind: str = "gevent", **env: str) -> Server:
    """Return a server of the example as ``make run`` starts it, which keeps its notices in this folder.

    :param kind: of gunicorn's workers.
    """
    env = {"NOTICES_FILE": str(folder / "kept" / "notices.json"), **env}
    return Server(kind, app, env=env, arguments=["--config", str(ROOT / "gunicorn.conf.py")])


@contextmanager
def visitor(browser: Browser, example: Server, tabs: int = 1) -> Iterator[list[Page]]:
    """Open live tabs of a visitor; at their end, check for errors, and that they have fetched nothing elsewhere."""
    wrong: list[str] = []
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        pages = [context.new_page() for _ in range(tabs)]
        for page in pages:
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("request", lambda asked: None if asked.url.startswith(example.url) else wrong.append(asked.url))
            page.goto(example.url)
            expect(page.locator("#state")).to_have_attribute("data-state", "live")
        yield pages
    assert [each for each in wrong if each != SPRING] == []
