"""An app for ``flask sse``, with its config and log level from the environment."""

from __future__ import annotations

import json
import logging
import os

from flask import Flask

from flask_sse_emitters import SSE

if "LOG_LEVEL" in os.environ:
    logging.basicConfig(level=os.environ["LOG_LEVEL"])

app = Flask(__name__)
app.config.update(json.loads(os.environ.get("CONFIG", "{}")))
sse = SSE(app)
