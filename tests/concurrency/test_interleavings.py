"""Check invariants under every interleaving of two or three threads. See ``interleavings.py`` for the method."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from itertools import combinations
from types import ModuleType
from typing import Any

import pytest

from flask_sse_emitters import CloseReason, CopyOnWriteList, SseEmitter, SseEmitters
from flask_sse_emitters.broadcast import copy_on_write, delivery
from flask_sse_emitters.broadcast.delivery import Delivery
from flask_sse_emitters.brokers import event_log as history
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.streams import machine
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.ends import Callbacks
from flask_sse_emitters.streams.registry.open_streams import StreamRegistry
from flask_sse_emitters.streams.stream import Stream
from flask_sse_emitters.testing import decode
from flask_sse_emitters.writers import response_body as wsgi
from flask_sse_emitters.writers import socket_writer as direct
from flask_sse_emitters.writers.response_body import ResponseBody
from flask_sse_emitters.writers.socket_writer import SocketWriter
from tests.concurrency.interleavings import EDGES, LINES, TAKES, Deadlock, Explorer, NoLock, Scene
from tests.concurrency.model_stage import FOLLOWING, LOOP, TRACED, Journal, Sleeper, Stage, read_rest, rest_of
from tests.support.held_broker import HeldBroker

#: Preemptions added for a run by hand. One more takes many minutes.
MORE = int(os.environ.get("MORE_PREEMPTIONS", "0"))


@pytest.fixture
def explorer() -> Explorer:
    return Explorer(lines_of=TRACED)


@pytest.fixture
def stage(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(explorer, monkeypatch)


Every = Callable[..., None]


@pytest.fixture
def every(stage: Stage, request: pytest.FixtureRequest) -> Every:
    """Run a scene under every schedule: switch at locks first, then at lines."""

    def play(
        scene: Callable[[], Scene], takes: int | None = None, edges: int | None = 2, lines: int | None = 1
    ) -> None:
        for grain, preemptions in [(TAKES, takes), (EDGES, edges), (LINES, lines)]:
            if grain == LINES and preemptions is None:
                continue
            stage.explorer.grain = grain
            stage.explorer.preemptions = None if preemptions is None else preemptions + MORE
            count = stage.explorer.explore(scene, most=None if MORE else 10_000)
            print(f"{request.node.name}: {count} {grain}, {preemptions}")  # noqa: T201

    return play


# One emitter.


def test_accepted_event_is_delivered_when_complete_races_send(stage: Stage, every: Every) -> None:
    """An event that ``try_send`` accepted is written, even if the stream is completed at the same time."""

    def scene() -> Scene:
        stage.begin()
        emitter = stage.emitter()
        journal = Journal(emitter)
        took: list[bool] = []

        def check() -> None:
            stage.background.finish()
            assert (emitter.close_reason, journal.calls) == (CloseReason.COMPLETED, ["completion"])
            assert rest_of(emitter) == ["a"] * took[0]

        return Scene({"send": lambda: took.append(emitter.try_send("a")), "complete": emitter.complete}, check)

    every(scene)


def test_accepted_event_is_delivered_when_timeout_races_send(stage: Stage, every: Every) -> None:
    """An event that ``try_send`` accepted is written, even if the stream times out at the same time."""

    def scene() -> Scene:
        stage.begin()
        emitter = stage.emitter(timeout=10)
        journal = Journal(emitter)
        took: list[bool] = []

        def check() -> None:
            stage.background.finish()
            assert (emitter.close_reason, journal.calls) == (CloseReason.TIMEOUT, ["timeout", "completion"])
            assert rest_of(emitter) == ["a"] * took[0]
            assert stage.background.live_timers() == []

        return Scene(
            {"send": lambda: took.append(emitter.try_send("a")), "time": lambda: stage.background.pass_time(10)}, check
        )

    every(scene)


ENDS: dict[str, Callable[[Stage, SseEmitter], object]] = {
    "complete": lambda _, emitter: emitter.complete(),
    "error": lambda _, emitter: emitter.complete_with_error(KeyError("x")),
    "time": lambda stage, _: stage.background.pass_time(10),
    "disconnect": lambda _, emitter: stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("gone")),
    "overflow": lambda _, emitter: [emitter.try_send(number) for number in range(3)],
}


def _ends(stage: Stage, names: tuple[str, ...]) -> Callable[[], Scene]:
    def scene() -> Scene:
        stage.begin()
        emitter = stage.emitter(timeout=10, max_pending=2)
        journal = Journal(emitter)
        seen: list[CloseReason | None] = []

        def check() -> None:
            stage.background.finish()
            reason = emitter.close_reason
            assert set(seen) == {reason}, "a close reason has changed"
            assert reason is not None
            assert journal.calls == FOLLOWING[reason]
            assert (emitter.error is None) is ("error" not in journal.calls)
            assert stage.background.live_timers() == []

        def end(name: str) -> None:
            ENDS[name](stage, emitter)
            seen.append(emitter.close_reason)

        return Scene({name: lambda name=name: end(name) for name in names}, check)  # type: ignore[misc]

    return scene


@pytest.mark.parametrize("names", [*combinations(ENDS, 2)], ids="-".join)
def test_first_of_two_concurrent_ends_sets_close_reason(names: tuple[str, ...], stage: Stage, every: Every) -> None:
    every(_ends(stage, names))


@pytest.mark.parametrize("names", [("complete", "error", "time"), ("disconnect", "time", "overflow")], ids="-".join)
def test_first_of_three_concurrent_ends_sets_close_reason(names: tuple[str, ...], stage: Stage, every: Every) -> None:
    every(_ends(stage, names), takes=3, edges=1, lines=None)


def _register(stage: Stage, workers: int) -> Callable[[], Scene]:
    def scene() -> Scene:
        stage.begin()
        emitter = stage.emitter()
        calls: list[str] = []

        def register() -> None:
            emitter.on_completion(lambda: calls.append("first"))
            emitter.on_timeout(lambda: calls.append("timeout"))
            emitter.on_completion(lambda: calls.append("second"))

        def check() -> None:
            stage.background.finish()
            assert calls == ["first", "second"]

        background = {f"worker {number}": stage.background.help for number in range(workers)}
        return Scene({"register": register, "complete": emitter.complete}, check, background)

    return scene


@pytest.mark.parametrize(("workers", "takes", "edges"), [(0, None, 3), (1, 3, 2), (2, 1, 1)])
def test_callback_registered_while_stream_ends_runs_once(
    workers: int, takes: int | None, edges: int, stage: Stage, every: Every
) -> None:
    every(_register(stage, workers), takes=takes, edges=edges, lines=None if workers else 1)


# An emitter and its writer.


def _read_and_send(stage: Stage, end: str) -> Callable[[], Scene]:
    def scene() -> Scene:
        stage.begin()
        emitter = stage.emitter()
        stream = ResponseBody(stream_of(emitter), b": hello\n\n", {}, "off")
        body: list[bytes] = []

        def read() -> None:
            while end != "nothing" or len(decode(b"".join(body))) < 2:
                payload = next(stream, None)
                if payload is None:
                    break
                body.append(payload)

        def send() -> None:
            emitter.send("a")
            emitter.send("b")
            if end == "complete":
                emitter.complete()
            if end == "shut down":
                stream_of(emitter).end(CloseReason.SHUTDOWN, closing=b"retry: 7\n\n")

        def check() -> None:
            assert [event.data for event in decode(b"".join(body))] == ["a", "b"]
            assert body[-1].endswith(b"retry: 7\n\n") is (end == "shut down")
            assert emitter.pending == 0

        return Scene({"read": read, "send": send}, check)

    return scene


@pytest.mark.parametrize("end", ["nothing", "complete", "shut down"])
def test_send_while_reader_takes_last_event_loses_no_wake_up(end: str, stage: Stage, every: Every) -> None:
    """If a wake-up is lost, the reader sleeps forever."""
    every(_read_and_send(stage, end), takes=3)


@pytest.mark.parametrize("end", ["shut down", "lifetime over"])
def test_stream_end_during_channel_lookup_wakes_reader(end: str, stage: Stage, every: Every) -> None:
    """The reader is about to sleep until the channel is located. If the end does not wake it, it never returns."""

    def scene() -> Scene:
        stage.begin()
        emitter = stage.channel(HeldBroker()).subscribe("x-1")
        stream = ResponseBody(stream_of(emitter), b": hello\n\n", {}, "off")
        body: list[bytes] = []
        ends = {
            "shut down": lambda: stream_of(emitter).end(CloseReason.SHUTDOWN, closing=b"retry: 7\n\n"),
            "lifetime over": lambda: stream_of(emitter).end(CloseReason.TIMEOUT),
        }

        def check() -> None:
            assert b"".join(body) == b": hello\n\n" + b"retry: 7\n\n" * (end == "shut down")
            assert not emitter.is_open

        return Scene({"read": lambda: body.extend(stream), "end": ends[end]}, check)

    every(scene, takes=3)


def test_list_send_while_reader_goes_to_sleep_loses_no_wake_up(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        stage.begin()
        clients = SseEmitters()
        stream = ResponseBody(stream_of(clients.add(stage.emitter())), b": hello\n\n", {}, "off")
        body: list[bytes] = []

        def send() -> None:
            clients.send("a")
            clients.complete()

        def check() -> None:
            stage.background.finish()
            assert [event.data for event in decode(b"".join(body))] == ["a"]
            assert len(clients) == 0

        return Scene({"read": lambda: body.extend(stream), "send": send}, check)

    every(scene, takes=2, edges=1)


@pytest.mark.parametrize("leave", ["disconnects", "is closed", "is completed"])
def test_disconnect_while_stream_begins_is_counted_once(leave: str, stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        stage.begin()
        streams = StreamRegistry(DEFAULTS, stage.background)
        emitter = stage.emitter()
        journal = Journal(emitter)
        stream_of(emitter).attach(DEFAULTS, streams)
        streams.admit(emitter)
        stream = ResponseBody(stream_of(emitter), b": hello\n\n", {}, "off")

        def read() -> None:
            for _ in stream:
                pass
            stream.close()

        def check() -> None:
            stage.background.finish()
            reason = CloseReason.COMPLETED if leave == "is completed" else CloseReason.DISCONNECTED
            assert emitter.close_reason is reason
            assert journal.calls == FOLLOWING[reason]
            assert (len(streams), streams.closed) == (0, {reason.value: 1})
            assert stage.background.live_timers() == []

        leaves = {"disconnects": stream.on_hang_up, "is closed": stream.close, "is completed": emitter.complete}
        return Scene({"read": read, "leave": leaves[leave]}, check)

    every(scene)


class Socket:
    """A socket that takes ``room`` bytes, and then no more until it has room again."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.got = b""
        self.is_awaited = False

    def send(self, data: Any) -> int:
        if not self.room:
            raise BlockingIOError
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.got += taken
        return len(taken)

    def shutdown(self, how: int) -> None: ...

    def close(self) -> None: ...

    def recv(self, _size: int) -> bytes:
        return b""

    def body(self) -> bytes:
        """Return what was sent, without the chunk lengths."""
        rest, body = self.got, b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
        return body


