"""The endpoints of channels answer any request, keep nothing of it, and give away no secret."""

from __future__ import annotations

import gc
import logging
import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flask_sse_emitters.runtime.scheduler import SCHEDULER
from tests.apps import fuzzed as fuzz_app
from tests.security.fuzz.requests import Faults, InProcess, OverSockets
from tests.support.client import post
from tests.support.servers import Server
from tests.support.waiting import until

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", 100_000))
RAW_REQUESTS = int(os.environ.get("FUZZ_RAW_REQUESTS", 3_000))


#: What gunicorn before 27 logs if it reads on behind a request, and the unread body is not in chunks.
NO_CHUNK = re.compile(
    r"^Traceback.*\n(?: (?!.*flask_sse_emitters).*\n)+gunicorn\.\S+\.InvalidChunkSize: ", re.MULTILINE
)


# The parts of requests: valid ones, and ones that are nearly valid or have broken other servers.


@pytest.fixture
def faults() -> Iterator[list[str]]:
    handler, root = Faults(), logging.getLogger()
    root.addHandler(handler)
    yield handler.messages
    root.removeHandler(handler)


@contextmanager
def seeded() -> Iterator[random.Random]:
    """Yield dice with a new seed, or that of the environment. A failure names its seed."""
    seed = int(os.environ.get("FUZZ_SEED", 0)) or random.SystemRandom().randrange(1, 2**32)
    try:
        yield random.Random(seed)
    except BaseException as error:
        error.add_note(f"FUZZ_SEED={seed} repeats the requests")
        raise


@pytest.mark.timeout(600)
def test_fuzz_100000_requests_leave_no_error_no_stream_and_no_secret(faults: list[str]) -> None:
    sse = fuzz_app.sse
    state = sse.find_state()
    timers = len(list(SCHEDULER._timers))
    with seeded() as dice:
        fuzz = InProcess(dice)
        try:
            for _ in range(REQUESTS):
                fuzz.step()
                assert faults == []
        except BaseException as error:
            error.add_note(f"The last request: {fuzz.last}")
            raise
        fuzz.end()
        until(lambda: sse.stats()["clients"] == 0, "streams that were dropped to end")
        until(lambda: not SCHEDULER.is_calling, "the last callbacks")
        until(lambda: gc.collect() >= 0 and not len(fuzz.emitters), "the last emitter to be freed")
        assert (state.streams._open, state.streams._owned, state.streams._limits) == ({}, {}, {})
        assert (list(state.channels._subscriptions), state.revocations._pending) == ([], {})
        assert len(list(SCHEDULER._timers)) <= timers + 10
        until(lambda: not SCHEDULER._timers.has_many_cancelled, "cancelled timers to be dropped")
        assert faults == []
    print(sorted(fuzz.counts.items()), sse.stats())  # noqa: T201 - ``pytest -s`` shows it
    seen = {*fuzz.counts} >= {"200", "201", "204", "400", "401", "403", "404", "405", "413", "415", "pieces", "secrets"}
    assert seen or REQUESTS < 50_000, fuzz.counts


def test_fuzz_real_server_answers_any_bytes_and_keeps_nothing() -> None:
    with seeded() as dice, Server("gevent", "tests.apps.fuzzed:app") as server:
        fuzz = OverSockets(server, dice)
        try:
            sent = 0
            while sent < RAW_REQUESTS:
                sent += fuzz.step()
            fuzz.end()
            until(lambda: post(server, "/steer")["clients"] == 0, "the streams to end")
        except BaseException as error:
            error.add_note(f"The last bytes: {fuzz.last!r}\nThe server's log: {server.log[-5000:]}")
            raise
        log = NO_CHUNK.sub("", server.log)
        assert "Traceback" not in log, log[-5000:]
        print(sorted(fuzz.counts.items()), post(server, "/steer"))  # noqa: T201 - ``pytest -s`` shows it
    seen = {*fuzz.counts} >= {"200", "201", "400", "401", "403", "404", "405", "streams", "secrets"}
    assert seen or RAW_REQUESTS < 3_000, fuzz.counts
