"""Parse blocks of the documentation that are no programs, such as configuration files."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from configparser import ConfigParser
from typing import Any

import yaml


def parse(language: str, text: str) -> None:
    """Parse a text in its language; raise if it is invalid or empty."""
    assert _PARSERS[language](text), text


def _ini(text: str) -> list[str]:
    parser = ConfigParser(strict=False)
    parser.read_string(text)
    return parser.sections()


_PARSERS: dict[str, Callable[[str], Any]] = {
    "ini": _ini,
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}
