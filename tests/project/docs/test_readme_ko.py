"""The Korean README has the code, names, links and figures of the English one, section by section."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

import pytest

from tests.project.docs.docs_blocks import BROWSER, blocks_of
from tests.support.servers import ROOT

ENGLISH, KOREAN = ROOT / "README.md", ROOT / "README.ko.md"

_CODE = re.compile(r"^```.*?^```$|(?<=\n\n)(?: {4}[^\n]*\n)+", re.MULTILINE | re.DOTALL)


def sections(text: str) -> Iterator[str]:
    """Yield each section with its heading, and without blocks of code."""
    return iter(re.split(r"^(?=#)", _CODE.sub("", text), flags=re.MULTILINE))


def level(section: str) -> int:
    return len(section) - len(section.lstrip("#"))


def links(section: str) -> Counter[str]:
    """Count the targets of links, except those from one language to the other."""
    return Counter(re.findall(r"\]\(([^)]+)\)", section)) - Counter([ENGLISH.name, KOREAN.name])


def names(section: str) -> Counter[str]:
    return Counter(re.findall(r"`([^`]+)`", section))


def numbers(section: str) -> Counter[str]:
    return Counter(re.findall(r"\d[\d.,]*(?<![.,])", section))


def tables(section: str) -> list[list[str]]:
    """Return the cells of each row, reduced to their figures."""
    rows = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)
    return [[" ".join(re.findall(r"\d[\d.,]*|---", cell)) for cell in row.split("|")] for row in rows]


@pytest.mark.parametrize("what", [level, links, names, numbers, tables], ids=lambda what: str(what.__name__))
def test_korean_section_has_same_facts_as_english(what: Callable[[str], Any]) -> None:
    for english, korean in zip_longest(sections(ENGLISH.read_text()), sections(KOREAN.read_text()), fillvalue=""):
        assert what(korean) == what(english), f"{english[:40]!r}, in Korean {korean[:40]!r}"


def test_korean_code_differs_only_in_comments() -> None:
    english, korean = (
        [(block.language, _without_comments(block.language, block.text)) for block in blocks_of(page)]
        for page in (ENGLISH, KOREAN)
    )
    assert korean == english


def _without_comments(language: str, text: str) -> str:
    comment = r"(?<!:)//.*$" if language in BROWSER else r"#.*$"
    return re.sub(rf"\s*{comment}", "", text, flags=re.MULTILINE)
