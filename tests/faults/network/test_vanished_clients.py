"""Clients whose network is gone, without FIN or RST, for good or for a moment."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

from tests.faults.network.network_clients import NetworkServer, Reading, Room
from tests.faults.network.network_link import Wire
from tests.support.waiting import until


def test_vanished_client_is_disconnected_soon_and_replays_what_it_missed(far: tuple[NetworkServer, Wire]) -> None:
    """Half-open: neither FIN nor RST reaches the server, nor an answer. One client is idle, one is being written to."""
    server, wire = far
    server.settled()
    before = server.closed("disconnected")
    with Room(server) as room, Room(server) as silence, ExitStack() as stack:
        busy, idle, healthy = (Reading(stack.enter_context(wire.connect()), where) for where in (room, silence, room))
        gone = (busy, idle)
        connections = {server.connection_of(client.name) for client in gone}
        ports = {client.raw.getsockname()[1] for client in gone}
        room.publish("first")
        assert busy.texts(1) == ["first"]
        for client in gone:
            client.raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # as browsers do
            for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 100)):
                client.raw.setsockopt(socket.IPPROTO_TCP, option, value)
        wire.dead |= ports
        while server.stream(busy.name)["open"]:
            room.publish(f"{len(room.sent)} " + "x" * 100_000)
            assert healthy.texts(len(room.sent)) == room.sent, "it is on the same network, and connected"
            time.sleep(0.05)
        for client in gone:
            server.await_end(client.name, "DISCONNECTED")
        assert min(wire.lost[port] for port in ports) > 0
        until(lambda: not connections & server.connections(), "their descriptors to be closed")
        assert server.closed("disconnected") == before + 2
        assert "Traceback" not in server.log
        assert server.stream(healthy.name)["open"]
        wire.dead.clear()
        assert idle.to_the_end() == []
        assert room.come_back(busy.to_the_cut()) == room.sent


def test_short_network_outage_neither_ends_a_stream_nor_loses_an_event(far: tuple[NetworkServer, Wire]) -> None:
    server, wire = far
    with Room(server) as room, wire.connect() as raw:
        reading = Reading(raw, room)
        port = raw.getsockname()[1]
        wire.dead.add(port)
        for number in range(5):
            room.publish(str(number))
        until(lambda: wire.lost[port] >= 2, "something to be lost")
        wire.dead.clear()
        assert reading.texts(len(room.sent)) == room.sent
        assert server.stream(reading.name)["open"]
