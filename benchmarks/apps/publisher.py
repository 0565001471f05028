"""Publishes through this package from a process of its own, as a job does that serves no streams.

With a port in ``BENCH_POST_TO`` it posts to the server there instead, each event on a connection of its own: what is in
the memory of one process is published there.

Usage: python -m benchmarks.apps.publisher THREADS SIZE. Each line ``FIRST COUNT RATE CHANNEL CHANNELS BEGIN`` has it
publish so many events, that many a second (0: as fast as it can), from this moment of the monotonic clock on. It
answers with one line of JSON.

Each event has its number and the time at which it was published in its data, and goes to one of the channels: that of
its number, as the load client knows it, too (``channel_for`` in ``load.c``). A channel belongs to one thread, so that
its events keep their order.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Callable

from flask import Flask

from flask_sse_emitters import SSE

from .events import stamped

_BITS = 2**64 - 1

app = Flask(__name__)
app.config.from_prefixed_env("BENCH")  # BENCH_SSE_BROKER_URL, ...
sse = SSE(app)


def post(channel: str, data: str) -> None:
    """Have the server publish."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["BENCH_POST_TO"]), timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", f"/publish/{channel}", data)
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"the server answered {answer.status} to a post")


publish: Callable[[str, str], object] = post if "BENCH_POST_TO" in os.environ else sse.publish


def mixed(number: int) -> int:
    """splitmix64"""
    number = (number + 0x9E3779B97F4A7C15) & _BITS
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _BITS
    return number ^ (number >> 31)


class Run:
    """One line's work."""

    def __init__(
        self, size: int, first: int, count: int, rate: float, channel: str, channels: int, begin: float
    ) -> None:
        self._size = size
        self._numbers = range(first, first + count)
        self._rate = rate
        self._channel = channel
        self._channels = channels
        self._begin = begin
        self.latest = 0.0  #: seconds by which an event was too late
        self.errors: list[BaseException] = []

    def publish(self, thread: int, threads: int) -> None:
        try:
            for place, number in enumerate(self._numbers):
                index = mixed(number) % self._channels
                if index % threads == thread:
                    self._await_turn(place)
                    publish(self._channel.replace("*", str(index)), stamped(number, self._size))
        except Exception as error:
            self.errors.append(error)

    def _await_turn(self, place: int) -> None:
        turn = self._begin + (place / self._rate if self._rate else 0.0)
        rest = turn - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        elif self._rate:
            self.latest = max(self.latest, -rest)


def main() -> None:
    threads, size = int(sys.argv[1]), int(sys.argv[2])
    for line in sys.stdin:
        first, count, rate, channel, channels, begin = line.split()
        run = Run(size, int(first), int(count), float(rate), channel, int(channels), float(begin))
        cpu = time.process_time()
        helpers = [threading.Thread(target=run.publish, args=(number, threads)) for number in range(threads)]
        for helper in helpers:
            helper.start()
        for helper in helpers:
            helper.join()
        answer = {
            "seconds": time.monotonic() - float(begin),
            "cpu_seconds": time.process_time() - cpu,
            "latest": run.latest,
            "error": str(run.errors[0]) if run.errors else None,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
