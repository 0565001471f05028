"""``flask sse check`` behind nginx reports each fault of its configuration, and how to fix it."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.apps.cli import app as checking_app
from tests.servers.nginx.behind_nginx import CHANNEL, VIEW, App
from tests.support.cli import cli_runner
from tests.support.web.nginx import Nginx

pytestmark = pytest.mark.xdist_group("nginx")

#: Common faults, as changes of the configuration.
BUFFERED = {"proxy_buffering off; ": "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; "}
OLD_HTTP = {"proxy_http_version 1.1; ": "", 'proxy_set_header Connection ""; ': ""}
CLOSING = {'proxy_set_header Connection ""; ': ""}
COMPRESSED = {"gzip off;": "gzip on; gzip_types text/event-stream;"}
IMPATIENT = {"location / {": "location / { proxy_read_timeout 2s;"}
FORGETFUL = {'proxy_set_header Connection ""; ': 'proxy_set_header Connection ""; proxy_set_header Last-Event-ID ""; '}
HTTP1 = {" ssl http2;": " ssl;"}

#: Cases: changes of the configuration, the path and further arguments of the check, and the faults that it must find.
CASES: dict[str, tuple[dict[str, str], list[str], list[str]]] = {
    "as given": ({}, [CHANNEL], []),
    "a view's emitter, and nginx buffers": ({}, [VIEW, "--no-replay"], []),
    "a view's emitter that should have a replay": ({}, [VIEW], ["replay"]),
    "buffering": (BUFFERED, [CHANNEL], ["buffered"]),
    "HTTP/1.0": (OLD_HTTP, [CHANNEL], ["http-1.0"]),
    "Connection: close": (CLOSING, [CHANNEL], ["connection-close"]),
    "gzip": (COMPRESSED, [CHANNEL], ["compressed"]),
    "a header that is dropped": (FORGETFUL, [CHANNEL], ["last-event-id"]),
    "a read timeout below the heartbeat": (IMPATIENT, [VIEW + "?heartbeat=4", "--no-replay"], ["read-timeout"]),
    "no HTTP/2": (HTTP1, [CHANNEL], []),
    "many at once": ({**BUFFERED, **OLD_HTTP, **COMPRESSED}, [CHANNEL], ["buffered", "compressed", "http-1.0"]),
}

#: The directive that fixes each common fault.
FIXES = {
    "buffered": "proxy_buffering off;",
    "http-1.0": 'proxy_http_version 1.1; and proxy_set_header Connection "";',
    "connection-close": 'proxy_set_header Connection "";',
    "compressed": "gzip off;",
    "read-timeout": "proxy_read_timeout 60s;",
}


class Report(NamedTuple):
    """The report of ``flask sse check``."""

    code: int
    findings: dict[str, dict[str, str]]  #: by name
    progress: str

    @property
    def faults(self) -> list[str]:
        return [name for name, finding in self.findings.items() if finding["level"] == "fault"]


def check(certificate: str, url: str, arguments: Sequence[str]) -> Report:
    """Run the command in this process."""
    os.environ["SSL_CERT_FILE"] = certificate
    done = cli_runner(checking_app).invoke(args=["sse", "check", "--json", url, *arguments])
    assert done.stdout, done.output
    return Report(done.exit_code, {each["name"]: each for each in json.loads(done.stdout)["findings"]}, done.stderr)


@pytest.fixture(scope="module")
def reports(nginx_app: App) -> dict[str, Report]:
    """Check all cases. Four run at a time, each in a process: a process of the app accepts no more."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(4, context) as pool, ExitStack() as stack:
        running = {}
        for name, (changes, (path, *arguments), _) in CASES.items():
            nginx = stack.enter_context(Nginx(nginx_app.socket, changes))
            running[name] = pool.submit(check, str(nginx.certificate), nginx.url + path, arguments)
        return {name: report.result() for name, report in running.items()}


@pytest.mark.parametrize("case", CASES)
def test_check_reports_exactly_the_faults_and_their_fixes(case: str, reports: dict[str, Report]) -> None:
    report, faults = reports[case], CASES[case][2]
    assert report.faults == faults
    assert report.code == (1 if faults else 0)
    for name in faults:
        assert FIXES.get(name, "") in report.findings[name]["fix"]


def test_check_reports_ok_findings_and_progress(reports: dict[str, Report]) -> None:
    report = reports["as given"]
    ok = ("status", "buffered", "first-byte", "compressed", "cached", "http-1.0", "read-timeout", "replay", "http2")
    assert [name for name in ok if report.findings[name]["level"] != "ok"] == []
    assert "- waiting on a silent stream for a heartbeat, every 1 s, 6 s at most\n" in report.progress
    assert reports["no HTTP/2"].findings["http2"]["level"] == "note"
    assert "six connections" in reports["no HTTP/2"].findings["http2"]["fix"]


def test_check_reports_read_timeout_shorter_than_heartbeat(reports: dict[str, Report]) -> None:
    report = reports["a read timeout below the heartbeat"]
    seen = report.findings["read-timeout"]["seen"]
    assert "s without a byte, while the server writes a heartbeat every 4 s." in seen
    assert "every 4 s, 9 s at most" in report.progress
