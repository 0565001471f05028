"""A real Apache with mod_wsgi in a temporary folder."""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType

import pytest

from tests.support.programs import miss, program
from tests.support.servers import ROOT, Server, bound
from tests.support.waiting import PATIENCE, until

_MODULES = Path("/usr/lib/apache2/modules")

#: Apache and mod_wsgi serve no request as root. The tests' files may be in folders that only root can enter.
_NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override"

_CONFIG = """\
ServerRoot {folder}
ServerName localhost
PidFile {folder}/pid
Listen 127.0.0.1:{port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
ErrorLog /proc/self/fd/2
WSGISocketPrefix {folder}/wsgi
WSGIRestrictEmbedded On
WSGIDaemonProcess app threads={threads} home={root} python-path={packages}
WSGIScriptAlias / {folder}/app.wsgi process-group=app application-group=%{{GLOBAL}}
"""

_SCRIPT = """\
import logging, sys
sys.path.insert(0, {root!r})
logging.basicConfig(level=logging.INFO)
from {module} import {name} as application
"""


class Apache(Server):
    """Apache with mod_wsgi: one process with ``THREADS`` threads, 8 unless its environment says otherwise.

    It runs Debian's interpreter of this version, with the packages of this one: the standard library of another build
    does not fit the library that mod_wsgi is linked with.

    :param app: as ``module:app``.
    """

    def __init__(self, app: str, *, env: dict[str, str] | None = None) -> None:
        # mod_wsgi takes the standard library of the python3 that it finds first.
        own = {"PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        super().__init__("mod_wsgi", app, env={**own, **(env or {})})
        self._app = app
        self._open = ExitStack()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        super().__exit__(kind, error, tb)
        self._open.close()

    def start(self) -> None:
        apache = _apache()
        folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o777)
        self.port = self._open.enter_context(bound(self.port)).getsockname()[1]
        module, _, name = self._app.partition(":")
        (folder / "app.wsgi").write_text(_SCRIPT.format(root=str(ROOT), module=module, name=name))
        (folder / "apache.conf").write_text(
            _CONFIG.format(
                folder=folder,
                port=self.port,
                modules=_MODULES,
                threads=self.env.get("THREADS", "8"),
                root=ROOT,
                packages=sysconfig.get_path("purelib"),
            )
        )
        as_user = _NOBODY.split() if os.getuid() == 0 else []
        self.command = [*as_user, apache, "-f", str(folder / "apache.conf"), "-D", "FOREGROUND"]
        self.launch({})
        try:
            until(self._answers, "Apache to answer")
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _answers(self) -> bool:
        """Return whether it answers a request: the first one has it import the app."""
        if self.has_exited:
            raise AssertionError(f"Apache did not start: {self.log}")
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection, suppress(OSError):
            connection.request("GET", "/")
            if connection.getresponse().status == 500:
                raise AssertionError(f"Apache cannot run the app: {self.log}")
            return True
        return False


def _apache() -> str:
    """Return Apache's path; skip the test where it, or its module for this version of Python, is missing."""
    apache = program("apache2", "libapache2-mod-wsgi-py3")
    module = _MODULES / "mod_wsgi.so"  # a link to the file of a version, as mod_wsgi.so-3.11
    if not module.exists():
        miss("mod_wsgi is missing: apt-get install libapache2-mod-wsgi-py3")
    version = "{}.{}".format(*sys.version_info)
    if not module.resolve().name.endswith(f"-{version}"):
        pytest.skip(f"{module.resolve().name} of Debian is not for Python {version}")
    return apache
