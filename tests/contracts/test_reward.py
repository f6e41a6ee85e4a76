"""The contract of `plaudit.runtime.Reward`, kept by every kind of reward wherever it runs.

A reward that a later backend or service brings is one more entry of `REWARDS`.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from chat_server import chat_server
from transformers import LlamaConfig, LlamaForSequenceClassification

from plaudit.backends.local.rewards import LocalModels
from plaudit.config.sections import ComputeSection
from plaudit.jobs.reward_tables import FunctionTable, HttpTable, JudgeTable
from plaudit.jobs.reward_texts import table_of
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_tokenizer
from plaudit.records import Message, Prompt, RewardResult, Rollout, Turn
from plaudit.rewards.build import GivenReward, build
from plaudit.runtime import Reward

WORDS = "say red blue green good bad warm cold . please".split()
FUNCTIONS = """
async def waits(response):
    return float(len(response))

def single(prompt, response):
    return float(len(response))

def batch(responses):
    return [float(len(text)) for text in responses]

def group(group):
    best = max(len(rollout.response) for rollout in group)
    return [float(len(rollout.response) - best) for rollout in group]

class Mine:
    def __init__(self, factor=1.0):
        self.factor = factor

    def __call__(self, rollouts):
        return [self.factor * len(rollout.response) for rollout in rollouts]
