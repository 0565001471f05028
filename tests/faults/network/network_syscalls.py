"""Let a test decide the result of each ``send()`` of a worker: it may pass, wait, or fail with any error.

This is a seccomp filter with a listener (Linux 5.5, without privileges): the worker installs it on itself, and passes
the listener to the test. No code of the worker is changed: it sees what a kernel short of memory would return.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.support.client import new_name
from tests.support.waiting import PATIENCE, until

# By machine: seccomp(2) and sendto(2), by which the C library implements send().
_NUMBERS = {"x86_64": (317, 44), "aarch64": (277, 206)}

INSTALLED = "installed"

_NO_NEW_PRIVILEGES, _SET_FILTER, _NEW_LISTENER = 38, 1, 8
_LOAD_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ASK, _ALLOW = 0x7FC00000, 0x7FFF0000
_CONTINUE = 1

_NOTIFICATION = struct.Struct("=QII" + "iIQ6Q")  # seccomp_notif
_RESPONSE = struct.Struct("=QqiI")  # seccomp_notif_resp
_RECEIVE, _SEND = (
    (3 << 30) | (form.size << 16) | (ord("!") << 8) | number for number, form in enumerate((_NOTIFICATION, _RESPONSE))
)


class Syscalls:
    """Judges every ``send()`` of a worker, in a ``with`` block; skips the test if the kernel cannot do this.

    The worker is started with :attr:`name` in its environment, and calls :func:`offer_sends` with it.
    """

    def __init__(self) -> None:
        #: Returns the error with which a send to this descriptor fails, 0 for none, on a thread of its own. The worker
        #: waits for it.
        self.judge: Callable[[int], int] = lambda _: 0
        self._report = ""  # of the worker
        if platform.machine() not in _NUMBERS:
            pytest.skip(f"system call numbers are unknown for this machine: {platform.machine()}")
        self.name = new_name()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(f"\0{self.name}")
        self._socket.listen()
        self._socket.settimeout(PATIENCE)
        self._reader, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Syscalls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()
        self._thread.join(PATIENCE)
        self._reader.close()
        self._socket.close()

    def await_worker(self) -> None:
        """Wait until the worker has installed the filter; skip the test if it may not."""
        if until(lambda: self._report, "the worker") != INSTALLED:
            pytest.skip(f"the kernel allows no filter here: {self._report}")

    def _run(self) -> None:
        stop = self._reader.fileno()
        worker, _ = self._socket.accept()
        with worker:
            reason, descriptors, _, _ = socket.recv_fds(worker, 1000, 1)
        self._report = reason.decode()
        if not descriptors:
            return
        [listener] = descriptors
        while stop not in (ready := select.select([stop, listener], [], [])[0]):
            if listener in ready:
                with suppress(FileNotFoundError):  # a signal has interrupted the call, or the worker has exited
                    self._answer(listener)
        os.close(listener)

    def _answer(self, listener: int) -> None:
        notification = bytearray(_NOTIFICATION.size)
        fcntl.ioctl(listener, _RECEIVE, notification)
        number, _, _, _, _, _, descriptor, *_ = _NOTIFICATION.unpack(notification)
        code = self.judge(descriptor)
        fcntl.ioctl(listener, _SEND, bytearray(_RESPONSE.pack(number, 0, -code, 0 if code else _CONTINUE)))


def offer_sends(name: str) -> None:
    """Let the listener of this name judge every send of this thread, and of threads it starts, from now on."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"\0{name}")
        try:
            listener = _install_filter()
        except OSError as error:
            connection.sendmsg([str(error).encode()])
        else:
            socket.send_fds(connection, [INSTALLED.encode()], [listener])
            os.close(listener)


def _install_filter() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    seccomp, sendto = _NUMBERS[platform.machine()]
    steps = [(_LOAD_NUMBER, 0, 0, 0), (_JUMP_IF_EQUAL, 0, 1, sendto), (_RETURN, 0, 0, _ASK), (_RETURN, 0, 0, _ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    whole = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program))
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl: " + os.strerror(ctypes.get_errno()))
    listener: int = libc.syscall(seccomp, _SET_FILTER, _NEW_LISTENER, whole)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp: " + os.strerror(ctypes.get_errno()))
    return listener
