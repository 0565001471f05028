"""Publishers that retry until each event is confirmed, so that it is certain what was published."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import urlencode

from flask import Flask

from flask_sse_emitters import SSE, BrokerUnavailable
from tests.apps.faults.swarm import CHANNELS, drawn
from tests.support.client import answer
from tests.support.servers import Server
from tests.support.waiting import PATIENCE

#: Seconds until the next attempt, at most.
MAX_RETRY_SECONDS = 0.1


class Publishers:
    """Threads of this process. Every other one makes a worker of the server publish, as many events as it can.

    An event keeps its key over all attempts, as an app does that needs each event exactly once.

    :param events: of the threads that publish themselves.
    :param seconds: that publishing takes, or longer if it is not possible.
    :param config: of the server's app.
    """

    def __init__(
        self, server: Server, threads: int, events: int, seconds: float, seed: int, config: Mapping[str, object]
    ) -> None:
        #: The event of each id of each channel.
        self.published: dict[str, dict[bytes, bytes]] = {channel: {} for channel in CHANNELS}
        #: When the first attempt to publish it began.
        self.begun: dict[bytes, float] = {}
        #: Events with at least one attempt of unknown outcome.
        self.doubtful: defaultdict[str, set[bytes]] = defaultdict(set)
        self._server = server
        self._seed = seed
        app = Flask(__name__)
        app.config.from_mapping(config)
        self._sse = SSE(app)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._left = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self._runs: list[Future[None]] = []
        self._plan = [(number, events // len(range(0, threads, 2)), seconds) for number in range(threads)]

    def __enter__(self) -> Publishers:
        self._runs = [self._pool.submit(self._run, *each) for each in self._plan]
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._left.set()
        self._pool.shutdown()
        self._sse.close()

    @property
    def confirmed(self) -> int:
        """The number of confirmed events."""
        return sum(map(len, self.published.values()))

    def are_done(self) -> bool:
        for run in self._runs:
            if run.done():
                run.result()
        if all(run.done() for run in self._runs[::2]):
            self._stopping.set()
        return all(run.done() for run in self._runs)

    def publish_over(self) -> dict[str, bytes]:
        """Publish the end of each channel and return its id."""
        return {
            channel: self._publish(self._publish_here, channel, "over", "", f"{self._seed}/over/{channel}")
            for channel in CHANNELS
        }

    def _run(self, thread: int, events: int, seconds: float) -> None:
        way = self._publish_by_worker if thread % 2 else self._publish_here
        dice = random.Random(f"{self._seed}/{thread}")
        newest: defaultdict[tuple[str, bytes], int] = defaultdict(int)
        for number, event in enumerate(drawn(thread, events, seconds, dice, self._stopping.wait)):
            if self._stopping.is_set():
                return
            epoch, _, offset = self._publish(way, *event, f"{self._seed}/{thread}/{number}").rpartition(b"-")
            log = event[0], epoch
            assert int(offset) > newest[log], "a thread's later event has a lower id"
            newest[log] = int(offset)

    def _publish(self, way: Callable[..., str], channel: str, name: str | None, data: str, key: str) -> bytes:
        rest, begun = lines_of(name, data), time.monotonic()
        event_id = None
        while event_id is None:
            try:
                event_id = way(channel, name, data, key).encode()
            except (BrokerUnavailable, OSError, http.client.HTTPException):
                with self._lock:
                    self.doubtful[channel].add(rest)
                if time.monotonic() > begun + 2 * PATIENCE or self._left.wait(random.uniform(0, MAX_RETRY_SECONDS)):
                    raise
        with self._lock:
            self.begun[event_id] = begun
            before = self.published[channel].setdefault(event_id, rest)
            assert before is rest, f"{event_id!r} stands for {before!r} and {rest!r} of {channel}"
        return event_id

    def _publish_here(self, channel: str, name: str | None, data: str, key: str) -> str:
        return self._sse.publish(channel, data, event=name, key=key)

    def _publish_by_worker(self, channel: str, name: str | None, data: str, key: str) -> str:
        path = f"/publish/{channel}?{urlencode({'key': key} | ({'event': name} if name else {}))}"
        headers = {"Content-Type": "application/json"}
        status, body = answer(self._server, "POST", path, json.dumps(data), headers)
        if status == 503:
            raise BrokerUnavailable(body.decode())
        assert status == 200, body
        event_id: str = json.loads(body)["id"]
        return event_id


def lines_of(name: str | None, data: str) -> bytes:
    """Return an event's lines but its id."""
    lines = [f"event: {name}"] * bool(name) + [f"data: {line}" for line in data.split("\n")]
    return "\n".join(lines).encode()
