"""Tags by which the server names the reader of a channel, and the browser module with a server that sends none."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask import Flask

from flask_sse_emitters import SSE
from tests.browser.tabs import Tabs, methods, publish, publish_to, streams
from tests.support.client import connected, get, post
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]

APP = "tests.apps.browser_module:app"

SECRET = "of the tests alone"


@pytest.fixture(autouse=True)
def restored(site: Server) -> Iterator[None]:
    """Undo what a test has changed in the server."""
    yield
    post(site, "/says-reader", True)
    post(site, "/secrets", [SECRET])


def await_next_stream(site: Server, name: str) -> None:
    """End this reader's streams, and wait until one is open again."""
    before = get(site, "/state")["opened"]
    post(site, f"/disconnect/{name}")
    until(lambda: get(site, "/state")["opened"] > before and streams(site, name), "the next stream")


def test_module_tabs_without_reader_tags_have_a_connection_each(tabs: Tabs, site: Server, alice: str, bob: str) -> None:
    post(site, "/says-reader", False)
    for name in (alice, alice, bob):
        tabs.read_as(name, "~")
    assert (streams(site, alice), streams(site, bob)) == (2, 1)
    publish_to(site, alice, "for alice alone")
    publish_to(site, bob, "for bob alone")
    first, second, new = tabs.all
    assert new.await_data("for bob alone") == ["for bob alone"]
    for tab in (first, second):
        assert tab.await_data("for alice alone") == ["for alice alone"]


def test_module_reconnects_until_a_server_sends_reader_tags_again(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    """In a rolling deploy there are old servers beside new ones."""
    tabs.log_in(alice)
    tab, news = tabs.open(), tabs.open()
    tab.follow("~")
    news.follow("news")
    post(site, "/says-reader", False)
    before = methods(site, "~").count("GET")
    post(site, f"/disconnect/{alice}")
    post(site, "/cut/news", [])
    until(lambda: methods(site, "~").count("GET") > before + 1, "two more requests")
    publish(site, ("news", "1"))
    assert news.await_data("1") == ["1"], "a public channel goes on"
    assert tab["state"] == "connecting"
    post(site, "/says-reader", True)
    until(lambda: tab["state"] == "open", "the stream")
    publish_to(site, alice, "1")
    assert (tab.await_data("1"), tab["changes"]) == (["1"], 0)
    post(site, "/says-reader", False)
    tabs.log_in(bob)
    post(site, f"/disconnect/{alice}")
    publish_to(site, bob, "for bob alone")
    post(site, "/says-reader", True)
    tab.await_change()
    assert tab.data() == ["1"]


def test_module_reader_stays_the_same_while_the_secret_key_rotates(
    tabs: Tabs, site: Server, alice: str, bob: str
) -> None:
    reader = {"X-Reader": alice}
    tabs.open().follow("~", headers=reader)
    steps = [["new", SECRET], [SECRET], ["new", SECRET], ["new"]]  # some of the processes are old ones for a while
    for number, secrets in enumerate(steps):
        post(site, "/secrets", secrets)
        await_next_stream(site, alice)
        if secrets[-1] == SECRET:
            tabs.open().follow("~", headers=reader)
        assert streams(site, alice) == 1, "tabs share it"
        publish_to(site, alice, f"{number}")
        for tab in tabs.all:
            assert (tab.await_data(f"{number}")[-1], tab["changes"]) == (f"{number}", 0)
    tabs.all[0].follow("~", name="second", headers={"X-Reader": bob})
    tabs.all[0].await_change()


def test_module_readers_are_distinguished_without_a_secret_key(tabs: Tabs, alice: str, bob: str) -> None:
    """An app whose users log in by a token in a cookie, for example, needs no secret key."""
    with Server("gevent", APP, env={"CONFIG": '{"SECRET_KEY": null}'}) as site:
        for _ in range(2):
            tabs.open(site).page.evaluate(
                """(name) => {
                    window.reader = name;
                    follow({ name: "first", channels: ["~"], options: { headers: () => ({ "X-Reader": reader }) } });
                }""",
                alice,
            )
        for tab in tabs.all:
            until(lambda: tab["state"] == "open", "the state")  # noqa: B023 - called at once
        assert streams(site, alice) == 1
        for tab in tabs.all:
            tab.page.evaluate("(name) => (window.reader = name)", bob)
        post(site, f"/disconnect/{alice}")
        for tab in tabs.all:
            tab.await_change()
        assert (streams(site, alice), streams(site, bob)) == (0, 0)
        site.kill()


def test_module_share_option_shares_where_a_server_sends_no_reader_tags(tabs: Tabs, site: Server, alice: str) -> None:
    post(site, "/says-reader", False)
    for _ in range(2):
        tabs.open().follow("~", headers={"X-Reader": alice}, share=alice)
    assert streams(site, alice) == 1


def test_module_head_request_returns_reader_tags_and_opens_no_stream(site: Server, alice: str) -> None:
    before = get(site, "/state")["opened"]
    path = f"/events?channel=news&channel=~&channel=lobby&channel=mine-{alice}"
    with connected(site, path, method="HEAD", headers={"X-Reader": alice}) as client:
        assert client.response.status == 200
        head = client.response.headers
    assert get(site, "/state")["opened"] == before
    with connected(site, path, headers={"X-Reader": alice}) as client:
        assert client.response.headers["SSE-Reader"] == head["SSE-Reader"]
        names = ("Content-Type", "Cache-Control", "X-Accel-Buffering", "Content-Length")
        assert [client.response.headers[name] for name in names] == [head[name] for name in names]
    assert re.fullmatch(r"- (\S{16}) - \1", head["SSE-Reader"])
    with connected(site, path, method="HEAD") as client:
        assert (client.response.status, client.response.headers["SSE-Reader"]) == (403, None)


def test_module_reader_tags_are_exposed_to_listed_origins() -> None:
    app = Flask(__name__)
    app.config["SSE_CORS_ORIGINS"] = ["https://app.example.com"]
    sse = SSE(app)
    sse.channel("news", public=True)
    app.register_blueprint(sse.blueprint)
    shown = []
    for headers in ({"Origin": "https://app.example.com"}, {}):
        with app.test_client().head("/events?channel=news", headers=headers) as response:
            assert response.headers["SSE-Reader"] == "-"
            shown.append(response.headers.get("Access-Control-Expose-Headers"))
    assert shown == ["SSE-Reader", None]
