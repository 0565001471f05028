"""The Spring code that this package brings to Flask, translated line by line, works as it is."""

from __future__ import annotations

import logging

from flask import Flask
from flask.typing import ResponseReturnValue

from flask_sse_emitters import SSE, CopyOnWriteList, SseEmitter
from flask_sse_emitters.testing import decode
from tests.support.waiting import until

log = logging.getLogger(__name__)


class SpringSseEmitters:
    def __init__(self) -> None:
        self.emitters: CopyOnWriteList[SseEmitter] = CopyOnWriteList()

    def add(self, emitter: SseEmitter) -> SseEmitter:
        self.emitters.add(emitter)
        log.info("new emitter added: %s", emitter)
        log.info("emitter list size: %s", len(self.emitters))

        @emitter.on_completion
        def on_completion() -> None:
            log.info("on_completion callback")
            self.emitters.remove(emitter)

        @emitter.on_timeout
        def on_timeout() -> None:
            log.info("on_timeout callback")
            emitter.complete()

        return emitter


class SseController:
    def __init__(self, sse_emitters: SpringSseEmitters) -> None:
        self.sse_emitters = sse_emitters

    def connect(self) -> ResponseReturnValue:
        emitter = SseEmitter(0.2)
        self.sse_emitters.add(emitter)
        emitter.send(SseEmitter.event()
                     .name("connect")
                     .data("connected!"))  # fmt: skip
        return emitter


def test_spring_controller_returns_emitter_that_removes_itself_at_timeout() -> None:
    sse_emitters = SpringSseEmitters()
    app = Flask(__name__)
    SSE(app)
    app.add_url_rule("/connect", view_func=SseController(sse_emitters).connect)
    response = app.test_client().get("/connect")
    assert response.content_type == "text/event-stream"
    (event,) = decode(response.get_data())
    assert (event.event, event.data) == ("connect", "connected!")
    until(lambda: len(sse_emitters.emitters) == 0, "the emitter to be removed")
