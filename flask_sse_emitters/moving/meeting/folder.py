"""Where the workers of one gunicorn find each other: a folder of sockets that only their user can enter.

It is named after the user and the master process, with the time at which that began: so no other gunicorn has the same,
though a process id may come again. It lies in ``XDG_RUNTIME_DIR``, or in the system's folder for temporary files, where
anyone could have made one of that name: so it is checked once it is open, and used by its descriptor from then on.

A new gunicorn that takes over from an old one (SIGUSR2) has another master. Its workers join the folder of the old
one's as well.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ...runtime.fork import reset_after_fork

#: The first part of the name.
_PREFIX = "flask-sse-emitters"

#: The place of a process's start time in ``/proc/<pid>/stat``, counted from what follows its name.
_START_TIME = 19


class FolderUnsafe(OSError):
    """The folder is not ours alone, so no stream is given away through it."""


def started_at(pid: int) -> str | None:
    """Return when a process began, in ticks since the system did; None where there is none, or no ``/proc``."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()[_START_TIME]  # its name may have spaces and parentheses


def masters(environ: Mapping[str, str] = os.environ) -> list[int]:
    """Return the master of this worker; after it the old one, from which that takes over."""
    old = environ.get("GUNICORN_PID", "")  # gunicorn's own, until the old one has ended
    return list(dict.fromkeys([os.getppid(), *([int(old)] if old.isdecimal() else [])]))


def others(master: int, base: str | None = None) -> bool:
    """Return whether another worker of this master shows itself, or has shown itself and stops. Makes no folder.

    :param base: see :class:`Folder`.
    """
    own = os.getpid()
    try:
        path = _path(master, base)
        _check(path, os.lstat(path))
        names = os.listdir(path)
    except OSError:  # there is none, or it is not ours
        return False
    processes = [name.rpartition("-")[2].lstrip(".") for name in names]
    return any(each.isdecimal() and int(each) != own and started_at(int(each)) is not None for each in processes)


class Folder:
    """The folder of one master's workers, which is made if it is missing. Any thread may call; nothing waits.

    :param master: its process id.
    :param base: where it lies; None as the module says.
    :raises FolderUnsafe: where others may enter it.
    :raises OSError: where it cannot be made, or the master has ended.
    """

    def __init__(self, master: int, base: str | None = None) -> None:
        self.path = _path(master, base)
        with suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _check(self.path, os.fstat(self._descriptor))
        except FolderUnsafe:
            self._release()
            raise
        reset_after_fork(self._release)

    def address(self, name: str) -> str:
        """Return the address of a socket in it: a short one wherever it lies, as the system allows 107 bytes."""
        return f"/proc/self/fd/{self._descriptor}/{name}"

    def names(self) -> list[str]:
        """Return the names of the sockets, in an order of no meaning; some may be of processes that have ended."""
        return [name for name in os.listdir(self._descriptor) if not name.startswith(".")]

    def rename(self, name: str, other: str) -> None:
        """Give a socket another name, in place of one that has it. One that begins with a dot is not found."""
        os.rename(name, other, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def has(self, name: str) -> bool:
        """Return whether there is a socket of that name, found or not."""
        try:
            os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove a socket. Idempotent."""
        with suppress(OSError):  # it is gone, or a forked child has let go of the folder
            os.unlink(name, dir_fd=self._descriptor)

    def close(self) -> None:
        """Leave it, and remove it if nobody else is in it. Idempotent."""
        if self._descriptor >= 0:
            for name in os.listdir(self._descriptor):
                process = name.rpartition("-")[2].lstrip(".")
                if process.isdecimal() and started_at(int(process)) is None:  # it was killed
                    self.remove(name)
            self._release()
            with suppress(OSError):  # others are in it, or have removed it
                self.path.rmdir()

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _path(master: int, base: str | None) -> Path:
    started = started_at(master)
    if started is None:
        raise ProcessLookupError(f"there is no process {master}, or this system does not show it")
    return Path(base or _base()) / f"{_PREFIX}-{os.geteuid()}-{master}-{started}"


def _base() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return runtime if os.path.isdir(runtime) else tempfile.gettempdir()


def _check(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise FolderUnsafe(f"{path} belongs to the user {found.st_uid}: remove it")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise FolderUnsafe(f"{path} is open to other users: remove it, or chmod 700")
