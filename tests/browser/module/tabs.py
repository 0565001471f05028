"""Pages of a browser that read with the browser module: ``clients/tabs.html``."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.client import get, post
from tests.support.servers import ROOT, Server
from tests.support.waiting import until

#: Where the module is.
STATIC = ROOT / "flask_sse_emitters" / "server" / "static"


class Tab:
    """A page that reads with the browser module."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def follow(self, *channels: str, name: str = "first", address: str = "./events", **options: Any) -> None:
        """Subscribe, and wait until that is open."""
        self.begin(*channels, name=name, address=address, **options)
        until(lambda: self["state", name] == "open", "the state of the reader")

    def begin(self, *channels: str, name: str = "first", address: str = "./events", **options: Any) -> None:
        said = {"name": name, "channels": channels, "address": address, "options": options}
        self.page.evaluate("said => follow(said)", said)

    def __getitem__(self, what: str | tuple[str, str]) -> Any:
        """Return what a subscription has ``received``, its ``gaps``, ``ends``, ``errors``, ``changes`` of the reader
        and ``states``, or its present ``state``.
        """
        what, name = (what, "first") if isinstance(what, str) else what
        return self.page.evaluate(
            "([name, what]) => readers[name][what] ?? readers[name].subscription[what]", [name, what]
        )

    def data(self, name: str = "first") -> list[str]:
        return [data for _, _, data, _ in self["received", name]]

    def await_data(self, last: str, name: str = "first") -> list[str]:
        """Wait for this event, and return all data so far."""
        return until(lambda: found if last in (found := self.data(name)) else [], f"event {last}")

    def await_change(self, name: str = "first") -> None:
        """Wait until the page is notified that another reader is logged in now."""
        until(lambda: self["changes", name], "the page to be notified")
        assert (self["changes", name], self["state", name], self["errors", name]) == (1, "closed", [])


class Tabs:
    """The tabs of one browser, and the site that they show: ``tests/apps/browser/browser_module.py``."""

    def __init__(self, context: BrowserContext, site: Server) -> None:
        self.context = context
        self.site = site
        self.all: list[Tab] = []

    def open(self) -> Tab:
        page = self.context.new_page()
        page.goto(f"{self.site.url}/page")
        page.wait_for_function("() => !!window.follow")
        self.all.append(Tab(page))
        return self.all[-1]

    def follow(self, count: int, *channels: str, **options: Any) -> list[Tab]:
        """Open tabs that subscribe one after the other: the first of all leads."""
        opened = [self.open() for _ in range(count)]
        for tab in opened:
            tab.follow(*channels, **options)
        return opened

    def read_as(self, name: str, /, *channels: str, **options: Any) -> Tab:
        """Log in, and open a tab that subscribes: to the reader's own channel, unless others are given."""
        self.log_in(name)
        return self.follow(1, *(channels or ("~",)), **options)[0]

    def log_in(self, name: str, **options: Any) -> None:
        """Log in, as any page of this browser would."""
        assert self.context.request.post(f"{self.site.url}/log-in/{name}", data=options).ok

    def log_out(self) -> None:
        assert self.context.request.post(f"{self.site.url}/log-out").ok

    def post(self, path: str, data: object = None) -> Any:
        return post(self.site, path, data)

    def publish(self, *said: tuple[str, str]) -> list[str]:
        """Publish data to channels, one after the other."""
        ids: list[str] = self.post("/publish", [{"channel": channel, "data": data} for channel, data in said])
        return ids

    def publish_to(self, name: str, data: str) -> None:
        self.post(f"/publish-to/{name}", data)

    @contextmanager
    def publishing(self, *channels: str, least: int = 100) -> Iterator[list[tuple[str, str]]]:
        """Publish numbers to channels in turns until the block ends, at least so many; yield what has been sent."""
        sent: list[tuple[str, str]] = []
        stopping = threading.Event()

        def run() -> None:
            while len(sent) < least or not stopping.is_set():
                numbers = range(len(sent), len(sent) + 5)
                some = [(channels[number % len(channels)], str(number)) for number in numbers]
                self.publish(*some)
                sent.extend(some)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield sent
        finally:
            stopping.set()
            thread.join()

    def disconnect(self, name: str) -> None:
        self.post(f"/disconnect/{name}")

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = get(self.site, "/state")
        return found

    def requests(self, channel: str, method: str = "GET") -> list[dict[str, Any]]:
        """Return the requests for a channel."""
        found = [visit for visit in self.state()["visits"] if channel in visit["channels"]]
        return [visit for visit in found if visit["method"] == method]

    def connections(self, channel: str) -> int:
        """Return the number of streams of a channel now: 0 while a leader reconnects for a new tab."""
        count: int = self.state()["channels"].get(channel, 0)
        return count

    def streams(self, name: str) -> int:
        """Return the number of streams of a reader's own channel."""
        return self.connections(f"~{name}")


@contextmanager
def tabs_of(browser: Browser, site: Server) -> Iterator[Tabs]:
    """Yield the tabs of one browser, in which no error may come up."""
    with browser.new_context() as context:
        tabs = Tabs(context, site)
        yield tabs
    assert [error for tab in tabs.all for error in tab.errors] == []


def new_site(**config: Any) -> Server:
    return Server("gevent", "tests.apps.browser.browser_module:app", env={"CONFIG": json.dumps(config)})


def await_all(tabs: Iterable[Tab], sent: Sequence[tuple[str, str]], *wanted: str) -> None:
    """Wait until each of these tabs has received each event of these channels once, in order."""
    expected = [data for channel, data in sent if channel in wanted]
    for tab in tabs:
        until(lambda: len(tab.data()) >= len(expected), f"{len(expected)} events")  # noqa: B023 - called at once
        assert (tab.data(), tab["gaps"]) == (expected, [])
