"""What all tests share: programs that may be missing, servers, and a scheduler whose time a test moves."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskCliRunner

from .clock import ManualScheduler
from .servers import SERVERS, Server


def program(name: str, package: str) -> str:
    """The path of a program that Debian has; without it the test is skipped, or fails where CI must have it."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")  # not everybody has that there
    if path is None:
        reason = f"{name} is missing: apt-get install {package}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def cli_runner(app: Flask) -> FlaskCliRunner:
    """What runs an app's commands, and keeps their stdout and stderr apart: click before 8.2 wants to be told so."""
    mixes = "mix_stderr" in inspect.signature(CliRunner).parameters
    return app.test_cli_runner(**({"mix_stderr": False} if mixes else {}))


@pytest.fixture
def scheduler() -> ManualScheduler:
    return ManualScheduler()


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The contract application on each of the servers, one after the other."""
    with Server(request.param, "tests.contract_app:app") as server:
        yield server
