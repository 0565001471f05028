"""Where a subscription begins, and when the browser module reports a gap: once, to those alone that missed events."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.browser.module.tabs import Tabs, new_site, tabs_of
from tests.support.client import new_name
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]

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


def test_module_since_replays_after_its_id_and_disturbs_no_other_tab(tabs: Tabs) -> None:
    channel = new_name()
    ids = tabs.publish(*((channel, str(number)) for number in range(5)))
    tab, other = tabs.open(), tabs.open()
    tab.follow(channel)
    other.follow(channel, since={channel: ids[1]})
    other.await_data("4")
    tab.follow(channel, name="second", since={channel: ids[3]})
    tabs.publish((channel, "5"))
    assert tab.await_data("5") == ["5"]
    assert tab.await_data("5", "second") == ["4", "5"]
    assert other.await_data("5") == ["2", "3", "4", "5"]
    assert [each[3] for each in other["received"]][:3] == ids[2:]
    assert tab["gaps"] == tab["gaps", "second"] == other["gaps"] == []


@pytest.mark.parametrize(
    ("order", "since"),
    [
        ("alone", "beyond the newest"),
        ("before another", "beyond the newest"),
        ("after another", "beyond the newest"),
        ("after another", "nonsense"),
        ("after another", "aaaaa-7"),
        ("beside another in one tab", "beyond the newest"),
    ],
)
def test_module_unknown_since_is_a_gap_for_its_subscription_alone(order: str, since: str, tabs: Tabs) -> None:
    channel = new_name()
    ids = tabs.publish((channel, "0"), (channel, "1"))
    wrong = ids[1].replace("-2", "-999") if since == "beyond the newest" else since
    tab = tabs.open()
    other = tab if order.startswith("beside") else tabs.open()
    if order.startswith(("after", "beside")):
        other.follow(channel, name="other")
    tab.follow(channel, since={channel: wrong})
    assert tab.await_data("1") == ["0", "1"]
    if order.startswith("before"):
        other.follow(channel, name="other")
    tabs.publish((channel, "2"))
    assert (tab.await_data("2"), tab["gaps"]) == (["0", "1", "2"], [[channel]])
    if order != "alone":
        assert (other.await_data("2", "other"), other["gaps", "other"]) == (["2"], [])
    assert [each[3] for each in tab["received"]][:2] == ids


def test_module_since_ahead_of_the_stream_is_no_gap_if_its_event_exists(tabs: Tabs) -> None:
    """The event was published just now, and the page got its id before the stream brought it."""
    page = tabs.open().page
    found = page.evaluate(CLAIM, "e-6")
    assert found == {"requests": ["e-5", "0-0"], "gaps": []}
    found = page.evaluate(CLAIM, "e-7")
    assert found["gaps"] == [{"type": "gap", "term": 1, "at": [["a", "e-2"]], "newest": [["a", "e-6"]]}]
    assert found["requests"] == ["e-5", "0-0", "e-2"], "the stream begins again where the gap points"


#: The later streams of a server whose newest event is at 40, while the page was at 100.
WENT_BACK = """event: gap
data: {"requested":"e-100","oldest":"e-39","newest":"e-40"}

id: e-38

id: e-39
data: 39

id: e-40
data: 40

id: e-41
data: last

"""


@pytest.mark.parametrize(
    ("first", "later", "data", "gaps"),
    [
        ("id: e-100\n\n", WENT_BACK, ["39", "40", "last"], [["a"]]),
        ("id: e-1\n\n", "id: e-2\ndata: 2\n\nid: f-3\ndata: 3\n\nid: f-4\ndata: last\n\n", ["2", "3", "last"], []),
    ],
    ids=["went back", "began another epoch within a stream"],
)
def test_module_server_that_went_back_brings_a_gap_to_all_tabs(
    first: str, later: str, data: list[str], gaps: list[list[str]], tabs: Tabs
) -> None:
    for stream in (first, "never"):
        tab = tabs.open()
        tab.page.evaluate(MADE_UP, [stream, later])
        tab.follow("a")
    tabs.all[0].page.evaluate("end()")
    for tab in tabs.all:
        assert (tab.await_data("last"), tab["gaps"]) == (data, gaps)


def test_module_gap_is_reported_once_per_tab_with_its_channels(browser: Browser) -> None:
    with new_site(SSE_HISTORY=5) as site, tabs_of(browser, site) as tabs:
        busy, quiet = new_name(), new_name()
        tabs.follow(3, busy, quiet)
        sent = [{"channel": busy, "data": str(number)} for number in range(10)]
        tabs.post(f"/cut/{busy}", [*sent, {"channel": quiet, "data": "quiet"}])
        for tab in tabs.all:
            assert sorted(tab.await_data("quiet")) == ["5", "6", "7", "8", "9", "quiet"]
            assert tab["gaps"] == [[busy]]
        site.kill()
        site.start()
        until(lambda: tabs.state()["channels"] == {busy: 1, quiet: 1}, "the tabs to reconnect")
        tabs.publish((busy, "new"))
        for tab in tabs.all:
            assert tab.await_data("new")[-1] == "new"
            assert [sorted(gap) for gap in tab["gaps"]] == [[busy], sorted([busy, quiet])]
            assert tab["states"] == ["open", "connecting", "open", "connecting", "open"]
