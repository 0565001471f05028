"""The workers of this gunicorn: which of them could take streams, and whether more may come."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Set
from contextlib import suppress
from pathlib import Path

from .folder import Folder
from .link import leaving


class Siblings:
    """The other workers of the same master. Any thread may call; nothing waits.

    :param folder: in which they show themselves.
    :param sockets: the inodes of those at which gunicorn takes connections.
    """

    def __init__(self, folder: Folder, sockets: Set[int]) -> None:
        self._folder = folder
        self._master = os.getppid()
        self._sockets = sockets

    @property
    def ready(self) -> list[str]:
        """The names of those that wait to be given streams; of a new master as well that takes over from this one."""
        return [name for name in self._folder.names() if name != str(os.getpid())]

    def may_come(self, known: Set[str], gone: Container[str], workers: int) -> bool:
        """Return whether another one may become ready, beside those that are known.

        It is there and does not stop; or it is to be started in the place of one that stops as this one does, as after
        ``max_requests``, and is older: else two would wait for each other's end. Where the master itself stops, which
        has closed its sockets by then, only workers of a new gunicorn come (SIGUSR2).

        :param gone: those that stop, though they may not show it, or have ended.
        :param workers: so many gunicorn was told to start.
        """
        if os.getppid() != self._master:
            return False
        children = self._children()
        if not self._master_listens():
            return not known and any(_takes_over(process, self._master) for process in children)
        others = [process for process in children if str(process) not in gone]
        staying = [process for process in others if not self._folder.has(leaving(str(process)))]
        if len(staying) < workers - 1:
            return any(process < os.getpid() for process in others if process not in staying) or bool(gone)
        return any(str(process) not in known for process in staying)

    def _master_listens(self) -> bool:
        return not self._sockets.isdisjoint(_sockets_of(self._master))

    def _children(self) -> list[int]:
        try:
            text = Path(f"/proc/{self._master}/task/{self._master}/children").read_text()
        except OSError:  # a system that does not show them
            return []
        return [process for process in map(int, text.split()) if process != os.getpid()]


def _takes_over(process: int, master: int) -> bool:
    """Return whether this process is a gunicorn that takes over from that master."""
    try:
        environ = Path(f"/proc/{process}/environ").read_bytes()
    except OSError:  # it has ended
        return False
    return f"GUNICORN_PID={master}".encode() in environ.split(b"\0")


def _sockets_of(process: int) -> Iterator[int]:
    """Yield the inodes of the sockets that a process has open."""
    folder = f"/proc/{process}/fd"
    with suppress(OSError):  # it has ended
        for name in os.listdir(folder):
            with suppress(OSError):
                target = os.readlink(f"{folder}/{name}")
                if target.startswith("socket:["):
                    yield int(target[len("socket:[") : -1])
