"""Reserve disk space for the files in which prometheus_client keeps the metrics of one of several processes.

It makes them sparse and maps them into memory. On a full file system, the first write to such a page raises no error
but a SIGBUS, which ends the process and cuts all of its streams. So the space is reserved before it opens them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from .metric_definitions import GAUGES

#: Bytes of a file as prometheus_client makes it. Most of it stays a hole, which takes no space.
FILE_BYTES = 1 << 16

#: Bytes reserved in each file for the metrics of one app, which take less than 3,000.
RESERVED_BYTES = 1 << 14


def reserve(folder: str) -> None:
    """Reserve the space that the metrics of this process need in this folder. Idempotent; may wait for the disk.

    :raises OSError: where there is too little space, or the folder cannot be written to.
    """
    for kind in _kinds():
        _reserve(os.path.join(folder, f"{kind}_{os.getpid()}.db"))


def _kinds() -> Iterator[str]:
    """Yield the names of the files as prometheus_client makes them, without the process."""
    yield from ("counter", "histogram")
    yield from sorted({f"gauge_{metric.mode}" for metric in GAUGES})


def _reserve(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        size = os.fstat(descriptor).st_size  # above 0 where the app has metrics of its own
        if hasattr(os, "posix_fallocate"):
            used = int.from_bytes(os.pread(descriptor, 4, 0), sys.byteorder)  # as prometheus_client notes it
            os.posix_fallocate(descriptor, 0, used + RESERVED_BYTES)
        elif not size:
            os.write(descriptor, bytes(RESERVED_BYTES))
        if size < FILE_BYTES:
            os.ftruncate(descriptor, FILE_BYTES)
    except OSError:
        if not os.fstat(descriptor).st_size:  # a scrape fails where it reads an empty file
            os.unlink(path)
        raise
    finally:
        os.close(descriptor)
