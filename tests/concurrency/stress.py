"""Many threads use one list in random order, and its invariants must hold.

The threads are greenlets if gevent has patched them.
"""

from __future__ import annotations

import os
import random
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from flask_sse_emitters import CloseReason, SseEmitter, SseEmitters
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.testing import decode
from flask_sse_emitters.writers.response_body import ResponseBody
from tests.support.waiting import until
from tests.unit.doubles.clock import ManualScheduler, emitter_at
from tests.unit.doubles.writer import texts_of

SENDERS = 16
CHURNERS = 16

#: Operations of all threads: sends, additions and completions. ``STRESS_OPERATIONS=200000`` runs more by hand.
OPERATIONS = int(os.environ.get("STRESS_OPERATIONS", "40000"))
SENDS_EACH = OPERATIONS // 10 // SENDERS
ADDS_EACH = (OPERATIONS - SENDS_EACH * SENDERS) // 2 // CHURNERS

UNBOUNDED: dict[str, Any] = {"max_pending": 10**9, "max_pending_bytes": 10**12}


class Job(Protocol):
    def join(self) -> object: ...


def churn_and_send(yield_now: Callable[[], object]) -> None:
    """Send to a list on 16 threads, while 16 others add emitters and complete them."""
    emitters = SseEmitters()
    # It stays, and so gets everything in the list's order. Its clock stands still, so it has no attach timeout.
    witness = emitters.add(emitter_at(ManualScheduler(), timeout=0, **UNBOUNDED))
    gone: list[SseEmitter] = []
    completions: Counter[int] = Counter()
    removals_seen: list[bool] = []

    def send(sender: int) -> None:
        for number in range(SENDS_EACH):
            assert emitters.send(f"{sender}:{number}") >= 1
            yield_now()

    def churn(_: int) -> None:
        window: deque[SseEmitter] = deque()
        for number in range(ADDS_EACH):
            emitter = SseEmitter(timeout=0, **UNBOUNDED)
            emitter.on_completion(lambda emitter=emitter: completions.update([id(emitter)]))
            assert emitters.add(emitter) is emitter
            window.append(emitter)
            if len(window) > 4:
                window.popleft().complete()
            gone.append(emitter)
            if not number % 8:
                yield_now()
        for emitter in window:
            emitter.complete()
            removals_seen.append(emitter not in emitters)

    run_all([(send, n) for n in range(SENDERS)] + [(churn, n) for n in range(CHURNERS)])
    until(lambda: not emitters._delivery._is_passing, "the last events to be delivered")

    order = texts_of(witness)
    for sender in range(SENDERS):  # all events of a sender, in its order
        assert [text for text in order if text.startswith(f"{sender}:")] == [f"{sender}:{n}" for n in range(SENDS_EACH)]
    assert len(order) == len(set(order)) == SENDERS * SENDS_EACH, "an event twice or lost"
    place = {text: position for position, text in enumerate(order)}
    for emitter in gone:
        got = [place[text] for text in texts_of(emitter)]
        assert not got or got == list(range(got[0], got[0] + len(got))), "out of order, twice, or lost while open"
        assert emitter.close_reason is CloseReason.COMPLETED
    assert all(removals_seen)
    until(lambda: len(completions) == len(gone), "the callbacks")
    assert set(completions.values()) == {1}, "a callback twice"

    emitters.complete()
    until(lambda: not len(emitters), "the list to be empty")
    assert witness.close_reason is CloseReason.COMPLETED


def publish_to_streams(spawn: Callable[[Callable[[], object]], Job], consumers: int, senders: int, each: int) -> None:
    """Read streams as a server does while others send: each gets everything, in one order."""
    emitters = SseEmitters()
    read: list[list[str]] = []

    def consume(_: int) -> None:
        emitter = emitters.add(SseEmitter(timeout=0, **UNBOUNDED))
        stream = ResponseBody(stream_of(emitter), b": hello\n\n", {}, "off")
        body = b"".join(stream)
        stream.close()
        read.append([event.data for event in decode(body)])

    def direct() -> None:
        until(lambda: len(emitters) == consumers, "the streams")
        jobs = [spawn(lambda sender=sender: send(sender)) for sender in range(senders)]  # type: ignore[misc]
        for job in jobs:
            job.join()
        emitters.complete()

    def send(sender: int) -> None:
        for number in range(each):
            emitters.send(f"{sender}:{number}")

    run_all([(consume, n) for n in range(consumers)] + [(lambda _: direct(), 0)])
    assert len(read) == consumers
    assert all(texts == read[0] for texts in read)
    assert len(read[0]) == len(set(read[0])) == senders * each


def run_all(jobs: list[tuple[Callable[[int], object], int]]) -> None:
    """Run each job on a thread of its own, and raise the first error."""
    random.shuffle(jobs)
    with ThreadPoolExecutor(len(jobs)) as pool:
        for result in [pool.submit(job, argument) for job, argument in jobs]:
            result.result()