"""


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny_tokenizer([" ".join(WORDS)] * 4, 64, chat=False)


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Iterator[dict[str, str]]:
    """A file of functions, a reward model, a classifier, and the address of a server."""
    root = tmp_path_factory.mktemp("rewards")
    (root / "mine.py").write_text(FUNCTIONS)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **size)
    for seed in (0, 1):
        config.num_labels = 1
        model = LlamaForSequenceClassification(config)
        RewardModel(model).save(root / f"model-{seed}", tokenizer)
    config.num_labels, config.id2label = 2, {0: "BAD", 1: "GOOD"}
    LlamaForSequenceClassification(config).save_pretrained(root / "classifier")
    tokenizer.save_pretrained(root / "classifier")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Lengths)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with chat_server() as chat:
        yield {"root": str(root), "url": f"http://127.0.0.1:{server.server_port}/score", "chat": chat.url}
    server.shutdown()
    server.server_close()


class Lengths(BaseHTTPRequestHandler):
    """A reward server: the length of the response, in the words of OpenRLHF."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        lengths = [
            len(whole) - len(prompt) for whole, prompt in zip(body["query"], body["prompts"], strict=True)
        ]
        answer = json.dumps({"rewards": lengths}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        """Silent."""


def from_tables(*values: Any) -> Callable[[dict[str, str], Any], Reward]:
    def make(places: dict[str, str], tokenizer: Any) -> Reward:
        sources = [
            table_of(value.format(**places)) if isinstance(value, str) else value(places) for value in values
        ]
        return build(sources, LocalModels(tokenizer, ComputeSection(device="cpu")), where="reward")

    return make


def here(response: str) -> float:
    return float(len(response))


async def here_async(response: str) -> float:
    return float(len(response))


REWARDS: dict[str, Callable[[dict[str, str], Any], Reward]] = {
    "function": from_tables(lambda places: GivenReward(here)),
    "async function": from_tables(lambda places: GivenReward(here_async)),
    "isolated function": from_tables("{root}/mine.py:single"),
    "isolated batch": from_tables("{root}/mine.py:batch"),
    "isolated group": from_tables("{root}/mine.py:group"),
    "isolated async": from_tables("{root}/mine.py:waits"),
    "isolated class": from_tables(
        lambda places: FunctionTable(path=f"{places['root']}/mine.py:Mine", options={"factor": 2.0})
    ),
    "rule": from_tables("rule:contains:good"),
    "model": from_tables("{root}/model-0"),
    "ensemble": from_tables("{root}/model-0,{root}/model-1@mean_minus_std"),
    "classifier": from_tables("{root}/classifier#GOOD"),
    "http": from_tables(lambda places: HttpTable(url=places["url"], batch_size=2)),
    "judge": from_tables(
        lambda places: JudgeTable(url=places["chat"], model="mini", cache=f"{places['root']}/answers.jsonl")
    ),
    "weighted": from_tables(
        "rule:json", lambda places: HttpTable(url=places["url"], weight=0.5), "{root}/model-0"
    ),
}


@pytest.fixture(scope="session")
def made() -> dict[str, Reward]:
    """Each reward is made once: what is made stays usable from call to call."""
    return {}


@pytest.fixture(params=REWARDS)
def reward(
    request: pytest.FixtureRequest, places: dict[str, str], tokenizer: Any, made: dict[str, Reward]
) -> Reward:
    if request.param not in made:
        made[request.param] = REWARDS[request.param](places, tokenizer)
    return made[request.param]


@pytest.fixture
def rollouts(tokenizer: Any) -> list[Rollout]:
    """Two groups of texts, a chat, and a conversation of three turns."""
    texts = [(" good please .", 0), (" bad", 0), (" cold cold bad .", 1), ("", 1)]
    chat = (Message("system", "say good"), Message("user", "say"))
    prompts = {0: Prompt("a", "say red", "4", {"level": 3}), 1: Prompt("b", "say blue"), 2: Prompt("c", chat)}
    rows = []
    for text, group in [*texts, (" warm .", 2)]:
        prompt_ids = tokenizer("say red", add_special_tokens=False)["input_ids"]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"] or [tokenizer.eos_token_id]
        rows.append(Rollout.single(prompts[group], group, prompt_ids, ids, [-0.5] * len(ids), text, "stop"))
    one, *_, last = (rows[0].response_ids, rows[1].response_ids, rows[2].response_ids)
    ends = [len(rows[0].prompt_ids), len(rows[0].prompt_ids) + len(one)]
    ends += [ends[-1] + len(one), ends[-1] + len(one) + len(last)]
    turns = (
        Turn("policy", ends[0], ends[1], " good please .", "stop"),
        Turn("environment", ends[1], ends[2], (Message("tool", "7"),)),
        Turn("policy", ends[2], ends[3], " cold cold bad .", "length"),
    )
    tokens = (*rows[0].prompt_ids, *one, *one, *last)
    rows.append(Rollout(prompts[2], 2, tokens, turns, (-0.5,) * (len(one) + len(last)), "length"))
    return rows


def test_one_result_for_each_rollout_in_their_order(reward: Reward, rollouts: list[Rollout]) -> None:
    results = reward(rollouts)
    assert len(results) == len(rollouts) and all(isinstance(result, RewardResult) for result in results)
    values = {r.prompt.id + r.response: result.value for r, result in zip(rollouts, results, strict=True)}
    back = reward(rollouts[::-1])
    for rollout, result in zip(rollouts[::-1], back, strict=True):
        assert result.value == pytest.approx(values[rollout.prompt.id + rollout.response], rel=1e-4, abs=1e-4)


def test_a_result_is_a_finite_number_with_parts_or_a_reason(reward: Reward, rollouts: list[Rollout]) -> None:
    for result in reward(rollouts):
        assert result.value is not None, result.error
        assert math.isfinite(result.value) and not result.error
        assert result.parts and all(math.isfinite(part) for part in result.parts.values())


def test_a_reward_has_a_name_and_nothing_costs_nothing(reward: Reward) -> None:
    assert reward.name and isinstance(reward.name, str)
    assert reward([]) == []


def test_calls_do_not_change_each_other(reward: Reward, rollouts: list[Rollout]) -> None:
    before = [result.value for result in reward(rollouts)]
    reward(rollouts[:2])
    assert [result.value for result in reward(rollouts)] == pytest.approx(before, rel=1e-6)
