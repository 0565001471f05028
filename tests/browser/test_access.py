"""Pages of another origin read private channels in a real browser, and get an error when that is denied."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, TypeAlias
from urllib.parse import urlencode

import jwt
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.apps.browser.two_origins import COOKIE, SECRET
from tests.browser.clients import CLIENTS, another_origin, find_package
from tests.support.client import get, new_name, post
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_access"), pytest.mark.timeout(300)]

#: The error that a page gets: the state of its stream then, and the status if the client reports it.
PageError: TypeAlias = list[int | None]
ENDED: PageError = [0, None]
GONE: PageError = [2, None]
DENIED: PageError = [2, 403]
UNKNOWN: PageError = [2, 401]
RENEWS: PageError = [0, 401]

#: The error that a page gets when its reader is denied for good.
KINDS = {"native with cookies": GONE, "polyfill": DENIED, "fetch": DENIED}

#: The headers of preflights. While the address stays the same, one answer allows Last-Event-ID as well.
PREFLIGHTS = {"native with cookies": [], "polyfill": ["authorization"] * 2, "fetch": ["authorization"]}


@pytest.fixture(scope="module")
def pages() -> Iterator[int]:
    """Serve the page that reads: its origin has another port, and may have another host as well."""
    for package in ("event-source-polyfill", "fetch-event-source"):
        find_package(CLIENTS[package])
    with another_origin() as port:
        yield port


@pytest.fixture(scope="module")
def strangers() -> Iterator[int]:
    """Serve the same page from an origin that is not listed, of the same site: cookies are sent for its pages, too."""
    with another_origin() as port:
        yield port


@pytest.fixture(scope="module")
def site(pages: int) -> Iterator[Server]:
    origins = [f"http://{host}:{pages}" for host in ("127.0.0.1", "localhost")]
    env = {"CONFIG": json.dumps({"SSE_CORS_ORIGINS": origins})}
    with Server("gevent", "tests.apps.browser.two_origins:app", env=env) as site:
        yield site


class Visitor:
    """A user with a browser; the pages come from another server than the streams."""

    def __init__(self, context: BrowserContext, pages: int, site: Server) -> None:
        self.identity = new_name()
        self._context = context
        self._pages = pages
        self._site = site

    def token(self, seconds: float = 600, *, channels: str = "mine/*") -> str:
        claims = {"sub": self.identity, "sse": [channels, "~"], "exp": int(time.time() + seconds)}
        return jwt.encode(claims, SECRET, "HS256")

    def log_in(self) -> None:
        assert self._context.request.get(f"{self._site.url}/log-in?token={self.token()}").ok
        assert [cookie.get("name") for cookie in self._context.cookies()] == [COOKIE]

    def open_page(self, port: int = 0, host: str = "127.0.0.1") -> Page:
        page = self._context.new_page()
        page.goto(f"http://{host}:{port or self._pages}/pages/with_access.html")
        return page

    def follow(self, page: Page, kind: str, *channels: str, tokens: tuple[str, ...] = ()) -> Reader:
        name = new_name()
        query = urlencode([("reader", name), *(("channel", channel) for channel in channels)])
        options = {"name": name, "kind": kind, "url": f"{self._site.url}/events?{query}", "tokens": tokens}
        page.evaluate("options => follow(options)", options)
        return Reader(name, page, self._site)


class Reader:
    """A client that reads in a page."""

    def __init__(self, name: str, page: Page, site: Server) -> None:
        self.name = name
        self._page = page
        self._site = site

    def __getitem__(self, what: str) -> Any:
        """Return the texts ``received``, the ``errors``, or how often the stream was ``opened``."""
        return self._page.evaluate("([name, what]) => readers[name][what]", [self.name, what])

    def visits(self, method: str = "GET") -> list[dict[str, Any]]:
        return [visit for visit in get(self._site, f"/visits/{self.name}") if visit["method"] == method]

    def await_opened(self, times: int = 1) -> None:
        until(lambda: self["opened"] >= times, f"{times} streams")

    def await_received(self, last: str) -> list[str]:
        return until(lambda: found if last in (found := self["received"]) else [], last)

    def await_errors(self, *errors: PageError) -> None:
        until(lambda: len(self["errors"]) >= len(errors), "the errors in the page")
        assert self["errors"][: len(errors)] == list(errors)


@pytest.fixture
def visitor(browser: Browser, pages: int, site: Server) -> Iterator[Visitor]:
    with browser.new_context() as context:
        yield Visitor(context, pages, site)


def publish(site: Server, channel: str, data: str, **options: Any) -> None:
    post(site, "/publish", {"channel": channel, "data": data, **options})


@pytest.mark.parametrize("kind", KINDS)
def test_access_page_reads_allowed_channels_and_replays_after_a_cut(kind: str, visitor: Visitor, site: Server) -> None:
    channel = f"mine/{new_name()}"
    visitor.log_in()
    reader = visitor.follow(visitor.open_page(), kind, channel, "~", tokens=(visitor.token(),))
    reader.await_opened()
    post(site, f"/publish-to/{new_name()}", "for another reader")
    publish(site, channel, "1")
    post(site, f"/publish-to/{visitor.identity}", "2")
    reader.await_received("2")
    publish(site, channel, "3", cuts=True)
    reader.await_received("3")
    publish(site, channel, "4")
    assert reader.await_received("4") == ["1", "2", "3", "4"]
    assert reader["errors"] == [ENDED]
    first, second = reader.visits()
    assert first["header"] is None
    assert second["query" if kind == "polyfill" else "header"], "it sends its last id"
    assert [visit["wanted_headers"] for visit in reader.visits("OPTIONS")] == PREFLIGHTS[kind]


def test_access_expired_token_is_an_error_and_a_new_one_goes_on(visitor: Visitor, site: Server) -> None:
    errors = {"polyfill": [ENDED, UNKNOWN], "polyfill that is ahead": [ENDED], "fetch": [ENDED, RENEWS]}
    channel = f"mine/{new_name()}"
    page = visitor.open_page()
    tokens = (visitor.token(6), visitor.token())
    readers = {kind: visitor.follow(page, kind, channel, tokens=tokens) for kind in errors}
    for reader in readers.values():
        reader.await_opened()
    publish(site, channel, "1")
    for reader in readers.values():
        reader.await_received("1")
    until(lambda: all(reader["errors"] for reader in readers.values()), "the end of the token")
    publish(site, channel, "2")
    for reader in readers.values():
        reader.await_opened(2)
    publish(site, channel, "3")
    for kind, reader in readers.items():
        assert reader.await_received("3") == ["1", "2", "3"]
        assert reader["errors"] == errors[kind]


def test_access_page_that_is_denied_gets_an_error_and_does_not_reconnect(
    visitor: Visitor, site: Server, strangers: int
) -> None:
    """A page whose stream ends does reconnect."""
    channel, elsewhere = f"mine/{new_name()}", f"theirs/{new_name()}"
    visitor.log_in()
    listed, stranger = visitor.open_page(), visitor.open_page(strangers)
    neighbour = visitor.follow(listed, "native", "public")
    neighbour.await_opened()
    token = visitor.token()
    cases: list[tuple[Page, str, str, tuple[str, ...], int, PageError]] = [
        (listed, "native", channel, (), 401, GONE),  # it sends no cookie
        (listed, "native with cookies", elsewhere, (), 403, GONE),
        (stranger, "native", "public", (), 403, GONE),
        (stranger, "native with cookies", channel, (), 403, GONE),  # though it sends the reader's cookie
        (listed, "polyfill", channel, (), 401, UNKNOWN),
        (listed, "polyfill", channel, ("no token",), 401, UNKNOWN),
        (listed, "polyfill", elsewhere, (token,), 403, DENIED),
        (listed, "fetch", channel, (), 401, UNKNOWN),
        (listed, "fetch", elsewhere, (token,), 403, DENIED),
    ]
    refused = [visitor.follow(page, kind, name, tokens=tokens) for page, kind, name, tokens, *_ in cases]
    for reader, (*_, errors) in zip(refused, cases, strict=True):
        reader.await_errors(errors)
    # The neighbour stays away longer than any browser does without a retry field.
    publish(site, "public", "1", retry=4000)
    neighbour.await_received("1")
    publish(site, "public", "2", cuts=True)
    neighbour.await_opened(2)
    assert neighbour["errors"] == [ENDED]
    assert [[(visit["has_cookie"], visit["status"]) for visit in reader.visits()] for reader in refused] == [
        [("with cookies" in kind, status)] for _, kind, _, _, status, _ in cases
    ]
    assert [reader["errors"] for reader in refused] == [[errors] for *_, errors in cases]
    assert [reader["opened"] for reader in refused] == [0] * len(cases)


OPENED = """([url, names]) => {
    window.open(`${url}&reader=${names[0]}`);
    for (const [index, tag] of ["iframe", "img", "script"].entries()) {
        const element = document.createElement(tag);
        element.src = `${url}&reader=${names[index + 1]}`;
        document.body.append(element);
    }
}"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_access_page_opens_no_stream_in_a_window_or_a_frame(host: str, visitor: Visitor, site: Server) -> None:
    """From another port, which is the same site, and from another site: whatever the reader's cookie would open."""
    visitor.log_in()
    names = [new_name() for _ in range(4)]
    visitor.open_page(host=host).evaluate(OPENED, [f"{site.url}/events?channel=~&channel=public", names])
    until(lambda: all(get(site, f"/visits/{name}") for name in names), "the requests")
    found = [get(site, f"/visits/{name}") for name in names]
    assert [[visit["status"] for visit in visits] for visits in found] == [[403]] * 4
    assert found[0][0]["has_cookie"], "Lax cookies go along where a window is opened"


