"""The app of the page "Deploying", with the views that containers are asked by."""

import os

from flask import Flask
from flask.typing import ResponseReturnValue
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_sse_emitters import SSE

app = Flask(__name__)
app.config["SSE_BROKER_URL"] = os.environ["SSE_BROKER_URL"]
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]

sse = SSE(app)
app.register_blueprint(sse.blueprint, url_prefix="/events")
sse.channel("news", public=True)


@app.get("/alive")
def alive() -> ResponseReturnValue:
    """Say that the process answers. A broker that is down is no reason to restart it: that would cut its streams."""
    return "", 204


@app.get("/ready")
def ready() -> ResponseReturnValue:
    """Say whether to send new clients here: not while this worker ends its streams."""
    return "", 503 if sse.stats()["draining"] else 204
