"""Events of the browser module: what handlers get, and of which channel each is."""

from __future__ import annotations

import pytest

from tests.browser.module.tabs import Tabs
from tests.support.client import new_name
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]

#: Runs a leader against a fake server whose first stream has this text, and then stays open; returns the leader's
#: requests and events.
LEAD = """async (text) => {
    const { Leader } = await import("./events/static/leader.js");
    const requests = [], messages = [];
    const open = async (channels, id) => {
        requests.push(id);
        return new ReadableStream({ start: (c) => requests.length < 2 && c.enqueue(new TextEncoder().encode(text)) });
    };
    const leader = new Leader(1, open, 0, (message) => messages.push(message));
    const since = [["a", "e-1"], ["b", "f-1"]];
    leader.join({ type: "join", tab: "t", term: 1, channels: ["a", "b"], since, claims: [] });
    const until = async (found) => { while (!found()) await new Promise((resolve) => setTimeout(resolve, 5)); };
    await until(() => requests.length > 1 || messages.some(({ events }) => events?.at(-1).data === "last"));
    leader.stop();
    const events = messages.flatMap(({ events = [] }) => events);
    return [requests, events.map(({ channel, id, data }) => [channel, id, data])];
}"""


def test_module_events_without_an_id_are_left_out(tabs: Tabs) -> None:
    channel = new_name()
    [tab] = tabs.follow(1, channel)
    assert tabs.post(f"/greet/{channel}", "by hand")["reached"] == 1
    tabs.post("/publish", [{"channel": channel, "data": "yours"}])
    assert (tab.await_data("yours"), tab["gaps"]) == (["yours"], [])


def test_module_handlers_get_events_of_their_name_until_removed(tabs: Tabs) -> None:
    one, two = new_name(), new_name()
    [tab] = tabs.follow(1, one, two)
    for number, channel in enumerate([one, two, one]):
        tabs.post("/publish", [{"channel": channel, "data": {"number": number}, "event": "created"}])
    tabs.publish((one, "unnamed"))
    tab.await_data("unnamed")
    assert tab["created"] == [{"number": 0}, {"number": 2}]
    tab.page.evaluate("readers.first.stop()")
    tabs.post("/publish", [{"channel": one, "data": "more", "event": "created"}])
    tab.await_data("more")
    assert len(tab["created"]) == 2


def test_module_handler_that_throws_is_reported_and_stops_no_other(tabs: Tabs) -> None:
    channel = new_name()
    [tab] = tabs.follow(1, channel)
    tab.page.evaluate("void readers.first.subscription.on('message', () => { throw new Error('of a handler'); })")
    tab.page.evaluate("void readers.first.subscription.on('message', ({ data }) => readers.first.created.push(data))")
    tabs.publish((channel, "1"), (channel, "2"))
    assert tab.await_data("2") == tab["created"] == ["1", "2"]
    until(lambda: tab["state"] == "open" and len(tab.errors) == 2, "two reports")
    assert tab.errors == ["of a handler"] * 2
    tab.errors.clear()


def test_module_ids_of_a_stream_tell_the_channel_of_each_event(tabs: Tabs) -> None:
    text = "id: e-2,f-1\ndata: x\n\nid: e-2,f-2\ndata: y\n\nid: e-3,f-2\ndata: last\n\n"
    events = [["a", "e-2", "x"], ["b", "f-2", "y"], ["a", "e-3", "last"]]
    assert tabs.open().page.evaluate(LEAD, text) == [["e-1,f-1"], events]


def test_module_reconnects_where_dropped_events_hide_the_channel(tabs: Tabs) -> None:
    """The ids of a stream of many channels tell the channel of an event only if none was dropped between."""
    text = "retry: 0\nid: e-2,f-1\ndata: x\n\nid: e-4,f-2\ndata: last\n\n"
    assert tabs.open().page.evaluate(LEAD, text) == [["e-1,f-1", "e-2,f-1"], [["a", "e-2", "x"]]]
