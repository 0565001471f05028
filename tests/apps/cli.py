"""An app for ``flask sse``, with its log level from the environment."""

from __future__ import annotations

import logging
import os

from flask_sse_emitters import SSE
from tests.apps.base import configured

if "LOG_LEVEL" in os.environ:
    logging.basicConfig(level=os.environ["LOG_LEVEL"])

app = configured(__name__)
sse = SSE(app)
