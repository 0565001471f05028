"""The endpoints of channels answer any request, keep nothing of it, and give away no secret."""

from __future__ import annotations

import math
import os
import random
import re
from collections import Counter

import pytest

from tests.apps.security import fuzzed as fuzz_app
from tests.security.fuzz.in_process import Faults, InProcess, kept
from tests.security.fuzz.over_sockets import OverSockets
from tests.security.fuzz.requests import PUBLISHER, Request
from tests.support.client import post
from tests.support.servers import Server
from tests.support.waiting import until

#: By hand ``FUZZ_REQUESTS=100000`` and ``FUZZ_RAW_REQUESTS=3000`` ask for more.
REQUESTS = int(os.environ.get("FUZZ_REQUESTS", 15_000))
RAW_REQUESTS = int(os.environ.get("FUZZ_RAW_REQUESTS", 1_500))

#: So many more of a class the garbage collector may find once all streams are over: nothing of what a stream has; of
#: timers, those that were cancelled; of the cache of pages, its size. The history of channels is bounded by its age.
MORE = {
    **dict.fromkeys(("SseEmitter", "Stream", "Limit"), 0),
    **dict.fromkeys(("Timer", "TimerQueue"), 500),
    **dict.fromkeys(("PageCache", "Page", "Output"), 100),
    "Log": math.inf,
}

#: And of every other class.
MORE_OF_OTHERS = 50

#: What gunicorn before 27 logs if it reads on behind a request, and the unread body is not in chunks.
NO_CHUNK = re.compile(
    r"^Traceback.*\n(?: (?!.*flask_sse_emitters).*\n)+gunicorn\.\S+\.InvalidChunkSize: ", re.MULTILINE
)


@pytest.fixture
def dice(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.mark.timeout(600)
def test_fuzz_requests_leave_no_error_no_stream_and_no_secret(dice: random.Random, seed: int) -> None:
    sse = fuzz_app.sse
    fuzz = InProcess(dice)
    check_that_limits_have_room(fuzz)
    before = kept()
    try:
        with Faults() as faults:
            for _ in range(REQUESTS):
                fuzz.step()
                assert faults == []
            fuzz.end()
            until(lambda: sse.stats()["clients"] == 0, "streams that were dropped to end")
            assert sse.stats()["channels"] == {}
            until(lambda: grown(before) == {}, "the last emitter to be freed")
            check_that_limits_have_room(fuzz)
            assert faults == []
    except BaseException as error:
        error.add_note(f"SEED={seed} repeats the requests. The last one: {fuzz.last}")
        error.add_note(f"More than before: {grown(before)}")
        raise
    print(sorted(fuzz.counts.items()), sse.stats())  # noqa: T201 - ``pytest -s`` shows it
    seen = {*fuzz.counts} >= {"200", "201", "204", "400", "401", "403", "404", "405", "413", "415", "events", "secrets"}
    assert seen or REQUESTS < 10_000, fuzz.counts


def grown(before: Counter[str]) -> dict[str, int]:
    """Return what there is more of than there may be."""
    more = kept() - before
    return {name: number for name, number in more.items() if number > MORE.get(name, MORE_OF_OTHERS)}


def check_that_limits_have_room(fuzz: InProcess) -> None:
    """Open as many streams as an address, a channel, and a person may have: none is still counted for a former one."""
    refused = fuzz_app.sse.stats()["refused"]
    for path, credential, number in [(b"news", b"", 8), (b"a/b", b"", 3), (b"~", PUBLISHER[0], 3)]:
        headers = [(b"Authorization", b"Bearer " + credential)] if credential else []
        for _ in range(number):
            fuzz.ask(Request(b"GET", b"/events/" + path, b"", headers, b"", b"HTTP/1.1"))
        assert fuzz_app.sse.stats()["clients"] == number
        fuzz.end()
        until(lambda: fuzz_app.sse.stats()["clients"] == 0, "the streams to end")
    assert fuzz_app.sse.stats()["refused"] == refused


def test_fuzz_real_server_answers_any_bytes_and_keeps_nothing(dice: random.Random, seed: int) -> None:
    with Server("gevent", "tests.apps.security.fuzzed:app") as server:
        fuzz = OverSockets(server, dice)
        try:
            sent = 0
            while sent < RAW_REQUESTS:
                sent += fuzz.step()
            fuzz.end()
            until(lambda: post(server, "/steer")["clients"] == 0, "the streams to end")
        except BaseException as error:
            error.add_note(f"SEED={seed} repeats the requests")
            error.add_note(f"The last bytes: {fuzz.last!r}\nThe server's log: {server.log[-5000:]}")
            raise
        log = NO_CHUNK.sub("", server.log)
        assert "Traceback" not in log, log[-5000:]
        print(sorted(fuzz.counts.items()), post(server, "/steer"))  # noqa: T201 - ``pytest -s`` shows it
    seen = {*fuzz.counts} >= {"200", "201", "400", "401", "403", "404", "405", "streams", "secrets"}
    assert seen or RAW_REQUESTS < 1_500, fuzz.counts
