"""The lowest versions that are tested are the lowest that ``setup.cfg`` allows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import requires

from tests.support.servers import ROOT

LOWEST = ROOT / "tests/support/environment/lowest.txt"

#: Extras that are not installed for the tests.
OTHER_EXTRAS = {"bench", "fuzz"}

#: A name, extras of it, and the lowest version; "packaging" and its like have none. No upper bound, but for pytest's.
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[\w+\])?(?:>=([\d.]+))?(?:(?<=pytest>=8.2),<9.2)?")


def lines(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line and not line.startswith("#"))


def normal(name: str) -> str:
    """Normalize a name as packaging does."""
    return re.sub(r"[-_.]+", "-", name).lower()


def allowed() -> dict[str, str]:
    """The lowest version of each requirement that has one in ``setup.cfg``."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    texts = [config["options"]["install_requires"], *(extras[name] for name in extras if name not in OTHER_EXTRAS)]
    found = {}
    for line in (line for text in texts for line in lines(text)):
        requirement = REQUIREMENT.fullmatch(line)
        assert requirement, f"neither a name nor a lower bound alone: {line}"
        if requirement[2]:
            found[normal(requirement[1])] = requirement[2]
    return found


def lowest_tested() -> dict[str, str]:
    return {normal(name): low for name, low in (line.split("==") for line in lines(LOWEST.read_text()))}


def asked_for_by(package: str) -> dict[str, str]:
    """The lowest versions that a package asks for, as it is installed here."""
    found = (re.match(r"([\w.-]+)>=([\d.]+)(?!.*(?:extra|sys_platform))", line) for line in requires(package) or ())
    return {normal(line[1]): line[2] for line in found if line}


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(".")]


def test_lowest_tested_versions_equal_setup_cfg() -> None:
    lowest = lowest_tested()
    assert {name: lowest.get(name) for name in allowed()} == allowed()


def test_indirect_dependencies_are_tested_at_their_lowest_versions() -> None:
    """With the lowest versions installed, as pip allows no lower ones, the numbers are equal."""
    asked = asked_for_by("flask") | asked_for_by("gevent") | asked_for_by("celery")
    brought = {name: low for name, low in lowest_tested().items() if name not in allowed()}
    assert {"jinja2", "itsdangerous", "click", "blinker", "greenlet", "kombu"} == brought.keys()
    assert [f"{name}=={low}" for name, low in brought.items() if numbers(low) > numbers(asked[name])] == []
