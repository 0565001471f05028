"""The lowest versions that are tested are the lowest that ``setup.cfg`` allows."""

from __future__ import annotations

from configparser import ConfigParser
from importlib.metadata import requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.servers import ROOT

LOWEST = ROOT / "tests/support/environment/lowest.txt"

#: Extras that are not installed for the tests.
OTHER_EXTRAS = {"bench", "fuzz"}


def bounds(operator: str, *texts: str) -> dict[str, Version]:
    """Return the version of each requirement in these lines that has one; none has another bound, but for pytest."""
    found: dict[str, Version] = {}
    for line in "\n".join(texts).splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            versions = {each.operator: each.version for each in requirement.specifier}
            if low := versions.pop(operator, None):
                found[canonicalize_name(requirement.name)] = Version(low)
            assert not versions or line == "pytest>=8.2,<9.2", f"another bound: {line}"
    return found


def allowed() -> dict[str, Version]:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    tested = [extras[name] for name in extras if name not in OTHER_EXTRAS]
    return bounds(">=", config["options"]["install_requires"], *tested)


def asked_for_by(package: str) -> dict[str, Version]:
    """Return the lowest versions that a package asks for, as it is installed here."""
    asked = [Requirement(line) for line in requires(package) or ()]
    found = [each for each in asked if each.specifier and not (each.marker and "extra" in str(each.marker))]
    return {canonicalize_name(each.name): min(Version(bound.version) for bound in each.specifier) for each in found}


def test_lowest_tested_versions_equal_setup_cfg() -> None:
    lowest = bounds("==", LOWEST.read_text())
    assert {name: lowest.get(name) for name in allowed()} == allowed()


def test_indirect_dependencies_are_tested_at_their_lowest_versions() -> None:
    """With the lowest versions installed, as pip allows no lower ones, the numbers are equal."""
    asked = asked_for_by("flask") | asked_for_by("gevent") | asked_for_by("celery")
    brought = {name: low for name, low in bounds("==", LOWEST.read_text()).items() if name not in allowed()}
    assert {"jinja2", "itsdangerous", "click", "blinker", "greenlet", "kombu"} == brought.keys()
    assert [f"{name}=={low}" for name, low in brought.items() if low > asked[canonicalize_name(name)]] == []
