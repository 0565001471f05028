"""Programs of Debian that tests start."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def program(name: str, package: str) -> str:
    """Return the path of a program of Debian; if it is missing, skip the test, or fail it in CI."""
    # sbin is not in every PATH, and PostgreSQL's own folders, one for each version, are in none: the newest first
    further = ["/usr/sbin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *further]))
    if path is None:
        miss(f"{name} is missing: apt-get install {package}")
    return path


def miss(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI, which must have everything."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
