"""Channels that have ended for good: each tab of the browser module is told once, with all events, and stays away."""

from __future__ import annotations

import pytest

from tests.browser.module.tabs import Tab, Tabs
from tests.support.client import new_name
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]

#: Makes a page lose the next messages of this type that the leader sends.
FORGETFUL = """() => {
    window.loses = {};
    const Channel = window.BroadcastChannel;
    window.BroadcastChannel = class extends Channel {
        set onmessage(take) {
            super.onmessage = (message) => window.loses[message.data.type]-- > 0 || take(message);
        }
    };
}"""


def await_end(tab: Tab, *channels: str) -> None:
    """Wait until the page is told that these channels have ended, and has no other."""
    until(lambda: tab["state"] == "closed", "the end")
    assert [sorted(each) for each in tab["ends"]] == [sorted(channels)]
    assert (tab["errors"], tab["gaps"], tab["channels"]) == ([], [], [])


def test_module_end_of_a_channel_reaches_all_tabs_and_none_comes_back(tabs: Tabs) -> None:
    channel, other = new_name(), new_name()
    for tab in tabs.follow(3, channel):
        tab.begin(other, name="other", share="other")
    tabs.publish((channel, "1"), (channel, "2"))
    tabs.post(f"/complete/{channel}")
    for tab in tabs.all:
        await_end(tab, channel)
        assert (tab.data(), tab["states"]) == (["1", "2"], ["open", "closed"])
    assert tabs.connections(channel) == 0
    asked = len(tabs.requests(channel))
    for number in range(4):  # so often another stream, which ends for now, is opened again
        until(lambda: tabs.connections(other) == 1, "the other stream")
        tabs.post(f"/cut/{other}", [{"channel": other, "data": str(number)}])
        tabs.all[0].await_data(str(number), "other")
    assert len(tabs.requests(channel)) == asked
    tabs.publish((channel, "before it is read"))
    tab = tabs.all[0]
    tab.follow(channel, name="anew")
    tabs.publish((channel, "anew"))
    assert (tab.await_data("anew", "anew"), tab["ends", "anew"]) == (["anew"], [])


def test_module_tab_that_comes_after_the_end_gets_what_is_left(tabs: Tabs) -> None:
    """And is answered 204 where that is nothing."""
    channel, empty = new_name(), new_name()
    ids = tabs.publish((channel, "1"), (channel, "2"))
    tabs.post(f"/complete/{channel}")
    tabs.post(f"/complete/{empty}")
    tab = tabs.open()
    for name, since, left in (("new", {}, ["1", "2"]), ("one", ids[0], ["2"]), ("last", ids[1], [])):
        tab.begin(channel, name=name, since={channel: since} if since else {}, share=name)
        until(lambda: tab["state", name] == "closed", "the end")  # noqa: B023 - called at once
        assert (tab.data(name), tab["ends", name], tab["errors", name]) == (left, [[channel]], [])
    tab.begin(empty)
    await_end(tab, empty)


def test_module_channel_that_ended_is_silent_while_others_go_on(tabs: Tabs) -> None:
    ended, going = new_name(), new_name()
    both, one, other = tabs.open(), tabs.open(), tabs.open()
    both.follow(ended, going)
    one.follow(ended)
    other.follow(going)
    tabs.post(f"/complete/{ended}")
    tabs.publish((going, "1"))
    assert [both.await_data("1"), other.await_data("1")] == [["1"], ["1"]]
    assert [tab["ends"] for tab in tabs.all] == [[], [], []]
    assert one["state"] == "open"
    both.page.close()
    other.page.close()
    await_end(one, ended)


def test_module_end_of_all_channels_is_told_once_with_those_of_each_tab(tabs: Tabs) -> None:
    first, last = new_name(), new_name()
    both, one = tabs.open(), tabs.open()
    both.follow(first, last)
    one.follow(last)
    tabs.post(f"/complete/{first}")
    tabs.publish((last, "1"))
    tabs.post(f"/complete/{last}")
    await_end(both, first, last)
    await_end(one, last)
    assert both.data() == one.data() == ["1"]


def test_module_tab_that_lacks_events_at_the_end_gets_them_before_it(tabs: Tabs) -> None:
    channel = new_name()
    leader, other = tabs.open(), tabs.open()
    other.page.evaluate(FORGETFUL)
    leader.follow(channel)
    other.follow(channel)
    tabs.publish((channel, "1"))
    other.await_data("1")
    other.page.evaluate("loses.events = 1")
    tabs.publish((channel, "2"))
    leader.await_data("2")
    until(lambda: other.page.evaluate("loses.events") == 0, "the message to be lost")
    tabs.post(f"/complete/{channel}")
    for tab in tabs.all:
        await_end(tab, channel)
        assert tab.data() == ["1", "2"]


def test_module_end_that_is_answered_to_another_reader_is_a_change(tabs: Tabs) -> None:
    channel = f"mine-{new_name()}"
    tab = tabs.read_as("alice", channel)
    tabs.publish((channel, "1"))
    tab.await_data("1")
    tabs.log_in("bob")
    tabs.post(f"/cut-and-complete/{channel}")
    tab.await_change()
    assert tab["ends"] == []
