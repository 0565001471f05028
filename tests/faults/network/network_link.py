"""A network of two machines joined by a thread of this process, which loses, narrows and counts packets.

Each machine is a network namespace with a TUN device, and this process has its descriptor: what one kernel sends is
read here, and written to the other, or not. A socket stays in the namespace in which it was made, so neither the
server nor a client must run there: they get sockets of the far machines. No process, configuration or network of this
machine is touched, and everything disappears with its descriptors.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter

import pytest

from tests.support.waiting import PATIENCE

SERVER, CLIENT, PORT = "10.77.0.1", "10.77.0.2", 8000

#: The maximum number of clients.
CLIENTS = 12

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_TUNSETIFF, _TUN, _NO_PACKET_INFORMATION = 0x400454CA, 0x0001, 0x1000
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
_UP, _NO_ARP, _TCP = 0x1, 0x80, 6


class Wire:
    """Both machines, in a ``with`` block; skips the test if this system does not allow them."""

    def __init__(self) -> None:
        self.dead: set[int] = set()  #: ports of clients: packets from and to them are lost silently
        self.windows: dict[int, int] = {}  #: by client's port: maximum window, in bytes, that it may announce
        self.lost: Counter[int] = Counter()  #: packets, by client's port
        self.segments: dict[int, list[int]] = {}  #: sizes of segments to clients with a narrowed window
        self._reader, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Wire:
        self.listener, self._server_end, self._client_end, self._clients = _make_machines()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()
        self._thread.join(PATIENCE)
        for end in (self.listener, self._reader, *self._clients):
            end.close()
        os.close(self._server_end)
        os.close(self._client_end)

    def connect(self) -> socket.socket:
        """Connect a client to the server, across the wire."""
        client = self._clients.pop()
        client.settimeout(PATIENCE)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 0xFFFF)  # so small that it needs no scale
        client.connect((SERVER, PORT))
        return client

    def _run(self) -> None:
        stop = self._reader.fileno()
        while True:
            ready, _, _ = select.select([stop, self._server_end, self._client_end], [], [])
            if stop in ready:
                return
            if self._server_end in ready:
                self._pass(self._server_end, self._client_end, from_client=False)
            if self._client_end in ready:
                self._pass(self._client_end, self._server_end, from_client=True)

    def _pass(self, one: int, other: int, from_client: bool) -> None:
        packet = bytearray(os.read(one, 65_536))
        if packet[0] >> 4 != 4 or packet[9] != _TCP:
            return
        begin = (packet[0] & 15) * 4
        ports = struct.unpack_from("!HH", packet, begin)
        port = ports[0] if from_client else ports[1]
        if port in self.dead:
            self.lost[port] += 1
            return
        if from_client and port in self.windows:
            _narrow(packet, begin, self.windows[port])
        elif port in self.windows and (size := len(packet) - begin - (packet[begin + 12] >> 4) * 4):
            self.segments.setdefault(port, []).append(size)
        os.write(other, packet)


def _narrow(packet: bytearray, begin: int, window: int) -> None:
    """Limit the window that a client announces, and update the checksum (RFC 1624)."""
    announced, checksum = struct.unpack_from("!HH", packet, begin + 14)
    allowed = min(announced, window)
    total = (checksum ^ 0xFFFF) + (announced ^ 0xFFFF) + allowed
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!HH", packet, begin + 14, allowed, total ^ 0xFFFF)


def _make_machines() -> tuple[socket.socket, int, int, list[socket.socket]]:
    """Return the listener, the ends of the wire at the server and at the clients, and the clients' sockets."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        maker = subprocess.run(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
        )
        if maker.returncode:
            reason = maker.stderr.decode().strip().rpartition("\n")[2]
            pytest.skip(f"no network namespace may be made here: {reason}")
        descriptors: list[int] = socket.recv_fds(ours, 1, 3 + CLIENTS)[1]
    listener, server_end, client_end, *clients = descriptors
    return socket.socket(fileno=listener), server_end, client_end, [socket.socket(fileno=each) for each in clients]


def _send_machines(to: int) -> None:
    """Make both machines in a process inside them; only its descriptors remain."""
    _enter(_NEW_NET if os.geteuid() == 0 else _NEW_USER | _NEW_NET)
    server_end = _open_device(SERVER)
    listener = socket.create_server((SERVER, PORT), backlog=100)
    _enter(_NEW_NET)
    client_end = _open_device(CLIENT)
    clients = [socket.socket() for _ in range(CLIENTS)]
    everything = [listener.fileno(), server_end, client_end, *(client.fileno() for client in clients)]
    with socket.socket(fileno=to) as receiver:
        socket.send_fds(receiver, [b"x"], everything)


def _enter(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare: " + os.strerror(ctypes.get_errno()))


def _open_device(address: str) -> int:
    """Open a device that leads to this process, and bring it up with this address in a network of 256."""
    name = b"wire"
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name, _TUN | _NO_PACKET_INFORMATION))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.0")):
            fcntl.ioctl(control, request, struct.pack("16sHH4s16x", name, socket.AF_INET, 0, socket.inet_aton(value)))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name, _UP | _NO_ARP))
    return device


if __name__ == "__main__":
    _send_machines(int(sys.argv[1]))
