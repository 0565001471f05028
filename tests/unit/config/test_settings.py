"""The settings of streams that have some of their own."""

from __future__ import annotations

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.config.settings import MAX_SHARED_VARIANTS, Settings
from flask_sse_emitters.streams.emitter import stream_of


def test_settings_of_streams_with_the_same_options_are_shared() -> None:
    first, second, other = (stream_of(SseEmitter(timeout=each, bare=True)).settings for each in (60, 60.0, 61))
    assert first is second
    assert (first.timeout, first.bare) == (60.0, True)
    assert (other.timeout, other.bare) == (61.0, True)


def test_settings_of_streams_with_options_all_of_their_own_are_not_kept() -> None:
    app = Settings(heartbeat=3.0)
    made = [app.with_own({"timeout": float(each)}) for each in range(2 * MAX_SHARED_VARIANTS)]
    assert [(each.timeout, each.heartbeat) for each in made] == [(float(each), 3.0) for each in range(len(made))]
    last = app.with_own({"timeout": made[-1].timeout})
    assert last == made[-1]
    assert last is not made[-1]


def test_settings_given_to_a_stream_hold_in_another_app() -> None:
    own = Settings(heartbeat=3.0).with_own({"timeout": 5.0}).own
    moved = Settings(heartbeat=4.0).with_own(own)
    assert (moved.timeout, moved.heartbeat) == (5.0, 4.0)
