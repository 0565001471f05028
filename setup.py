"""What setup.cfg cannot say: the README as a package index shows it.

There a link into the source leads nowhere, and a picture of the source is broken. So a link becomes its words and the
path, which the source distribution has, and pictures are left out.
"""

import re
from pathlib import Path

from setuptools import setup

NOTE = "Paths such as `docs/quickstart.rst` lead to files of the source distribution, the `.tar.gz` of this package."


def long_description() -> str:
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    parts = re.split(r"(^```.*?^```$|^ {4}[^\n]*$)", text, flags=re.MULTILINE | re.DOTALL)  # code stays as it is
    parts[::2] = map(_without_links, parts[::2])
    heading, rest = "".join(parts).split("\n\n", 1)
    return f"{heading}\n\n{NOTE}\n\n{rest}"


def _without_links(text: str) -> str:
    text = re.sub(r"^!\[[^]]*\]\([^)]*\)\n+", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^]]+)\]\((?!https?:)([^)#]+)[^)]*\)", _path, text)


def _path(link: re.Match[str]) -> str:
    words, path = " ".join(link[1].split()), link[2]
    return f"`{path}`" if words == path else f"{words} (`{path}`)"


setup(long_description=long_description(), long_description_content_type="text/markdown")
