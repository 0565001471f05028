"""The packages that are published, built and tried from an environment that has nothing else of this project.

``make dist`` does more: every extra alone, with dependencies from the package index.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from tests.project.dist import Built, Environment, build, contents, try_source, try_wheel, unpacked, wheel_of
from tests.support.servers import ROOT

pytestmark = [pytest.mark.xdist_group("dist"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What ``twine check --strict`` has accepted."""
    return build(tmp_path_factory.mktemp("dist"), "--no-isolation")


@pytest.fixture(scope="module")
def metadata(built: Built) -> Message:
    [name] = [name for name in contents(built.wheel) if name.endswith("/METADATA")]
    return message_from_bytes(contents(built.wheel)[name])


def test_wheel_in_an_empty_environment_serves_the_quickstart(built: Built, tmp_path: Path) -> None:
    """And the monitor page, the browser module and ``flask sse``."""
    with ExitStack() as stack:
        try_wheel(Environment(tmp_path, built.wheel, "server", borrows=True), "server", stack)


def test_sdist_builds_the_same_wheel_and_its_tests_run(built: Built, tmp_path: Path) -> None:
    with unpacked(built.sdist) as source:
        assert "passed" in try_source(source, ["tests/unit/wire", "tests/unit/streams/test_emitter.py"])
        assert contents(wheel_of(source, tmp_path)) == contents(built.wheel)
        lost = [path for path in ROOT.glob("tests/**/*.*") if "__pycache__" not in path.parts]
        assert [path for path in lost if not (source / path.relative_to(ROOT)).exists()] == []


def test_wheel_has_the_files_that_its_source_has_and_no_others(built: Built) -> None:
    packaged = {name for name in contents(built.wheel) if ".dist-info/" not in name}
    files = [path for path in (ROOT / "flask_sse_emitters").rglob("*.*") if "__pycache__" not in path.parts]
    assert packaged == {str(path.relative_to(ROOT)) for path in files}


def test_readme_on_the_index_has_no_dead_link_and_no_broken_picture(metadata: Message) -> None:
    text = str(metadata.get_payload())
    assert re.findall(r"!?\[[^]]*\]\((?!https:)[^)]*\)", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)) == []
    assert [path for path in re.findall(r"\(`([\w/.-]+)`\)", text) if not (ROOT / path).exists()] == []
    assert "(`docs/quickstart.rst`)" in text
    readme = (ROOT / "README.md").read_text()
    pictures = re.findall(r"!\[([^]]*)\]", readme)
    assert pictures
    assert [words for words in pictures if words in text] == []
    assert text.count("```") == readme.count("```")


def test_versions_of_all_packages_come_from_setup_cfg(metadata: Message) -> None:
    version = metadata["Version"]
    assert f"version = {version}" in (ROOT / "setup.cfg").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    others = [
        *ROOT.glob("*.toml"),
        *ROOT.glob("npm/*.json"),
        *ROOT.glob("docs/*"),
        *ROOT.glob("flask_sse_emitters/*.py"),
    ]
    assert [path.name for path in others if path.is_file() and version.encode() in path.read_bytes()] == []
