"""A record of the callbacks of an emitter."""

from __future__ import annotations

from flask_sse_emitters import SseEmitter


class Journal:
    """Registers one callback of each kind, and records the calls."""

    def __init__(self, emitter: SseEmitter) -> None:
        self.calls: list[str] = []
        self.errors: list[BaseException] = []
        self._emitter = emitter
        emitter.on_completion(lambda: self._note("completion"))
        emitter.on_timeout(lambda: self._note("timeout"))
        emitter.on_error(self._note_error)

    def _note(self, call: str) -> None:
        self.calls.append(call if not self._emitter.is_open else f"{call} of an open one")

    def _note_error(self, error: BaseException) -> None:
        self.errors.append(error)
        self._note("error")
