"""Werkzeug's own server, threaded as with ``flask run``: ``python -m tests.support.werkzeug_server module:app``."""

import logging
import os
import sys
from importlib import import_module

from werkzeug.serving import make_server

logging.basicConfig(level=logging.INFO)
module, _, name = sys.argv[1].partition(":")
threaded = os.environ.get("THREADED", "yes") == "yes"
app = getattr(import_module(module), name)
make_server("127.0.0.1", 0, app, threaded=threaded, fd=int(os.environ["LISTENER"])).serve_forever()