def test_access_page_of_an_unlisted_origin_cannot_send_a_token(visitor: Visitor, strangers: int) -> None:
    stranger = visitor.open_page(strangers)
    for kind in ("polyfill", "fetch"):
        reader = visitor.follow(stranger, kind, f"mine/{new_name()}", tokens=(visitor.token(),))
        reader.await_errors(ENDED, ENDED)  # the client takes this for a bad connection
        assert (reader["opened"], reader.visits(), len(reader.visits("OPTIONS")) > 1) == (0, [], True)


@pytest.mark.parametrize("kind", KINDS)
def test_access_revocation_is_an_error_and_the_page_does_not_reconnect(
    kind: str, visitor: Visitor, site: Server
) -> None:
    channel = f"mine/{new_name()}"
    visitor.log_in()
    page = visitor.open_page()
    reader = visitor.follow(page, kind, channel, tokens=(visitor.token(),))
    neighbour = visitor.follow(page, "native", "public")
    for each in (reader, neighbour):
        each.await_opened()
    post(site, f"/ban/{visitor.identity}")
    reader.await_errors(ENDED, KINDS[kind])
    for number in (2, 3, 4):
        publish(site, "public", "", cuts=True)
        neighbour.await_opened(number)
    assert (len(reader.visits()), reader["errors"]) == (2, [ENDED, KINDS[kind]])
