"""A test whose program is missing is skipped with advice; in continuous integration it fails."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.programs import program
from tests.support.servers import ROOT


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_missing_program_skips_test_or_fails_it_in_continuous_integration(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no-such-program is missing: apt-get install no-such-package"):
        program("no-such-program", "no-such-package")


def test_setup_without_apt_get_names_packages_to_install() -> None:
    command = ["/bin/sh", "tests/support/environment/debian-packages", "no-such-program=no-such-package"]
    output = subprocess.run(command, cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, check=True).stdout
    assert "apt-get install no-such-package" in output
