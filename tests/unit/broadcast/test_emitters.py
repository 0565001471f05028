"""Lists of emitters: sending, membership, completion and JSON."""

from __future__ import annotations

import gc
import weakref
from datetime import datetime
from weakref import WeakSet

import pytest
from flask import Flask

from flask_sse_emitters import SSE, Event, InvalidEvent, SseEmitter, SseEmitters
from flask_sse_emitters.config import context
from flask_sse_emitters.streams.emitter import stream_of
from tests.support.waiting import until
from tests.unit.broadcast.gate import await_pass
from tests.unit.doubles.writer import texts_of


def test_list_send_reaches_every_emitter_and_returns_their_count() -> None:
    emitters = SseEmitters()
    members = [emitters.add(SseEmitter()) for _ in range(3)]
    assert emitters.send("a") == 3
    with pytest.raises(InvalidEvent):
        emitters.send(b"an invalid event reaches no client")
    assert emitters.send(SseEmitter.event().name("n").data("b")) == 3
    assert [texts_of(member) for member in members] == [["a", "b"]] * 3


def test_list_holds_an_emitter_once_until_it_ends() -> None:
    emitters, other, emitter = SseEmitters(), SseEmitters(), SseEmitter()
    assert emitters.add(emitter) is emitters.add(emitter) is other.add(emitter) is emitter
    assert (len(emitters), emitter in emitters, list(emitters)) == (1, True, [emitter])
    assert repr(emitters) == "<SseEmitters of 1>"
    emitter.complete()
    assert (len(emitters), emitter in emitters, list(emitters), len(other)) == (0, False, [], 0)
    assert emitters.send("x") == 0
    assert emitters.add(emitter) is emitter
    assert len(emitters) == 0, "one that has ended is ignored"
    with pytest.raises(TypeError, match=r"add\(\) takes an SseEmitter, not 'x'"):
        emitters.add("x")  # type: ignore[type-var]
    assert Event("x") not in emitters


def test_list_remove_leaves_the_stream_open() -> None:
    emitters = SseEmitters()
    emitter = emitters.add(SseEmitter())
    for _ in range(2):
        emitters.remove(emitter)
    assert emitter.is_open
    assert emitters.send("x") == 0
    assert stream_of(emitter).outgoing.members == (), "no membership is left with the emitter"
    emitters.add(emitter)
    emitter.complete()
    assert len(emitters) == 0


def test_list_emitters_can_be_chosen_by_attributes_of_the_app() -> None:
    emitters = SseEmitters()
    for user in ("ada", "grace", "ada"):
        emitter = emitters.add(SseEmitter())
        emitter.user = user  # type: ignore[attr-defined]
    for emitter in [each for each in emitters if each.user == "ada"]:  # type: ignore[attr-defined]
        emitter.send("for ada only")
    assert [emitter.pending for emitter in emitters] == [1, 0, 1]


def test_list_json_is_made_by_the_only_app_also_while_the_list_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_states", WeakSet())
    app = Flask(__name__)
    SSE(app)
    now = datetime(2026, 1, 1)
    assert SseEmitters().send({"at": now}) == 0
    SseEmitter().send({"at": now})
    other = Flask(__name__)
    SSE(other)
    with pytest.raises(InvalidEvent):
        SseEmitters().send({"at": now})


def test_list_keeps_no_ended_emitter_alive() -> None:
    emitters = SseEmitters()
    gone = [weakref.ref(emitters.add(SseEmitter())) for _ in range(100)]
    emitters.send("x" * 1_000)
    await_pass(emitters)
    for emitter in emitters:
        emitter.complete()
    del emitter
    gc.collect()
    until(lambda: gc.collect() is not None and not any(each() for each in gone), "all to be freed")
    assert emitters._delivery._batch.payload == b""
