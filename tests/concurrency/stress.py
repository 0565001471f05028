"""Many threads use one list in random order, and its invariants must hold.

The threads are greenlets if gevent has patched them.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Protocol

from flask_sse_emitters import CloseReason, SseEmitter, SseEmitters
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.testing import decode
from flask_sse_emitters.writers.response_body import ResponseBody
from tests.support.waiting import until
from tests.unit.doubles.clock import ManualScheduler, emitter_at

SENDERS = 16
CHURNERS = 16

#: 200,000 operations in all.
SENDS_EACH = 1_250
ADDS_EACH = 5_625
OPERATIONS = SENDERS * SENDS_EACH + CHURNERS * ADDS_EACH * 2

UNBOUNDED: dict[str, Any] = {"max_pending": 10**9, "max_pending_bytes": 10**12}


class Job(Protocol):
    def join(self) -> object: ...


def churn_and_send(yield_now: Callable[[], object], scale: float = 1.0) -> None:
    """Send to a list on 16 threads, while 16 others add emitters and complete them."""
    emitters = SseEmitters()
    # It stays, and so gets everything in the list's order. Its clock stands still, so it has no attach timeout.
    witness = emitters.add(emitter_at(ManualScheduler(), timeout=0, **UNBOUNDED))
    gone: list[SseEmitter] = []
    completions: Counter[int] = Counter()
    removals_seen: list[bool] = []

    def send(sender: int) -> None:
        for number in range(int(SENDS_EACH * scale)):
            assert emitters.send(f"{sender}:{number}") >= 1
            yield_now()

    def churn(_: int) -> None:
        window: deque[SseEmitter] = deque()
        for number in range(int(ADDS_EACH * scale)):
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
    sent = int(SENDS_EACH * scale)
    for sender in range(SENDERS):  # all events of a sender, in its order
        assert [text for text in order if text.startswith(f"{sender}:")] == [f"{sender}:{n}" for n in range(sent)]
    assert len(order) == len(set(order)) == SENDERS * sent, "an event twice or lost"
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


def texts_of(emitter: SseEmitter) -> list[str]:
    taken = []
    while payload := stream_of(emitter).next_output():
        taken.append(payload)
    return [event.data for event in decode(b"".join(taken))]


def run_all(jobs: list[tuple[Callable[[int], object], int]]) -> None:
    """Run each job on a thread of its own, and raise the first error."""
    errors: list[BaseException] = []

    def run(job: Callable[[int], object], argument: int) -> None:
        try:
            job(argument)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=job) for job in jobs]
    random.shuffle(threads)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
