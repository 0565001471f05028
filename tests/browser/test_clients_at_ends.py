"""What clients of others do when a stream ends for now, for good, or breaks, and when they are answered 204 or 503.

The table of docs/browser.rst says the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser

from tests.browser.readers import OVER, PROGRAMS, Reader, as_program, bundle, in_page
from tests.support.client import get, new_name, post
from tests.support.servers import ROOT, Server
from tests.support.waiting import until

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.timeout(300)]

#: The last id of a first event, and that of an end for good; a request without one is None.
FIRST, END = "id-1", "~end"

#: The answers to the first requests of a stream. To stay is to send an event, and to end no more.
PLANS = {
    "clean": "clean-stay",
    "cut": "cut-stay",
    "final": "final-stay",
    "204": "cut-nothing-stay",
    "503": "cut-busy-stay",
}


class Does(NamedTuple):
    """The last ids with which a client comes back, and OVER where it gives up."""

    clean: list[str | None]
    cut: list[str | None]
    final: list[str | None]
    none: list[str | None]
    busy: list[str | None]
    #: Whether it takes the stream's greeting, and each heartbeat, for an event.
    has_empty_messages: bool = False
    sees_gaps: bool = True

    def in_words(self) -> list[str]:
        """Return it as docs/browser.rst has it."""
        words: dict[tuple[str | None, ...], str] = {
            (FIRST,): "back",
            (OVER,): "stops",
            (END, OVER): "204",
            (END, None): "anew",
        }
        after: dict[tuple[str | None, ...], str] = {
            (FIRST, FIRST): "back",
            (FIRST, OVER): "stops",
            (FIRST, None): "anew",
        }
        ends = [words[tuple(each)] for each in (self.clean, self.cut, self.final)]
        answers = [after[tuple(each)] for each in (self.none, self.busy)]
        return ["message" if self.has_empty_messages else "none", "yes" if self.sees_gaps else "no", *ends, *answers]


EVENT_SOURCE = Does([FIRST], [FIRST], [END, OVER], [FIRST, OVER], [FIRST, OVER])

CLIENTS = {
    "native": EVENT_SOURCE,
    "eventsource": EVENT_SOURCE,
    "vueuse": EVENT_SOURCE,
    "turbo": EVENT_SOURCE._replace(sees_gaps=False),
    "vueuse-reconnecting": EVENT_SOURCE._replace(final=[END, None], none=[FIRST, None], busy=[FIRST, None]),
    "eventsource-client": EVENT_SOURCE._replace(busy=[FIRST, FIRST]),
    "fetch-event-source": Does([OVER], [FIRST], [OVER], [FIRST, FIRST], [FIRST, FIRST], has_empty_messages=True),
    "fetch-event-source-told": Does([FIRST], [FIRST], [OVER], [FIRST, OVER], [FIRST, FIRST]),
    "react-eventsource": Does([OVER], [FIRST], [OVER], [FIRST, OVER], [FIRST, OVER], has_empty_messages=True),
    "htmx2": Does([FIRST], [FIRST], [OVER], [FIRST, None], [FIRST, None]),
    "htmx2-resuming": Does([FIRST], [FIRST], [OVER], [FIRST, OVER], [FIRST, FIRST]),
    "htmx4": Does([FIRST], [FIRST], [OVER], [FIRST, FIRST], [FIRST, FIRST]),
    "datastar": Does([OVER], [FIRST], [OVER], [FIRST, OVER], [FIRST, OVER], sees_gaps=False),
}


#: The rows of the table in docs/browser.rst, without "npm".
ROWS = {
    "``EventSource``": "native",
    "``eventsource``": "eventsource",
    "Turbo": "turbo",
    "``@vueuse/core``": "vueuse",
    "... with ``autoReconnect``": "vueuse-reconnecting",
    "``eventsource-client``": "eventsource-client",
    "``@microsoft/fetch-event-source``": "fetch-event-source",
    "... with the lines below": "fetch-event-source-told",
    "``react-eventsource``": "react-eventsource",
    "htmx 2 with ``htmx-ext-sse``": "htmx2",
    "... with our ``createEventSource``": "htmx2-resuming",
    "htmx 4 with ``hx-sse``": "htmx4",
    "Datastar": "datastar",
}


def test_client_table_of_the_docs_says_what_was_tested() -> None:
    table = (ROOT / "docs" / "browser.rst").read_text().partition("\n.. _clients-and-ends:\n")[2]
    rows = [row.split("\n     - ") for row in re.findall(r"^   \* - (.*(?:\n     - .*)+)", table, re.M)]
    written = {name: row[1:8] for row in rows[1:] for name in re.sub("npm ", "", row[0]).split(", ")}
    assert written == {row: CLIENTS[name].in_words() for row, name in ROWS.items()}


@pytest.fixture(scope="module")
def site() -> Iterator[Server]:
    with Server("gevent", "tests.apps.browser.ends:app") as site:
        yield site


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    bundle(folder)
    return folder


@pytest.mark.parametrize("name", CLIENTS)
def test_client_library_does_what_the_docs_say_after_each_end(
    name: str, site: Server, scripts: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Greeting, ids, gap, clean end, cut, an end for good, 204 and 503."""
    does = CLIENTS[name]
    wanted = dict(zip(PLANS, (does.clean, does.cut, does.final, does.none, does.busy), strict=True))
    reader: AbstractContextManager[Reader]
    if name in PROGRAMS:
        reader = as_program(name, scripts, tmp_path / "output")
    else:
        browser: Browser = request.getfixturevalue("browser")
        reader = in_page(name, site, browser, scripts)
    with reader as client:
        if does.sees_gaps:
            number = client.follow(f"{site.url}/events/{new_name()}?lastEventId=unknown-1")
            until(lambda: "gap" in [told[0] for told in client.told(number)], "the gap")
        found = {}
        for what, plan in PLANS.items():
            stream = new_name()
            number = client.follow(f"{site.url}/planned/{stream}/{plan}?form={name}&target=t{stream}")
            found[what] = stream, number
            until(partial(has_settled, client, number), f"what follows {what}")
        seen = {}
        for what, (stream, number) in found.items():
            first = client.told(number)[0]
            assert first[2] == ("" if does.has_empty_messages else "answer 1"), what
            seen[what] = get(site, f"/visits/{stream}")[1:] + [OVER] * (OVER in client.told(number))
    assert seen == wanted


