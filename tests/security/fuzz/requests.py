"""Requests that a generator makes, sent within this process and over sockets; each answer is judged."""

from __future__ import annotations

import io
import logging
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes
from weakref import WeakSet

from werkzeug.middleware.proxy_fix import ProxyFix

from flask_sse_emitters.streams.stream import Stream
from flask_sse_emitters.writers.response_body import TEST_HOOK, ResponseBody
from tests.apps import fuzzed as fuzz_app
from tests.apps.fuzzed import BAD_SESSIONS, BAD_TOKENS, CLOSED, ORIGINS, PEOPLE, PUBLIC, SESSIONS, TOKENS
from tests.support.client import post
from tests.support.servers import Server
from tests.support.waiting import PATIENCE

#: The most streams that are open at once: more than the app allows.
HELD = 14


RIGHTS = {credential.rpartition(".")[0].encode(): names for credential, names in {**TOKENS, **SESSIONS}.items()}


LENGTH = re.compile("[0-9]{1,9}")


SECRET = re.compile(rb"<<([a-z0-9/~]+)>>")


class Request(NamedTuple):
    """One request, as its client writes it."""

    method: bytes
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    version: bytes

    def raw(self, framed: bool) -> bytes:
        """
        :param framed: whether a body in chunks is really in chunks.
        """
        is_chunked = framed and any(name == b"Transfer-Encoding" for name, _ in self.headers)
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body) if is_chunked and self.body else self.body
        lines = [b"%b %b%b %b" % (self.method, self.path, b"?" + self.query if self.query else b"", self.version)]
        lines += [b"%b: %b" % header for header in self.headers]
        return b"\r\n".join((*lines, b"", body))

    def environ(self, terminated: bool) -> dict[str, Any]:
        """Return the environ that servers make (PEP 3333), as far as it comes from the client.

        :param terminated: the server ends the body where it ends, as gunicorn does; else only a body in chunks.
        """
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.method.decode("latin-1"),
            "PATH_INFO": unquote_to_bytes(self.path).decode("latin-1"),
            "QUERY_STRING": self.query.decode("latin-1"),
            "SERVER_PROTOCOL": self.version.decode("latin-1"),
            "wsgi.input": io.BytesIO(self.body),
        }
        for name, value in self.headers:
            key = name.decode("latin-1").upper().replace("-", "_")
            key = key if key in ("CONTENT_LENGTH", "CONTENT_TYPE") else f"HTTP_{key}"
            text = value.translate(None, b"\r\n").strip(b" \t").decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
        length = environ.get("CONTENT_LENGTH", "")
        if terminated and LENGTH.fullmatch(length):
            environ |= {"wsgi.input": io.BytesIO(self.body[: int(length)]), "wsgi.input_terminated": True}
        if "HTTP_TRANSFER_ENCODING" in environ:
            environ["wsgi.input_terminated"] = True
        return environ

    def may_see(self, channel: str) -> bool:
        """Return whether it has credentials for the channel; a changed signature may still be the same one."""
        sent = unquote_to_bytes(self.query) + b"".join(value for _, value in self.headers)
        return any(credential in sent and channel in names for credential, names in RIGHTS.items())


SESSION_COOKIES = [cookie.encode() for cookie in SESSIONS]


#: Credentials, and the channels that they open: ``~ann`` is what ann calls ``~``.
CLIENTS = [
    (credential.encode(), [name.encode() for name in [*names, *PUBLIC]])
    for credential, names in {"": [], **TOKENS, **SESSIONS}.items()
]


PUBLISHER = (CLIENTS[1][0], [b"posted", b"posted/1", b"news"])


NAMES = [name.encode() for name in [*PUBLIC, *CLOSED, "~", "posted", "posted/1"]]