class FakeMonitor:
    """A stand-in for the process's one epoll."""

    def watch(self, client: Any, watcher: Any) -> Any:
        client.is_registered, client.watcher = True, watcher
        return client

    def await_room(self, watch: Any) -> None:
        watch.is_awaited = True

    def unsent(self, _watch: Any) -> int | None:
        return None

    def acknowledged(self, _watch: Any) -> int | None:
        return None

    def forget(self, watch: Any) -> None: ...


@pytest.mark.parametrize("room", [10_000, 20])
def test_handoff_during_sends_keeps_all_events_in_order(
    room: int, stage: Stage, every: Every, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main loop writes to the client while a foreign thread sends to its list and to its emitter."""
    stage.have_one_loop()
    monkeypatch.setattr(direct, "SOCKET_MONITOR", FakeMonitor())

    def scene() -> Scene:
        stage.begin()
        clients = SseEmitters()
        emitter = clients.add(stage.emitter())
        socket: Any = Socket(room)
        before = Sleeper(emitter)

        def write_directly() -> None:
            before.take_all()
            writer = SocketWriter(stream_of(emitter), socket, True, socket, ())
            stream_of(emitter).take_over(writer)
            writer.begin()
            while True:
                stage.explorer.rest(lambda: bool(stage.background._soon) or socket.is_awaited)
                if socket.is_awaited:
                    socket.is_awaited, socket.room = False, room
                    writer.on_room()
                stage.background._call_one()

        def send() -> None:
            clients.send("a")
            emitter.send("b")
            clients.send("c")
            clients.complete()

        def check() -> None:
            assert [event.data for event in decode(b"".join(before.got) + socket.body())] == ["a", "b", "c"]
            assert socket.got.endswith(b"0\r\n\r\n")

        return Scene({"send": send}, check, {LOOP: write_directly})

    every(scene, takes=3)


def test_list_send_while_server_writes_preamble_is_delivered(
    stage: Stage, every: Every, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's write yields to the event loop, which delivers before the stream's writer is decided."""
    stage.have_one_loop()
    monkeypatch.setattr(direct, "SOCKET_MONITOR", FakeMonitor())
    monkeypatch.setattr(wsgi, "SOCKET_MONITOR", FakeMonitor())
    monkeypatch.setattr(wsgi, "why_not", lambda _facts: None)
    monkeypatch.setattr(wsgi, "_client_socket", lambda environ: environ["socket"])

    def hand_off(stream: Stream, call: Any, watch: Any, when_over: Any) -> None:
        writer = SocketWriter(stream, call.environ["socket"], True, watch, when_over)
        stream.take_over(writer)
        writer.begin()

    monkeypatch.setattr(wsgi, "hand_off", hand_off)

    def scene() -> Scene:
        stage.begin()
        clients = SseEmitters()
        socket: Any = Socket(10_000)
        environ = {"socket": socket, "SERVER_PROTOCOL": "HTTP/1.1"}
        stream = ResponseBody(stream_of(clients.add(stage.emitter())), b": hello\n\n", environ, "on")
        body: list[bytes] = []

        def serve() -> None:
            body.append(next(stream))
            stage.explorer.pause("writes")
            if stage.background._soon:
                stage.background._call_one()
            body.extend(stream)
            while True:
                stage.explorer.rest(lambda: bool(stage.background._soon))
                stage.background._call_one()

        def check() -> None:
            assert [event.data for event in decode(b"".join(body) + socket.body())] == ["a", "b"]

        def send() -> None:
            clients.send("a")
            clients.send("b")

        return Scene({"send": send}, check, {LOOP: serve})

    every(scene, takes=3)


# A list.


def test_emitter_added_while_list_completes_ends_or_stays_a_member(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        stage.begin()
        clients = SseEmitters()
        old, new = clients.add(stage.emitter()), stage.emitter()

        def check() -> None:
            stage.background.finish()
            assert old.close_reason is CloseReason.COMPLETED
            assert list(clients) == [new] * new.is_open
            assert clients.send("later") == len(clients)
            assert rest_of(new) == ["later"] * new.is_open

        return Scene({"add": lambda: clients.add(new), "complete": clients.complete}, check)

    every(scene)


def test_emitter_added_twice_concurrently_is_a_member_once(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        stage.begin()
        clients, emitter = SseEmitters(), stage.emitter()

        def check() -> None:
            assert len(clients) == 1
            assert (clients.send("a"), rest_of(emitter)) == (1, ["a"])

        return Scene({"one": lambda: clients.add(emitter), "other": lambda: clients.add(emitter)}, check)

    every(scene)


def test_emitter_that_ends_while_added_is_no_member_of_list(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        stage.begin()
        clients, emitter = SseEmitters(), stage.emitter()

        def check() -> None:
            assert (len(clients), emitter.close_reason) == (0, CloseReason.COMPLETED)

        return Scene({"add": lambda: clients.add(emitter), "complete": emitter.complete}, check)

    every(scene)


def test_emitter_completed_during_list_sends_has_a_prefix_of_events(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        stage.begin()
        clients = SseEmitters()
        emitter, other = clients.add(stage.emitter()), clients.add(stage.emitter())
        reached: list[int] = []

        def check() -> None:
            stage.background.finish()
            got = rest_of(emitter)
            assert rest_of(other) == ["a", "b"]
            assert got == ["a", "b"][: len(got)]
            assert len(got) <= sum(reached) - 2
            assert list(clients) == [other]

        return Scene(
            {"send": lambda: reached.extend([clients.send("a"), clients.send("b")]), "complete": emitter.complete},
            check,
        )

    every(scene, takes=2)


def _send_twice(stage: Stage) -> Callable[[], Scene]:
    def scene() -> Scene:
        stage.begin()
        clients = SseEmitters()
        each = [clients.add(stage.emitter()) for _ in range(2)]
        reader = Sleeper(each[0])

        def check() -> None:
            stage.background.finish()
            reader.take_all()
            assert reader.texts() == rest_of(each[1])
            assert sorted(reader.texts()) == ["a", "b"]
            assert not clients._delivery._is_passing

        return Scene({"one": lambda: clients.send("a"), "other": lambda: clients.send("b")}, check)

    return scene


def test_two_concurrent_list_sends_reach_all_clients_in_one_order(stage: Stage, every: Every) -> None:
    every(_send_twice(stage))


def test_three_concurrent_list_sends_reach_all_clients_in_one_order(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        stage.begin()
        clients = SseEmitters()
        each = [clients.add(stage.emitter()) for _ in range(2)]
        calls: dict[str, Callable[[], object]] = {text: lambda text=text: clients.send(text) for text in "abc"}  # type: ignore[misc]

        def check() -> None:
            stage.background.finish()
            texts = rest_of(each[0])
            assert texts == rest_of(each[1])
            assert sorted(texts) == ["a", "b", "c"]

        return Scene(calls, check)

    every(scene, takes=2, edges=1, lines=None)


def test_list_completed_during_send_delivers_to_all_clients_or_none(stage: Stage, every: Every) -> None:
    """An event is delivered before the end of the list to every client, or to none of them."""

    def scene() -> Scene:
        stage.begin()
        clients = SseEmitters()
        each = [clients.add(stage.emitter()) for _ in range(2)]
        reached: list[int] = []

        def check() -> None:
            stage.background.finish()
            assert len(clients) == 0
            assert [emitter.close_reason for emitter in each] == [CloseReason.COMPLETED] * 2
            assert rest_of(each[0]) == rest_of(each[1]) in ([], ["a"])

        return Scene({"send": lambda: reached.append(clients.send("a")), "complete": clients.complete}, check)

    every(scene)


def _send_and_remove(stage: Stage) -> Callable[[], Scene]:
    def scene() -> Scene:
        stage.begin()
        clients = SseEmitters()
        each = [clients.add(stage.emitter()) for _ in range(3)]

        def check() -> None:
            stage.background.finish()
            gone, *others = map(rest_of, each)
            assert others == [["a", "b"]] * 2
            assert gone == ["a", "b"][: len(gone)]
            assert (each[0].is_open, list(clients)) == (True, each[1:])

        def send() -> None:
            clients.send("a")
            clients.send("b")

        return Scene({"send": send, "remove": lambda: clients.remove(each[0])}, check)

    return scene


def test_emitter_removed_during_delivery_pass_costs_others_no_event(
    stage: Stage, every: Every, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "CLIENTS_PER_LOOK", 1)
    every(_send_and_remove(stage), takes=2)


def test_list_snapshot_during_changes_shows_whole_states_in_order(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        subject = CopyOnWriteList("ab")
        seen: list[tuple[str, ...]] = []

        def change() -> None:
            subject.add("c")
            subject.remove("a")

        def check() -> None:
            assert subject.snapshot() == ("b", "c")
            orders = [("a", "b"), ("a", "b", "c"), ("b", "c")]
            assert [orders.index(each) for each in seen] == sorted(orders.index(each) for each in seen)

        def read() -> None:
            for _ in range(2):
                seen.append(subject.snapshot())
                stage.explorer.pause("reads again")

        return Scene({"change": change, "read": read}, check)

    every(scene, lines=2)


# A channel.


def _subscribe(stage: Stage, published: int, *, reconnects: bool) -> Callable[[], Scene]:
    """Subscribe, for the first time or again, while each of several threads publishes an event."""

    def scene() -> Scene:
        stage.begin()
        channel = stage.channel()
        other = channel.subscribe()
        ids = channel.publish("0", "1")
        begun: list[str] = []
        done: list[str] = []
        missed: list[str] = []  # published before it subscribed, and it has no id
        coming: list[str] = []  # published once it has subscribed
        clients: list[Sleeper] = []

        def subscribe() -> None:
            missed.extend(done)
            emitter = channel.subscribe(ids[0] if reconnects else None)
            coming.extend(set(texts) - set(begun))
            clients.append(Sleeper(emitter))
            clients[0].take_all()

        def publish(text: str) -> None:
            begun.append(text)
            channel.publish(text)
            done.append(text)

        def check() -> None:
            stage.background.finish()
            everything = rest_of(other)
            clients[0].take_all()
            got = clients[0].texts()
            assert sorted(everything) == ["0", "1", *texts]
            assert got == everything[-len(got) :] if got else not coming
            assert set(coming) <= set(got)
            if reconnects:
                assert got == everything[1:]
            else:
                assert not {"0", "1", *missed} & set(got)

        texts = [f"2{number}" for number in range(published)]
        calls: dict[str, Callable[[], object]] = {"subscribe": subscribe}
        calls |= {f"publish {text}": lambda text=text: publish(text) for text in texts}  # type: ignore[misc]
        return Scene(calls, check)

    return scene


@pytest.mark.parametrize("reconnects", [True, False], ids=["reconnect", "first connect"])
def test_subscribe_during_publish_delivers_each_event_once(reconnects: bool, stage: Stage, every: Every) -> None:
    """A subscriber that connects, or reconnects, during a publish loses no event and gets none twice."""
    every(_subscribe(stage, 1, reconnects=reconnects), takes=2, edges=1)


def test_reconnect_during_two_publishes_delivers_each_event_once(stage: Stage, every: Every) -> None:
    every(_subscribe(stage, 2, reconnects=True), takes=1, edges=1, lines=None)


def _publish_twice(stage: Stage) -> Callable[[], Scene]:
    def scene() -> Scene:
        stage.begin()
        channel = stage.channel()
        each = [channel.subscribe() for _ in range(2)]
        ids: list[str] = []

        def check() -> None:
            stage.background.finish()
            events = read_rest(each[0])
            assert events == read_rest(each[1])
            assert sorted(event.data for event in events) == ["a", "b"]
            assert [event.id for event in events] == sorted(ids)

        publish = channel.publish
        return Scene({"one": lambda: ids.extend(publish("a")), "other": lambda: ids.extend(publish("b"))}, check)

    return scene


def test_two_concurrent_publishes_reach_all_subscribers_in_one_order(stage: Stage, every: Every) -> None:
    every(_publish_twice(stage), takes=3)


def test_reconnect_while_last_subscriber_leaves_loses_no_event(stage: Stage, every: Every) -> None:
    """The process releases the channel and subscribes to it again."""

    def scene() -> Scene:
        stage.begin()
        channel = stage.channel()
        last = channel.subscribe()
        ids = channel.publish("0", "1")
        made: list[SseEmitter] = []

        def check() -> None:
            stage.background.finish()
            channel.publish("2")
            stage.background.finish()
            assert [member.emitter for member in channel.subscription.members] == made
            assert rest_of(made[0]) == ["1", "2"]

        return Scene({"leave": last.complete, "come": lambda: made.append(channel.subscribe(ids[0]))}, check)

    every(scene, takes=3)


def test_reconnect_while_last_leaves_and_another_publishes_loses_no_event(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        stage.begin()
        channel = stage.channel()
        last = channel.subscribe()
        ids = channel.publish("0", "1")
        made: list[SseEmitter] = []

        def check() -> None:
            stage.background.finish()
            assert [member.emitter for member in channel.subscription.members] == made
            assert rest_of(made[0]) == ["1", "2"]

        calls = {"leave": last.complete, "come": lambda: made.append(channel.subscribe(ids[0]))}
        return Scene({**calls, "publish": lambda: channel.publish("2")}, check)

    every(scene, takes=1, edges=1, lines=None)


def test_publish_while_channel_is_swept_and_left_keeps_the_event(stage: Stage, every: Every) -> None:
    """The channel is forgotten when its last client leaves. Nothing may use the forgotten record afterwards."""

    def scene() -> Scene:
        stage.begin()
        broker = MemoryBroker(scheduler=stage.background)
        channel = stage.channel(broker)
        last = channel.subscribe()
        records = list(broker._records.values())
        ids: list[str] = []

        def sweep() -> None:
            for record in records:
                record.forget_old(altogether=False)

        def check() -> None:
            epoch, _, offset = ids[0].partition("-")
            emitter = channel.subscribe(f"{epoch}-{int(offset) - 1}")
            assert [(event.id, event.data) for event in read_rest(emitter)] == [(ids[0], "1")]

        calls = {"leave": last.complete, "sweep": sweep, "publish": lambda: ids.extend(channel.publish("1"))}
        return Scene(calls, check)

    every(scene, takes=2, edges=1)


def test_reconnect_before_broker_locates_channel_loses_no_event(stage: Stage, every: Every) -> None:
    """As with Redis: one thread listens, and reports the channel's position some time after it was asked."""

    def scene() -> Scene:
        stage.begin()
        broker = HeldBroker()
        channel = stage.channel(broker)
        ids = channel.publish("0", "1")
        made: list[SseEmitter] = []

        def listen() -> None:
            stage.explorer.rest(lambda: bool(broker.listeners["a"]))
            broker.start("a")
            while True:
                stage.explorer.rest(lambda: bool(broker.undelivered["a"]))
                broker.deliver("a", 1)

        def check() -> None:
            assert rest_of(made[0]) == ["1", "2"]

        calls = {"come": lambda: made.append(channel.subscribe(ids[0])), "publish": lambda: channel.publish("2")}
        return Scene(calls, check, {"listen": listen})

    every(scene, takes=2, edges=1, lines=None)


def test_stream_completed_during_broker_delivery_gets_all_published(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        stage.begin()
        broker = HeldBroker()
        channel = stage.channel(broker)
        emitter = channel.subscribe()
        broker.start("a")
        stream = ResponseBody(stream_of(emitter), b": hello\n\n", {}, "off")
        body: list[bytes] = []

        def complete() -> None:
            channel.publish("1", "2")
            emitter.complete()

        def listen() -> None:
            while True:
                stage.explorer.rest(lambda: bool(broker.undelivered["a"]))
                broker.deliver("a", 1)

        def check() -> None:
            assert [event.data for event in decode(b"".join(body))] == ["1", "2"]
            assert len(channel.subscription.members) == 0

        return Scene({"complete": complete, "read": lambda: body.extend(stream)}, check, {"listen": listen})

    every(scene, takes=2, edges=1, lines=None)


# Mutants: each is found, and the schedule that finds it is printed.


def _without_locks(module: ModuleType, name: str = "native_lock") -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(module, name, NoLock)


def _call_under_the_lock(patch: pytest.MonkeyPatch) -> None:
    release = Callbacks.release

    def call_all(self: Callbacks, *given: Any) -> None:
        with self._lock:
            release(self, *given)
            self._call_all()

    patch.setattr(Callbacks, "release", call_all)


def _return_a_live_snapshot(patch: pytest.MonkeyPatch) -> None:
    def live(self: CopyOnWriteList[Any]) -> Any:
        return self._listed()

    patch.setattr(CopyOnWriteList, "snapshot", live)
    patch.setattr(delivery, "CLIENTS_PER_LOOK", 1)


def _end_pass_without_recheck(patch: pytest.MonkeyPatch) -> None:
    begin_pass = Delivery._begin_pass

    def begin_or_sleep(self: Delivery) -> bool:
        with self.lock:
            is_empty = all(queued.number <= max(self._delivered, self._batch.last) for queued in self._outbox)
        if not is_empty:
            return bool(begin_pass(self))
        with self.lock:
            self._delivered = max(self._delivered, self._batch.last)
            self._batch, self._targets, self._position, self._is_passing = delivery._NOTHING, (), 0, False
            return False

    patch.setattr(Delivery, "_begin_pass", begin_or_sleep)


def _sleep_without_recheck(patch: pytest.MonkeyPatch) -> None:
    take = Stream._take

    def take_or_sleep(self: Stream, sleeps: bool) -> Any:
        with self.lock:
            is_empty = not self.outgoing.backlog.size and self.close_reason is None
        if not is_empty or not sleeps:
            return take(self, sleeps)
        with self.lock:
            return self.outgoing.rest(sleeps=True)

    patch.setattr(Stream, "_take", take_or_sleep)


def _go_live_without_recheck(patch: pytest.MonkeyPatch) -> None:
    def go_live(self: Delivery, member: Any, offset: int) -> bool:
        if offset != self.offset:
            return False
        with self.lock:
            member.go_live(self.number)
            return True

    patch.setattr(Delivery, "go_live", go_live)


def _call_on_two_workers(patch: pytest.MonkeyPatch) -> None:
    begin = Callbacks._begin

    def begin_again(self: Callbacks) -> None:
        self._is_calling = False
        begin(self)

    patch.setattr(Callbacks, "_begin", begin_again)


def _callbacks_that_end_each_other(stage: Stage) -> Callable[[], Scene]:
    def scene() -> Scene:
        stage.begin()
        one, other = stage.emitter(), stage.emitter()
        one.on_completion(other.complete)
        other.on_completion(one.complete)
        return Scene({"one": one.complete, "other": other.complete}, stage.background.finish)

    return scene


def _remove_twice(stage: Stage) -> Callable[[], Scene]:
    def scene() -> Scene:
        subject = CopyOnWriteList("ab")
        removed: list[bool] = []

        def check() -> None:
            assert (sorted(removed), list(subject)) == ([False, True], ["b"])

        def remove() -> None:
            removed.append(subject.remove("a"))

        return Scene({"one": remove, "other": remove}, check)

    return scene


Mutant = tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Stage], Callable[[], Scene]], str, type[Exception]]

MUTANTS: dict[str, Mutant] = {
    "lock removed from emitters": (
        _without_locks(machine, "striped_lock"),
        lambda stage: _ends(stage, ("complete", "error")),
        LINES,
        AssertionError,
    ),
    "lock removed from lists": (_without_locks(delivery), _send_twice, LINES, AssertionError),
    "lock removed from copy-on-write lists": (_without_locks(copy_on_write), _remove_twice, LINES, KeyError),
    "lock removed from logs": (_without_locks(history), _publish_twice, LINES, AssertionError),
    "callback under the lock": (_call_under_the_lock, _callbacks_that_end_each_other, TAKES, Deadlock),
    "snapshot not replaced": (_return_a_live_snapshot, _send_and_remove, TAKES, AssertionError),
    "outbox not re-checked": (_end_pass_without_recheck, _send_twice, TAKES, AssertionError),
    "backlog not re-checked": (
        _sleep_without_recheck, lambda stage: _read_and_send(stage, "nothing"), TAKES, Deadlock
    ),
    "live without a re-check": (
        _go_live_without_recheck, lambda stage: _subscribe(stage, 1, reconnects=True), TAKES, AssertionError
    ),
    "two workers for one emitter": (_call_on_two_workers, lambda stage: _register(stage, 2), EDGES, AssertionError),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_found_and_its_schedule_replays_the_failure(
    mutant: str, explorer: Explorer, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate, scene_on, explorer.grain, cause = MUTANTS[mutant]
    explorer.preemptions = 2 if explorer.grain == TAKES else 1
    if explorer.grain != LINES:
        assert explorer.explore(scene_on(stage), most=20_000), "it holds as it is"
    mutate(monkeypatch)
    scene = scene_on(stage)
    found = explorer.find(scene, most=20_000)
    print(f"{mutant}: {found}")  # noqa: T201
    assert isinstance(found.cause, cause)
    [printed] = re.findall(r"^schedule=(\{.*\})$", str(found), re.MULTILINE)
    again = explorer.replay(scene, ast.literal_eval(printed))
    assert again is not None
    assert (str(again), type(again.cause)) == (str(found), type(found.cause))


def test_deadlock_report_names_waiting_threads_and_schedule(explorer: Explorer) -> None:
    def scene() -> Scene:
        one, other = explorer.lock(), explorer.lock()

        def take(first: Any, second: Any) -> None:
            with first, second:
                pass

        return Scene({"ann": lambda: take(one, other), "bob": lambda: take(other, one)}, lambda: None)

    explorer.grain, explorer.preemptions = TAKES, 0
    assert explorer.explore(scene) == 2, "one after the other"
    explorer.preemptions = 1
    found = explorer.find(scene)
    assert isinstance(found.cause, Deadlock)
    assert "ann waits: takes a lock; bob waits: takes a lock" in str(found)
    assert found.schedule == {2: 1}


@pytest.mark.parametrize(("steps", "orders"), [((1, 1), 2), ((2, 2), 6), ((3, 4), 35), ((2, 2, 2), 90)])
def test_explorer_runs_every_order_once(steps: tuple[int, ...], orders: int, explorer: Explorer) -> None:
    """There are as many orders as ways to merge the threads' steps: for two threads, a binomial coefficient."""
    played: list[str] = []

    def scene() -> Scene:
        order: list[str] = []

        def run(name: str, count: int) -> None:
            for number in range(count):
                if number:
                    explorer.pause("between")
                order.append(name)

        calls = {name: lambda name=name, n=n: run(name, n) for name, n in zip("abc", steps, strict=False)}
        return Scene(calls, lambda: played.append("".join(order)))

    assert explorer.explore(scene) == orders
    assert len(set(played)) == len(played) == orders
