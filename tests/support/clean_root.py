"""A Debian of its own, in which commands run as in a container, where there is no engine for containers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.programs import miss, program
from tests.support.servers import ROOT

#: What the image ``python:3.13-slim`` is made from, and its Python.
SUITE, PYTHON = "trixie", "3.13"

#: The environment of a container, but for what its image sets.
PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"

#: Runs a command as process 1, in name spaces of its own: its mounts are gone with it.
ENTER = """
root=$1 user=$2 folder=$3 mode=$4; shift 4
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -o "remount,bind,$mode" "$root"
exec chroot --userspec="$user" "$root" env --chdir="$folder" "$@"
"""


class CleanRoot:
    """A fresh Debian with a Python in ``/usr/local``, and nothing else, in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        subprocess.run([program("tar", "tar"), "-C", folder, "-xf", _archive()], check=True)
        for file in ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"):
            shutil.copy(file, self.inside(file))

    def inside(self, path: str) -> Path:
        """Return where a path of the root is."""
        return self.path / path.lstrip("/")

    def command(self, *command: str, user: str = "0:0", folder: str = "/", read_only: bool = False) -> list[str]:
        """Return what runs a command in the root, as its process 1: the only child of what this starts."""
        own = ["--mount", "--pid", "--fork", "--kill-child"]
        where = [str(self.path), user, folder, "ro" if read_only else "rw"]
        return [program("unshare", "util-linux"), *own, "/bin/sh", "-ec", ENTER, "sh", *where, *command]

    def run(
        self, *command: str, env: Mapping[str, str], folder: str = "/", user: str = "0:0"
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the root to its end, with this environment beside ``PATH``."""
        return subprocess.run(
            self.command(*command, user=user, folder=folder),
            env={"PATH": PATH, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


def _archive() -> Path:
    """Return a file that holds the root: made by the first run, and kept in ``build``."""
    maker = program("mmdebstrap", "mmdebstrap")
    if os.getuid() != 0:
        miss("a clean root can be made and entered by root alone: run this test as root")
    archive = ROOT / "build" / f"{SUITE}.tar"
    if not archive.exists():
        archive.parent.mkdir(exist_ok=True)
        part = archive.with_suffix(f".{os.getpid()}.tar")
        options = ["--quiet", "--variant=minbase", "--include=python3-venv,ca-certificates"]
        options.append('--customize-hook=chroot "$1" python3 -m venv /usr/local')
        done = subprocess.run([maker, *options, SUITE, part], capture_output=True, text=True, check=False)
        if done.returncode:
            part.unlink(missing_ok=True)
            miss(f"no clean root can be made, perhaps without Debian's packages: {done.stderr[-500:]}")
        part.replace(archive)
    return archive