ODD_NAMES = [
    *(f"~{person}".encode() for person in PEOPLE),
    *[b"", b" ", b".", b"..", b"/", b"//news", b"news/", b"NEWS", b"news,vault", b"!revoked", b"orders*", b"*", b"~~"],
    *[b"%00", b"news%0a", b"news%0d%0aX: y", b"%ff", b"\xff", b"\xc3\xa4", b"%ed%a0%80", b"%c0%ae", b"%zz", b"%"],
    *[b"x" * 200, b"x" * 201, b"x" * 5000, b"a%2fb", b"..%2f..%2fetc", b"${7*7}", b"{{7*7}}", b"%F0%9F%A6%84"],
]


PATHS = [b"/events", b"/events", b"/events/", b"/mine"]


ODD_PATHS = [b"", b"/", b"*", b"/event", b"/events//", b"//events/news", b"/EVENTS", b"/events/news?", b"/static/x"]


ID_FIELDS = [b"last_event_id", b"lastEventId", b"evs_last_event_id"]


ODD_IDS = [b"", b"0", b"-", b",", b"a-0", b"a-01", b"a--1", b"a-999999999999999999", b"a-1,", b"\xff", b"null", b"%00"]


METHODS = [b"GET"] * 14 + [b"HEAD", b"HEAD", b"OPTIONS", b"POST", b"POST", b"POST"]


ODD_METHODS = [b"PUT", b"DELETE", b"TRACE", b"PATCH", b"PROPFIND", b"CONNECT", b"get", b"M-SEARCH", b"X" * 30, b"!"]


HOSTS = [b"localhost", b"localhost:80", b"127.0.0.1:8080", b"[::1]:8080", b"shop.example"]


ODD_HOSTS = [*b"[::1 [:1] [a:.] [ : :80 a:b x:99999 \xff a,b .. a/b@c".split(), b"", b"a b", b"x" * 300]


ORIGIN_VALUES = [origin.encode() for origin in ORIGINS] + [b"http://localhost", b"https://shop.example:443"]


ODD_ORIGINS = [b"null", b"", b"://", b"https://", b"https://evil.example", b"HTTPS://SHOP.EXAMPLE", b"file://", b"\xff"]


ADDRESSES = [b"10.0.0.1", b"10.0.0.2", b"::1", b"2001:db8::7", b"::ffff:10.0.0.1", b"fe80::1%eth0"]


ODD_ADDRESSES = [*b"unknown [::1]:80 10.0.0.1:80 % ::% 999.1.1.1 _x 1,2,3 \xff 1".split(), b""]


TYPES = [b"application/json", b"text/plain", b"text/plain; charset=utf-8"]


ODD_TYPES = [b"", b"text/plain; charset=utf-16", b"multipart/form-data; boundary=x", b";;=", b"text/plain;charset"]


BODIES = [b'"x"', b'{"id": 7}', b"hello", b"", b"null", b"\xc3\xa4"]


ODD_BODIES = [b"[" * 4000, b"NaN", b"1e999", b'"\\ud800"', b"\xff", b"9" * 4090, b"x" * 5000, b"\0", b"a\r\rb\n", b"{"]


LENGTHS = [*b"-1 +1 0 1 7 4097 1e3 abc 0x10 \xb2".split(), b"", b"1, 2", b"9" * 30, b"9" * 5000]


HEADERS: list[tuple[bytes, list[bytes]]] = [
    (b"Sec-Fetch-Site", [b"same-origin", b"cross-site", b"none", b"x"]),
    (b"Sec-Fetch-Mode", [b"cors", b"navigate", b""]),
    (b"X-Forwarded-For", ADDRESSES + ODD_ADDRESSES),
    (b"X-Forwarded-Host", HOSTS + ODD_HOSTS),
    (b"X-Forwarded-Proto", [b"https", b"http", b"ftp", b"", b"\xff", b"https,http"]),
    (b"X-Forwarded-Port", [b"443", b"-1", b"abc", b"9" * 30, b""]),
    (b"X-Forwarded-Prefix", [b"/app", b"app", b"//", b"/\xff", b"%"]),
    (b"Access-Control-Request-Method", [b"GET", b"POST", b"\xff"]),
    (b"Access-Control-Request-Headers", [b"last-event-id", b"*", b"," * 100]),
    (b"Accept", [b"text/event-stream", b"*/*", b"x" * 3000, b";q=\xff"]),
    (b"Cache-Control", [b"no-cache"]),
    (b"Range", [b"bytes=0-", b"bytes=9-1", b"\xff"]),
    (b"If-None-Match", [b"*", b'"', b"\xff"]),
    (b"If-Modified-Since", [b"Thu, 01 Jan 1970 00:00:00 GMT", b"9" * 400]),
    (b"Connection", [b"close", b"keep-alive", b"upgrade"]),
    (b"X", [b"", b"\xff", b"x" * 7000]),
]