def has_settled(client: Reader, number: int) -> bool:
    """Return whether a client has given up, or come back to a stream that stays."""
    told = client.told(number)
    return OVER in told or any(each[2] in ("answer 2", "answer 3") for each in told)


@pytest.fixture(scope="module")
def model_clients(scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reader]]:
    """Programs that read the answers of language models."""
    folder = tmp_path_factory.mktemp("output")
    with as_program("openai", scripts, folder / "openai") as openai, as_program("ai", scripts, folder / "ai") as ai:
        yield {"openai": openai, "ai": ai}


def words_of(told: list[list[str] | str]) -> list[str]:
    """Return the words that a client of a model shows: openai's come one by one, the AI SDK has all so far."""
    shown = [each[2] for each in told if each[0] in ("chunk", "words")]
    return (shown[-1].split() if told and told[0][0] == "words" else [word for word in shown if word]) if shown else []


@pytest.mark.parametrize("name", ["openai", "ai"])
@pytest.mark.parametrize("how", ["whole", "fail", "tell"])
def test_model_client_gets_each_word_at_once_and_sees_how_it_ends(
    name: str, how: str, site: Server, model_clients: dict[str, Reader]
) -> None:
    """Neither comments nor heartbeats disturb it; a break is an error, and what on_error says is shown."""
    client, stream = model_clients[name], new_name()
    number = client.follow(f"{site.url}/?model=m&user={stream}&text=one+two+{how}")
    until(lambda: words_of(client.told(number)) == ["one", "two", how], "the words, while the answer goes on")
    assert OVER not in client.told(number)
    post(site, f"/open/{stream}")

    def ends() -> list[list[str] | str]:
        return [each for each in client.told(number) if each == OVER or each[0] == "error"]

    [end] = until(ends, "the end")
    assert words_of(client.told(number)) == ["one", "two", how]
    if how == "whole":
        assert end == OVER
    else:
        assert end[0] == "error"
        assert end[2] == ("terminated" if how == "fail" else "upstream")
