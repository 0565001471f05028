"""Pages of the monitor: ``tests/apps/monitor.py``, behind a prefix as a proxy would give it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.client import connected
from tests.support.servers import Server
from tests.support.waiting import until

PREFIX = "/behind/a/proxy"


def monitor_server(**config: Any) -> Server:
    return Server("gevent", "tests.apps.monitor:app", env={"SCRIPT_NAME": PREFIX, "CONFIG": json.dumps(config)})


@contextmanager
def opened(browser: Browser, server: Server, fragment: str = "", width: int = 1280) -> Iterator[Page]:
    """Open a live page, and check at its end that nothing went wrong."""
    wrong: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("request", lambda asked: None if asked.url.startswith(server.url) else wrong.append(asked.url))
    try:
        page.goto(f"{server.url}{PREFIX}/sse-monitor{fragment}")
        expect(page.locator("#state")).to_have_text("Live")
        yield page
        assert [text for text in wrong if "Failed to load resource" not in text] == []
        assert page.title() != "hacked"
    finally:
        page.close()


@contextmanager
def clients(server: Server, channel: str, count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(connected(server, f"{PREFIX}/events?channel={channel}"))
        yield


def row_of(page: Page, channel: str) -> Locator:
    return page.locator("#channels tr").filter(has_text=channel)


def event(page: Page, text: str) -> Locator:
    return page.locator("#events li").filter(has_text=text)


def show(page: Page, channel: str) -> None:
    page.locator("#channel").fill(channel)
    page.get_by_role("button", name="Show").click()


def unfold_form(page: Page) -> Locator:
    """Return the form that publishes."""
    expect(page.locator("#publish")).to_be_hidden()
    page.get_by_text("Publish a test event").click()
    return page.locator("#publish")


def await_figures(page: Page, times: int = 1) -> None:
    """Wait until new figures are shown."""
    chart = page.locator("#chart")
    before = int(chart.get_attribute("data-points") or 0)
    until(lambda: int(chart.get_attribute("data-points") or 0) >= before + times, "new figures")
