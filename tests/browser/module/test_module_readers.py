"""Users who share a browser: no event of one reaches a page of another, in real Chromium."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser, Route

from tests.browser.clients import another_origin
from tests.browser.module.tabs import Tabs, new_site, tabs_of
from tests.support.client import connected, new_name
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]


def test_module_new_page_of_another_reader_gets_its_own_events_alone(tabs: Tabs, alice: str, bob: str) -> None:
    old = tabs.read_as(alice)
    tabs.log_out()
    new = tabs.read_as(bob)
    tabs.publish_to(alice, "for alice alone")
    tabs.publish_to(bob, "for bob alone")
    assert new.await_data("for bob alone") == ["for bob alone"]
    assert old.await_data("for alice alone") == ["for alice alone"]
    tabs.publish_to(bob, "once more")
    tabs.publish_to(alice, "the last")
    assert old.await_data("the last") == ["for alice alone", "the last"]
    assert new.await_data("once more") == ["for bob alone", "once more"]
    assert (tabs.streams(alice), tabs.streams(bob)) == (1, 1)


@pytest.mark.parametrize("comes", ["before", "after"])
def test_module_pages_of_a_former_reader_are_notified_after_a_disconnect(
    comes: str, tabs: Tabs, alice: str, bob: str
) -> None:
    """As ``sse.disconnect`` does at a logout."""
    tabs.log_in(alice)
    *old, new = tabs.open(), tabs.open(), tabs.open()
    for tab in old:
        tab.follow("~")
    tabs.log_in(bob)
    if comes == "before":
        new.follow("~")
    tabs.disconnect(alice)
    for tab in old:
        tab.await_change()
    if comes == "after":
        new.follow("~")
    tabs.publish_to(bob, "for bob alone")
    assert new.await_data("for bob alone") == ["for bob alone"]
    assert ([tab.data() for tab in old], tabs.streams(alice), tabs.streams(bob)) == ([[], []], 0, 1)


def test_module_page_of_a_logged_out_reader_is_denied_after_a_disconnect(tabs: Tabs, alice: str) -> None:
    tab = tabs.read_as(alice)
    tabs.log_out()
    tabs.disconnect(alice)
    until(lambda: tab["state"] == "closed", "the end")
    assert ([error[:2] for error in tab["errors"]], tab["changes"]) == ([["~", 403]], 0)


def test_module_former_reader_is_notified_when_its_page_becomes_leader(tabs: Tabs, alice: str, bob: str) -> None:
    tabs.log_in(alice)
    leader, follower = tabs.follow(2, "~", "news")
    new = tabs.read_as(bob, "~", "news")
    tabs.publish_to(alice, "1")
    assert follower.await_data("1") == ["1"]
    leader.page.close()
    follower.await_change()
    tabs.publish_to(bob, "2")
    tabs.publish(("news", "3"))
    assert new.await_data("3") == ["2", "3"]
    assert follower.data() == ["1"]


def test_module_leader_reloaded_by_another_reader_reads_as_that_reader(tabs: Tabs, alice: str, bob: str) -> None:
    tabs.log_in(alice)
    first, second = tabs.follow(2, "~")
    assert tabs.streams(alice) == 1
    tabs.log_in(bob)
    first.page.reload()
    first.page.wait_for_function("() => !!window.follow")
    first.follow("~")
    until(lambda: second["changes"] == 1, "the other to be notified: it leads now, and checks its reader")
    tabs.publish_to(alice, "for alice alone")
    tabs.publish_to(bob, "for bob alone")
    assert first.await_data("for bob alone") == ["for bob alone"]
    assert second.data() == []


def test_module_expired_grant_goes_on_unless_another_reader_is_there(tabs: Tabs, alice: str, bob: str) -> None:
    tabs.log_in(alice, seconds=2)
    tab, same = tabs.open(), tabs.open()
    tab.follow("~")
    same.follow("~", headers={"X-Reader": f"same-{bob}"})
    tabs.log_in(bob)
    tab.await_change()
    assert (tab.data(), tabs.streams(bob)) == ([], 0)
    until(lambda: same["states"].count("open") > 1, "the next stream")
    tabs.publish_to(f"same-{bob}", "1")
    assert (same.await_data("1"), same["changes"]) == (["1"], 0)


@pytest.mark.parametrize("way", ["cookie", "header"])
def test_module_page_that_changes_its_reader_reads_as_the_new_one_alone(
    way: str, tabs: Tabs, alice: str, bob: str
) -> None:
    tab = tabs.open()
    for subscription, name in (("first", alice), ("second", bob)):
        tabs.log_in(name if way == "cookie" else "nobody")
        options: Any = {"headers": {"X-Reader": name}} if way == "header" else {}
        tab.follow("~", name=subscription, **options)
    tab.await_change()
    tabs.publish_to(alice, "for alice alone")
    tabs.publish_to(bob, "for bob alone")
    assert tab.await_data("for bob alone", "second") == ["for bob alone"]
    assert (tab.data(), tab["changes", "second"], tabs.streams(alice)) == ([], 0, 0)


def test_module_page_with_a_reader_change_during_its_join_is_notified(tabs: Tabs, alice: str, bob: str) -> None:
    tabs.log_in(alice)
    tab = tabs.open()

    def answer(route: Route) -> None:
        if route.request.method == "HEAD":
            answered = route.fetch()
            tabs.log_in(bob)
            route.fulfill(response=answered)
        else:
            route.continue_()

    tab.page.route("**/events?*", answer)
    tab.begin("~")
    tab.await_change()
    assert (tab.data(), tabs.streams(bob)) == ([], 0)


def test_module_page_that_does_not_share_is_notified_of_another_reader(tabs: Tabs, alice: str, bob: str) -> None:
    tab = tabs.read_as(alice, share=False)
    assert tabs.state()["visits"][-1]["method"] == "GET", "it shares with no other, and sends no HEAD first"
    tabs.log_in(bob)
    tabs.disconnect(alice)
    tab.await_change()
    assert (tab.data(), tabs.streams(bob)) == ([], 0)


def test_module_leader_of_another_reader_that_hangs_blocks_no_page(tabs: Tabs, alice: str, bob: str) -> None:
    tabs.log_in(alice)
    old, new = tabs.open(), tabs.open()
    old.follow("~")
    dialogs: list[Any] = []
    old.page.on("dialog", lambda dialog: dialogs.append(dialog))
    old.page.evaluate("() => void setTimeout(() => alert('nothing else runs in this page meanwhile'))")
    until(lambda: new.page.evaluate("true") and dialogs, "the dialog")
    tabs.log_in(bob)
    new.follow("~")
    tabs.publish_to(bob, "for bob alone")
    assert new.await_data("for bob alone") == ["for bob alone"]
    tabs.disconnect(alice)
    dialogs[0].dismiss()
    old.await_change()
    assert old.data() == []


def test_module_pages_of_channels_without_a_reader_share_across_logins(tabs: Tabs, alice: str, bob: str) -> None:
    lobby = f"lobby-{new_name()}"
    for name in (alice, bob):
        tabs.read_as(name, lobby, "news")
    assert tabs.connections(lobby) == 1
    tabs.post(f"/cut/{lobby}", [])
    tabs.publish((lobby, "1"))
    for tab in tabs.all:
        assert (tab.await_data("1"), tab["changes"]) == (["1"], 0)


def test_module_pages_with_the_same_readers_in_other_roles_do_not_share(tabs: Tabs, alice: str, bob: str) -> None:
    """The rule names one reader for "~", and another for a second channel."""
    pages = []
    for reader, child in ((alice, bob), (alice, bob), (bob, alice)):
        pages.append(tabs.open())
        pages[-1].follow("~", "child-of", headers={"X-Reader": reader, "X-Child": child})
    assert (tabs.streams(alice), tabs.streams(bob)) == (1, 1)
    tabs.publish_to(alice, "for alice alone")
    tabs.publish_to(bob, "for bob alone")
    for page, data in zip(pages, ("for alice alone", "for alice alone", "for bob alone"), strict=True):
        assert page.await_data(data) == [data]
        assert page["received"][0][0] == "~"


def test_module_page_is_denied_a_channel_that_only_the_leader_may_read(tabs: Tabs, bob: str) -> None:
    """The rule allows without an identity, so the two pages share the other channel."""
    admins, lobby = f"admins-{new_name()}", f"lobby-{new_name()}"
    old = tabs.read_as("alice", admins, lobby)
    new = tabs.read_as(bob, lobby, name="lobby")
    new.begin(admins, lobby)
    until(lambda: new["errors"], "the refusal")
    until(lambda: new["state"] == "open", "the rest")
    tabs.publish((admins, "secret"), (lobby, "1"))
    assert (new.await_data("1"), new.await_data("1", "lobby")) == (["1"], ["1"])
    assert [error[:2] for error in new["errors"]] == [[admins, 403]]
    assert old.await_data("1") == ["secret", "1"]
    assert tabs.connections(lobby) == 1


def test_module_tabs_of_one_reader_share_and_send_one_head_each(tabs: Tabs, alice: str) -> None:
    channel = f"mine-{new_name()}"
    tabs.log_in(alice)
    for _ in range(3):
        tabs.open().follow(channel, "~", "news")
    assert (tabs.connections(channel), tabs.streams(alice)) == (1, 1)
    assert len(tabs.requests(channel, "HEAD")) == 3
    assert len(tabs.requests(channel)) <= 2, "the stream, and where its channels begin"
    tabs.all[0].page.evaluate("n => { for (let i = 0; i < n; i++) follow({ name: `${i}`, channels: ['~'] }); }", 5)
    until(lambda: tabs.all[0]["state", "4"] == "open", "all of them")
    heads = [visit for visit in tabs.state()["visits"] if visit["user"] == alice and visit["method"] == "HEAD"]
    assert len(heads) == 4, "subscriptions made together send one HEAD"


#: Subscribes in a page of another origin.
FOLLOW = """async ([url, channel]) => {
    const { subscribe } = await import(`${url}/events/static/sse-emitters.js`);
    window.data = [];
    const onEvent = (event) => data.push(event.data);
    window.live = subscribe(`${url}/events`, [channel, "~"], { withCredentials: true, onEvent });
}"""


def test_module_pages_of_another_origin_share_one_connection(browser: Browser, alice: str) -> None:
    """They may load the module, and read the tags of the reader."""
    channel = f"mine-{new_name()}"
    with another_origin() as port:
        origin = f"http://127.0.0.1:{port}"
        with new_site(SSE_CORS_ORIGINS=[origin]) as site, tabs_of(browser, site) as tabs:
            tabs.log_in(alice)
            for page in (tabs.context.new_page(), tabs.context.new_page()):
                page.goto(f"{origin}/pages/native.html")
                page.evaluate(FOLLOW, [site.url, channel])
                page.wait_for_function("() => live.state === 'open'")
            assert (tabs.connections(channel), tabs.streams(alice)) == (1, 1)
            tabs.publish_to(alice, "1")
            for page in tabs.context.pages:
                page.wait_for_function("() => data.length === 1")
            with connected(site, "/events/static/leader.js", headers={"Origin": "http://unlisted"}) as client:
                assert client.response.headers["Access-Control-Allow-Origin"] is None