PIECES = [*b'%00 %ff % & = ; , / .. \xff \xed\xa0\x80 \xd9\xa3 " \\'.split(), b" "]


PARAMETERS = b"padding evs_preamble= r=0.5 = && a;b channel channel[]=news CHANNEL=news".split()


BROKEN = [
    *[b"\0", b"\r\n", b"GET\r\n\r\n", b"GET /events/news\r\n\r\n", b"GET  /events/news  HTTP/1.1\r\n\r\n"],
    *[b"GET /events/news HTTP/9.9\r\n\r\n", b"GET /events/news HTTP/1.1\n\n"],
    b"GET http://x/events/news HTTP/1.1\r\n\r\n",
    *[b"GET /%b HTTP/1.1\r\n\r\n" % (b"x" * 9000), b"OPTIONS * HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    b"GET /events/news HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * 100_000),
    b"GET /events/news HTTP/1.1\r\n%b\r\n" % (b"X: x\r\n" * 1000),
    b"GET /events/news HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /events/news HTTP/1.1\r\n folded: x\r\nno colon\r\n\r\n",
    b"POST /events/news HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"POST /events/news HTTP/1.1\r\nAuthorization: Bearer %b\r\nContent-Type: text/plain\r\n" % PUBLISHER[0]
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    b"GET /events HTTP/1.1\r\nHost: [:1]\r\n\r\n",
    b"POST /events/news HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    b"POST /events/news HTTP/1.1\r\nTransfer-Encoding: chunk\r\n\r\n",
    b"GET /events/news HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
]


