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
from types import TracebackType

import pytest

from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE

SERVER, CLIENT, PORT = "10.77.0.1", "10.77.0.2", 8000

#: The maximum number of clients.
CLIENTS = 12

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_TUNSETIFF, _TUN, _NO_PACKET_INFORMATION = 0x400454CA, 0x0001, 0x1000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
_UP, _TCP, _SYN = 0x1, 6, 0x02
_WINDOW_SCALE, _END, _NOTHING = 3, 0, 1


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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
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
        if from_client:
            _narrow(packet, begin, self.windows.get(port, 0xFFFF))
        elif port in self.windows and (size := len(packet) - begin - (packet[begin + 12] >> 4) * 4):
            self.segments.setdefault(port, []).append(size)
        os.write(other, packet)


class FarServer(Server):
    """A server with two listeners: one on this machine, as every server, and one at the far end of the wire."""

    def __init__(self, kind: str, app: str, listener: socket.socket, env: dict[str, str]) -> None:
        super().__init__(kind, app, env=env)
        self._far = listener

    def start(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as near:
            self.port = near.getsockname()[1]
            listeners = [near.fileno(), self._far.fileno()]
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env={
                    **os.environ,
                    "LISTENER": str(listeners[0]),
                    "GUNICORN_CMD_ARGS": " ".join(f"--bind=fd://{listener}" for listener in listeners),
                    **self._env,
                },
                pass_fds=listeners,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def _narrow(packet: bytearray, begin: int, window: int) -> None:
    """Limit the window that a client announces, and remove its scale."""
    if packet[begin + 13] & _SYN:
        _forget_scale(packet, begin)
    announced = struct.unpack_from("!H", packet, begin + 14)[0]
    struct.pack_into("!H", packet, begin + 14, min(announced, window))
    struct.pack_into("!H", packet, begin + 16, 0)
    pseudo = packet[12:20] + struct.pack("!BBH", 0, _TCP, len(packet) - begin)
    struct.pack_into("!H", packet, begin + 16, _checksum(pseudo + packet[begin:]))


def _forget_scale(packet: bytearray, begin: int) -> None:
    at, end = begin + 20, begin + (packet[begin + 12] >> 4) * 4
    while at < end and packet[at] != _END:
        if packet[at] == _WINDOW_SCALE:
            packet[at : at + 3] = bytes([_NOTHING] * 3)
        at += 1 if packet[at] == _NOTHING else packet[at + 1]


def _checksum(data: bytes | bytearray) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


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
        flags = struct.unpack_from("16sH", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16s24x", name)))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name, flags | _UP))
    return device


if __name__ == "__main__":
    _send_machines(int(sys.argv[1]))
