"""What a broadcast is without this package: a loop of ``socket.send`` in Python. Usage: ... PORT"""

from __future__ import annotations

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .computing import Computing
from .events import stamped

clients: list[socket.socket] = []
computing = Computing()


class Server(ThreadingHTTPServer):
    request_queue_size = 4096
    daemon_threads = True

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Leave a client's socket open: its thread has ended, and the loop sends to it."""
        if request not in clients:
            super().shutdown_request(request)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path != "/events":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        clients.append(self.connection)
        self.close_connection = True

    def do_POST(self) -> None:
        *_, what, argument = self.path.split("/")
        body = {"broadcast": self._broadcast, "computing": self._computing}[what](argument).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _broadcast(self, number: str) -> str:
        event = f"data: {stamped(int(number))}\n\n".encode()
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        for client in clients:
            client.send(chunk)
        return ""

    def _computing(self, what: str) -> str:
        return computing.begin() if what == "begin" else computing.end()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
