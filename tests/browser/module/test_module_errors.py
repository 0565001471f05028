"""Channels that the server denies or refuses are errors of the browser module in their tabs, and the others go on."""

from __future__ import annotations

import pytest

from tests.browser.module.tabs import Tabs, await_all
from tests.support.client import new_name
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser_module"), pytest.mark.timeout(300)]

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


def test_module_denied_channel_is_an_error_in_its_tab_alone(tabs: Tabs) -> None:
    channels = [new_name(), new_name()]
    closed = [f"closed-{new_name()}", f"closed-{new_name()}"]
    stays = tabs.open()
    stays.follow(*channels)
    with tabs.publishing(*channels) as sent:
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
    await_all([stays], sent, *channels)
    until(lambda: other.data()[-1] in [data for name, data in sent[-2:] if name == channels[0]], "all of it")


def test_module_channel_denied_later_ends_in_all_tabs_and_others_go_on(tabs: Tabs) -> None:
    one, two, three = (new_name() for _ in range(3))
    for channels in ([one, two], [two, three], [one, three], [two]):
        tabs.open().follow(*channels)
    with tabs.publishing(one, two, three) as sent:
        until(lambda: len(tabs.all[0].data()) > 20, "some events")
        tabs.post(f"/close/{two}")
        for tab in (*tabs.all[:2], tabs.all[3]):
            until(lambda: tab["errors"] == [[two, 403, "Forbidden"]], "an error")  # noqa: B023 - called at once
    await_all([tabs.all[2]], sent, one, three)
    assert (tabs.all[2]["errors"], tabs.all[3]["state"]) == ([], "closed")
    expected = [data for name, data in sent if name == one]
    until(lambda: [data for name, _, data, _ in tabs.all[0]["received"] if name == one] == expected, "all of one")


def test_module_channels_beyond_the_request_line_are_refused_alone(tabs: Tabs) -> None:
    channels = [f"{new_name()}-{number}-{'x' * 140}" for number in range(30)]
    stays, tab = tabs.open(), tabs.open()
    stays.follow(channels[29])
    tab.follow(*channels)
    taken = tab["channels"]
    refused = [channel for channel in channels if channel not in taken]
    assert len(refused) > 5
    assert channels[29] in taken, "it was there before"
    assert sorted(tab["errors"]) == sorted([name, 414, tab["errors"][0][2]] for name in refused)
    tabs.publish((channels[29], "1"), (channels[0], "2"))
    assert tab.await_data("2") == ["1", "2"]
    assert (stays.await_data("1"), stays["errors"]) == (["1"], [])


@pytest.mark.parametrize(("times", "refused"), [(10_000, ["d", "c"]), (1, [])], ids=["always", "once"])
def test_module_refusal_of_many_channels_drops_the_last_if_it_repeats(
    times: int, refused: list[str], tabs: Tabs
) -> None:
    """If it does not, a token had expired, for example, and has been renewed meanwhile."""
    tab = tabs.open()
    tab.page.evaluate(REFUSING, [2, times])
    tab.follow("a", "b", "c", "d")
    assert tab["errors"] == [[channel, 414, "too long"] for channel in refused]
    assert tab["channels"] == ["a", "b", "c", "d"][: 4 - len(refused)]
