"""``flask run``, the server of Flask's own command, with its defaults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import requests

from flask_sse_emitters.testing import read_events
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE, until


def test_flask_run_serves_streams(tmp_path: Path) -> None:
    """It has a thread for each request: a second stream and the requests that publish do not wait for the first."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "flask", "--app", "tests.apps.channels", "run", "--port", "0"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        [url] = until(lambda: re.findall(r"Running on (http://[\d.:]+)", log.read_text()), "its address")
        with (
            requests.get(f"{url}/events/a", stream=True, timeout=PATIENCE) as stream,
            requests.get(f"{url}/events/a", stream=True, timeout=PATIENCE) as other,
        ):
            for number in range(2):
                requests.post(f"{url}/publish/a", json=number, timeout=PATIENCE).raise_for_status()
            for response in (stream, other):
                assert [event.data for event in read_events(response, 2)] == ["0", "1"]
    finally:
        server.kill()
        server.wait(PATIENCE)
