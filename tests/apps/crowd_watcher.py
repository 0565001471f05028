"""Read streams that were open before a crowd connected, in a process of its own, and report when data came.

python -m tests.apps.crowd_watcher PORT PATH...
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time

READY = "ready"


def main(port: int, paths: list[str]) -> None:
    """Read until the standard input ends, then print what came on each path, and when."""
    got: list[list[tuple[float, str]]] = [[] for _ in paths]
    with selectors.DefaultSelector() as selector:
        for path, record in zip(paths, got, strict=True):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            record.append((time.monotonic(), client.recv(65_536).decode()))
            selector.register(client, selectors.EVENT_READ, record)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print(READY, flush=True)  # noqa: T201
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    json.dump(got, sys.stdout)
                    return
                data = key.fileobj.recv(65_536)  # type: ignore[union-attr]
                key.data.append((time.monotonic(), data.decode()))
                if not data:
                    selector.unregister(key.fileobj)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
