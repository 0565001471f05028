"""Send generated requests straight to the WSGI app, judge each answer, and count what they leave behind."""

from __future__ import annotations

import gc
import io
import logging
import random
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from flask.testing import FlaskClient
from werkzeug import Response
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import create_environ

from flask_sse_emitters.testing import OpenStream, open_stream
from tests.apps.security import fuzzed as fuzz_app
from tests.security.fuzz.requests import ADDRESSES, HELD, LENGTH, SECRET, Generator, Request, draw_steering

#: What one piece of an answer may have.
MOST_BYTES = 200_000


class NoStreamError(Exception):
    """The answer is no stream; it has been read and judged."""


class RawClient(FlaskClient):
    """Makes the request that it is given, where a test client would make a valid one of it."""

    def get(self, *_: object, **options: Any) -> Any:
        return options["call"](options["environ_overrides"])


class Answer(Response):
    """What the app answered; each piece of its body is judged as it is read."""

    judge: Callable[[bytes], None]

    def iter_encoded(self) -> Iterator[bytes]:
        for piece in self.response:
            assert type(piece) is bytes
            self.judge(piece)
            yield piece


class InProcess:
    """Sends requests straight to the WSGI app, with some streams open meanwhile."""

    def __init__(self, dice: random.Random) -> None:
        self.generator = Generator(dice)
        self.counts: Counter[str] = Counter()
        self.last: Request | None = None
        self._dice = dice
        self._held: list[tuple[OpenStream, ExitStack]] = []
        self._errors = io.StringIO()
        self._client = RawClient(fuzz_app.app)
        bare = fuzz_app.app.wsgi_app
        behind_proxy = ProxyFix(bare, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)
        self._apps: list[Callable[..., Iterable[bytes]]] = [bare, bare, bare, behind_proxy]

    def step(self) -> None:
        dice = self._dice
        if dice.random() < 0.03:
            self.generator.ids = fuzz_app.publish_everywhere(fuzz_app.sse)
        if dice.random() < 0.01:
            fuzz_app.steer_streams(fuzz_app.sse, **draw_steering(dice))
        self.ask(self.generator.request())
        if self._held and dice.random() < 0.5:
            self._read(dice.choice(self._held)[0])
        while len(self._held) > HELD or (self._held and dice.random() < 0.2):
            self._leave(*self._held.pop(dice.randrange(len(self._held))))

    def read_all(self) -> None:
        for stream, _ in self._held:
            self._read(stream)

    def end(self) -> None:
        while self._held:
            self._leave(*self._held.pop())
        assert self._errors.getvalue() == ""

    def ask(self, request: Request) -> None:
        self.last = request
        resources = ExitStack()

        def call(environ: dict[str, Any]) -> Answer:
            return self._call(request, environ)

        try:
            opened = open_stream(self._client, "", environ_overrides=self._environ(request), call=call)
            self._held.append((resources.enter_context(opened), resources))
        except NoStreamError:
            pass

    def _environ(self, request: Request) -> dict[str, Any]:
        server = create_environ(base_url="http://localhost:8080", errors_stream=self._errors, multithread=True)
        for name in ("HTTP_HOST", "REQUEST_URI", "RAW_URI"):
            del server[name]
        own = request.environ(terminated=self._dice.random() < 0.5)
        return {**server, **own, "REMOTE_ADDR": self._dice.choice(ADDRESSES).decode()}

    def _call(self, request: Request, environ: dict[str, Any]) -> Answer:
        answers: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: object = None) -> Callable[[bytes], object]:
            answers.append((status, headers))
            return lambda _: None

        body = self._dice.choice(self._apps)(environ, start_response)
        [(status, headers)] = answers
        assert re.fullmatch(r"[1-4][0-9]{2} [ -~]+", status)
        for name, value in headers:
            assert (type(name), type(value)) == (str, str)
            assert not re.search("[\r\n\0]", f"{name}{value}".encode("latin-1").decode("latin-1"))
        self.counts[status[:3]] += 1
        length = environ.get("CONTENT_LENGTH", "")
        if status.startswith("201") and LENGTH.fullmatch(length) and "HTTP_TRANSFER_ENCODING" not in environ:
            assert int(length) <= len(request.body), "it was published in part"
        answer = Answer(body, status, headers)
        answer.judge = lambda piece: self.judge(request, piece)
        is_stream = answer.mimetype == "text/event-stream"
        if is_stream and request.method.upper() != b"HEAD":  # as Werkzeug compares it
            return answer
        if not is_stream or self._dice.random() < 0.9:  # else it is dropped, as no server should
            for _piece in answer.iter_encoded():
                pass
            answer.close()
        raise NoStreamError

    def _read(self, stream: OpenStream) -> None:
        try:
            self.counts["events"] += len(stream.ready())
        except BrokenPipeError:  # overflow
            self.counts["cut"] += 1

    def _leave(self, stream: OpenStream, resources: ExitStack) -> None:
        if self._dice.random() < 0.3:
            self._read(stream)
        resources.close()

    def judge(self, request: Request, piece: bytes) -> None:
        assert len(piece) <= MOST_BYTES
        assert b"data: Infinity" not in piece, "no JSON has that"
        for channel in SECRET.findall(piece):
            self.counts["secrets"] += 1
            assert request.may_see(channel.decode()), f"{request} received a secret of {channel!r}: {piece!r}"


class Faults(logging.Handler):
    """Records what is logged as an error, or with a traceback, while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def __enter__(self) -> list[str]:
        logging.getLogger().addHandler(self)
        return self.messages

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.messages.append(logging.Formatter().format(record))


def kept() -> Counter[str]:
    """Count the objects of the package, with the entries of the containers that they have, by their classes."""
    gc.collect()
    found: Counter[str] = Counter()
    for thing in gc.get_objects():
        kind = type(thing)
        if str(kind.__module__).startswith("flask_sse_emitters"):
            found[kind.__qualname__] += 1
            for part in gc.get_referents(thing, getattr(thing, "__dict__", None)):
                if isinstance(part, (dict, list, set, deque)):
                    found[kind.__qualname__] += len(part)
    return found
