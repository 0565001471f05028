"""Has the kernel ask a test what is to become of each ``send()`` of a worker: it may pass, wait, or fail in any way.

That is a seccomp filter with a listener (Linux 5.5, and no privilege): the worker installs it on itself, and hands the
listener to the test. No code of the worker is changed, and what it sees is what a kernel short of memory would tell it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import select
import socket
import struct
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

import pytest

from .waiting import PATIENCE, until

# By machine: seccomp(2) and sendto(2), as which the C library does send().
_NUMBERS = {"x86_64": (317, 44), "aarch64": (277, 206)}

INSTALLED = "installed"

_NO_NEW_PRIVILEGES, _SET_FILTER, _NEW_LISTENER = 38, 1, 8
_LOAD_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ASK, _ALLOW = 0x7FC00000, 0x7FFF0000
_CONTINUE = 1

_QUESTION = struct.Struct("=QII" + "iIQ6Q")  # seccomp_notif
_ANSWER = struct.Struct("=QqiI")  # seccomp_notif_resp
_RECEIVE, _SEND = (
    (3 << 30) | (form.size << 16) | (ord("!") << 8) | number for number, form in enumerate((_QUESTION, _ANSWER))
)


class Send(NamedTuple):
    """What a worker is about to do."""

    descriptor: int
    size: int


class Syscalls:
    """Judges every ``send()`` of one worker, from ``with`` to its end: skips the test where no kernel asks.

    The worker is started with :attr:`path` in its environment, and calls :func:`offer_sends` with it.
    """

    def __init__(self) -> None:
        #: Which error a send is to fail with, 0 for none. On a thread of its own; the worker waits for it.
        self.judge: Callable[[Send], int] = lambda _: 0
        self.failed: Counter[int] = Counter()  #: sends that did, by descriptor
        self._said = ""  # by the worker
        if platform.machine() not in _NUMBERS:
            pytest.skip(f"the numbers of system calls are not known here: {platform.machine()}")
        self._folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self._folder.name, "socket")
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(self.path)
        self._door.listen()
        self._door.settimeout(PATIENCE)
        self._reader, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Syscalls:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.close()
        self._thread.join(PATIENCE)
        self._reader.close()
        self._door.close()
        self._folder.cleanup()

    def await_worker(self) -> None:
        """Once the worker has installed the filter; skips the test where it must not."""
        if until(lambda: self._said, "the worker") != INSTALLED:
            pytest.skip(f"the kernel asks nobody here: {self._said}")

    def _run(self) -> None:
        stop = self._reader.fileno()
        if stop in select.select([stop, self._door.fileno()], [], [], PATIENCE)[0]:
            return
        worker, _ = self._door.accept()
        with worker:
            reason, descriptors, _, _ = socket.recv_fds(worker, 1000, 1)
        self._said = reason.decode()
        if not descriptors:
            return
        [listener] = descriptors
        while stop not in (ready := select.select([stop, listener], [], [])[0]):
            if listener in ready:
                with suppress(FileNotFoundError):  # a signal has interrupted the call, or the worker is gone
                    self._answer(listener)
        os.close(listener)

    def _answer(self, listener: int) -> None:
        question = bytearray(_QUESTION.size)
        fcntl.ioctl(listener, _RECEIVE, question)
        number, _, _, _, _, _, *arguments = _QUESTION.unpack(question)
        send = Send(arguments[0], arguments[2])
        code = self.judge(send)
        if code:
            self.failed[send.descriptor] += 1
        fcntl.ioctl(listener, _SEND, bytearray(_ANSWER.pack(number, 0, -code, 0 if code else _CONTINUE)))


def offer_sends(path: str) -> None:
    """Have whoever listens at this path judge every send of this thread, and of those that it starts, from now on."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
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
