"""The systemd units for users: ``deploy/flask-sse.service`` and ``.socket``."""

from __future__ import annotations

import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support.programs import program
from tests.support.servers import NO_CONTROL_SOCKET, ROOT
from tests.support.waiting import PATIENCE, until

DEPLOY = ROOT / "deploy"

#: Files that a process opens beside its clients' sockets.
OTHER_FILES = 64

UNITS = ("flask-sse.service", "flask-sse.socket")


def number_in(path: str, pattern: str) -> int:
    [found] = re.findall(pattern, (ROOT / path).read_text(), re.MULTILINE)
    return int(found)


def default(key: str) -> int:
    """Return the default of a config key, as documented."""
    return number_in("docs/configuration.rst", rf"^\.\. confval:: {key}\n.*\n +:default: ``(\d+)``$")


def values(unit: str) -> dict[str, str]:
    lines = [line for line in (DEPLOY / unit).read_text().splitlines() if line and line[0] not in "#["]
    return dict(line.split("=", 1) for line in lines)


def test_systemd_verifies_the_units(tmp_path: Path) -> None:
    """Except for the path of the program, which exists on a server only."""
    for unit in UNITS:
        text = (DEPLOY / unit).read_text()
        (tmp_path / unit).write_text(text.replace("/srv/flask-sse/.venv/bin/gunicorn", sys.executable))
    verify = [program("systemd-analyze", "systemd"), "verify", "--man=no"]
    done = subprocess.run(
        [*verify, *(str(tmp_path / unit) for unit in UNITS)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_file_limits_of_units_suffice_for_default_max_clients() -> None:
    assert int(values("flask-sse.service")["LimitNOFILE"]) >= default("SSE_MAX_CLIENTS") + OTHER_FILES
    for limit in ("worker_rlimit_nofile", "worker_connections"):
        assert number_in("deploy/nginx.conf", rf"^\s*{limit} (\d+);") >= 2 * default("SSE_MAX_CLIENTS"), limit


def test_shutdown_timeouts_leave_time_to_drain() -> None:
    """Each waits for the next: systemd for gunicorn, gunicorn for its workers, and the workers for their streams."""
    service = values("flask-sse.service")
    graceful = runpy.run_path(str(ROOT / "gunicorn.conf.py"))["graceful_timeout"]
    assert default("SSE_DRAIN_SECONDS") + 2 < graceful < int(service["TimeoutStopSec"])
    assert (service["KillMode"], service["KillSignal"]) == ("mixed", "SIGTERM")


def test_proxy_read_timeout_exceeds_heartbeat() -> None:
    assert number_in("deploy/nginx.conf", r"proxy_read_timeout (\d+)s;") >= 2 * default("SSE_HEARTBEAT")


def test_nginx_uses_the_socket_of_the_unit() -> None:
    assert f"server unix:{values('flask-sse.socket')['ListenStream']} " in (DEPLOY / "nginx.conf").read_text()


def test_gunicorn_uses_socket_passed_by_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its ``bind`` setting is."""
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)
    path = tmp_path / "flask-sse.sock"
    activate = [program("systemd-socket-activate", "systemd"), f"--listen={path}", "--setenv=PYTHONPATH"]
    gunicorn = [sys.executable, "-m", "gunicorn", *NO_CONTROL_SOCKET, "--bind", "127.0.0.1:1"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*activate, *gunicorn, "--worker-class", "gevent", "tests.apps.channels:app"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            with socket.socket(socket.AF_UNIX) as client, closing(HTTPConnection("localhost")) as connection:
                client.settimeout(PATIENCE)
                until(lambda: path.exists() and client.connect_ex(str(path)) == 0, "a connection to the socket")
                connection.sock = client
                connection.request("GET", "/stats")
                assert connection.getresponse().status == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)
