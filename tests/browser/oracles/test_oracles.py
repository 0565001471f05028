"""Third-party clients get a hundred awkward events as they were published, cut at any byte."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import pytest

from tests.browser.clients import Client, Follower
from tests.browser.oracles.deviations import BEFORE, DEVIATIONS, RIGHT
from tests.browser.oracles.splitter import Splitter, splitting
from tests.support.awkward_events import END, MARK, PUBLISHED, WHOLE, WRITTEN, Dispatched
from tests.support.client import get, new_name, post
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.timeout(300)

CLIENTS = {
    "native": Client("oracles/native.html"),
    "event-source-polyfill": Client("oracles/polyfill.html", "event-source-polyfill"),
    "fetch-event-source": Client("oracles/fetch.html", "@microsoft/fetch-event-source"),
    "eventsource": Client("oracles/eventsource.mjs", "eventsource"),
    "eventsource-parser": Client("oracles/parser.mjs", "eventsource-parser"),
    "httpx-sse": Client("oracles/with_httpx_sse.py"),
    "our decoder": Client("oracles/decoder.py"),
    "our module": Client("oracles/module.html"),
}

each_client = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xdist_group("browser") if client.is_page else ())
        for name, client in CLIENTS.items()
    ],
)

#: Dispatched events, by the data of the mark after them: the number of their row, or other text.
Sections = dict[str, list[Dispatched]]


@pytest.fixture(scope="module")
def site() -> Iterator[Server]:
    with Server("gevent", "tests.apps.browser.oracles:app") as site:
        yield site


@pytest.fixture(scope="module")
def splitter(site: Server) -> Iterator[Splitter]:
    with splitting(site.port, WHOLE) as splitter:
        yield splitter


Read = Callable[..., Sections]


@pytest.fixture
def read(start: Callable[..., AbstractContextManager[Follower]], site: Server) -> Read:
    """``read(name, url, done)``: run ``done`` while a client reads, and return what it dispatched."""

    def read(name: str, url: str, done: Callable[[], object] = lambda: None) -> Sections:
        client = CLIENTS[name]
        with start(client, url, site, *([] if client.is_page else [site.url])) as follower:
            done()
            until(follower.is_over, f"the end of {name}", 3 * PATIENCE)
            return by_mark(follower.received())

    return read


def by_mark(dispatched: list[Dispatched]) -> Sections:
    sections: Sections = {}
    since: list[Dispatched] = []
    for each in dispatched:
        if each.event != MARK:
            since.append(each)
            continue
        assert each.data not in sections, f"mark {each.data} came twice"
        sections[each.data], since = since, []
    assert since == []
    return sections


class Expected(NamedTuple):
    """What is right for a row."""

    name: str
    right: list[Dispatched]
    before: str  #: the last id before the row

    def by(self, client: str) -> list[Dispatched]:
        """Return what this client dispatches: what is right, unless a deviation is known."""
        known = [
            each.dispatched[self.name] for each in DEVIATIONS if each.client == client and self.name in each.dispatched
        ]
        if not known:
            return self.right
        [dispatched] = known
        ids = {RIGHT: self.right[0].id if self.right else self.before, BEFORE: self.before}
        return [Dispatched(event, ids.get(own, own) or "", data) for event, own, data in dispatched]


def differences(client: str, sections: Sections, rows: list[Expected]) -> dict[str, tuple[str, str]]:
    """Return what the client dispatched and should have dispatched, shortened, by name of the row."""
    assert [*sections][-1] == END
    pairs = {row.name: (sections.get(str(number)), row.by(client)) for number, row in enumerate(rows)}
    return {name: (repr(got)[:500], repr(should)[:500]) for name, (got, should) in pairs.items() if got != should}


def published_rows(ids: list[list[str]], sections: Sections) -> list[Expected]:
    """Return what is right for each published row.

    If the data are JSON, the dispatched data are normalized as well.
    """
    rows = []
    before = ids[0][0]
    for number, (row, (own, of_mark)) in enumerate(zip(PUBLISHED, ids, strict=True)):
        in_force = own or (before if row.event.id is None else str(row.event.id))
        data = row.expected
        if row.is_json:
            data = normalized(row.event.data)
            dispatched = sections.get(str(number), [])
            sections[str(number)] = [each._replace(data=normalized(json.loads(each.data))) for each in dispatched]
        right = [] if data is None else [Dispatched(row.event.event or "message", in_force, data)]
        rows.append(Expected(row.name, right, before if right else in_force))
        before = of_mark
    return rows


def normalized(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def written_rows() -> list[Expected]:
    rows = []
    in_force = ""
    for block in WRITTEN:
        before, right = in_force, []
        for event, own, data in block.dispatched:
            in_force = in_force if own is None else own
            right.append(Dispatched(event, in_force, data))
        rows.append(Expected(block.name, right, before))
    return rows


@pytest.mark.parametrize("way", ["as it comes", "a byte a packet"])
@each_client
def test_published_events_reach_every_client_unchanged(
    name: str, way: str, site: Server, splitter: Splitter, read: Read
) -> None:
    channel, before = new_name(), splitter.pieces
    port = splitter.port if way == "a byte a packet" else site.port
    ids: list[list[str]] = []

    def publish() -> None:
        until(lambda: get(site, f"/waiting/{channel}")["clients"] == 1, "the client")
        ids.extend(post(site, f"/publish-all/{channel}"))

    sections = read(name, f"http://127.0.0.1:{port}/events?channel={channel}", publish)
    assert differences(name, sections, published_rows(ids, sections)) == {}
    preamble = [each._replace(id="") for each in sections["begin"]]
    assert preamble == Expected("the preamble", [], "").by(name)
    assert (splitter.pieces - before > 3_000) == (way == "a byte a packet")


@pytest.mark.parametrize("way", ["in its pieces", "a byte a write", "a byte a packet"])
@each_client
def test_stream_of_another_server_is_parsed_as_standard_says(
    name: str, way: str, site: Server, splitter: Splitter, read: Read
) -> None:
    port = splitter.port if way == "a byte a packet" else site.port
    sections = read(name, f"http://127.0.0.1:{port}/written?size={1 if way == 'a byte a write' else 0}")
    assert differences(name, sections, written_rows()) == {}


def test_splitter_sends_one_byte_at_a_time(splitter: Splitter) -> None:
    """Otherwise the tests above would cut nothing."""
    with socket.create_connection(("127.0.0.1", splitter.port), PATIENCE) as client:
        client.sendall(b"GET /written HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        pieces = list(iter(partial(client.recv, 65_536), b""))
    assert b"".join(pieces).endswith(b"data: end\n\n\r\n0\r\n\r\n")
    assert sum(len(piece) == 1 for piece in pieces) > 1000
    # Where all processors are busy, the kernel may show a byte as read that is still on its way: then two are joined.
    joined = [piece for piece in pieces if not re.fullmatch(b"%b|9{400}|." % WHOLE, piece, re.DOTALL)]
    assert len(joined) < len(pieces) / 100
