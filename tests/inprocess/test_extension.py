"""The extension and the response, through Flask's test client."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, make_response, request, stream_with_context
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue

from flask_sse_emitters import (
    SSE,
    CloseReason,
    Event,
    InvalidEvent,
    NotInitialized,
    SseEmitter,
    SseEmitters,
    SseError,
    UnsupportedWorker,
    brokers,
)
from flask_sse_emitters.testing import decode, read_events
from tests.support.waiting import until
from tests.unit.doubles.clock import ManualScheduler, emitter_at


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.config["SSE_TIMEOUT"] = 30
    SSE(app)
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def emitters() -> Iterator[SseEmitters]:
    emitters = SseEmitters()
    yield emitters
    emitters.complete()


def ended(emitter: SseEmitter) -> SseEmitter:
    emitter.complete()
    return emitter


# The response.


def test_response_headers_are_those_of_an_event_stream(app: Flask, client: FlaskClient) -> None:
    app.add_url_rule("/", view_func=lambda: ended(SseEmitter()))
    response = client.get("/")
    assert response.status_code == 200
    assert dict(response.headers) == {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
    }


def test_response_preamble_is_sent_at_once(app: Flask, client: FlaskClient) -> None:
    app.config["SSE_RETRY"] = 1
    app.add_url_rule("/", view_func=SseEmitter)
    response = client.get("/")
    first = next(iter(response.iter_encoded()))
    assert first.startswith(b":")
    assert b"\nretry: 3000\n" in first, "the config is read once, by init_app"
    assert decode(first) == []
    response.close()


def test_view_can_return_an_emitter_bare_or_in_a_tuple(app: Flask, client: FlaskClient) -> None:
    def emitter() -> SseEmitter:
        emitter = SseEmitter()
        emitter.send("x")
        return ended(emitter)

    results: dict[str, Callable[[], Any]] = {
        "/bare": emitter,
        "/status": lambda: (emitter(), 202),
        "/headers": lambda: (emitter(), {"X-Foo": "bar"}),
        "/both": lambda: (emitter(), 202, {"X-Foo": "bar", "Cache-Control": "no-store"}),
        "/response": lambda: emitter().response(202, {"X-Foo": "bar"}),
        "/made": lambda: make_response(emitter()),
        "/made-of-two": lambda: make_response(emitter(), 202),
    }
    for rule, view in results.items():
        app.add_url_rule(rule, rule, view)
    got = {rule: client.get(rule) for rule in results}
    assert {rule: response.status_code for rule, response in got.items()} == {
        "/bare": 200,
        "/status": 202,
        "/headers": 200,
        "/both": 202,
        "/response": 202,
        "/made": 200,
        "/made-of-two": 202,
    }
    assert {rule for rule, response in got.items() if response.headers.get("X-Foo") == "bar"} == {
        "/headers",
        "/both",
        "/response",
    }
    assert got["/both"].headers["Cache-Control"] == "no-store"
    assert all(decode(response.get_data()) == [Event("x")] for response in got.values())
    assert {response.content_type for response in got.values()} == {"text/event-stream"}


def test_view_results_of_other_types_are_unchanged(app: Flask, client: FlaskClient) -> None:
    app.add_url_rule("/", view_func=lambda: ({"a": 1}, 201, {"X-Foo": "bar"}))
    response = client.get("/")
    assert (response.json, response.status_code, response.headers["X-Foo"]) == ({"a": 1}, 201, "bar")


def test_response_delivers_events_as_they_are_sent(app: Flask, client: FlaskClient, emitters: SseEmitters) -> None:
    app.add_url_rule("/", view_func=lambda: emitters.add(SseEmitter()))
    response = client.get("/")
    emitters.send("a")
    assert read_events(response, 1) == [Event("a")]
    emitters.send("b")
    emitters.send(Event("c", event="n", id=1))
    emitters.complete()
    assert read_events(response, 5) == [Event("b"), Event("c", event="n", id="1")]


def test_response_in_a_blueprint_has_the_apps_response_class(emitters: SseEmitters) -> None:
    class Special(Response):
        special = True

    app = Flask(__name__)
    SSE(app)
    app.response_class = Special  # set after init_app
    blueprint = Blueprint("streams", __name__)

    @blueprint.get("/connect")
    def connect() -> ResponseReturnValue:
        return ended(emitters.add(SseEmitter()))

    classes: list[type] = []

    @app.after_request
    def look(response: Response) -> Response:
        classes.append(type(response))
        return response

    app.register_blueprint(blueprint, url_prefix="/api")
    assert app.test_client().get("/api/connect").status_code == 200
    assert issubclass(classes[0], Special)


def test_response_call_on_close_is_called_once_at_the_end(app: Flask, client: FlaskClient) -> None:
    closed: list[str] = []

    @app.get("/")
    def view() -> ResponseReturnValue:
        response = SseEmitter().response()
        response.call_on_close(lambda: closed.append(request.method if request else "no request"))
        return response

    response = client.get("/")
    next(iter(response.iter_encoded()))
    assert closed == []
    response.close()
    assert closed == ["no request"], "the stream keeps no request"
    client.head("/").close()
    assert len(closed) == 2


@pytest.mark.parametrize("way", ["a generator", "stream_with_context", "no passthrough"])
def test_response_body_that_the_app_wraps_is_delivered_and_ends(way: str, app: Flask, client: FlaskClient) -> None:
    emitter = SseEmitter()
    app.add_url_rule("/", view_func=lambda: emitter)

    def passed_on(body: Iterable[bytes]) -> Iterator[bytes]:
        yield from body

    @app.after_request
    def wrap(response: Response) -> Response:
        if way == "a generator":
            response.response = passed_on(response.response)  # type: ignore[arg-type]
        elif way == "stream_with_context":
            response.response = stream_with_context(response.response)  # type: ignore[call-overload]
        else:
            response.direct_passthrough = False
        return response

    response = client.get("/")
    emitter.send("x")
    assert read_events(response, 1) == [Event("x")]
    response.close()
    assert emitter.close_reason is CloseReason.DISCONNECTED


def test_request_ends_before_its_stream(app: Flask, client: FlaskClient) -> None:
    order: list[str] = []
    app.teardown_appcontext(lambda _: order.append("released"))

    @app.get("/")
    def view() -> ResponseReturnValue:
        emitter = SseEmitter()
        emitter.send("x")
        return emitter

    response = client.get("/")
    assert read_events(response, 1) == [Event("x")]
    assert order == ["released"]
    response.close()


def test_emitter_returned_by_a_second_request_is_rejected(app: Flask, client: FlaskClient) -> None:
    emitter = SseEmitter()
    app.add_url_rule("/", view_func=lambda: emitter)
    app.testing = True
    with client.get("/"):
        with pytest.raises(SseError, match="make an emitter for each request"):
            client.get("/")
        assert emitter.is_open
    assert emitter.close_reason is CloseReason.DISCONNECTED


# How it ends.


def test_timeout_ends_the_response_cleanly(app: Flask, client: FlaskClient) -> None:
    emitter = SseEmitter(timeout=0.05)
    app.add_url_rule("/", view_func=lambda: emitter)
    assert decode(client.get("/").get_data()) == []
    assert emitter.close_reason is CloseReason.TIMEOUT


def test_response_closed_before_its_first_byte_is_a_disconnect(app: Flask, client: FlaskClient) -> None:
    emitter = SseEmitter()
    errors: list[BaseException] = []
    emitter.on_error(errors.append)
    with app.test_request_context():
        emitter.response().close()
    assert emitter.close_reason is CloseReason.DISCONNECTED
    until(lambda: errors, "the callback")
    assert "before its first byte" in str(errors)


def test_head_request_gets_headers_and_ends_the_emitter(app: Flask, client: FlaskClient) -> None:
    emitter = SseEmitter()
    app.add_url_rule("/", view_func=lambda: emitter)
    response = client.head("/")
    assert (response.status_code, response.content_type, response.get_data()) == (200, "text/event-stream", b"")
    response.close()
    assert emitter.close_reason is CloseReason.DISCONNECTED


def test_view_that_raises_after_add_ends_its_emitter_and_leaves_the_list(
    app: Flask, client: FlaskClient, emitters: SseEmitters
) -> None:
    made: list[SseEmitter] = []

    @app.get("/")
    def view() -> ResponseReturnValue:
        made.append(emitters.add(SseEmitter()))
        raise RuntimeError("the view's own")

    assert client.get("/").status_code == 500
    assert (made[0].close_reason, str(made[0].error)) == (CloseReason.ERROR, "the view's own")
    assert len(emitters) == 0


def test_after_request_that_raises_leaves_nothing_in_the_list(
    app: Flask, client: FlaskClient, emitters: SseEmitters
) -> None:
    app.add_url_rule("/", view_func=lambda: emitters.add(SseEmitter()))

    @app.after_request
    def fail(response: Response) -> Response:
        raise RuntimeError("after_request")

    assert client.get("/").status_code == 500
    assert len(emitters) == 0


def test_emitter_with_another_answer_of_its_view_ends_at_the_attach_deadline(emitters: SseEmitters) -> None:
    app = Flask(__name__)
    app.config["SSE_ATTACH_SECONDS"] = 0.05
    SSE(app)
    made: list[SseEmitter] = []

    @app.get("/")
    def view() -> ResponseReturnValue:
        made.append(emitters.add(SseEmitter()))
        abort(409)

    assert app.test_client().get("/").status_code == 409
    until(lambda: made[0].close_reason is CloseReason.ERROR, "the attach deadline")
    assert "SSE_ATTACH_SECONDS=0.05" in str(made[0].error)
    assert len(emitters) == 0


def test_overflow_breaks_off_the_response(app: Flask, client: FlaskClient) -> None:
    emitter = SseEmitter(max_pending=1)
    app.add_url_rule("/", view_func=lambda: emitter)
    response = client.get("/")
    stream = response.iter_encoded()
    next(stream)
    emitter.try_send(1)
    emitter.try_send(2)
    with pytest.raises(BrokenPipeError, match="more events pending"):
        next(stream)


# What the client sends.


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({}, "", None),
        ({"Last-Event-ID": "7"}, "", "7"),
        ({"Last-Event-ID": ""}, "", None),
        ({"Last-Event-ID": "é✓".encode().decode("latin-1")}, "", "é✓"),
        ({}, "last_event_id=1", "1"),
        ({}, "lastEventId=2", "2"),
        ({}, "evs_last_event_id=3", "3"),
        ({"Last-Event-ID": "7"}, "lastEventId=2", "7"),
        ({"Last-Event-ID": ""}, "lastEventId=2", "2"),
    ],
)
def test_last_event_id_is_read_from_the_header_or_the_query(
    headers: dict[str, str], query: str, expected: str | None, app: Flask, client: FlaskClient
) -> None:
    early: list[str | None] = []
    outside = SseEmitter()

    @app.get("/inside")
    def inside() -> ResponseReturnValue:
        emitter = SseEmitter()
        early.append(emitter.last_event_id)
        return ended(emitter)

    app.add_url_rule("/outside", view_func=lambda: ended(outside))
    client.get(f"/inside?{query}", headers=headers)
    client.get(f"/outside?{query}", headers=headers)
    assert (early, outside.last_event_id) == ([expected], expected)


@pytest.mark.parametrize("parameter", ["padding", "evs_preamble"])
def test_response_padding_for_polyfills_is_two_kilobytes(parameter: str, app: Flask, client: FlaskClient) -> None:
    app.add_url_rule("/", view_func=lambda: ended(SseEmitter()))
    body = client.get(f"/?{parameter}=true").get_data()
    assert body.startswith(b":" + b" " * 2048 + b"\n")
    assert len(client.get("/").get_data()) < 100


# Setting it up.


def test_emitter_without_the_extension_is_an_error_that_says_what_to_call(client: FlaskClient) -> None:
    app = Flask(__name__)
    app.testing = True
    app.add_url_rule("/", view_func=SseEmitter)
    with pytest.raises(NotInitialized, match=r"call SSE\(app\) or sse.init_app\(app\)"):
        app.test_client().get("/")
    with pytest.raises(NotInitialized):
        SseEmitter().response()


def test_init_app_twice_for_one_app_is_rejected() -> None:
    app = Flask(__name__)
    sse = SSE(app)
    for again in (sse, SSE()):
        with pytest.raises(RuntimeError, match="this app has an SSE already"):
            again.init_app(app)


def test_extension_serves_several_apps_and_keeps_them_apart() -> None:
    sse = SSE()
    for name, retry in (("one", 1), ("two", 2)):
        app = Flask(name)
        app.config["SSE_RETRY"] = retry
        sse.init_app(app)
        app.add_url_rule("/", view_func=lambda: ended(SseEmitter()))
        assert f"retry: {retry}\n" in app.test_client().get("/").get_data(as_text=True)
        assert "sse_emitters" in app.extensions


def test_init_app_fills_in_the_default_config() -> None:
    app = Flask(__name__)
    app.config["SSE_TIMEOUT"] = timedelta(minutes=1)
    SSE(app)
    assert {key: value for key, value in app.config.items() if key.startswith("SSE_")} == {
        "SSE_TIMEOUT": timedelta(minutes=1),
        "SSE_HEARTBEAT": 15,
        "SSE_RETRY": 3000,
        "SSE_MAX_PENDING": 1000,
        "SSE_MAX_PENDING_BYTES": 1048576,
        "SSE_OVERFLOW": "close",
        "SSE_ATTACH_SECONDS": 30,
        "SSE_WRITE_SECONDS": 30,
        "SSE_HANDOFF": "auto",
        "SSE_MAX_EVENT_BYTES": 1048576,
        "SSE_MAX_CLIENTS": 10000,
        "SSE_HISTORY": 1000,
        "SSE_HISTORY_SECONDS": 300,
        "SSE_BROKER_URL": "memory://",
        "SSE_BROKER_PREFIX": "sse",
        "SSE_PUBLISH_SECONDS": 2,
        "SSE_DRAIN_SECONDS": 5,
        "SSE_MAX_CLIENTS_PER_IDENTITY": None,
        "SSE_MAX_CLIENTS_PER_ADDRESS": None,
        "SSE_CORS_ORIGINS": (),
    }


@pytest.mark.parametrize(
    ("key", "value", "accepts"),
    [
        ("SSE_TIMEOUT", -1, "seconds as a number or a timedelta, 0 for never"),
        ("SSE_TIMEOUT", None, "seconds as a number or a timedelta, 0 for never"),
        ("SSE_HEARTBEAT", "15", "seconds as a number or a timedelta, 0 for never"),
        ("SSE_RETRY", 1.5, "an int of milliseconds, 0 or more"),
        ("SSE_RETRY", -1, "an int of milliseconds, 0 or more"),
        ("SSE_RETRY", True, "an int of milliseconds, 0 or more"),
        ("SSE_MAX_PENDING", 0, "an int, 1 or more"),
        ("SSE_MAX_PENDING_BYTES", "1MB", "an int, 1 or more"),
        ("SSE_OVERFLOW", "block", '"close", "drop_oldest" or "coalesce"'),
        ("SSE_WRITE_SECONDS", -1, "seconds as a number or a timedelta, 0 for never"),
        ("SSE_ATTACH_SECONDS", 0, "seconds as a number or a timedelta, more than 0"),
        ("SSE_HANDOFF", True, '"auto", "on" or "off"'),
        ("SSE_MAX_EVENT_BYTES", 0, "an int, 1 or more"),
    ],
)
def test_init_app_with_an_invalid_config_value_names_it(key: str, value: object, accepts: str) -> None:
    app = Flask(__name__)
    app.config[key] = value
    with pytest.raises(ValueError, match=f"{key} must be {accepts}, not") as caught:
        SSE(app)
    assert repr(value) in str(caught.value)
    assert "sse_emitters" not in app.extensions


def test_event_that_is_too_large_is_rejected_at_the_sender() -> None:
    app = Flask(__name__)
    app.config["SSE_MAX_EVENT_BYTES"] = 100
    SSE(app)
    fits, too_large = "x" * (100 - len("data: \n\n")), "é" * 47
    with app.app_context():
        emitters = SseEmitters()
        emitter, alone = emitters.add(SseEmitter()), SseEmitter()
        for send in (emitters.send, alone.send, alone.try_send):
            send(fits)
            for event in (fits + "x", too_large, SseEmitter.event().name("n" * 50).data("x" * 50)):
                with pytest.raises(InvalidEvent, match="SSE_MAX_EVENT_BYTES allows 100"):
                    send(event)
        assert [emitter.pending, alone.pending] == [1, 2]
        assert emitter.is_open
        assert alone.is_open


def test_emitter_made_outside_an_app_takes_the_config_of_the_app_that_returns_it(scheduler: ManualScheduler) -> None:
    app = Flask(__name__)
    app.config.update(SSE_MAX_PENDING=2, SSE_TIMEOUT=10)
    SSE(app)
    emitter = emitter_at(scheduler)
    own = emitter_at(scheduler, timeout=20, max_pending=3)
    late = emitter_at(scheduler)
    with app.test_request_context():
        responses = [emitter.response(), own.response(), late.response()]
    assert [emitter.try_send(n) for n in range(3)] == [True, True, False]
    assert [own.try_send(n) for n in range(3)] == [True, True, True]
    scheduler.pass_time(11)
    assert [late.close_reason, own.close_reason] == [CloseReason.TIMEOUT, None]
    assert own.try_send(4) is False
    for response in responses:
        response.close()


@pytest.mark.parametrize(
    ("sign", "advice"), [("gunicorn.socket", "--worker-class gevent"), ("werkzeug.socket", "threaded=True")]
)
def test_stream_on_a_single_threaded_server_raises_unsupported_worker(sign: str, advice: str, app: Flask) -> None:
    app.testing = True
    app.add_url_rule("/", view_func=SseEmitter)
    with pytest.raises(UnsupportedWorker, match=advice):
        app.test_client().get("/", environ_overrides={sign: object(), "wsgi.multithread": False})


# For users' own tests.


def test_read_events_reads_any_iterable_of_bytes() -> None:
    wire = Event("a").encode() + Event("b").encode()
    assert read_events([wire], 5) == [Event("a"), Event("b")]
    assert read_events([wire], 0) == []


def test_read_events_goes_on_where_it_stopped(app: Flask, client: FlaskClient) -> None:
    @app.get("/")
    def view() -> ResponseReturnValue:
        emitter = SseEmitter()
        for number in range(5):
            emitter.send(number)
        return ended(emitter)

    response = client.get("/")
    assert [event.data for event in read_events(response, 2)] == ["0", "1"]
    assert read_events(response, 0) == []
    assert [event.data for event in read_events(response, 9)] == ["2", "3", "4"]


def test_emitter_signature_has_public_types_alone() -> None:
    assert list(inspect.signature(SseEmitter).parameters) == [
        "timeout",
        "heartbeat",
        "max_pending",
        "max_pending_bytes",
        "overflow",
    ]
    assert {"Bounds", "Frame", "Log", "new_epoch"} <= set(brokers.__all__)


@pytest.mark.parametrize("app", ["app", None.__class__, object()])
def test_extension_for_something_else_than_an_app_is_rejected(app: Any) -> None:
    with pytest.raises(TypeError, match="take the Flask app, not"):
        SSE(app)


def test_extension_registered_as_a_blueprint_is_an_error_with_advice(app: Flask) -> None:
    sse: Any = SSE()
    with pytest.raises(TypeError, match=re.escape("app.register_blueprint(sse.blueprint, url_prefix=...)")):
        app.register_blueprint(sse, url_prefix="/events")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (lambda: SSE().channel("news"), "a view returns sse.channel('news').subscribe()"),
        (SseEmitters, "a view returns the emitter that it has added to the list"),
        (lambda: Response(SseEmitter()), "return it from the view as it is, or emitter.response()"),  # type: ignore[arg-type]
    ],
)
def test_view_result_of_a_wrong_type_is_an_error_with_advice(
    app: Flask, client: FlaskClient, result: Callable[[], Any], expected: str
) -> None:
    app.testing = True
    app.add_url_rule("/", view_func=lambda: result())
    with pytest.raises(TypeError, match=re.escape(expected)):
        client.get("/")


def test_callback_that_is_async_is_rejected() -> None:
    async def call(*_: object) -> None: ...

    emitter = SseEmitter()
    adders: list[Callable[[Any], object]] = [emitter.on_completion, emitter.on_timeout, emitter.on_error]
    for add in adders:
        with pytest.raises(TypeError, match="not an async one"):
            add(call)
    emitter.complete()
