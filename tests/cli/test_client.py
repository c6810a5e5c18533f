"""The client against a scripted HTTP server: errors get their classes back, events survive a lost connection."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from inferq import errors
from inferq.client import Client
from inferq.error_answers import error_of

Reply = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers each request with the next reply of the script, and remembers what was asked."""

    def __init__(self) -> None:
        self.script: list[Reply] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                outer.asked.append((self.command, self.path, dict(self.headers), body))
                outer.script.pop(0)(self)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, "iq-test") as made:
        yield made


def answer(status: int, payload: Any, **headers: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        body = json.dumps(payload).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def events(*lines: str, whole: bool = True) -> Reply:
    """A stream of events; not `whole`: the connection is cut where more was promised."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        body = "".join(lines).encode()
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("content-length", str(len(body) + (0 if whole else 100)))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return reply


def event(number: int, name: str, data: str = "{}") -> str:
    return f"id: {number}-0\nevent: {name}\ndata: {data}\n\n"


def test_follow_resumes_after_the_last_event(server: Server, client: Client) -> None:
    server.script = [
        events(event(1, "state"), event(2, "chunk"), whole=False),
        events(event(3, "chunk"), event(4, "done")),
    ]
    names = [(each.id, each.name) for each in client.follow("job")]
    assert names == [("1-0", "state"), ("2-0", "chunk"), ("3-0", "chunk"), ("4-0", "done")]
    assert server.asked[1][2]["Last-Event-ID"] == "2-0"


def test_follow_asks_again_when_the_server_ends_early(server: Server, client: Client) -> None:
    server.script = [events(event(1, "state")), events(event(2, "done"))]
    assert [each.name for each in client.follow("job")] == ["state", "done"]


def test_follow_of_an_unknown_job_is_not_tried_again(server: Server, client: Client) -> None:
    server.script = [answer(404, {"error": {"code": "job_not_found", "message": "no", "param": None}})]
    with pytest.raises(errors.JobNotFound):
        list(client.follow("job"))


def test_error_in_a_stream_is_raised(server: Server, client: Client) -> None:
    broken = json.dumps({"error": {"code": "stream_broken", "message": "the engine died"}})
    server.script = [events('data: {"choices": []}\n\n', f"data: {broken}\n\n", "data: [DONE]\n\n")]
    with pytest.raises(errors.StreamBroken, match="the engine died"):
        list(client.stream("chat/completions", {}))


def test_wait_outlives_a_server_that_is_away(server: Server, client: Client) -> None:
    away = answer(503, {"error": {"code": "queue_unavailable", "message": "Redis is away"}})
    server.script = [answer(200, {"state": "running"}), away, answer(200, {"state": "succeeded"})]
    assert [job["state"] for job in client.wait("job", every=0.01)] == ["running", "succeeded"]


def test_refusal_carries_retry_after_and_param(server: Server, client: Client) -> None:
    payload = {"error": {"code": "queue_full", "message": "full", "param": "model", "type": "x"}}
    server.script = [answer(429, payload, Retry_After="7")]
    with pytest.raises(errors.QueueFull) as caught:
        client.submit({"model": "m"})
    assert (caught.value.retry_after, caught.value.param) == (7.0, "model")


def test_key_and_filters_are_sent(server: Server, client: Client) -> None:
    server.script = [answer(200, {"data": [], "has_more": False, "next_cursor": None})]
    client.jobs(state="failed", model="", limit=3)
    method, path, headers, _ = server.asked[0]
    assert (method, path) == ("GET", "/v1/jobs?state=failed&limit=3")
    assert headers["Authorization"] == "Bearer iq-test"


def test_no_server_is_unavailable_and_says_what_to_do() -> None:
    with Client("http://127.0.0.1:1", None) as client, pytest.raises(errors.Unavailable, match="inferq up"):
        client.models()


def test_something_else_on_the_port_is_unavailable(server: Server, client: Client) -> None:
    def page(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"<html>")

    server.script = [page]
    with pytest.raises(errors.Unavailable, match="does not answer like an inferq API"):
        client.models()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (404, errors.NotFound),
        (503, errors.Unavailable),
        (500, errors.InferqError),
    ],
)
def test_foreign_error_is_classed_by_its_status(status: int, kind: type[errors.InferqError]) -> None:
    assert type(error_of({"error": {"code": "from_a_proxy"}}, status=status)) is kind


def test_environment_names_server_and_key(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "url").write_text("http://127.0.0.1:9100\n")
    (tmp_path / "admin.key").write_text("iq-from-file\n")
    home = {"INFERQ_HOME": str(tmp_path)}
    with Client.from_environment(home) as here:
        assert here.url == "http://127.0.0.1:9100"
        assert here._http.headers["authorization"] == "Bearer iq-from-file"
    with Client.from_environment({**home, "INFERQ_URL": "http://far/", "INFERQ_API_KEY": "iq-x"}) as there:
        assert there.url == "http://far"
        assert there._http.headers["authorization"] == "Bearer iq-x"
    with Client.from_environment({"INFERQ_HOME": str(tmp_path / "none")}) as default:
        assert default.url == "http://127.0.0.1:9000"
        assert "authorization" not in default._http.headers