LAST = b"GET /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Generator:
    """Draws requests that are valid, that have odd parts, that are changed at random, and that are noise."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.ids: dict[str, str] = {}  #: of the newest events, by the clients' names of the channels
        self._oddness = 0.0

    def request(self) -> Request:
        dice = self.dice
        self._oddness = dice.choice((0.0, 0.0, 0.05, 0.1))
        method = self._one(METHODS, ODD_METHODS)
        credential, open_names = PUBLISHER if method == b"POST" and dice.random() < 0.7 else dice.choice(CLIENTS)
        names = [self._one(open_names, NAMES + ODD_NAMES) for _ in range(dice.choice((1, 1, 2, 4)))]
        in_path = method == b"POST" or dice.random() < 0.5
        asked = [b"~" if name in open_names and name.startswith(b"~") else name for name in names]
        path = self._one([b"/events/" + asked[0]] if in_path else PATHS, ODD_PATHS)
        parameters = [b"channel=" + name for name in asked[in_path:]]
        headers = [(b"Host", self._one(HOSTS, ODD_HOSTS))] if dice.random() < 0.9 else []
        self._add_id(parameters, headers, names)
        self._add_credential(parameters, headers, credential)
        if dice.random() < 0.1:
            headers.append((b"Origin", self._one(ORIGIN_VALUES, ODD_ORIGINS)))
        for _ in range(dice.choice((0, 0, 1, 3))):
            name, values = dice.choice(HEADERS)
            headers.append((name, dice.choice(values)))
        body = b""
        if method == b"POST" or self._is_odd():
            body = self._one(BODIES, ODD_BODIES)
            parameters += dice.choice(([], [], [b"event=e"], [b"event=gap"], [b"key=k"], [b"retry=5"], [b"event=%0a"]))
            headers.append((b"Content-Type", self._one(TYPES, ODD_TYPES)))
            if dice.random() < 0.05:
                headers.append((b"Transfer-Encoding", b"chunked"))
            else:
                headers.append((b"Content-Length", dice.choice(LENGTHS) if self._is_odd() else b"%d" % len(body)))
        while self._is_odd():
            parameters.insert(dice.randint(0, len(parameters)), dice.choice(PARAMETERS))
        version = b"HTTP/1.0" if dice.random() < 0.1 else b"HTTP/1.1"
        request = Request(method, path, b"&".join(parameters), headers, body, version)
        return self._changed(request) if dice.random() < 0.35 else request

    def mutated(self, text: bytes) -> bytes:
        dice = self.dice
        if dice.random() < 0.02:
            return dice.randbytes(dice.randint(0, 300))
        at = dice.randint(0, len(text))
        to = min(len(text), at + dice.choice((1, 1, 2, 8)))
        part = text[at:to]
        changed = dice.choice(
            (bytes([dice.randrange(256)]), b"", part * 2, part * dice.choice((100, 3000)), dice.choice(PIECES) + part)
        )
        return text[:at] + changed + text[to:]

    def _is_odd(self) -> bool:
        return self.dice.random() < self._oddness

    def _one(self, right: list[bytes], odd: list[bytes]) -> bytes:
        return self.dice.choice(odd if self._is_odd() else right)

    def _add_id(self, parameters: list[bytes], headers: list[tuple[bytes, bytes]], names: list[bytes]) -> None:
        dice = self.dice
        if dice.random() < 0.5:
            return
        known = [self.ids.get(name.decode("latin-1"), "a-1").encode() for name in dict.fromkeys(names)]
        value = b",".join(known)
        if dice.random() < 0.3:  # some events ago, or some ahead
            value = re.sub(rb"[0-9]+\b", lambda found: b"%d" % max(0, int(found[0]) + dice.choice((-3, -40, 9))), value)
        if dice.random() < 0.2:
            value = dice.choice(ODD_IDS)
        if dice.random() < 0.2:
            value = self.mutated(value)
        if dice.random() < 0.7:
            headers.append((b"Last-Event-ID", value))
        else:
            parameters.append(
                dice.choice(ID_FIELDS) + b"=" + (value if self._is_odd() else quote_from_bytes(value).encode())
            )

    def _add_credential(self, parameters: list[bytes], headers: list[tuple[bytes, bytes]], credential: bytes) -> None:
        dice = self.dice
        if not credential and dice.random() < 0.8:
            return
        is_session = credential in SESSION_COOKIES
        if self._is_odd() or not credential:
            credential = dice.choice(BAD_SESSIONS if is_session else BAD_TOKENS).encode()
        if self._is_odd():
            credential = self.mutated(credential)
        way = dice.random()
        if is_session:
            headers.append(
                (b"Cookie", self._one([b"session="], [b"token=", b"x=;session=", b"session=;session="]) + credential)
            )
        elif way < 0.6:
            scheme = self._one([b"Bearer "], [b"bearer", b"Bearer   ", b"Basic ", b"Digest ", b"", b"\xff "])
            headers.append((b"Authorization", scheme + credential))
        elif way < 0.8:
            parameters.append(b"token=" + credential)
        else:
            headers.append((b"Cookie", b'token="%b"; x=y' % credential if self._is_odd() else b"token=" + credential))

    def _changed(self, request: Request) -> Request:
        dice = self.dice
        if dice.random() < 0.05:
            method, path, query, body = (dice.randbytes(dice.randint(0, 40)) for _ in range(4))
            return Request(method, path, query, [], body, b"HTTP/1.1")
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            part = dice.choice(("path", "query", "query", "headers", "headers", "body", "method"))
            if part != "headers":
                changed: dict[str, Any] = {part: self.mutated(getattr(request, part))}
                request = request._replace(**changed)
            elif request.headers:
                at = dice.randrange(len(request.headers))
                name, value = request.headers[at]
                again = request.headers[at:] if dice.random() < 0.2 else request.headers[at + 1 :]
                request = request._replace(headers=[*request.headers[:at], (name, self.mutated(value)), *again])
        if dice.random() < 0.1:  # repeat all of its parameters
            request = request._replace(query=b"&".join([request.query] * dice.choice((2, 60))))
        return request


class Held(NamedTuple):
    """A stream that is open."""

    request: Request
    body: Iterator[bytes]
    close: Callable[[], object]
    stream: ResponseBody


class InProcess:
    """Sends requests straight to the WSGI app, with some streams open meanwhile."""

    def __init__(self, dice: random.Random) -> None:
        self.generator = Generator(dice)
        self.counts: Counter[str] = Counter()
        self.emitters: WeakSet[Stream] = WeakSet()
        self.last: Request | None = None
        self._dice = dice
        self._held: list[Held] = []
        self._errors = io.StringIO()
        bare = fuzz_app.app.wsgi_app
        behind_proxy = ProxyFix(bare, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)
        self._apps: list[Callable[..., Iterable[bytes]]] = [bare, bare, bare, behind_proxy]

    def step(self) -> None:
        dice = self._dice
        if dice.random() < 0.03:
            self.generator.ids = fuzz_app.publish_everywhere(fuzz_app.sse)
        if dice.random() < 0.01:
            kind, values = dice.choice((("recheck", PEOPLE), ("person", PEOPLE), ("channel", PUBLIC + CLOSED)))
            fuzz_app.steer_streams(fuzz_app.sse, **{kind: dice.choice(values)})
        self._ask(self.generator.request())
        if self._held and dice.random() < 0.5:
            self._read(dice.choice(self._held))
        while len(self._held) > HELD or (self._held and dice.random() < 0.2):
            self._leave(self._held.pop(dice.randrange(len(self._held))))

    def end(self) -> None:
        while self._held:
            self._leave(self._held.pop())
        assert self._errors.getvalue() == ""

    def _ask(self, request: Request) -> None:
        self.last = request
        dice = self._dice
        bodies: list[ResponseBody] = []
        answers: list[tuple[str, list[tuple[str, str]]]] = []
        environ = {
            **request.environ(terminated=dice.random() < 0.5),
            "SCRIPT_NAME": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "8080",
            "REMOTE_ADDR": dice.choice(ADDRESSES).decode(),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": self._errors,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            TEST_HOOK: bodies,
        }

        def start_response(status: str, headers: list[tuple[str, str]], _: object = None) -> Callable[[bytes], object]:
            answers.append((status, headers))
            return lambda _: None

        body = dice.choice(self._apps)(environ, start_response)
        [(status, headers)] = answers
        assert re.fullmatch(r"[1-4][0-9]{2} [ -~]+", status)
        for name, value in headers:
            assert (type(name), type(value)) == (str, str)
            assert not re.search("[\r\n\0]", f"{name}{value}".encode("latin-1").decode("latin-1"))
        self.counts[status[:3]] += 1
        length = environ.get("CONTENT_LENGTH", "")
        if status.startswith("201") and LENGTH.fullmatch(length) and "HTTP_TRANSFER_ENCODING" not in environ:
            assert int(length) <= len(request.body), "it was published in part"
        close: Callable[[], object] = getattr(body, "close", lambda: None)
        if bodies:
            self.counts["streams"] += 1
            emitter = bodies[0]._stream
            assert emitter is not None
            self.emitters.add(emitter)
        if bodies and request.method != b"HEAD":
            self._held.append(Held(request, iter(body), close, bodies[0]))
        elif not bodies or dice.random() < 0.9:  # else it is dropped, as no server should
            for piece in body:
                self._check(request, piece)
            close()

    def _read(self, held: Held) -> None:
        for _ in range(5):
            if not held.stream.try_fetch():
                return
            try:
                piece = next(held.body, b"")
            except BrokenPipeError:  # overflow
                self.counts["cut"] += 1
                return
            self.counts["pieces"] += 1
            self._check(held.request, piece)

    def _leave(self, held: Held) -> None:
        if self._dice.random() < 0.3:
            self._read(held)
        held.close()

    def _check(self, request: Request, piece: bytes) -> None:
        assert type(piece) is bytes
        assert b"data: Infinity" not in piece, "no JSON has that"
        for channel in SECRET.findall(piece):
            self.counts["secrets"] += 1
            assert request.may_see(channel.decode()), f"{request} received a secret of {channel!r}: {piece!r}"


class Visit(NamedTuple):
    """A connection, its requests, and the answers."""

    requests: list[Request]
    socket: socket.socket
    answers: bytearray


class OverSockets:
    """Sends requests to a server as bytes, some of them broken, with some streams open meanwhile."""

    def __init__(self, server: Server, dice: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self.last = b""
        self._server = server
        self._dice = dice
        self._generator = Generator(dice)
        self._held: list[Visit] = []

    def step(self) -> int:
        """Send some requests on one connection.

        :return: how many.
        """
        dice = self._dice
        if dice.random() < 0.05:
            kind, values = dice.choice((("recheck", PEOPLE), ("person", PEOPLE), ("channel", PUBLIC + CLOSED)))
            self._generator.ids = post(self._server, f"/steer?{kind}={dice.choice(values)}")["ids"]
        requests = [self._generator.request() for _ in range(dice.choice((1, 1, 3, 6)))]
        messages = [request.raw(framed=dice.random() < 0.8) for request in requests]
        is_whole = not any(b"length" in message.lower() or b"encoding" in message.lower() for message in messages)
        if dice.random() < 0.2:
            at, is_whole = dice.randrange(len(messages)), False
            messages[at] = dice.choice(BROKEN) if dice.random() < 0.5 else self._generator.mutated(messages[at])
        self.last = b"".join([*messages, LAST])
        visit = Visit(requests, socket.create_connection(("127.0.0.1", self._server.port), PATIENCE), bytearray())
        with suppress(ConnectionError):
            visit.socket.sendall(self.last)
            if not is_whole:  # the server may wait for more
                with suppress(OSError):  # or has closed already
                    visit.socket.shutdown(socket.SHUT_WR)
            while b"retry: " not in visit.answers and (piece := visit.socket.recv(65_536)):
                visit.answers.extend(piece)
        self._held.append(visit)
        if b"retry: " not in visit.answers or len(self._held) > HELD:
            self._leave(self._held.pop(-1 if b"retry: " not in visit.answers else dice.randrange(HELD)))
        return len(requests)

    def end(self) -> None:
        while self._held:
            self._leave(self._held.pop())

    def _leave(self, visit: Visit) -> None:
        with visit.socket, suppress(ConnectionError, BlockingIOError):
            visit.socket.setblocking(False)
            visit.answers.extend(visit.socket.recv(65_536))
            if self._dice.random() < 0.3:  # with a reset
                visit.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for status in re.findall(rb"^HTTP/1\.[01] ([0-9]{3}) ", visit.answers, re.MULTILINE):
            self.counts[status.decode()] += 1
            # gunicorn's own, of RFC 9112, section 6.1
            known = status == b"501" and b"Unsupported transfer coding" in visit.answers
            assert status < b"500" or known, f"{bytes(visit.answers)!r} to {visit.requests}"
        self.counts["streams"] += visit.answers.count(b": stream open")
        for channel in SECRET.findall(visit.answers):
            self.counts["secrets"] += 1
            assert any(request.may_see(channel.decode()) for request in visit.requests), (visit.requests, visit.answers)


class Faults(logging.Handler):
    """Records what is logged as an error, or with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.messages.append(logging.Formatter().format(record))
