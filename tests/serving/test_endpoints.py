"""The endpoints, over the wire: with the official client where it is installed, and as plain HTTP."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

CHAT = [{"role": "system", "content": "short"}, {"role": "user", "content": "the film was"}]


def chat(served: Any, **body: Any) -> Any:
    answer = served.ask("/v1/chat/completions", {"model": "tiny", "messages": CHAT, "max_tokens": 12, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(served: Any, path: str, body: Any) -> list[Any]:
    lines = served.ask(path, {"model": "tiny", "stream": True, **body}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def streamed(served: Any, **body: Any) -> list[str]:
    """The text of each choice, put together of a stream."""
    texts: dict[int, str] = {}
    for one in events(served, "/v1/chat/completions", {"messages": CHAT, "max_tokens": 12, **body}):
        for choice in one["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["delta"].get("content", "")
    return [texts[index] for index in sorted(texts)]


def text_of(answer: Any, index: int = 0) -> str:
    return answer["choices"][index]["message"]["content"]


def test_the_same_seed_gives_the_same_response_and_another_gives_another(served: Any) -> None:
    first, same, other = (text_of(chat(served, seed=seed)) for seed in (1, 1, 2))
    assert first == same != other


def test_a_response_is_that_of_the_batch_generator(served: Any, model: Any) -> None:
    from plaudit.config.sections import SamplingSection
    from plaudit.records import Message
    from plaudit.stages.respond.policy import TrainedPolicy

    turns = tuple(Message(**turn) for turn in CHAT)
    sampling = SamplingSection(max_new_tokens=12, text="plain", temperature=0.7)
    assert text_of(chat(served, seed=5, temperature=0.7)) == TrainedPolicy(model).respond(turns, sampling, seed=5)


def test_a_stream_is_the_whole_response_in_pieces(served: Any) -> None:
    for body in ({"seed": 3}, {"seed": 4, "n": 3}, {"seed": 5, "stop": "e"}, {"temperature": 0}):
        whole = chat(served, **body)
        assert streamed(served, **body) == [text_of(whole, k) for k in range(len(whole["choices"]))], body


def test_a_stream_tells_role_finish_and_usage(served: Any) -> None:
    body = {"messages": CHAT, "max_tokens": 5, "seed": 1, "stream_options": {"include_usage": True}}
    first, *middle, last = events(served, "/v1/chat/completions", body)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [one["choices"][0]["finish_reason"] for one in middle][-1] in ("stop", "length")
    assert last["choices"] == [] and last["usage"]["completion_tokens"] <= 5


def test_requests_side_by_side_do_not_change_each_other(served: Any) -> None:
    bodies = [{"seed": k, "temperature": (0.5, 1, 1.5)[k % 3], "max_tokens": 3 + k} for k in range(12)]
    alone = [text_of(chat(served, **body)) for body in bodies]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda body: text_of(chat(served, **body)), bodies))
    assert together == alone


def test_long_rows_beside_short_ones(served: Any) -> None:
    # Longer than the cache is at first: it grows while a short row is being drawn.
    text = "the film was very good and warm but we left " * 8
    body = {"model": "tiny", "prompt": text, "max_tokens": 150, "seed": 1, "min_tokens": 150}
    alone = served.ask("/v1/completions", body).json()["choices"][0]["text"]
    with ThreadPoolExecutor(3) as pool:
        short = pool.map(lambda k: text_of(chat(served, seed=k, max_tokens=100, min_tokens=100)), (1, 2))
        assert served.ask("/v1/completions", body).json()["choices"][0]["text"] == alone
        assert list(short) == [text_of(chat(served, seed=k, max_tokens=100, min_tokens=100)) for k in (1, 2)]


def test_stop_texts_end_a_response_and_are_no_part_of_it(served: Any) -> None:
    whole = max((text_of(chat(served, seed=seed, max_tokens=60)) for seed in (7, 8, 9)), key=len)
    seed = next(seed for seed in (7, 8, 9) if text_of(chat(served, seed=seed, max_tokens=60)) == whole)
    stop = next(whole[at : at + 2] for at in range(3, len(whole)) if whole[at : at + 2].isascii())
    answer = chat(served, seed=seed, max_tokens=60, stop=[stop])
    assert text_of(answer) == whole[: whole.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_log_probs_of_chats(served: Any) -> None:
    answer = chat(served, seed=1, temperature=0, logprobs=True, top_logprobs=3, max_tokens=6)
    rows = answer["choices"][0]["logprobs"]["content"]
    assert len(rows) in (answer["usage"]["completion_tokens"], answer["usage"]["completion_tokens"] - 1)
    for row in rows:
        tops = [one["logprob"] for one in row["top_logprobs"]]
        assert len(tops) == 3 and tops == sorted(tops, reverse=True) and max(tops) < 0
        assert row["logprob"] == pytest.approx(tops[0]), "temperature 0 takes the likeliest"
        assert bytes(row["bytes"]).decode() == row["token"]


def test_log_probs_are_those_of_the_model(served: Any, model: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    prompt = [20, 31, 42]
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 1, "logprobs": 5, "temperature": 0.5, "seed": 1}
    found = served.ask("/v1/completions", body).json()["choices"][0]["logprobs"]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model)(torch.tensor([prompt])).logits[0, -1]
    best = (logits / 0.5).log_softmax(-1).topk(5).values.tolist()
    assert sorted(found["top_logprobs"][0].values(), reverse=True) == pytest.approx(best, abs=1e-4)
    assert found["text_offset"] == [0] and len(found["tokens"]) == 1


def test_completions_of_several_prompts(served: Any) -> None:
    body = {"model": "tiny", "prompt": ["the film", "we left"], "n": 2, "max_tokens": 4, "seed": 1}
    answer = served.ask("/v1/completions", body).json()
    assert [one["index"] for one in answer["choices"]] == [0, 1, 2, 3]
    alone = served.ask("/v1/completions", {**body, "prompt": "we left"}).json()
    assert [one["text"] for one in answer["choices"][2:]] == [one["text"] for one in alone["choices"]]


def test_the_models_are_listed(served: Any) -> None:
    rows = served.client.get("/v1/models").json()["data"]
    assert [(row["id"], row["kind"]) for row in rows] == [("tiny", "policy"), ("letters", "reward_model")]


def test_scores_answer_the_http_reward_and_its_relatives(served: Any) -> None:
    from plaudit.jobs.reward_tables import HttpTable
    from plaudit.records import Prompt, Rollout
    from plaudit.rewards.remote.http import HttpReward

    rollout = Rollout.single(Prompt("p", "ask "), 0, (1,), (2,), (0.0,), "four", "stop")
    reward = HttpReward(HttpTable(kind="http", url=f"{served.url}/v1/score"))
    assert [result.value for result in reward([rollout])] == [4.0]
    body = {"prompts": ["a", "b"], "query": ["axx", "byyy"]}
    assert served.ask("/v1/score", body).json()["rewards"] == [2.0, 3.0]
    body = {"prompts": ["a"], "responses": ["xx"], "truncated": [True]}
    assert served.ask("/v1/score", body).json()["rewards"] == [1.5]


def test_the_metrics_count(served: Any) -> None:
    chat(served, seed=1)
    text = served.client.get("/metrics").text
    assert 'plaudit_requests_total{path="/v1/chat/completions",status="200"}' in text
    assert "plaudit_responses_running 0" in text and 'le="+Inf"' in text
    for line in text.splitlines():
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2 and float(line.rsplit(" ", 1)[1]) >= 0


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role", "'king'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content", "no text"),
        ({"messages": CHAT, "tools": [{"type": "function"}]}, "tools", "no 'tools'"),
        ({"messages": CHAT, "frequency_penalty": 0.5}, "frequency_penalty", "leave it out"),
        ({"messages": CHAT, "max_tokns": 5}, "max_tokns", "no 'max_tokns'"),
        ({"messages": CHAT, "temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"messages": CHAT, "n": 1000}, "n", "less than or equal to"),
        ({"messages": [{"role": "user", "content": "x " * 4000}]}, "max_tokens", "shorten the prompt"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_with_the_field_and_the_cure(served: Any, body: Any, param: str, words: str) -> None:
    answer = served.ask("/v1/chat/completions", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert words in error["message"]


def test_unknown_models_and_paths_are_404(served: Any) -> None:
    assert served.ask("/v1/chat/completions", {"model": "gpt-9", "messages": CHAT}).status_code == 404
    assert served.client.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    assert served.ask("/v1/completions", {"prompt": [99999999]}).status_code == 400


def test_the_official_client(served: Any) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0)
    with client:
        wanted = client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=8, seed=1, logprobs=True, n=2)
        assert len(wanted.choices) == 2 and wanted.choices[0].logprobs.content[0].logprob < 0
        stream = client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=8, seed=1, stream=True)
        assert "".join(one.choices[0].delta.content or "" for one in stream) == wanted.choices[0].message.content
        text = client.completions.create(model="tiny", prompt="the film", max_tokens=4, logprobs=2, stop=["\n"])
        assert text.usage.total_tokens == text.usage.prompt_tokens + text.usage.completion_tokens
        assert [one.id for one in client.models.list()] == ["tiny", "letters"]
        with pytest.raises(openai.BadRequestError, match="no 'tools'"):
            client.chat.completions.create(
                model="tiny", messages=CHAT, tools=[{"type": "function", "function": {"name": "f"}}]
            )
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="other", messages=CHAT)
