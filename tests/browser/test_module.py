"""The browser module in real Chromium: many tabs, one connection, and every event once in each of them, in order."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Error, Page, sync_playwright

from flask_sse_emitters import SSE
from flask_sse_emitters.testing import decode, open_stream
from tests.apps.browser_module import app, sse
from tests.apps.clients import PACKAGES
from tests.browser.tabs import Tab, Tabs, connections, publish, visits
from tests.project.docs_blocks import blocks_of, modules_of
from tests.support.browser import FLAGS
from tests.support.client import connected, get, new_name, post
from tests.support.programs import program
from tests.support.servers import ROOT, Server
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.timeout(300)]

#: Where the module is.
STATIC = ROOT / "flask_sse_emitters" / "server" / "static"

#: Makes a page record how long it waits, and fixes chance at a half.
WATCH_CLOCK = """
    Math.random = () => 0.5;
    window.waits = [];
    const set = window.setTimeout;
    window.setTimeout = (callback, wait) => (waits.push(wait), set(callback, wait));
"""

#: Makes a page give a leader up after 0.2 s.
IMPATIENT = """
    const set = window.setTimeout;
    window.setTimeout = (callback, wait) => set(callback, wait === 10_000 ? 200 : wait);
"""

#: Runs a leader against a fake server, and returns its requests and its messages. The second argument is the text of
#: the first stream, which then stays open.
LEAD = """async ([id, text]) => {
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


#: A leader whose stream is at 5 while the server is at 6, and a new tab that claims to be further.
CLAIM = """async (claim) => {
    const { Leader } = await import("./events/static/leader.js");
    const requests = [], messages = [];
    const gap = 'event: gap\\ndata: {"requested":"0-0","oldest":"e-3","newest":"e-6"}\\n\\n';
    const open = async (channels, id) => {
        requests.push(id);
        const text = id === "0-0" ? gap : ": here\\n\\n";
        return new ReadableStream({ start: (c) => c.enqueue(new TextEncoder().encode(text)) });
    };
    const until = async (found) => { while (!found()) await new Promise((resolve) => setTimeout(resolve, 5)); };
    const leader = new Leader(1, open, 0, (message) => messages.push(message));
    const join = { type: "join", term: 1, channels: ["a"] };
    leader.join({ ...join, tab: "one", since: [["a", "e-5"]], claims: [] });
    await until(() => messages.some(({ live }) => live?.length));
    leader.join({ ...join, tab: "two", since: [], claims: [["a", claim]] });
    await until(() => requests.length > (claim === "e-6" ? 1 : 2));
    const begin = () => { // where a tab begins that joins now
        leader.join({ ...join, tab: "three", since: [], claims: [] });
        return messages.findLast(({ type }) => type === "at").heads[0][1];
    };
    await until(() => begin() === "e-6");
    leader.stop();
    return { requests, gaps: messages.filter(({ type }) => type === "gap") };
}"""

#: A fake server: the text of its first stream, which stays open until it is ended, and that of all later ones.
MADE_UP = """([first, later]) => {
    let streams = 0;
    const headers = { "Content-Type": "text/event-stream", "SSE-Reader": "-" };
    window.fetch = async (url, { method }) => {
        if (method === "HEAD") return new Response(null, { headers });
        const text = streams++ ? later : first;
        const start = (c) => {
            c.enqueue(new TextEncoder().encode(`retry: 10\\n\\n${text}`));
            if (streams === 1) window.end = () => c.close();
        };
        return new Response(new ReadableStream({ start }), { headers });
    };
}"""


#: A fake server that refuses requests for more than ``most`` channels, ``times`` times.
REFUSING = """([most, times]) => {
    window.fetch = async (url, { method }) => {
        const { length } = url.searchParams.getAll("channel");
        const headers = { "Content-Type": "text/event-stream", "SSE-Reader": Array(length).fill("-").join(" ") };
        if (method === "HEAD") return new Response(null, { headers });
        if (length > most && times-- > 0) return new Response("too long", { status: 414 });
        const text = `retry: 10\\n\\nid: ${Array(length).fill("e-1")}\\n\\n`;
        const start = (c) => c.enqueue(new TextEncoder().encode(text));
        return new Response(new ReadableStream({ start }), { headers });
    };
}"""

#: Without a browser: Node has a BroadcastChannel, and neither locks nor a window.
OUTSIDE = """
    import { subscribe } from "./sse-emitters.js";
    const url = process.argv[2];
    const live = subscribe(url, "orders", { onState: (state) => console.log(state) });
    live.on("message", ({ data }) => process.exit(data === "come back" ? 0 : 1));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = program("chromium", "chromium")
    with sync_playwright() as playwright:
        kept = ["--disable-back-forward-cache"]  # users' browsers restore pages from it as well
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS, ignore_default_args=kept)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Server]:
    with Server("gevent", "tests.apps.browser_module:app") as site:
        yield site
        site.kill()  # an orderly stop takes seconds


@pytest.fixture
def tabs(browser: Browser, site: Server) -> Iterator[Tabs]:
    context = browser.new_context()
    tabs = Tabs(context, site)
    yield tabs
    context.close()
    assert [error for tab in tabs.all for error in tab.errors] == []


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
def publishing(site: Server, channels: Sequence[str], least: int = 300) -> Iterator[Publisher]:
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


def test_module_eight_tabs_share_one_connection_and_each_gets_all_events_once(tabs: Tabs, site: Server) -> None:
    channel = new_name()
    for _ in range(8):
        tabs.open().follow(channel)
    assert connections(site, channel) == 1
    with publishing(site, [channel]) as publisher:
        pass
    await_all(tabs.all, publisher.sent, [channel])
    assert connections(site, channel) == 1


@pytest.mark.parametrize("how", ["closed", "crashed"])
def test_module_leader_that_closes_or_crashes_costs_other_tabs_no_event(how: str, tabs: Tabs, site: Server) -> None:
    channels = [new_name(), new_name()]
    for _ in range(8 if how == "closed" else 3):
        tabs.open().follow(*channels)
    leader, *others = tabs.all
    with publishing(site, channels) as publisher:
        until(lambda: len(others[0].data()) > 50, "some events")
        if how == "closed":
            leader.page.close()
        else:
            with leader.page.expect_event("crash"), pytest.raises(Error):
                leader.page.goto("chrome://crash")
        reached = len(publisher.sent)
        until(lambda: len(others[0].data()) > reached, "events by way of another tab")
    await_all(others, publisher.sent, channels)
    until(lambda: connections(site, channels[0]) == 1, "one connection")


def test_module_tabs_with_different_channels_share_one_connection(tabs: Tabs, site: Server) -> None:
    first, second, both = new_name(), new_name(), new_name()
    wanted = [[first], [second], [first, second, both]]
    for channels in wanted:
        tabs.open().follow(*channels)
    with publishing(site, [both, first, second]) as publisher:
        pass
    for tab, channels in zip(tabs.all, wanted, strict=True):
        await_all([tab], publisher.sent, channels)
    requests = [visit for visit in visits(site, first) if visit["id"] is not None]
    assert {len(visit["channels"]) for visit in requests} == {2, 3}
    assert all(visit["id"].count(",") == len(visit["channels"]) - 1 for visit in requests), "else all would be replayed"
    until(lambda: {connections(site, channel) for channel in (first, second, both)} == {1}, "one connection")


def test_module_tabs_that_come_and_go_cost_other_tabs_no_event(tabs: Tabs, site: Server) -> None:
    channels = [new_name() for _ in range(4)]
    came: dict[str, list[str]] = {}
    stays = [tabs.open(), tabs.open()]
    for tab in stays:
        tab.follow(channels[0], channels[1])
    with publishing(site, channels) as publisher:
        for channel in channels[1:]:
            tab = tabs.open()
            tab.follow(channel)
            until(lambda: len(tab.data()) > 10, "some events")  # noqa: B023 - called at once
            came[channel] = tab.data()
            tab.page.close()
    await_all(stays, publisher.sent, channels[:2])
    for channel, found in came.items():
        expected = [data for name, data in publisher.sent if name == channel]
        assert found == expected[expected.index(found[0]) :][: len(found)]


def test_module_since_replays_after_its_id_and_disturbs_no_other_tab(tabs: Tabs, site: Server) -> None:
    channel = new_name()
    ids = publish(site, *((channel, str(number)) for number in range(5)))
    tab, other = tabs.open(), tabs.open()
    tab.follow(channel)
    other.follow(channel, since={channel: ids[1]})
    other.await_data("4")
    tab.follow(channel, name="second", since={channel: ids[3]})
    publish(site, (channel, "5"))
    assert tab.await_data("5") == ["5"]
    assert tab.await_data("5", "second") == ["4", "5"]
    assert other.await_data("5") == ["2", "3", "4", "5"]
    assert [each[3] for each in other["received"]][:3] == ids[2:]
    assert tab["gaps"] == tab["gaps", "second"] == other["gaps"] == []


@pytest.mark.parametrize("since", ["nonsense", "aaaaa-7"])
def test_module_unknown_since_is_a_gap_for_its_subscription_alone(since: str, tabs: Tabs, site: Server) -> None:
    channel = new_name()
    tab, other = tabs.open(), tabs.open()
    tab.follow(channel)
    publish(site, (channel, "0"))
    tab.await_data("0")
    other.follow(channel, since={channel: since})
    assert other.await_data("0") == ["0"]
    publish(site, (channel, "1"))
    assert (other.await_data("1"), other["gaps"]) == (["0", "1"], [[channel]])
    assert (tab.await_data("1"), tab["gaps"]) == (["0", "1"], [])


@pytest.mark.parametrize("order", ["alone", "before another", "after another", "beside another in one tab"])
def test_module_since_beyond_the_newest_event_is_a_gap_for_it_alone(order: str, tabs: Tabs, site: Server) -> None:
    channel = new_name()
    ids = publish(site, (channel, "0"), (channel, "1"))
    wrong = {channel: ids[1].replace("-2", "-999")}
    tab = tabs.open()
    other, name = (tab, "second") if order.startswith("beside") else (tabs.open(), "first")
    if order.startswith(("after", "beside")):
        other.follow(channel, name=name)
    tab.follow(channel, since=wrong, **({"name": "wrong"} if other is tab else {}))
    mine = "wrong" if other is tab else "first"
    assert tab.await_data("1", mine) == ["0", "1"]
    if order.startswith("before"):
        other.follow(channel)
    publish(site, (channel, "2"))
    assert (tab.await_data("2", mine), tab["gaps", mine]) == (["0", "1", "2"], [[channel]])
    if order != "alone":
        assert (other.await_data("2", name), other["gaps", name]) == (["2"], [])
    assert [each[3] for each in tab["received", mine]][:2] == ids


def test_module_since_ahead_of_the_stream_is_no_gap_if_the_server_has_the_event(tabs: Tabs) -> None:
    """The event was published just now, and the page got its id before the stream brought it."""
    page = tabs.open().page
    found = page.evaluate(CLAIM, "e-6")
    assert found == {"requests": ["e-5", "0-0"], "gaps": []}
    found = page.evaluate(CLAIM, "e-7")
    assert found["gaps"] == [{"type": "gap", "term": 1, "at": [["a", "e-2"]], "newest": [["a", "e-6"]]}]
    assert found["requests"] == ["e-5", "0-0", "e-2"], "the stream begins again where the gap points"


def test_module_server_that_went_back_brings_a_gap_and_its_events_to_all_tabs(tabs: Tabs) -> None:
    made = "id: e-41\ndata: x\n\n"
    gap = 'event: gap\ndata: {"requested":"e-100","oldest":"e-%d","newest":"e-40"}\n\nid: e-%d\n\n'
    leader, other = tabs.open(), tabs.open()
    for number, tab in enumerate(tabs.all):
        stream = "id: e-100\n\n" if not number else "never"
        tab.page.evaluate(MADE_UP, [stream, gap % (39, 38) + "id: e-39\ndata: 39\n\nid: e-40\ndata: 40\n\n" + made])
        tab.follow("a")
    leader.page.evaluate("end()")
    for tab in (leader, other):
        assert (tab.await_data("x"), tab["gaps"]) == (["39", "40", "x"], [["a"]])


def test_module_change_of_epoch_within_a_stream_brings_no_gap(tabs: Tabs) -> None:
    leader, other = tabs.open(), tabs.open()
    for number, tab in enumerate(tabs.all):
        stream = "id: e-1\n\n" if not number else "never"
        tab.page.evaluate(MADE_UP, [stream, "id: e-2\ndata: 2\n\nid: f-3\ndata: 3\n\nid: f-4\ndata: 4\n\n"])
        tab.follow("a")
    leader.page.evaluate("end()")
    for tab in (leader, other):
        assert (tab.await_data("4"), tab["gaps"]) == (["2", "3", "4"], [])


def test_module_gap_is_reported_once_per_tab_with_its_channels(browser: Browser) -> None:
    with Server("gevent", "tests.apps.browser_module:app", env={"CONFIG": '{"SSE_HISTORY": 5}'}) as site:
        tabs = Tabs(browser.new_context(), site)
        busy, quiet = new_name(), new_name()
        for _ in range(3):
            tabs.open().follow(busy, quiet)
        sent = [{"channel": busy, "data": str(number)} for number in range(10)]
        post(site, f"/cut/{busy}", [*sent, {"channel": quiet, "data": "quiet"}])
        for tab in tabs.all:
            assert sorted(tab.await_data("quiet")) == ["5", "6", "7", "8", "9", "quiet"]
            assert tab["gaps"] == [[busy]]
        site.kill()
        site.start()
        until(lambda: get(site, "/state")["channels"] == {busy: 1, quiet: 1}, "the tabs to reconnect")
        publish(site, (busy, "new"))
        for tab in tabs.all:
            assert tab.await_data("new")[-1] == "new"
            assert [sorted(gap) for gap in tab["gaps"]] == [[busy], sorted([busy, quiet])]
            assert tab["states"] == ["open", "connecting", "open", "connecting", "open"]
        site.kill()
        tabs.context.close()


def test_module_denied_channel_is_an_error_in_its_tab_and_disturbs_no_other(tabs: Tabs, site: Server) -> None:
    channels = [new_name(), new_name()]
    closed = [f"closed-{new_name()}", f"closed-{new_name()}"]
    stays = tabs.open()
    stays.follow(*channels)
    with publishing(site, channels) as publisher:
        until(lambda: len(stays.data()) > 20, "some events")
        other = tabs.open()
        other.begin(closed[0], channels[0], closed[1], new_name())
        until(lambda: len(other["errors"]) == 2 and other["state"] == "open", "two errors")
        alone = tabs.open()
        alone.begin(closed[0])
        until(lambda: alone["state"] == "closed", "the end")
    assert sorted(channel for channel, _, _ in other["errors"]) == sorted(closed)
    assert [status for _, status, _ in [*other["errors"], *alone["errors"]]] == [403] * 3
    assert other["errors"][0][2] == "Forbidden"
    assert not set(closed) & set(other["channels"])
    assert (stays["errors"], alone["channels"]) == ([], [])
    await_all([stays], publisher.sent, channels)
    until(lambda: other.data()[-1] in [data for name, data in publisher.sent[-2:] if name == channels[0]], "all of it")


def test_module_channel_denied_later_ends_in_all_tabs_and_other_channels_go_on(tabs: Tabs, site: Server) -> None:
    one, two, three = (new_name() for _ in range(3))
    for channels in ([one, two], [two, three], [one, three], [two]):
        tabs.open().follow(*channels)
    with publishing(site, [one, two, three]) as publisher:
        until(lambda: len(tabs.all[0].data()) > 20, "some events")
        post(site, f"/close/{two}")
        for tab in (*tabs.all[:2], tabs.all[3]):
            until(lambda: tab["errors"] == [[two, 403, "Forbidden"]], "an error")  # noqa: B023 - called at once
    await_all([tabs.all[2]], publisher.sent, [one, three])
    assert (tabs.all[2]["errors"], tabs.all[3]["state"]) == ([], "closed")
    expected = [data for name, data in publisher.sent if name == one]
    until(lambda: [data for name, _, data, _ in tabs.all[0]["received"] if name == one] == expected, "all of one")


def test_module_channels_beyond_the_request_line_are_refused_and_the_others_go_on(tabs: Tabs, site: Server) -> None:
    channels = [f"{new_name()}-{number}-{'x' * 140}" for number in range(30)]
    stays, tab = tabs.open(), tabs.open()
    stays.follow(channels[29])
    tab.follow(*channels)
    taken = tab["channels"]
    refused = [channel for channel in channels if channel not in taken]
    assert len(refused) > 5
    assert channels[29] in taken, "it was there before"
    assert sorted(tab["errors"]) == sorted([name, 414, tab["errors"][0][2]] for name in refused)
    publish(site, (channels[29], "1"), (channels[0], "2"))
    assert tab.await_data("2") == ["1", "2"]
    assert (stays.await_data("1"), stays["errors"]) == (["1"], [])


def test_module_refusal_of_too_many_channels_drops_the_last_ones(tabs: Tabs) -> None:
    tab = tabs.open()
    tab.page.evaluate(REFUSING, [2, 10_000])
    tab.follow("a", "b", "c", "d")
    assert tab["errors"] == [["d", 414, "too long"], ["c", 414, "too long"]]
    assert tab["channels"] == ["a", "b"]


def test_module_refusal_that_does_not_repeat_drops_no_channel(tabs: Tabs) -> None:
    """A token had expired, for example, and has been renewed meanwhile."""
    tab = tabs.open()
    tab.page.evaluate(REFUSING, [2, 1])
    tab.follow("a", "b", "c", "d")
    assert (tab["errors"], len(tab["channels"])) == ([], 4)


def test_module_events_without_an_id_are_left_out(tabs: Tabs, site: Server) -> None:
    channel = new_name()
    tab = tabs.open()
    tab.follow(channel)
    assert post(site, f"/greet/{channel}", "by hand")["reached"] == 1
    post(site, "/publish", [{"channel": channel, "data": "yours"}])
    assert (tab.await_data("yours"), tab["gaps"]) == (["yours"], [])


def test_module_handlers_get_events_of_their_name_until_removed(tabs: Tabs, site: Server) -> None:
    one, two = new_name(), new_name()
    tab = tabs.open()
    tab.follow(one, two)
    for number, channel in enumerate([one, two, one]):
        post(site, "/publish", [{"channel": channel, "data": {"number": number}, "event": "created"}])
    publish(site, (one, "unnamed"))
    tab.await_data("unnamed")
    assert tab["created"] == [{"number": 0}, {"number": 2}]
    tab.page.evaluate("readers.first.stop()")
    post(site, "/publish", [{"channel": one, "data": "more", "event": "created"}])
    tab.await_data("more")
    assert len(tab["created"]) == 2


def test_module_handler_that_throws_is_reported_and_stops_no_other(tabs: Tabs, site: Server) -> None:
    channel = new_name()
    tab = tabs.open()
    tab.follow(channel)
    tab.page.evaluate("void readers.first.subscription.on('message', () => { throw new Error('of a handler'); })")
    tab.page.evaluate("void readers.first.subscription.on('message', ({ data }) => readers.first.created.push(data))")
    publish(site, (channel, "1"), (channel, "2"))
    assert tab.await_data("2") == tab["created"] == ["1", "2"]
    until(lambda: tab["state"] == "open" and len(tab.errors) == 2, "two reports")
    assert tab.errors == ["of a handler"] * 2
    tab.errors.clear()


def test_module_last_subscription_to_close_closes_the_connection(tabs: Tabs, site: Server) -> None:
    channel = new_name()
    one, two = tabs.open(), tabs.open()
    one.follow(channel)
    two.follow(channel)
    one.page.evaluate("readers.first.subscription.close()")
    until(lambda: two["state"] == "open" and len(visits(site, channel)) == 2, "the other to lead")
    publish(site, (channel, "1"))
    assert two.await_data("1") == ["1"]
    assert (one["state"], one.data()) == ("closed", [])
    two.page.evaluate("readers.first.subscription.close()")
    until(lambda: channel not in get(site, "/state")["channels"], "the end of the connection")


def test_module_tab_that_closes_at_once_holds_no_lock(tabs: Tabs) -> None:
    """A lock would keep it out of the browser's back-forward cache."""
    held = "async () => (await navigator.locks.query()).held.map(({ name }) => name)"
    page = tabs.open().page
    page.evaluate("sent => { follow(sent); readers.first.subscription.close(); }", {"name": "first", "channels": ["a"]})
    until(lambda: page.evaluate(held) == [], "no lock to be held")


def test_module_reads_and_reconnects_in_node(site: Server, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for file in STATIC.glob("*.js"):
        shutil.copy(file, tmp_path)
    (tmp_path / "read.js").write_text(OUTSIDE)
    command = [program("node", "nodejs"), str(tmp_path / "read.js"), f"{site.url}/events"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        try:
            sent = [reader.stdout.readline()]
            post(site, "/cut/orders", [])
            sent += [reader.stdout.readline(), reader.stdout.readline()]
            publish(site, ("orders", "come back"))
            assert (reader.wait(30), sent) == (0, ["open\n", "connecting\n", "open\n"]), reader.stderr.read()
        finally:
            reader.kill()


@pytest.mark.parametrize("says_so", [True, False])
def test_module_headers_are_sent_and_readers_do_not_share(says_so: bool, tabs: Tabs, site: Server) -> None:
    ann, bob = tabs.open(), tabs.open()
    names = {ann: new_name(), bob: new_name()}
    for tab, name in names.items():
        tab.follow("~", headers={"X-Reader": name}, **({"share": name} if says_so else {}))
    for name in names.values():
        post(site, f"/publish-to/{name}", name)
    for tab, name in names.items():
        assert tab.await_data(name) == [name]
        assert tab["received"][0][0] == "~"


@pytest.mark.parametrize("how", ["without locks", "where locks are refused", "share is off"])
def test_module_tabs_that_cannot_share_have_a_connection_each(how: str, tabs: Tabs, site: Server) -> None:
    scripts = {
        "without locks": "Object.defineProperty(navigator, 'locks', { value: undefined })",
        "where locks are refused": "LockManager.prototype.request = () => Promise.reject(new Error('refused'))",
    }
    channel = new_name()
    tabs.context.add_init_script(scripts.get(how, ""))
    options: dict[str, Any] = {} if how in scripts else {"share": False}
    for _ in range(2):
        tabs.open().follow(channel, **options)
    until(lambda: connections(site, channel) == 2, "two connections")
    with publishing(site, [channel], 50) as publisher:
        post(site, f"/cut/{channel}", [])
    await_all(tabs.all, publisher.sent, [channel])


def test_module_page_in_the_back_forward_cache_gives_up_the_lead_and_replays(tabs: Tabs, site: Server) -> None:
    channel = new_name()
    leader, other = tabs.open(), tabs.open()
    leader.follow(channel)
    other.follow(channel)
    leader.page.evaluate("addEventListener('pageshow', ({ persisted }) => (window.isKept = persisted))")
    leader.page.goto(f"{site.url}/state")
    publish(site, (channel, "1"))
    assert other.await_data("1") == ["1"]
    assert len(visits(site, channel)) == 2
    leader.page.evaluate("() => void setTimeout(() => history.back())")
    leader.page.wait_for_function("() => window.isKept")
    publish(site, (channel, "2"))
    for tab in tabs.all:
        assert tab.await_data("2") == ["1", "2"]
    assert (leader["gaps"], other["gaps"]) == ([], [])
    assert leader["states"] == ["open", "connecting", "open"]
    until(lambda: (other["state"], connections(site, channel)) == ("open", 1), "one connection")
    held = leader.page.evaluate("async () => (await navigator.locks.query()).held.map(({ name }) => name)")
    assert len(held) == 3, "the leader's, and one for each tab"


def test_module_frozen_page_gives_up_the_lead(tabs: Tabs, site: Server) -> None:
    channel = new_name()
    leader, other = tabs.open(), tabs.open()
    leader.follow(channel)
    other.follow(channel)
    leader.page.evaluate("document.dispatchEvent(new Event('freeze'))")
    publish(site, (channel, "1"))
    assert other.await_data("1") == ["1"]
    assert leader.data() == []
    leader.page.evaluate("document.dispatchEvent(new Event('resume'))")
    assert leader.await_data("1") == ["1"]


def test_module_leader_that_hangs_is_replaced_and_misses_nothing(tabs: Tabs, site: Server) -> None:
    channel = new_name()
    leader = tabs.open()
    leader.follow(channel)
    tabs.context.add_init_script(IMPATIENT)
    other = tabs.open()
    other.follow(channel)
    dialogs: list[Any] = []
    leader.page.on("dialog", lambda dialog: dialogs.append(dialog))
    leader.page.evaluate("() => void setTimeout(() => alert('nothing else runs in this page meanwhile'))")
    until(lambda: other["state"] == "open" and dialogs, "the dialog")
    publish(site, (channel, "1"))
    other.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert other.await_data("1") == ["1"]
    dialogs[0].dismiss()
    publish(site, (channel, "2"))
    for tab in (leader, other):
        assert tab.await_data("2") == ["1", "2"]
    until(lambda: connections(site, channel) == 1, "one connection")


def test_module_foreign_broadcast_messages_change_nothing(tabs: Tabs, site: Server) -> None:
    channel = new_name()
    leader, other = tabs.open(), tabs.open()
    leader.follow(channel)
    other.follow(channel)
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
    publish(site, (channel, "1"))
    for tab in (leader, other):
        assert (tab.await_data("1"), tab["states"], tab["gaps"], tab["errors"]) == (["1"], ["open"], [], [])


def test_module_reconnect_delay_follows_retry_with_jitter_and_backoff(browser: Browser) -> None:
    with Server("gevent", "tests.apps.browser_module:app") as site:
        tabs = Tabs(browser.new_context(), site)
        tabs.context.add_init_script(WATCH_CLOCK)
        channel = new_name()
        tab = tabs.open()
        tab.follow(channel)
        tab.page.evaluate("waits.length = 0")
        post(site, f"/cut/{channel}", [{"channel": channel, "data": "1"}])
        tab.await_data("1")
        first, second = visits(site, channel)
        assert second["at"] - first["at"] >= 0.1
        assert tab.page.evaluate("waits") == [150]
        post(site, "/publish", [{"channel": channel, "data": "2", "retry": 40}])
        tab.await_data("2")
        site.kill()
        until(lambda: len(tab.page.evaluate("waits")) >= 5, "some failures")
        assert tab.page.evaluate("waits")[1:5] == [140, 240, 440, 840]
        assert tab["errors"] == []
        tabs.context.close()


def test_module_ids_of_a_stream_tell_the_channel_of_each_event(tabs: Tabs) -> None:
    text = "id: e-2,f-1\ndata: x\n\nid: e-2,f-2\ndata: y\n\nid: e-3,f-2\ndata: last\n\n"
    requests, messages = tabs.open().page.evaluate(LEAD, ["", text])
    assert requests == ["e-1,f-1"]
    assert messages == [["a", "e-2", "x"], ["b", "f-2", "y"], ["a", "e-3", "last"]]


def test_module_reconnects_where_dropped_events_hide_the_channel(tabs: Tabs) -> None:
    """The ids of a stream of many channels tell the channel of an event only if none was dropped between."""
    text = "retry: 0\nid: e-2,f-1\ndata: x\n\nid: e-4,f-2\ndata: last\n\n"
    requests, messages = tabs.open().page.evaluate(LEAD, ["", text])
    assert requests == ["e-1,f-1", "e-2,f-1"]
    assert messages == [["a", "e-2", "x"]]


FIELDS = st.sampled_from(["data", "event", "id", "retry", "", "other", "data ", "\ufeffdata"])
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("\u2028\x85\x0b\0 :"), max_size=8)
LINES = st.tuples(FIELDS, st.sampled_from(["", ":", ": ", ":  "]), TEXTS).map("".join) | st.just("")
ENDS = st.sampled_from(["\n", "\r", "\r\n", "\n\n", "\r\r", "\r\n\r\n"])
BLOCKS = st.lists(st.tuples(LINES, ENDS).map("".join), max_size=12).map("".join)
STREAMS = st.tuples(st.sampled_from(["", "\ufeff"]), BLOCKS).map("".join)


def test_module_silent_connection_ends_after_its_timeout(tabs: Tabs) -> None:
    page = tabs.open().page
    found = page.evaluate("""async () => {
        const { pump } = await import("./events/static/stream.js");
        const pieces = [], ended = [];
        const start = (controller) => controller.enqueue("a piece");
        const cancel = () => void ended.push("cancelled");
        await pump(new ReadableStream({ start, cancel }), 0.05, (piece) => pieces.push(piece) > 0);
        return [pieces, ended];
    }""")
    assert found == [["a piece"], ["cancelled"]]


def test_module_scripts_of_the_documentation_receive_their_events(tabs: Tabs, tmp_path: Path) -> None:
    blocks = blocks_of(ROOT / "docs" / "browser.rst")
    scripts = [block.text for block in blocks if "subscribe(" in block.text]
    (tmp_path / "app.py").write_text(modules_of(blocks)["app.py"])
    with Server("gevent", "app:app", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as site:
        for number, script in enumerate(scripts):
            before, after = ({"number": f"{number} {which}"} for which in ("before", "after"))
            post(site, "/orders", before)
            page = tabs.context.new_page()
            page.add_init_script("window.sent = []; console.log = (...words) => sent.push(JSON.stringify(words));")
            page.goto(f"{site.url}/orders")
            page.add_script_tag(content=script + "\nwindow.live = live;", type="module")
            page.wait_for_function("() => window.live?.state === 'open'")
            post(site, "/orders", after)
            expected = f"{number} after"
            until(lambda: [text for text in page.evaluate("sent") if expected in text], expected)  # noqa: B023
            page.close()
        site.kill()
    assert len(scripts) == 2


@pytest.fixture(scope="module")
def page(browser: Browser, site: Server) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(f"{site.url}/page")
    page.wait_for_function("() => !!window.follow")
    yield page
    page.close()


def cut(stream: bytes, places: list[int]) -> list[list[int]]:
    """Cut a stream into pieces, each a list of byte values."""
    inner = {place for place in places if place < len(stream)}
    return [list(stream[start:end]) for start, end in pairwise(sorted({0, len(stream)} | inner))]


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(STREAMS, st.binary(max_size=3), st.lists(st.integers(0, 200)) | st.just(list(range(200)))),
        min_size=10,
        max_size=20,
    )
)
@example([("\ufeffdata: a\r\ndata: b\u20ac\r\n\r\ndata: c\r\r", b"", list(range(200)))])
def test_module_decodes_streams_cut_anywhere_as_the_python_decoder_does(
    page: Page, streams: list[tuple[str, bytes, list[int]]]
) -> None:
    whole = [text.encode() + broken + b"\n\n" for text, broken, _ in streams]
    pieces = [cut(stream, places) for stream, (_, _, places) in zip(whole, streams, strict=True)]
    expected = [[[each.event or "message", each.data, each.id] for each in decode(stream)] for stream in whole]
    assert page.evaluate("streams => streams.map(decode)", pieces) == expected


def test_module_file_is_served_and_takes_no_channel_name(site: Server) -> None:
    with connected(site, "/events/static/sse-emitters.js") as client:
        assert client.response.status == 200
        assert client.response.headers["Content-Type"].partition(";")[0] in (
            "text/javascript",
            "application/javascript",
        )
        assert client.response.headers["Cache-Control"] == "no-cache"
        assert client.rest() == (STATIC / "sse-emitters.js").read_bytes()
        tag = client.response.headers["ETag"]
    with connected(site, "/events/static/sse-emitters.js", headers={"If-None-Match": tag}) as client:
        assert client.response.status == 304
    with connected(site, "/events/static/none.js") as client:
        assert client.response.status == 404
    with open_stream(app.test_client(), "/events?channel=static/sse-emitters.js") as stream:
        sse.publish("static/sse-emitters.js", "an event")
        assert [event.data for event in stream.ready()] == ["an event"]


def test_module_file_can_be_loaded_by_listed_origins() -> None:
    app = Flask(__name__)
    app.config["SSE_CORS_ORIGINS"] = ["https://app.example.com"]
    app.register_blueprint(SSE(app).blueprint)
    found = []
    for origin in ("https://app.example.com", "https://other.example.com"):
        with app.test_client().get("/events/static/leader.js", headers={"Origin": origin}) as response:
            found.append((response.status_code, response.headers.get("Access-Control-Allow-Origin")))
    assert found == [(200, "https://app.example.com"), (200, None)]


def test_module_types_pass_the_typescript_compiler() -> None:
    compiler = PACKAGES / "typescript" / "bin" / "tsc"
    if not compiler.exists():
        reason = "typescript is missing: apt-get install npm && make build/npm/.installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    options = "--allowJs --checkJs --strict --noEmit --target es2022 --lib es2022,dom,dom.iterable --module esnext"
    command = [program("node", "nodejs"), str(compiler), *options.split(), "--moduleResolution", "bundler"]
    done = subprocess.run([*command, str(STATIC / "sse-emitters.js")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
