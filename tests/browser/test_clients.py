"""Popular clients are cut in every way, reconnect with their last id, and miss nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser

from tests.apps.browser.clients import RETRY
from tests.browser.clients import CLIENTS, Client, Follower, find_package
from tests.support.client import new_name, post, state
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

#: States of an ``EventSource``.
CONNECTING, OPEN = 0, 1

in_browser = pytest.mark.xdist_group("browser")


def clients(fits: Callable[[Client], bool] = lambda _: True) -> pytest.MarkDecorator:
    """Run the test with each of the clients that it fits."""
    return pytest.mark.parametrize(
        "name",
        [pytest.param(name, marks=in_browser if each.is_page else ()) for name, each in CLIENTS.items() if fits(each)],
    )


@pytest.fixture(scope="module")
def site() -> Iterator[Server]:
    with Server("gevent", "tests.apps.browser.clients:app") as site:
        yield site


Start = Callable[..., AbstractContextManager[Follower]]


@pytest.fixture
def follow(start: Start) -> Start:
    """``with follow(name, site, channels) as follower``: a client reads, from after the id ``since``."""

    def follow(
        name: str, site: Server, channels: Sequence[str], *options: str, since: str = ""
    ) -> AbstractContextManager[Follower]:
        query = [("channel", channel) for channel in channels[1:]] + [("lastEventId", since)] * bool(since)
        path = f"/events/{channels[0]}"
        if len(channels) > 1:
            path, query = "/events", [("channel", channels[0]), *query]
        return start(CLIENTS[name], f"{site.url}{path}?{urlencode(query)}".rstrip("?"), site, *options)

    return follow


def publish(site: Server, channels: Sequence[str], *numbers: int) -> list[str]:
    ids: list[str] = post(site, "/publish", {"channels": channels, "numbers": numbers})
    return ids


def cut(site: Server, how: str, channels: Sequence[str], *numbers: int, next_id: str = "") -> dict[str, Any]:
    """Cut all clients of the channels; the numbers are published before they can reconnect."""
    wanted = {"channels": channels, "numbers": numbers, "next_id": next_id}
    done: dict[str, Any] = post(site, f"/cut/{how}", wanted)
    assert done["cut"] > 0
    return done


def visits(site: Server, channels: Sequence[str]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = state(site, channels[0])["visits"]
    return made


def await_clients(site: Server, channels: Sequence[str], visits: int = 1, clients: int = 1) -> None:
    """Wait for this many visits, and for this many clients that wait for events."""

    def are_there() -> bool:
        now = state(site, channels[0])
        return len(now["visits"]) >= visits and now["waiting"] == clients

    until(are_there, f"{clients} clients after {visits} visits")


def position(visit: dict[str, Any]) -> str | None:
    """Return the id after which a client asked to go on."""
    assert len(visit["query"]) <= 1
    return visit["header"] or next(iter(visit["query"]), None)


def numbers(follower: Follower) -> list[int]:
    received = follower.received()
    assert {each.event for each in received} <= {"message"}
    return [int(each.data) for each in received]


def await_number(follower: Follower, number: int) -> list[int]:
    """Return all numbers received, once this one is among them."""
    return until(lambda: found if number in (found := numbers(follower)) else [], f"number {number}")


@pytest.mark.parametrize("count", [1, 2], ids=["ended and halfway", "reset, two channels"])
@clients()
def test_client_that_is_cut_reconnects_and_gets_every_event_once(
    name: str, count: int, site: Server, follow: Start
) -> None:
    channels = [new_name() for _ in range(count)]
    halfway = "halfway" if CLIENTS[name].drops_halves else "break"  # else it would miss the event
    with follow(name, site, channels) as follower:
        await_clients(site, channels)
        ids = publish(site, channels, 1, 2, 3)
        await_number(follower, 3)
        for number, how in enumerate(["reset"] if count == 2 else ["end", halfway], 1):
            epoch, _, newest = ids[-1].rpartition("-")
            done = cut(site, how, channels, 3 * number + 1, 3 * number + 2, next_id=f"{epoch}-{int(newest) + 1}")
            ids += done["ids"]
            await_number(follower, 3 * number + 2)
            await_clients(site, channels, visits=number + 1)
            ids += publish(site, channels, 3 * number + 3)
            found = await_number(follower, 3 * number + 3)
            received = follower.received()
            last, visit = visits(site, channels)[number - 1 :]
            assert position(visit) == received[3 * number - 1].id != position(last)
            if CLIENTS[name].heeds_retry:
                assert visit["at"] - done["at"] > RETRY / 1000 - 0.02
    assert found == list(range(1, len(ids) + 1))
    if count == 1:
        assert [each.id for each in received] == ids


@pytest.mark.parametrize("first", ["nothing", "an event without an id"])
@clients()
def test_client_cut_before_its_first_id_replays_if_it_takes_a_bare_id(
    name: str, first: str, site: Server, follow: Start
) -> None:
    channels = [new_name()]
    has_event = first != "nothing"
    with follow(name, site, channels) as follower:
        await_clients(site, channels)
        if has_event:
            post(site, f"/greet/{channels[0]}", 0)
            await_number(follower, 0)
        cut(site, "break" if has_event else "end", channels, 1, 2)
        await_clients(site, channels, visits=2)
        publish(site, channels, 3)
        found = await_number(follower, 3)
    replays = CLIENTS[name].takes_bare_id in ("at once", "with an event" if has_event else "at once")
    assert found == [0] * has_event + ([1, 2, 3] if replays else [3])


@clients(lambda client: client.takes_bare_id != "at once")
def test_client_without_bare_ids_replays_from_last_event_id_in_its_url(name: str, site: Server, follow: Start) -> None:
    channels = [new_name()]
    [since] = publish(site, channels, 0)
    with follow(name, site, channels, since=since) as follower:
        await_clients(site, channels)
        cut(site, "end", channels, 1, 2)
        await_number(follower, 2)
        await_clients(site, channels, visits=2)
        cut(site, "break", channels, 3, 4)
        await_number(follower, 4)
        await_clients(site, channels, visits=3)
        publish(site, channels, 5)
        assert await_number(follower, 5) == [1, 2, 3, 4, 5]
        received = follower.received()
    assert [position(visit) for visit in visits(site, channels)] == [since, since, received[1].id]


@pytest.mark.parametrize("name", [pytest.param("fetch-event-source", marks=in_browser), "launchdarkly-eventsource"])
def test_client_that_must_be_configured_to_reconnect_stays_away_otherwise(
    name: str, site: Server, follow: Start
) -> None:
    channels = [new_name()]
    with follow(name, site, channels, "stay-away") as follower:
        await_clients(site, channels)
        publish(site, channels, 1)
        await_number(follower, 1)
        cut(site, "end", channels, 2)
        until(follower.is_over, "the end of the client")
        assert numbers(follower) == [1]
    assert len(visits(site, channels)) == 1


@in_browser
def test_client_event_source_polyfill_reconnects_after_45_s_of_silence(browser: Browser, site: Server) -> None:
    client = CLIENTS["event-source-polyfill"]
    find_package(client)
    with browser.new_context() as context:
        page = context.new_page()
        page.clock.install(time=0)
        page.clock.pause_at(3600)  # from here on, its time passes only in the steps below
        page.goto(f"{site.url}/pages/{client.file}?{urlencode({'url': f'{site.url}/silent'})}")
        until(lambda: page.evaluate("received.length") == 1, "all that comes: the silence begins")
        page.clock.run_for(44_900)
        assert page.evaluate("stream.readyState") == OPEN
        page.clock.run_for(200)
        assert page.evaluate("stream.readyState") == CONNECTING
        page.clock.run_for(1_000)  # its shortest retry
        until(lambda: page.evaluate("received.length") == 2, "the next stream")


@in_browser
def test_clients_all_reconnect_after_a_restart_and_get_a_gap(follow: Start) -> None:
    channels = [new_name()]
    patient = ["--graceful-timeout", "5"]
    with Server("gevent", "tests.apps.browser.clients:app", arguments=patient) as site, ExitStack() as stack:
        followers = {name: stack.enter_context(follow(name, site, channels)) for name in CLIENTS}
        await_clients(site, channels, clients=len(CLIENTS))
        publish(site, channels, 1)
        for follower in followers.values():
            await_number(follower, 1)
        site.stop()
        site.start()
        await_clients(site, channels, clients=len(CLIENTS))
        publish(site, channels, 2)

        def found() -> dict[str, list[str]]:
            return {
                name: [each.data if each.event == "message" else each.event for each in follower.received()]
                for name, follower in followers.items()
            }

        until(lambda: all("2" in each for each in found().values()), "the second event")
        assert found() == {name: ["1", "gap", "2"] for name in CLIENTS}
