"""A reward over HTTP, against a server of this test: what is sent, and what each fault of a server comes to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from plaudit.jobs.reward_tables import HttpTable
from plaudit.records import Message, Prompt, Rollout
from plaudit.rewards.remote.http import HttpReward

Answer = tuple[int, dict[str, str], bytes]


class Server:
    """Answers with what a test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: list[Callable[[dict[str, Any]], Answer]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append({"path": self.path, **body})
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                status, headers, content = answer(body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                """Silent."""

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, address: Any) -> None:
                """A client that went away in time is what some tests are about."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.http.serve_forever, daemon=True).start()
    yield made
    made.http.shutdown()
    made.http.server_close()


def rewards(*values: Any) -> Callable[[dict[str, Any]], Answer]:
    return lambda body: (200, {}, json.dumps({"rewards": list(values)}).encode())


def lengths(body: dict[str, Any]) -> Answer:
    return 200, {}, json.dumps({"rewards": [len(text) for text in body["responses"]]}).encode()


def status(code: int, **headers: str) -> Callable[[dict[str, Any]], Answer]:
    return lambda body: (code, {name.replace("_", "-"): value for name, value in headers.items()}, b"{}")


def rollout(response: str, content: Any = "say ", answer: str | None = None, **columns: Any) -> Rollout:
    return Rollout.single(Prompt("p", content, answer, columns), 0, (1,), (2,), (0.0,), response, "stop")


def reward(server: Server, waits: list[float] | None = None, **fields: Any) -> HttpReward:
    said = [] if waits is None else waits
    return HttpReward(HttpTable(url=f"{server.url}/get_reward", **fields), sleep=said.append)


def test_what_is_sent_and_what_comes_back(server: Server) -> None:
    server.answers = [rewards(1.5, {"score": -2, "tone": 0.25})]
    chat = (Message("system", "Be brief."), Message("user", "Hi"))
    results = reward(server)([rollout("red", answer="4", level=3), rollout("Hello", chat)])
    assert [result.value for result in results] == [1.5, -2.0] and results[1].parts == {
        "http": -2.0,
        "tone": 0.25,
    }
    assert server.asked == [
        {
            "path": "/get_reward",
            "query": ["say red", "System: Be brief.\n\nHuman: HiHello"],
            "prompts": ["say ", "System: Be brief.\n\nHuman: Hi"],
            "responses": ["red", "Hello"],
            "labels": ["4", None],
            "messages": [
                [{"role": "user", "content": "say "}, {"role": "assistant", "content": "red"}],
                [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": "Hello"},
                ],
            ],
            "columns": [{"level": 3}, {}],
        }
    ]


def test_batches_come_back_in_order(server: Server) -> None:
    server.answers = [lengths]
    results = reward(server, batch_size=2, concurrency=3)([rollout("x" * n) for n in range(7)])
    assert [result.value for result in results] == [0, 1, 2, 3, 4, 5, 6]
    assert sorted(len(body["responses"]) for body in server.asked) == [1, 2, 2, 2]


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again_after_waits_that_double(server: Server, code: int) -> None:
    server.answers = [status(code), status(code), status(code), rewards(1.0)]
    waits: list[float] = []
    assert reward(server, waits)([rollout("a")])[0].value == 1.0
    assert waits == [0.5, 1.0, 2.0] and len(server.asked) == 4


def test_a_server_may_say_how_long_to_wait(server: Server) -> None:
    server.answers = [status(503, Retry_After="7"), status(503, Retry_After="9999"), rewards(1.0)]
    waits: list[float] = []
    reward(server, waits)([rollout("a")])
    assert waits == [7.0, 30.0]


def test_after_the_last_try_the_reason_is_the_error(server: Server) -> None:
    server.answers = [status(503)]
    waits: list[float] = []
    result = reward(server, waits)([rollout("a")])[0]
    assert result.value is None and "answered 503" in result.error and "5 tries" in result.error
    assert len(waits) == 4 and len(server.asked) == 5


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status(404), "answered 404"),
        (lambda body: (200, {}, b"not json"), "did not answer with JSON"),
        (lambda body: (200, {}, b"[" * 100_000), "did not answer with JSON"),
        (lambda body: (200, {}, b"[1.0]"), "answered [1.0], expected"),
        (rewards(1.0, 2.0), "answered 2 rewards"),
        (rewards(), "answered 0 rewards"),
        (status(302, Location="http://127.0.0.1:9/x"), "a redirect to http://127.0.0.1:9/x"),
        (status(307, Location="http://localhost:9/x"), "a redirect to http://localhost:9/x"),
        (status(303, Location="/other"), "a redirect"),
    ],
)
def test_a_wrong_answer_is_an_error_and_not_asked_again(server: Server, answer: Any, reason: str) -> None:
    server.answers = [answer]
    waits: list[float] = []
    result = reward(server, waits)([rollout("a")])[0]
    assert result.value is None and reason in result.error and server.url in result.error, result.error
    assert waits == [] and len(server.asked) == 1


@pytest.mark.parametrize("value", [None, "1.0", [1.0], True and float("nan")])
def test_what_is_no_number_is_an_error_of_its_response(server: Server, value: Any) -> None:
    server.answers = [rewards(1.0, value)]
    results = reward(server)([rollout("a"), rollout("b")])
    assert results[0].value == 1.0 and results[1].value is None and "not a finite number" in results[1].error


def test_a_redirect_on_the_same_host_keeps_the_question(server: Server) -> None:
    server.answers = [status(307, Location="/get_reward/"), lengths]
    assert reward(server)([rollout("abc")])[0].value == 3.0
    assert [body["path"] for body in server.asked] == ["/get_reward", "/get_reward/"]
    assert server.asked[0]["responses"] == server.asked[1]["responses"]


def test_a_server_that_is_not_there(server: Server) -> None:
    table = HttpTable(url="http://127.0.0.1:1/x")
    waits: list[float] = []
    result = HttpReward(table, sleep=waits.append)([rollout("a")])[0]
    assert (
        result.value is None and "gave no answer" in result.error and "ConnectionRefusedError" in result.error
    )
    assert len(waits) == 4


def test_a_server_that_does_not_answer_in_time(server: Server) -> None:
    never = threading.Event()

    def silent(body: dict[str, Any]) -> Answer:
        never.wait(60)
        return 200, {}, b"{}"

    server.answers = [silent]
    result = reward(server, timeout=0.05)([rollout("a")])[0]
    never.set()
    assert result.value is None and "gave no answer" in result.error and "timed out" in result.error


def test_a_proxy_of_the_environment_is_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.answers = [lengths]
    assert reward(server)([rollout("ab")])[0].value == 2.0
