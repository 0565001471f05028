"""Events that are built in steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_sse_emitters import Event, EventBuilder, InvalidEvent, SseEmitter


def test_builder_builds_equal_events() -> None:
    builder = SseEmitter.event().id(7).name("update").data("a").data("b").comment("x").comment("y").retry(5)
    assert builder.build() == Event("a\nb", event="update", id=7, retry=5, comment="x\ny")
    assert builder.build() == builder.build()


def test_builder_cr_at_the_end_of_a_part_is_a_line_end() -> None:
    event = EventBuilder().data("a\r").data("b").comment("c\r").comment("d").build()
    assert event.encode() == b": c\n: \n: d\ndata: a\ndata: \ndata: b\n\n"


def test_builder_takes_json_between_lines_of_text() -> None:
    event = EventBuilder().data("a").data({"b": 1}).data(0).build()
    assert event.encode() == b'data: a\ndata: {"b": 1}\ndata: 0\n\n'


def test_builder_event_of_several_parts_is_unequal_to_a_tuple() -> None:
    lines, array = EventBuilder().data("a").data(1).build(), Event(("a", 1))
    assert lines.encode() != array.encode()
    assert lines != array
    assert array != lines
    assert len({lines, array}) == 2
    again = EventBuilder().data("a").data(1).build()
    assert lines == again
    assert hash(lines) == hash(again)
    assert hash(lines) != hash(array)


def test_builder_can_go_on_after_a_build() -> None:
    builder = EventBuilder().data("a")
    first = builder.build()
    builder.data("b").name("n")
    assert first == Event("a")
    assert builder.build() == Event("a\nb", event="n")


def test_builder_rejected_step_leaves_the_builder_unchanged() -> None:
    builder = EventBuilder().data("kept").name("kept").comment("kept")
    steps: list[Callable[[], object]] = [
        lambda: builder.id("\n"),
        lambda: builder.name("\n"),
        lambda: builder.retry(-1),
        lambda: builder.data("\ud800"),
        lambda: builder.comment(5),  # type: ignore[arg-type]
    ]
    for step in steps:
        with pytest.raises(InvalidEvent):
            step()
    assert builder.build() == Event("kept", event="kept", comment="kept")
