"""Tests that need a program say so where it is missing; where continuous integration runs, that is a failure."""

from __future__ import annotations

import subprocess

import pytest

from .conftest import program
from .servers import ROOT


def test_without_a_program_a_test_is_skipped_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="no-such-program is missing: apt-get install no-such-package"):
        program("no-such-program", "no-such-package")


def test_in_continuous_integration_a_missing_program_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is missing: apt-get install no-such-package"):
        program("no-such-program", "no-such-package")


def test_without_apt_get_the_set_up_says_what_to_install() -> None:
    command = ["/bin/sh", "tests/debian-packages", "no-such-program=no-such-package"]
    said = subprocess.run(command, cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, check=True).stdout
    assert "apt-get install no-such-package" in said
