"""Importing the package: it loads nothing optional, and starts nothing."""

from __future__ import annotations

import subprocess
import sys

from tests.support.servers import ROOT

PROGRAM = """
import sys, threading, time
sleep = time.sleep
from flask import Flask
from flask_sse_emitters import SSE, access, testing

SSE(Flask("app"))
optional = {"jwt", "redis", "gevent", "gunicorn", "prometheus_client"}
print(sorted(optional & set(sys.modules)), threading.active_count(), time.sleep is sleep)
sys.modules["jwt"] = None
try:
    access.jwt_authorizer("s", algorithms=["HS256"])
except ImportError as error:
    print(error)
"""


def test_import_loads_nothing_optional_and_starts_nothing() -> None:
    """No thread, no monkey patching; what needs an extra that is missing, names it."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "[] 1 True",
        "jwt_authorizer needs PyJWT: pip install 'flask-sse-emitters[jwt]'",
    ]
