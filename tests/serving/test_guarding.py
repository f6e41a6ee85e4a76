"""Who may ask, how much, what is kept of it, and how the server ends."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from running import Letters, free_port, serving

from plaudit import backends
from plaudit.cli.main import main
from plaudit.data.served import Store, read_served
from plaudit.errors import ConfigError
from plaudit.live import Busy, Request, TimedOut
from plaudit.serving.host import Host
from plaudit.serving.settings import MOST_BODY, ServingSettings, keys_of

KEY = "a-key-that-is-long-enough"
ASK = {"messages": [{"role": "user", "content": "the film of Ann"}], "max_tokens": 6, "seed": 1}


def test_another_address_needs_keys() -> None:
    with pytest.raises(ConfigError, match="no API keys"):
        ServingSettings("m", host="0.0.0.0")
    assert ServingSettings("m", host="0.0.0.0", keys=keys_of(KEY, "keys")).knows(KEY)


@pytest.mark.parametrize(("lines", "words"), [("# only\n", "no API key"), ("short", "can be guessed")])
def test_bad_keys_are_refused(lines: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        keys_of(lines, "keys.txt")


def test_a_key_opens_and_nothing_else_does(engine: Any) -> None:
    settings = ServingSettings("tiny", port=free_port(), keys=keys_of(f"{KEY}  # Ann\nother-key-of-somebody", ""))
    with serving(Host(settings, *engine)) as served:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
            assert served.client.get("/v1/models", headers=header).status_code == 401
            assert served.client.get("/metrics", headers=header).status_code == 401
        for key in (KEY, "other-key-of-somebody"):
            assert served.client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert served.client.get("/health").status_code == 200


def test_without_keys_web_pages_are_refused(served: Any) -> None:
    for header in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        assert served.ask("/v1/chat/completions", ASK, headers=header).status_code == 403
    assert served.ask("/v1/chat/completions", ASK, headers={"Origin": "http://localhost:3000"}).status_code == 200


def test_large_bodies_are_refused_announced_or_not(served: Any) -> None:
    large = b" " * (MOST_BODY + 1)
    assert served.client.post("/v1/chat/completions", content=large).status_code == 413
    pieces = (large[: 1 << 16] for _ in range(MOST_BODY // (1 << 16) + 1))
    answer = served.client.post(
        "/v1/chat/completions", content=pieces, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413


def request(**values: Any) -> Request:
    from plaudit.config.sections import SamplingSection

    length = values.pop("most", 400)
    sampling = SamplingSection(max_new_tokens=length, min_new_tokens=length)
    return Request((5, 6, 7), sampling, 1, **values)


def test_a_full_queue_is_said_and_the_engine_goes_on(model: Path) -> None:
    engine, _ = backends.open_engine(str(model), rows=1, queue=2)
    pieces: list[Any] = []
    drawing = threading.Event()
    first = engine.submit(request(), lambda piece: drawing.set())
    assert drawing.wait(60)
    waiting = [engine.submit(request(), pieces.append) for _ in range(2)]
    with pytest.raises(Busy, match="2 requests wait"):
        engine.submit(request(), pieces.append)
    for ticket in (first, *waiting):
        ticket.cancel()
    ended = threading.Event()
    engine.submit(request(most=3), lambda piece: piece.finish and ended.set())
    assert ended.wait(60) and pieces == [], "those that were cancelled hear nothing"
    engine.close()
    with pytest.raises(Busy, match="being stopped"):
        engine.submit(request(), pieces.append)


def test_a_response_that_takes_too_long_is_aborted(engine: Any) -> None:
    ended: list[Any] = []
    done = threading.Event()

    def hear(piece: Any) -> None:
        if piece.finish:
            ended.append(piece)
            done.set()
        else:
            time.sleep(0.01)

    engine[0].submit(request(seconds=0.05), hear)
    assert done.wait(60) and isinstance(ended[0].error, TimedOut)


def test_what_is_being_drawn_is_finished_when_the_engine_is_closed(model: Path) -> None:
    engine, _ = backends.open_engine(str(model), rows=2)
    finishes: list[Any] = []
    for _ in range(3):
        engine.submit(request(most=20), lambda piece: piece.finish and finishes.append(piece.finish))
    engine.close(60)
    assert finishes == ["length"] * 3


def test_a_client_that_leaves_frees_its_row(served: Any) -> None:
    body = {**ASK, "max_tokens": 200, "min_tokens": 200, "stream": True}
    with served.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_bytes())
    for _ in range(400):
        load = served.host.engine.load()
        if not load.running + load.waiting:
            break
        time.sleep(0.05)
    assert load.running + load.waiting == 0 and load.response_tokens


# What is kept


def test_feedback_is_kept_with_the_response_it_is_about(served: Any) -> None:
    answer = served.ask("/v1/chat/completions", {**ASK, "n": 2}).json()
    name, second = answer["id"], answer["choices"][1]["message"]["content"]
    for verdict in ({"thumb": "up"}, {"thumb": "down"}, {"rating": 7}, {"edit": "Better."}):
        body = {"id": name, "index": 1, "user": "ann", **verdict}
        assert served.ask("/v1/feedback", body).status_code == 200
    lines = [line for line in read_served([served.host.feedback.path]) if line.id == name]
    assert [(line.verdict, line.value) for line in lines] == [("thumb", "down"), ("rating", 7), ("edit", "Better.")]
    assert all(line.responses == (second,) and line.models == ("tiny",) for line in lines)
    assert lines[0].provenance["seed"] == 1 and lines[0].prompt[0].content == "the film of Ann"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"id": "chatcmpl-none", "thumb": "up"}, 404, "no response"),
        ({"id": "chatcmpl-none"}, 400, "give one of"),
        ({"id": "chatcmpl-none", "thumb": "up", "rating": 3}, 400, "not thumb and rating"),
        ({"id": "chatcmpl-none", "thumb": "sideways"}, 400, ""),
    ],
)
def test_bad_feedback_is_refused(served: Any, body: Any, status: int, words: str) -> None:
    answer = served.ask("/v1/feedback", body)
    assert answer.status_code == status and words in answer.json()["error"]["message"]


def test_nothing_is_kept_unless_asked_for(engine: Any) -> None:
    with serving(Host(ServingSettings("tiny", port=free_port()), *engine)) as served:
        answer = served.ask("/v1/chat/completions", ASK).json()
        refused = served.ask("/v1/feedback", {"id": answer["id"], "thumb": "up"})
        assert refused.status_code == 404 and "--feedback" in refused.json()["error"]["message"]
        assert served.host.recent.find(answer["id"], 0) is None
        assert served.ask("/v1/score", {"prompts": ["a"], "responses": ["b"]}).status_code == 404


def test_the_log_holds_every_response_redacted(engine: Any, tmp_path: Path) -> None:
    log = Store(tmp_path / "served.jsonl", lambda text: text.replace("Ann", "[name]"))
    with serving(Host(ServingSettings("tiny", port=free_port()), *engine, log=log)) as served:
        served.ask("/v1/chat/completions", {**ASK, "stream": True})
        served.ask("/v1/completions", {"prompt": "we and Ann", "max_tokens": 3})
    rows = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [[{"role": "user", "content": "the film of [name]"}], "we and [name]"]
    assert all(row["finish_reason"] in ("stop", "length") and "response" in row for row in rows)


def test_what_cannot_be_redacted_is_not_written_and_is_counted(engine: Any, tmp_path: Path) -> None:
    def broken(text: str) -> str:
        raise KeyError(text)

    log = Store(tmp_path / "served.jsonl", broken)
    with serving(Host(ServingSettings("tiny", port=free_port()), *engine, log=log)) as served:
        assert served.ask("/v1/chat/completions", ASK).status_code == 200
        assert "plaudit_unlogged_total 1" in served.client.get("/metrics").text
    assert log.path.read_text() == ""


def test_a_reward_model_alone(tmp_path: Path) -> None:
    with serving(Host(ServingSettings(reward="letters", port=free_port()), scorer=Letters())) as served:
        assert served.ask("/v1/chat/completions", ASK).status_code == 404
        assert served.ask("/v1/score", {"prompts": ["a"], "responses": ["bb"]}).json()["rewards"] == [2.0]
        assert "plaudit_requests_total" in served.client.get("/metrics").text


# The command


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 78, "nothing to serve"),
        (["m", "--host", "0.0.0.0"], 78, "no API keys"),
        (["m", "--port", "0"], 78, "port is 0"),
        (["m", "--rows", "0"], 78, "--rows is 0"),
        (["m", "--redact", "x.py:f"], 78, "nothing is kept"),
        (["m", "--api-keys", "missing.txt"], 65, "cannot be read"),
        (["m", "--log", "missing.txt/served.jsonl/x"], 74, "cannot write"),
        (["no-such-model"], 78, "no-such-model"),
    ],
)
def test_the_command_refuses_before_it_loads_anything(
    words: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--log" in words:
        (tmp_path / "missing.txt").write_text("")
    assert main(["serve", *words]) == code
    assert said in capsys.readouterr().err
