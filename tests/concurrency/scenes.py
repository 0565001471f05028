"""Scenes that both the tests of interleavings and those of mutants play."""

from __future__ import annotations

from collections.abc import Callable

from flask_sse_emitters import CloseReason, SseEmitter, SseEmitters
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.testing import decode
from flask_sse_emitters.writers.response_body import ResponseBody
from tests.concurrency.interleavings import Scene
from tests.concurrency.stage import FOLLOWING, Stage
from tests.unit.doubles.journal import Journal
from tests.unit.doubles.writer import FakeWriter, events_of, texts_of

ENDS: dict[str, Callable[[Stage, SseEmitter], object]] = {
    "complete": lambda _, emitter: emitter.complete(),
    "error": lambda _, emitter: emitter.complete_with_error(KeyError("x")),
    "time": lambda stage, _: stage.background.pass_time(10),
    "disconnect": lambda _, emitter: stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("gone")),
    "overflow": lambda _, emitter: [emitter.try_send(number) for number in range(3)],
}


def ends_of_an_emitter(stage: Stage, names: tuple[str, ...]) -> Callable[[], Scene]:
    def scene() -> Scene:
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


def register_callbacks(stage: Stage, workers: int) -> Callable[[], Scene]:
    def scene() -> Scene:
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


def read_and_send(stage: Stage, end: str) -> Callable[[], Scene]:
    def scene() -> Scene:
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


def send_twice(stage: Stage) -> Callable[[], Scene]:
    def scene() -> Scene:
        clients = SseEmitters()
        each = [clients.add(stage.emitter()) for _ in range(2)]
        reader = FakeWriter(each[0])

        def check() -> None:
            stage.background.finish()
            reader.take_all()
            assert reader.texts() == texts_of(each[1])
            assert sorted(reader.texts()) == ["a", "b"]
            assert not clients._delivery._is_passing

        return Scene({"one": lambda: clients.send("a"), "other": lambda: clients.send("b")}, check)

    return scene


def send_and_remove(stage: Stage) -> Callable[[], Scene]:
    def scene() -> Scene:
        clients = SseEmitters()
        each = [clients.add(stage.emitter()) for _ in range(3)]

        def check() -> None:
            stage.background.finish()
            gone, *others = map(texts_of, each)
            assert others == [["a", "b"]] * 2
            assert gone == ["a", "b"][: len(gone)]
            assert (each[0].is_open, list(clients)) == (True, each[1:])

        def send() -> None:
            clients.send("a")
            clients.send("b")

        return Scene({"send": send, "remove": lambda: clients.remove(each[0])}, check)

    return scene


def subscribe_during_publishes(stage: Stage, published: int, *, reconnects: bool) -> Callable[[], Scene]:
    """Subscribe, for the first time or again, while each of several threads publishes an event."""

    def scene() -> Scene:
        channel = stage.channel()
        other = channel.subscribe()
        ids = channel.publish("0", "1")
        begun: list[str] = []
        done: list[str] = []
        missed: list[str] = []  # published before it subscribed, and it has no id
        coming: list[str] = []  # published once it has subscribed
        clients: list[FakeWriter] = []

        def subscribe() -> None:
            missed.extend(done)
            emitter = channel.subscribe(ids[0] if reconnects else None)
            coming.extend(set(texts) - set(begun))
            clients.append(FakeWriter(emitter))
            clients[0].take_all()

        def publish(text: str) -> None:
            begun.append(text)
            channel.publish(text)
            done.append(text)

        def check() -> None:
            stage.background.finish()
            everything = texts_of(other)
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


def publish_twice(stage: Stage) -> Callable[[], Scene]:
    def scene() -> Scene:
        channel = stage.channel()
        each = [channel.subscribe() for _ in range(2)]
        ids: list[str] = []

        def check() -> None:
            stage.background.finish()
            events = events_of(each[0])
            assert events == events_of(each[1])
            assert sorted(event.data for event in events) == ["a", "b"]
            assert [event.id for event in events] == sorted(ids)

        publish = channel.publish
        return Scene({"one": lambda: ids.extend(publish("a")), "other": lambda: ids.extend(publish("b"))}, check)

    return scene
