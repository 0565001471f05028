"""Real servers in processes of their own, on free ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from packaging.version import Version

from tests.support.waiting import PATIENCE

ROOT = Path(__file__).parents[2]

_GUNICORN = [
    sys.executable,
    "-m",
    "gunicorn",
    "--config",
    str(ROOT / "tests" / "support" / "web" / "gunicorn_settings.py"),
]

GUNICORN = Version(version("gunicorn"))

#: Without this, gunicorn opens a socket for its own commands. Before 25.1 it does not, and has no such option.
NO_CONTROL_SOCKET = ["--no-control-socket"] if Version("25.1") <= GUNICORN else []

_COMMANDS = {
    "gevent": [*_GUNICORN, "--worker-class", "gevent"],
    "gthread": [*_GUNICORN, "--worker-class", "gthread", "--threads", "200"],
    "gevent_pywsgi": [*_GUNICORN, "--worker-class", "gevent_pywsgi"],
    "sync": [*_GUNICORN, "--worker-class", "sync"],
    **{
        kind: [sys.executable, "-m", "tests.support.web.other_servers", kind]
        for kind in ("werkzeug", "werkzeug_unthreaded", "waitress", "uwsgi", "a2wsgi", "asgiref")
    },
}

_COMMANDS["mod_wsgi"] = []  # tests/support/web/apache.py has it
_COMMANDS["gevent_off"] = _COMMANDS["gevent"]
_COMMANDS["gthread_off"] = _COMMANDS["gthread"]

_ENVIRONMENTS = {"gevent_off": {"SSE_HANDOFF": "off"}, "gthread_off": {"SSE_HANDOFF": "off"}}

#: Servers of the contract tests.
SERVERS = ["gevent", "gevent_off", "gthread", "gthread_off", "sync", "gevent_pywsgi", "werkzeug"]


class Server:
    """A server that runs an application in a ``with`` block, at whose end it is killed: an orderly end takes seconds.

    It listens at a socket that this process opened, so the port is free, and connections wait while it starts.

    :param before: a command that runs the server, which it gets as arguments.
    :param listeners: descriptors of further sockets at which it listens.
    """

    def __init__(
        self,
        kind: str,
        app: str,
        *,
        env: dict[str, str] | None = None,
        port: int = 0,
        arguments: Sequence[str] = (),
        before: Sequence[str] = (),
        listeners: Sequence[int] = (),
    ) -> None:
        self.kind = kind
        self.command = [*before, *_COMMANDS[kind], *arguments, app]
        self.env = {**_ENVIRONMENTS.get(kind, {}), **(env or {})}
        self._listeners = listeners
        self._log = tempfile.TemporaryFile("a+")  # noqa: SIM115 - closed by __exit__
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        self._log.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def drops_unread(self) -> bool:
        """Whether a stopping worker closes connections that it has not begun to read: gthread before gunicorn 24."""
        return self.kind == "gthread" and Version("24") > GUNICORN

    @property
    def log(self) -> str:
        """What the server has written so far to stdout and stderr."""
        position = self._log.seek(0)
        text = self._log.read()
        assert position == 0
        return text

    @property
    def pid(self) -> int:
        """The id of its first process: gunicorn's master."""
        assert self._process is not None
        return self._process.pid

    @property
    def has_exited(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    def start(self) -> None:
        with bound(self.port) as listener:
            listener.listen(2048)
            self.port = listener.getsockname()[1]
            listeners = [listener.fileno(), *self._listeners]
            bind = " ".join(f"--bind=fd://{each}" for each in listeners)  # overrides gunicorn's config
            self.launch({"LISTENER": str(listener.fileno()), "GUNICORN_CMD_ARGS": bind}, listeners)

    def launch(self, env: dict[str, str], descriptors: Sequence[int] = ()) -> None:
        """Start its process, with these variables and descriptors."""
        self._process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            env={**os.environ, **env, **self.env},
            pass_fds=descriptors,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill all its processes, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it in order: its streams end first."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):  # it has already exited
            os.killpg(process.pid, number)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)
        self._await_group_end(process.pid)

    @staticmethod
    def _await_group_end(group: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while _is_alive(group):
            if time.monotonic() > deadline:
                os.killpg(group, signal.SIGKILL)
                return
            time.sleep(0.01)


def bound(port: int) -> socket.socket:
    """Return a socket that is bound to this port, or to a free one for 0, and does not listen yet.

    While it is open, no other process gets the port for one, and a server that names the port may listen there.
    """
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", port))
    return found


def _is_alive(group: int) -> bool:
    """Return whether a process of the group runs. A killed server's workers may stay, as zombies, for a second."""
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False
