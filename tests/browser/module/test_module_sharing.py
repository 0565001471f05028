"""Tabs of one browser share one connection: each gets every event once, in order, whichever of them leads."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Error

from tests.browser.module.tabs import Tabs, await_all
from tests.support.client import new_name
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]

#: Makes a page give a leader up after 0.2 s.
IMPATIENT = """
    const set = window.setTimeout;
    window.setTimeout = (callback, wait) => set(callback, wait === 10_000 ? 200 : wait);
"""


@pytest.mark.parametrize("how", ["closed", "crashed"])
def test_module_leader_that_closes_or_crashes_costs_other_tabs_no_event(how: str, tabs: Tabs) -> None:
    channels = [new_name(), new_name()]
    leader, *others = tabs.follow(8 if how == "closed" else 3, *channels)
    assert tabs.connections(channels[0]) == 1
    with tabs.publishing(*channels) as sent:
        until(lambda: len(others[0].data()) > 50, "some events")
        if how == "closed":
            leader.page.close()
        else:
            with leader.page.expect_event("crash"), pytest.raises(Error):
                leader.page.goto("chrome://crash")
        reached = len(sent)
        until(lambda: len(others[0].data()) > reached, "events by way of another tab")
    await_all(others, sent, *channels)
    until(lambda: tabs.connections(channels[0]) == 1, "one connection")


def test_module_tabs_with_different_channels_share_one_connection(tabs: Tabs) -> None:
    first, second, both = new_name(), new_name(), new_name()
    wanted = [[first], [second], [first, second, both]]
    for channels in wanted:
        tabs.open().follow(*channels)
    with tabs.publishing(both, first, second) as sent:
        pass
    for tab, channels in zip(tabs.all, wanted, strict=True):
        await_all([tab], sent, *channels)
    requests = [visit for visit in tabs.requests(first) if visit["id"] is not None]
    assert {len(visit["channels"]) for visit in requests} == {2, 3}
    assert all(visit["id"].count(",") == len(visit["channels"]) - 1 for visit in requests), "else all would be replayed"
    until(lambda: {tabs.connections(channel) for channel in (first, second, both)} == {1}, "one connection")


def test_module_tabs_that_come_and_go_cost_other_tabs_no_event(tabs: Tabs) -> None:
    channels = [new_name() for _ in range(4)]
    came: dict[str, list[str]] = {}
    stays = tabs.follow(2, *channels[:2])
    with tabs.publishing(*channels) as sent:
        for channel in channels[1:]:
            tab = tabs.open()
            tab.follow(channel)
            until(lambda: len(tab.data()) > 10, "some events")  # noqa: B023 - called at once
            came[channel] = tab.data()
            tab.page.close()
    await_all(stays, sent, *channels[:2])
    for channel, found in came.items():
        expected = [data for name, data in sent if name == channel]
        assert found == expected[expected.index(found[0]) :][: len(found)]


def test_module_last_subscription_to_close_closes_the_connection(tabs: Tabs) -> None:
    channel = new_name()
    one, two = tabs.follow(2, channel)
    one.page.evaluate("readers.first.subscription.close()")
    until(lambda: two["state"] == "open" and len(tabs.requests(channel)) == 2, "the other to lead")
    tabs.publish((channel, "1"))
    assert two.await_data("1") == ["1"]
    assert (one["state"], one.data()) == ("closed", [])
    two.page.evaluate("readers.first.subscription.close()")
    until(lambda: channel not in tabs.state()["channels"], "the end of the connection")


@pytest.mark.parametrize("how", ["without locks", "where locks are refused", "share is off", "share differs"])
def test_module_tabs_that_cannot_share_have_a_connection_each(how: str, tabs: Tabs) -> None:
    scripts = {
        "without locks": "Object.defineProperty(navigator, 'locks', { value: undefined })",
        "where locks are refused": "LockManager.prototype.request = () => Promise.reject(new Error('refused'))",
    }
    channel = new_name()
    tabs.context.add_init_script(scripts.get(how, ""))
    options: dict[str, list[Any]] = {
        "share is off": [{"share": False}] * 2,
        "share differs": [{"share": "one"}, {"share": "two"}],
    }
    for each in options.get(how, [{}, {}]):
        tabs.open().follow(channel, **each)
    until(lambda: tabs.connections(channel) == 2, "two connections")
    with tabs.publishing(channel, least=50) as sent:
        tabs.post(f"/cut/{channel}", [])
    await_all(tabs.all, sent, channel)


def test_module_leader_that_hangs_is_replaced_and_misses_nothing(tabs: Tabs) -> None:
    channel = new_name()
    [leader] = tabs.follow(1, channel)
    tabs.context.add_init_script(IMPATIENT)
    [other] = tabs.follow(1, channel)
    dialogs: list[Any] = []
    leader.page.on("dialog", lambda dialog: dialogs.append(dialog))
    leader.page.evaluate("() => void setTimeout(() => alert('nothing else runs in this page meanwhile'))")
    until(lambda: other["state"] == "open" and dialogs, "the dialog")
    tabs.publish((channel, "1"))
    other.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert other.await_data("1") == ["1"]
    dialogs[0].dismiss()
    tabs.publish((channel, "2"))
    for tab in (leader, other):
        assert tab.await_data("2") == ["1", "2"]
    until(lambda: tabs.connections(channel) == 1, "one connection")


def test_module_foreign_broadcast_messages_change_nothing(tabs: Tabs) -> None:
    channel = new_name()
    leader, other = tabs.follow(2, channel)
    name = other.page.evaluate(
        "async () => (await navigator.locks.query()).held.find(({ name }) => name.endsWith(']')).name"
    )
    sent: list[object] = [
        None, 5, "join", [], {"type": "__proto__"}, {"type": "join"}, {"type": "constructor", "term": 9e15},
        {"type": "events", "term": 9e15, "events": [{"channel": channel}]},
        {"type": "at", "term": 9e15, "heads": [[channel, "x"]], "cursors": [], "live": []},
        {"type": "gap", "term": 9e15, "at": [[channel, 5]], "newest": []},
        {"type": "gap", "term": 9e15, "at": [[channel, "e-5"]]},
        {"type": "refused", "term": 9e15, "channel": channel},
        {"type": "join", "tab": "x", "term": 1, "channels": "all", "since": [], "claims": []},
    ]  # fmt: skip
    tabs.open().page.evaluate(
        "([name, sent]) => { const bus = new BroadcastChannel(name); sent.forEach((each) => bus.postMessage(each)); }",
        [name, sent],
    )
    tabs.publish((channel, "1"))
    for tab in (leader, other):
        assert (tab.await_data("1"), tab["states"], tab["gaps"], tab["errors"]) == (["1"], ["open"], [], [])
