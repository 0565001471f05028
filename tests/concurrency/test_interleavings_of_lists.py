"""Lists under every interleaving of sends, changes of their members, and ends."""

from __future__ import annotations

from functools import partial

import pytest

from flask_sse_emitters import CloseReason, CopyOnWriteList, SseEmitters
from flask_sse_emitters.broadcast import delivery
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.testing import decode
from flask_sse_emitters.writers.response_body import ResponseBody
from tests.concurrency.interleavings import Scene
from tests.concurrency.stage import Every, Stage
from tests.unit.doubles.writer import FakeWriter, texts_of


def test_list_send_while_reader_goes_to_sleep_loses_no_wake_up(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
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


def test_emitter_added_while_list_completes_ends_or_stays_a_member(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        clients = SseEmitters()
        old, new = clients.add(stage.emitter()), stage.emitter()

        def check() -> None:
            stage.background.finish()
            assert old.close_reason is CloseReason.COMPLETED
            assert list(clients) == [new] * new.is_open
            assert clients.send("later") == len(clients)
            assert texts_of(new) == ["later"] * new.is_open

        return Scene({"add": lambda: clients.add(new), "complete": clients.complete}, check)

    every(scene)


def test_emitter_added_twice_concurrently_is_a_member_once(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        clients, emitter = SseEmitters(), stage.emitter()

        def check() -> None:
            assert len(clients) == 1
            assert (clients.send("a"), texts_of(emitter)) == (1, ["a"])

        return Scene({"one": lambda: clients.add(emitter), "other": lambda: clients.add(emitter)}, check)

    every(scene)


def test_emitter_that_ends_while_added_is_no_member_of_list(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        clients, emitter = SseEmitters(), stage.emitter()

        def check() -> None:
            assert (len(clients), emitter.close_reason) == (0, CloseReason.COMPLETED)

        return Scene({"add": lambda: clients.add(emitter), "complete": emitter.complete}, check)

    every(scene)


def test_emitter_completed_during_list_sends_has_a_prefix_of_events(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        clients = SseEmitters()
        emitter, other = clients.add(stage.emitter()), clients.add(stage.emitter())
        reached: list[int] = []

        def check() -> None:
            stage.background.finish()
            got = texts_of(emitter)
            assert texts_of(other) == ["a", "b"]
            assert got == ["a", "b"][: len(got)]
            assert len(got) <= sum(reached) - 2
            assert list(clients) == [other]

        return Scene(
            {"send": lambda: reached.extend([clients.send("a"), clients.send("b")]), "complete": emitter.complete},
            check,
        )

    every(scene, takes=2)


@pytest.mark.parametrize("texts", ["ab", "abc"], ids=["two", "three"])
def test_concurrent_list_sends_reach_all_clients_in_one_order(texts: str, stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        clients = SseEmitters()
        each = [clients.add(stage.emitter()) for _ in range(2)]
        reader = FakeWriter(each[0])

        def check() -> None:
            stage.background.finish()
            reader.take_all()
            assert reader.texts() == texts_of(each[1])
            assert sorted(reader.texts()) == [*texts]
            assert not clients._delivery._is_passing

        return Scene({text: partial(clients.send, text) for text in texts}, check)

    if texts == "ab":
        every(scene)
    else:
        every(scene, takes=2, edges=1, lines=None)


def test_list_completed_during_send_delivers_to_all_clients_or_none(stage: Stage, every: Every) -> None:
    """An event is delivered before the end of the list to every client, or to none of them."""

    def scene() -> Scene:
        clients = SseEmitters()
        each = [clients.add(stage.emitter()) for _ in range(2)]
        reached: list[int] = []

        def check() -> None:
            stage.background.finish()
            assert len(clients) == 0
            assert [emitter.close_reason for emitter in each] == [CloseReason.COMPLETED] * 2
            assert texts_of(each[0]) == texts_of(each[1]) in ([], ["a"])

        return Scene({"send": lambda: reached.append(clients.send("a")), "complete": clients.complete}, check)

    every(scene)


def test_emitter_removed_during_delivery_pass_costs_others_no_event(
    stage: Stage, every: Every, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "CLIENTS_PER_LOOK", 1)

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

    every(scene, takes=2)


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


def test_list_element_removed_twice_concurrently_is_removed_once(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        subject = CopyOnWriteList("ab")
        removed: list[bool] = []

        def check() -> None:
            assert (sorted(removed), list(subject)) == ([False, True], ["b"])

        def remove() -> None:
            removed.append(subject.remove("a"))

        return Scene({"one": remove, "other": remove}, check)

    every(scene)
