"""The workers of this gunicorn: which of them could take streams, and whether more may come."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from .folder import Folder
from .link import leaving


class Siblings:
    """The other workers of the same master. Any thread may call; nothing waits.

    :param folder: in which they show themselves.
    :param listening: descriptors of the sockets at which gunicorn takes connections.
    """

    def __init__(self, folder: Folder, listening: Iterable[int]) -> None:
        self._folder = folder
        self._master = os.getppid()
        self._sockets = {os.fstat(descriptor).st_ino for descriptor in listening}

    @property
    def ready(self) -> list[str]:
        """The names of those that wait to be given streams; of a new master as well that takes over from this one."""
        return [name for name in self._folder.names() if name != str(os.getpid())]

    @property
    def may_come(self) -> bool:
        """Whether another one may become ready: one that is there, does not stop, and has not shown itself yet.

        None does where the master itself stops: it has closed its sockets by then.
        """
        if os.getppid() != self._master or not self._master_listens():
            return False
        return any(not self._folder.has(leaving(str(process))) for process in self._children())

    def _master_listens(self) -> bool:
        return not self._sockets or bool(self._sockets & set(_sockets_of(self._master)))

    def _children(self) -> Iterator[int]:
        try:
            text = Path(f"/proc/{self._master}/task/{self._master}/children").read_text()
        except OSError:  # a system that does not show them
            return
        yield from (process for process in map(int, text.split()) if process != os.getpid())


def _sockets_of(process: int) -> Iterator[int]:
    """Yield the inodes of the sockets that a process has open."""
    folder = f"/proc/{process}/fd"
    with suppress(OSError):  # it has ended
        for name in os.listdir(folder):
            with suppress(OSError):
                target = os.readlink(f"{folder}/{name}")
                if target.startswith("socket:["):
                    yield int(target[len("socket:[") : -1])
