"""Tags by which the server names the reader of a channel, and the browser module with a server that sends none."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.module.tabs import Tabs, new_site, tabs_of
from tests.support.client import connected
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]

SECRET = "of the tests alone"


@pytest.fixture(autouse=True)
def restored(tabs: Tabs) -> Iterator[None]:
    """Undo what a test has changed in the server."""
    yield
    tabs.post("/says-reader", True)
    tabs.post("/secrets", [SECRET])


def await_next_stream(tabs: Tabs, name: str) -> None:
    """End this reader's streams, and wait until one is open again."""
    before = tabs.state()["opened"]
    tabs.disconnect(name)
    until(lambda: tabs.state()["opened"] > before and tabs.streams(name), "the next stream")


def test_module_tabs_without_reader_tags_have_a_connection_each(tabs: Tabs, alice: str, bob: str) -> None:
    tabs.post("/says-reader", False)
    for name in (alice, alice, bob):
        tabs.read_as(name, "~")
    assert (tabs.streams(alice), tabs.streams(bob)) == (2, 1)
    tabs.publish_to(alice, "for alice alone")
    tabs.publish_to(bob, "for bob alone")
    first, second, new = tabs.all
    assert new.await_data("for bob alone") == ["for bob alone"]
    for tab in (first, second):
        assert tab.await_data("for alice alone") == ["for alice alone"]


def test_module_reconnects_until_a_server_sends_reader_tags_again(tabs: Tabs, alice: str, bob: str) -> None:
    """In a rolling deploy there are old servers beside new ones."""
    tabs.log_in(alice)
    tab, news = tabs.open(), tabs.open()
    tab.follow("~")
    news.follow("news")
    tabs.post("/says-reader", False)
    before = len(tabs.requests("~"))
    tabs.disconnect(alice)
    tabs.post("/cut/news", [])
    until(lambda: len(tabs.requests("~")) > before + 1, "two more requests")
    tabs.publish(("news", "1"))
    assert news.await_data("1") == ["1"], "a public channel goes on"
    assert tab["state"] == "connecting"
    tabs.post("/says-reader", True)
    until(lambda: tab["state"] == "open", "the stream")
    tabs.publish_to(alice, "1")
    assert (tab.await_data("1"), tab["changes"]) == (["1"], 0)
    tabs.post("/says-reader", False)
    tabs.log_in(bob)
    tabs.disconnect(alice)
    tabs.publish_to(bob, "for bob alone")
    tabs.post("/says-reader", True)
    tab.await_change()
    assert tab.data() == ["1"]


def test_module_reader_stays_the_same_while_the_secret_key_rotates(tabs: Tabs, alice: str, bob: str) -> None:
    reader = {"X-Reader": alice}
    tabs.open().follow("~", headers=reader)
    steps = [["new", SECRET], [SECRET], ["new", SECRET], ["new"]]  # some of the processes are old ones for a while
    for number, secrets in enumerate(steps):
        tabs.post("/secrets", secrets)
        await_next_stream(tabs, alice)
        if secrets[-1] == SECRET:
            tabs.open().follow("~", headers=reader)
        assert tabs.streams(alice) == 1, "tabs share it"
        tabs.publish_to(alice, f"{number}")
        for tab in tabs.all:
            assert (tab.await_data(f"{number}")[-1], tab["changes"]) == (f"{number}", 0)
    tabs.all[0].follow("~", name="second", headers={"X-Reader": bob})
    tabs.all[0].await_change()


def test_module_readers_are_distinguished_without_a_secret_key(browser: Browser, alice: str, bob: str) -> None:
    """An app whose users log in by a token in a cookie, for example, needs no secret key."""
    follow = """(name) => {
        window.reader = name;
        follow({ name: "first", channels: ["~"], options: { headers: () => ({ "X-Reader": reader }) } });
    }"""
    with new_site(SECRET_KEY=None) as site, tabs_of(browser, site) as tabs:
        for tab in (tabs.open(), tabs.open()):
            tab.page.evaluate(follow, alice)
            until(lambda: tab["state"] == "open", "the state")  # noqa: B023 - called at once
        assert tabs.streams(alice) == 1
        for tab in tabs.all:
            tab.page.evaluate("(name) => (window.reader = name)", bob)
        tabs.disconnect(alice)
        for tab in tabs.all:
            tab.await_change()
        assert (tabs.streams(alice), tabs.streams(bob)) == (0, 0)


def test_module_share_option_shares_where_a_server_sends_no_reader_tags(tabs: Tabs, alice: str) -> None:
    tabs.post("/says-reader", False)
    for _ in range(2):
        tabs.open().follow("~", headers={"X-Reader": alice}, share=alice)
    assert tabs.streams(alice) == 1


def test_module_head_request_returns_reader_tags_and_opens_no_stream(tabs: Tabs, alice: str) -> None:
    before = tabs.state()["opened"]
    path = f"/events?channel=news&channel=~&channel=lobby&channel=mine-{alice}"
    with connected(tabs.site, path, method="HEAD", headers={"X-Reader": alice}) as client:
        assert client.response.status == 200
        head = client.response.headers
    assert tabs.state()["opened"] == before
    with connected(tabs.site, path, headers={"X-Reader": alice}) as client:
        assert client.response.headers["SSE-Reader"] == head["SSE-Reader"]
        names = ("Content-Type", "Cache-Control", "X-Accel-Buffering", "Content-Length")
        assert [client.response.headers[name] for name in names] == [head[name] for name in names]
    assert re.fullmatch(r"- (\S{16}) - \1", head["SSE-Reader"])
    with connected(tabs.site, path, method="HEAD") as client:
        assert (client.response.status, client.response.headers["SSE-Reader"]) == (403, None)
