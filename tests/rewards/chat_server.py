"""An endpoint of chat completions for tests: it answers as a test says, and remembers what it was asked."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Answer = tuple[int, dict[str, str], Any]
"""Status, headers, and what is sent as JSON (bytes as they are)."""
Liking = Callable[[str], float]


class ChatServer:
    """``/v1/models`` and ``/v1/chat/completions``. ``answers`` holds what is done with each request; the last stays."""

    def __init__(self) -> None:
        self.asked: list[Body] = []
        self.keys: list[str] = []
        self.models: Answer = (200, {}, {"data": [{"id": "mini"}, {"id": "maxi:latest"}]})
        self.answers: list[Callable[[Body], Answer]] = [judging(len)]
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(server.models if self.path == "/v1/models" else (404, {}, {}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.keys.append(self.headers.get("Authorization", ""))
                server.asked.append(body)
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                self.reply(answer(body) if self.path == "/v1/chat/completions" else (404, {}, {}))

            def reply(self, answer: Answer) -> None:
                status, headers, content = answer
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                """Silent."""

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, address: Any) -> None:
                """A client that went away in time is what some tests are about."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def questions(self) -> list[tuple[str, ...]]:
        """The responses shown in each request, in their order."""
        return [shown(body) for body in self.asked]


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """A server that runs."""
    made = ChatServer()
    threading.Thread(target=made.http.serve_forever, daemon=True).start()
    yield made
    made.http.shutdown()
    made.http.server_close()


def shown(body: Body) -> tuple[str, ...]:
    """The responses between the lines with the code."""
    text = body["messages"][1]["content"]
    parts = re.findall(r"\[(\w{32}) (response ?\d*) begins\]\n(.*?)\n\[\1 \2 ends\]", text, re.DOTALL)
    return tuple(part[2] for part in parts)


def said(content: str | None, finish: str = "stop", usage: Any = None) -> Answer:
    """A completion with this text."""
    row: Body = {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": finish}]}
    usage = {"prompt_tokens": 100, "completion_tokens": 10} if usage is None else usage
    return 200, {}, row | {"usage": usage}


def saying(content: str | None, finish: str = "stop", usage: Any = None) -> Callable[[Body], Answer]:
    return lambda body: said(content, finish, usage)


def status(code: int, content: Any = None, **headers: str) -> Callable[[Body], Answer]:
    return lambda body: (code, {name.replace("_", "-"): value for name, value in headers.items()}, content or {})


def judging(liking: Liking, *, first: float = 0.0) -> Callable[[Body], Answer]:
    """A judge that likes each text as much as ``liking`` says, and what is shown first by ``first`` more."""

    def answer(body: Body) -> Answer:
        texts = shown(body)
        marks = [min(10.0, liking(text)) for text in texts]
        marks[0] = min(10.0, marks[0] + first) if len(texts) > 1 else marks[0]
        system = body["messages"][0]["content"]
        if "which of two" in system:
            better = 0 if marks[0] == marks[1] else 1 + (marks[1] > marks[0])
            return said(json.dumps({"reason": "r", "better": better}))
        if "several responses" in system:
            return said(json.dumps({"reason": "r", "scores": marks}))
        return said(json.dumps({"reason": "r", "score": marks[0]}))

    return answer
