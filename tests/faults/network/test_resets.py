"""Resets while a stream begins: at any moment, before the server accepts, and during the first write."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

from tests.faults.network.network_clients import NetworkServer, Room, ask, reset_when_closed
from tests.faults.network.network_syscalls import Syscalls
from tests.support.client import get, new_name
from tests.support.waiting import PATIENCE


def test_reset_at_any_moment_of_a_connect_leaves_nothing_behind(server: NetworkServer, seed: int) -> None:
    """Before they are accepted, amid the request, before the answer, amid its first bytes."""
    with Room(server, 1) as room:  # for objects that are made once, and kept
        room.publish("first")
    quiet = server.settled()
    begun = len(server.log)
    with Room(server) as room:
        storms = [threading.Thread(target=storm, args=(random.Random(f"{seed}/{n}"), room)) for n in range(6)]
        for each in storms:
            each.start()
        while any(each.is_alive() for each in storms):
            room.publish(str(len(room.sent)))
        reset_before_they_are_accepted(room)
        room.publish("last")
    now = server.settled()
    assert now["opened"] == sum(now["closed"].values())
    assert set(now["closed"]) <= {"disconnected", "overflow"}, "the latter are of other tests"
    assert now["opened"] - quiet["opened"] > 100, "many got as far as a stream"
    assert now["objects"] == quiet["objects"]
    assert now["descriptors"] <= quiet["descriptors"] + 2
    assert "Traceback" not in server.log[begun:]
    for name, calls in get(server, "/ends").items():
        if name.startswith("reset"):
            kinds = [call[0] for call in calls]
            assert sorted(kinds) == ["completion", "error", "gone"], "each once"
            assert kinds.index("error") < kinds.index("completion"), "the signal comes at any time after the end"


def storm(dice: random.Random, room: Room) -> None:
    for _ in range(70):
        with room.server.connect() as raw:
            reset_when_closed(raw)
            request = f"GET {room.path('reset' + new_name())} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            raw.sendall(dice.choice([b"", request[: dice.randrange(len(request))], request, request, request]))
            time.sleep(dice.choice([0, 0, dice.uniform(0, 0.002), dice.uniform(0, 0.02)]))


def reset_before_they_are_accepted(room: Room) -> None:
    """Reset while the server is stopped, which then finds them in its queue, with a request, and gone."""
    worker = get(room.server, "/process")["pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        for _ in range(50):
            with room.server.connect() as raw:
                reset_when_closed(raw)
                ask(raw, room.path("reset" + new_name()))
    finally:
        os.kill(worker, signal.SIGCONT)


def test_reset_amid_the_first_write_leaves_nothing_behind(judged: tuple[NetworkServer, Syscalls]) -> None:
    """The worker is in its very first ``send()`` to the client, which is gone when that returns."""
    server, syscalls = judged
    opened, begun = server.settled()["opened"], len(server.log)
    for _ in range(20):
        name, held, released = new_name(), threading.Event(), threading.Event()

        def hold(_descriptor: int, held: threading.Event = held, released: threading.Event = released) -> int:
            held.set()
            assert released.wait(PATIENCE)
            return 0

        with server.connect() as raw:
            reset_when_closed(raw)
            syscalls.judge = hold
            ask(raw, f"/events/{new_name()}?name={name}")
            assert held.wait(PATIENCE)
        syscalls.judge = lambda _: 0
        released.set()
        server.await_end(name, "DISCONNECTED")
    assert server.settled()["opened"] == opened + 20
    assert "Traceback" not in server.log[begun:]
