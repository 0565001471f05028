"""Pages of a browser that read with the browser module: ``clients/tabs.html``."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import BrowserContext, Page

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
        """Return what a subscription has ``received``, its ``gaps``, ``errors``, ``changes`` of the reader and
        ``states``, or its present ``state``.
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
    """The tabs of one browser."""

    def __init__(self, context: BrowserContext, site: Server) -> None:
        self.context = context
        self.site = site
        self.all: list[Tab] = []

    def open(self, site: Server | None = None) -> Tab:
        page = self.context.new_page()
        page.goto(f"{(site or self.site).url}/page")
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

    def log_in(self, name: str, site: Server | None = None, **options: Any) -> None:
        """Log in, as any page of this browser would."""
        assert self.context.request.post(f"{(site or self.site).url}/log-in/{name}", data=options).ok

    def log_out(self) -> None:
        assert self.context.request.post(f"{self.site.url}/log-out").ok


def publish(site: Server, *said: tuple[str, str]) -> list[str]:
    """Publish data to channels, one after the other."""
    ids: list[str] = post(site, "/publish", [{"channel": channel, "data": data} for channel, data in said])
    return ids


def visits(site: Server, channel: str) -> list[dict[str, Any]]:
    """Return the requests for streams of a channel."""
    found = [visit for visit in get(site, "/state")["visits"] if channel in visit["channels"]]
    return [visit for visit in found if visit["method"] == "GET"]


def connections(site: Server, channel: str) -> int:
    """Return the number of streams of a channel now: 0 while a leader reconnects for a new tab."""
    count: int = get(site, "/state")["channels"].get(channel, 0)
    return count


def publish_to(site: Server, name: str, data: str) -> None:
    post(site, f"/publish-to/{name}", data)


def streams(site: Server, name: str) -> int:
    """Return the number of streams of a reader's own channel."""
    return connections(site, f"~{name}")


def methods(site: Server, channel: str) -> list[str]:
    """Return the methods of the requests for a channel, in order."""
    return [visit["method"] for visit in get(site, "/state")["visits"] if channel in visit["channels"]]


class Publisher(threading.Thread):
    """Publishes numbers to channels in turns, until it is stopped, and at least ``least`` of them."""

    def __init__(self, site: Server, channels: Sequence[str], least: int) -> None:
        super().__init__()
        self.sent: list[tuple[str, str]] = []
        self._site, self._channels, self._least = site, channels, least
        self._stopping = threading.Event()
        self.start()

    def run(self) -> None:
        while len(self.sent) < self._least or not self._stopping.is_set():
            start = len(self.sent)
            some = [(self._channels[number % len(self._channels)], str(number)) for number in range(start, start + 5)]
            publish(self._site, *some)
            self.sent += some

    def stop(self) -> list[tuple[str, str]]:
        self._stopping.set()
        self.join()
        return self.sent


@contextmanager
def publishing(site: Server, channels: Sequence[str], least: int = 100) -> Iterator[Publisher]:
    publisher = Publisher(site, channels, least)
    try:
        yield publisher
    finally:
        publisher.stop()


def await_all(tabs: Iterable[Tab], sent: Sequence[tuple[str, str]], wanted: Sequence[str]) -> None:
    """Wait until each of these tabs has received each event of these channels once, in order."""
    expected = [data for channel, data in sent if channel in wanted]
    for tab in tabs:
        until(lambda: len(tab.data()) >= len(expected), f"{len(expected)} events")  # noqa: B023 - called at once
        assert (tab.data(), tab["gaps"]) == (expected, [])
