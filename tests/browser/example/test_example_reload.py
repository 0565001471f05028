"""A reload of the example's server on every kind of worker: pages that are open notice nothing."""

from __future__ import annotations

import json
import signal
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.example.example_page import example_server, visitor
from tests.support.client import post
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_example"), pytest.mark.timeout(300)]


class Watched:
    """A page, and what its chart is sent: the process, and the number there."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.loads: list[tuple[int, int]] = []
        self.asked: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.asked.append(message.text))
        session = page.context.new_cdp_session(page)
        session.on("Network.eventSourceMessageReceived", self._note)
        session.send("Network.enable")

    @property
    def processes(self) -> list[int]:
        self.page.evaluate("0")  # events come with an answer
        return [process for process, _ in groupby(self.loads, key=lambda load: load[0])]

    def _note(self, message: Any) -> None:
        if message["eventName"] == "load":
            load = json.loads(message["data"])
            self.loads.append((load["process"], load["number"]))

    def has_loads(self, count: int) -> bool:
        """Whether it has so many of the process that sends them now."""
        processes = self.processes
        return bool(processes) and sum(process == processes[-1] for process, _ in self.loads) >= count


@pytest.mark.parametrize("kind", ["gevent", "gthread", "sync"])
def test_example_reload_of_the_server_leaves_no_hole_in_charts(kind: str, browser: Browser, tmp_path: Path) -> None:
    with example_server(tmp_path, kind=kind) as example, visitor(browser, example, tabs=2) as pages:
        watched = [Watched(page) for page in pages]
        until(lambda: all(each.has_loads(2) for each in watched), "the charts to begin")
        post(example, "/notices", {"text": "ahead of the reload"})
        example.signal(signal.SIGHUP)
        until(lambda: all(len(each.processes) == 2 for each in watched), "the charts of the new worker")
        post(example, "/notices", {"text": "after the reload"})
        until(lambda: all(each.has_loads(3) for each in watched), "the charts to go on")
        for each in watched:
            for text in ("ahead of the reload", "after the reload"):
                expect(each.page.locator("#notices li").filter(has_text=text)).to_have_count(1)
            assert len(each.processes) == 2
            for _, loads in groupby(each.loads, key=lambda load: load[0]):
                numbers = [number for _, number in loads]
                assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]
            assert each.asked == [], "the page has noticed something"
