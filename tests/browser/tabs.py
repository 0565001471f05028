"""Pages of a browser that read with the browser module: ``clients/tabs.html``."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import BrowserContext, Page

from tests.support.client import get, post
from tests.support.servers import Server
from tests.support.waiting import until


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


def publish(site: Server, *said: tuple[str, str]) -> list[str]:
    """Publish data to channels, one after the other."""
    ids: list[str] = post(site, "/publish", [{"channel": channel, "data": data} for channel, data in said])
    return ids


def visits(site: Server, channel: str) -> list[dict[str, Any]]:
    """Return the requests for streams of a channel."""
    return [visit for visit in get(site, "/state")["visits"] if channel in visit["channels"]]


def connections(site: Server, channel: str) -> int:
    """Return the number of streams of a channel now: 0 while a leader reconnects for a new tab."""
    count: int = get(site, "/state")["channels"].get(channel, 0)
    return count
