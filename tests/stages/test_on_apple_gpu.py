"""Nothing that runs on the device of a model makes 64-bit numbers there, which an Apple GPU does not have.

There is no such device here. So the model's device is the CPU, and what runs on it (sampling, scoring, updates) is
watched: a float64 tensor may only be made by way of `in_float64`, which goes to the host where the device has none.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from plaudit.algorithms.dpo import DPO
from plaudit.algorithms.grpo import GRPO
from plaudit.algorithms.kto import KTO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.reward_model import RewardModel
from plaudit.backends.local.learner import LocalLearner, LocalScorer
from plaudit.config.algorithm import with_algorithm
from plaudit.config.sections import LoraSection, SamplingSection
from plaudit.generation import sampling
from plaudit.generation.native import NativeGenerator
from plaudit.jobs.online import GRPOJob
from plaudit.jobs.preference import DPOJob
from plaudit.records import RewardResult
from plaudit.stages.online.rl import run_rl
from plaudit.stages.preference.dpo import run_dpo
from plaudit.stages.reward.train import run_reward
from plaudit.stages.sft import run_sft


class OnTheHost(torch.Tensor):
    """A tensor that `in_float64` made; what is computed from it is on the host as well."""


class NoFloat64(TorchFunctionMode):
    """Fails where an operation gives a float64 tensor that does not come from the host."""

    made = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor):
                NoFloat64.made += 1
                if each.dtype == torch.float64 and not isinstance(each, OnTheHost):
                    raise AssertionError(f"{func} makes a float64 tensor on the device of the model")
        return out


def to_the_host(x: torch.Tensor) -> torch.Tensor:
    with torch._C.DisableTorchFunction():
        return x.as_subclass(torch.Tensor).double().as_subclass(OnTheHost)


def on_the_device(method: Any) -> Any:
    @functools.wraps(method)
    def watched(*args: Any, **kwargs: Any) -> Any:
        with NoFloat64():
            return method(*args, **kwargs)

    return watched


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "in_float64", to_the_host)
    for owner, name in (
        (NativeGenerator, "generate"), (LocalScorer, "read"), (LocalLearner, "update"), (LocalLearner, "put_back"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, on_the_device(getattr(owner, name)))
    NoFloat64.made = 0


def likes_good(rollouts):
    return [RewardResult(float(r.response.count("good"))) for r in rollouts]


SHAPED = SamplingSection(max_new_tokens=5, temperature=0.7, top_k=20, top_p=0.9, min_p=0.01, min_new_tokens=2)
JOBS = {
    "sft": lambda world, out: run_sft(world.sft(out)),
    "sft with adapters": lambda world, out: run_sft(world.sft(out, lora=LoraSection(rank=2))),
    "reward": lambda world, out: run_reward(world.reward(out, head_init="probe")),
    "reward with LM loss": lambda world, out: run_reward(world.reward(out, algorithm=RewardModel(lm_coef=0.1))),
    "dpo": lambda world, out: run_dpo(preferences(world, out, DPO())),
    "kto": lambda world, out: run_dpo(preferences(world, out, KTO())),
    "ppo": lambda world, out: run_rl(world.rl(out, iterations=2, algorithm=PPO(critic_warmup=1)), reward=likes_good),
    "ppo with every detail": lambda world, out: run_rl(world.rl(out, iterations=1, sampling=SHAPED, algorithm=PPO(
        critic_warmup=0, kl_estimator="full", missing_eos="bootstrap", entropy_coef=0.01, gae_lambda="length",
        dual_clip=3.0, whiten_advantages="minibatch",
    )), reward=likes_good),
    "ppo on one trunk": lambda world, out: run_rl(
        world.rl(out, iterations=2, algorithm=PPO(critic_warmup=1, critic="trunk")), reward=likes_good
    ),
    "grpo": lambda world, out: run_rl(online(world, out, GRPO(group_size=2, kl_coef=0.1)), reward=likes_good),
}  # fmt: skip


def preferences(world, out, algorithm):
    values = world.reward(out).model_dump(exclude={"algorithm", "members", "member", "head_init", "references",
                                                   "min_agreement", "ties", "eval_every"})  # fmt: skip
    job = with_algorithm(DPOJob, type(algorithm))
    return job(**(values | {"algorithm": algorithm, "sampling": SamplingSection(max_new_tokens=4)}))


def online(world, out, algorithm):
    return GRPOJob(**(world.rl(out, iterations=1).model_dump() | {"algorithm": algorithm}))


@pytest.mark.parametrize("kind", JOBS)
def test_no_float64_is_made_on_the_device(world, tmp_path, watched, kind: str) -> None:
    JOBS[kind](world, tmp_path / "run")
    assert NoFloat64.made > 1000, "the operations of the model are seen"


def test_the_watch_notices(watched) -> None:
    with NoFloat64():
        x = torch.ones(3)
        for op in (lambda: x.double(), lambda: torch.zeros(2, dtype=torch.float64), lambda: x.to(torch.float64)):
            with pytest.raises(AssertionError, match="float64"):
                op()
        assert float(to_the_host(x).cumsum(0)[-1]) == 3
