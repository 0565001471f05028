"""Many streams of a page behind nginx, over HTTP/2 and over HTTP/1.1, in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.servers.nginx.behind_nginx import App
from tests.support.browser import FLAGS
from tests.support.programs import program
from tests.support.waiting import until
from tests.support.web.nginx import Nginx

pytestmark = pytest.mark.xdist_group("nginx")

#: Without HTTP/2.
HTTP1 = {" ssl http2;": " ssl;"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium", "chromium"), args=FLAGS)
        yield browser
        browser.close()


#: Opens ``count`` streams, and records which are open and what each has received.
OPEN = """count => {
    window.opened = new Set();
    window.got = Array.from({ length: count }, () => []);
    window.streams = got.map((texts, n) => {
        const stream = new EventSource(`/events?channel=news&n=${n}`);
        stream.onopen = () => opened.add(n);
        stream.onmessage = e => texts.push(e.data);
        return stream;
    });
}"""


@contextmanager
def page_with_streams(browser: Browser, nginx: Nginx, count: int) -> Iterator[Page]:
    with browser.new_context(ignore_https_errors=True) as context:
        page = context.new_page()
        page.goto(nginx.url)
        page.evaluate(OPEN, count)
        yield page


def opened(page: Page) -> int:
    return int(page.evaluate("opened.size"))


def receivers(page: Page, text: str) -> int:
    """Return how many of the page's streams have received ``text``."""
    return int(page.evaluate("text => got.filter(texts => texts.includes(text)).length", text))


def test_http2_page_has_twenty_open_streams(browser: Browser, nginx_app: App) -> None:
    with Nginx(nginx_app.socket) as nginx:
        with page_with_streams(browser, nginx, 20) as page:
            until(lambda: opened(page) == 20, "all streams to open")
            assert page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
            nginx_app.post("/publish/news", "to all")
            until(lambda: receivers(page, "to all") == 20, "all streams to have it")
            assert page.evaluate("fetch('/').then(response => response.status)") == 200, "other requests still work"
        until(lambda: nginx_app.get("/stats")["clients"] == 0, "the streams to end with their page")


def test_http1_origin_has_six_open_streams_and_others_wait(browser: Browser, nginx_app: App) -> None:
    before = nginx_app.get("/stats")["opened"]
    with Nginx(nginx_app.socket, HTTP1) as nginx:
        with page_with_streams(browser, nginx, 20) as page:
            until(lambda: opened(page) == 6, "six streams to open")
            nginx_app.post("/publish/news", "to six")
            until(lambda: receivers(page, "to six") == 6, "six streams to have it")
            assert nginx_app.get("/stats")["opened"] == before + 6
            page.evaluate("streams[[...opened][0]].close()")
            until(lambda: opened(page) == 7, "a waiting stream to take the place of a closed one")
            assert nginx_app.get("/stats")["opened"] == before + 7
