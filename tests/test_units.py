"""The systemd units that users are given: ``deploy/flask-sse.service`` and ``.socket``."""

from __future__ import annotations

import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.streams.registry.limits import OTHER_FILES

from .conftest import program
from .servers import NO_CONTROL_SOCKET, ROOT
from .waiting import PATIENCE, until

DEPLOY = ROOT / "deploy"
UNITS = ("flask-sse.service", "flask-sse.socket")


def values(unit: str) -> dict[str, str]:
    lines = [line for line in (DEPLOY / unit).read_text().splitlines() if line and line[0] not in "#["]
    return dict(line.split("=", 1) for line in lines)


def test_systemd_accepts_them(tmp_path: Path) -> None:
    """But for the program, which is not where it is on a server."""
    for unit in UNITS:
        text = (DEPLOY / unit).read_text()
        (tmp_path / unit).write_text(text.replace("/srv/flask-sse/.venv/bin/gunicorn", sys.executable))
    verify = [program("systemd-analyze", "systemd"), "verify", "--man=no"]
    done = subprocess.run(
        [*verify, *(str(tmp_path / unit) for unit in UNITS)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_there_is_room_for_as_many_clients_as_the_default_lets_in() -> None:
    assert int(values("flask-sse.service")["LimitNOFILE"]) >= DEFAULTS.max_clients + OTHER_FILES
    nginx = (DEPLOY / "nginx.conf").read_text()
    for limit in ("worker_rlimit_nofile", "worker_connections"):
        found = re.search(rf"^\s*{limit} (\d+);", nginx, re.MULTILINE)
        assert found is not None
        assert int(found[1]) >= 2 * DEFAULTS.max_clients, limit


def test_streams_have_time_to_end_in_order() -> None:
    """Each waits for the next: systemd for gunicorn, gunicorn for its workers, and those for their streams."""
    service = values("flask-sse.service")
    graceful = runpy.run_path(str(ROOT / "gunicorn.conf.py"))["graceful_timeout"]
    assert DEFAULTS.drain_seconds + 2 < graceful < int(service["TimeoutStopSec"])
    assert (service["KillMode"], service["KillSignal"]) == ("mixed", "SIGTERM")


def test_a_quiet_stream_outlives_the_read_timeout_of_the_proxy() -> None:
    found = re.search(r"proxy_read_timeout (\d+)s;", (DEPLOY / "nginx.conf").read_text())
    assert found is not None
    assert int(found[1]) >= 2 * DEFAULTS.heartbeat


def test_the_socket_is_the_one_at_which_nginx_looks() -> None:
    assert f"server unix:{values('flask-sse.socket')['ListenStream']} " in (DEPLOY / "nginx.conf").read_text()


def test_gunicorn_takes_a_socket_that_systemd_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its settings say of ``bind``."""
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)
    path = tmp_path / "flask-sse.sock"
    activate = [program("systemd-socket-activate", "systemd"), f"--listen={path}", "--setenv=PYTHONPATH"]
    gunicorn = [sys.executable, "-m", "gunicorn", *NO_CONTROL_SOCKET, "--bind", "127.0.0.1:1"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*activate, *gunicorn, "--worker-class", "gevent", "tests.channels_app:app"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            until(path.exists, "the socket")
            with closing(HTTPConnection("localhost")) as connection, socket.socket(socket.AF_UNIX) as connected:
                connected.settimeout(PATIENCE)
                connected.connect(str(path))
                connection.sock = connected
                connection.request("GET", "/stats")
                assert connection.getresponse().status == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(PATIENCE)
