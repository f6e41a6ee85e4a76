"""An iteration of one optimizer step: no pass for old log-probs, and the step that it would have been with one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.contracts.other_backends import build

from plaudit.algorithms.grpo import GRPO
from plaudit.algorithms.rloo import RLOO
from plaudit.backends.local.learner import LocalLearner, LocalScorer
from plaudit.config.sections import MismatchSection, OptimizerSection, SamplingSection
from plaudit.experience import Experience
from plaudit.generation.native import NativeGenerator
from plaudit.models.files.load import load_tokenizer
from plaudit.models.policy import ReferencePolicy
from plaudit.records import Prompt, RewardResult
from plaudit.runtime import Runtime, TokenPrompt
from plaudit.training.online import OnlineLoop
from plaudit.training.signals import OnlyUpdate, correct_mismatch, with_shares

RATE = OptimizerSection(lr=0.01, schedule="constant", warmup_fraction=0.0)
PROMPTS = [TokenPrompt(Prompt(f"p{i}", "x"), (2, 9 + i, 10)) for i in range(4)]


def reward(rollouts: Any) -> list[RewardResult]:
    return [RewardResult(float(r.response_ids.count(12)) - 0.1 * len(r.response_ids)) for r in rollouts]


def passes(model: Any, algorithm: Any, section: MismatchSection) -> tuple[list[bool], list[dict[str, float]], int]:
    """Did each forward pass of the policy's learner have a gradient? Metrics of two iterations; steps."""
    policy, tokenizer = build(model, "policy", RATE, 8), load_tokenizer(model)
    seen: list[bool] = []
    history: list[dict[str, float]] = []
    policy.module.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    reference = LocalScorer(ReferencePolicy(policy.module), policy.compute)
    reference.module._forward_hooks.clear()
    generator = NativeGenerator(policy.module.lm, tokenizer, (3,))
    for part in reference.module.modules():
        part._forward_hooks.clear()
    OnlineLoop(
        algorithm, Runtime(generator, policy, reference, reward), PROMPTS, SamplingSection(max_new_tokens=6),
        4, 0, 1, lambda number, metrics, rollouts: history.append(metrics), mismatch=section,
    ).run(2)  # fmt: skip
    return seen, history, policy.step


@pytest.mark.parametrize("algorithm", [GRPO(group_size=4), RLOO(group_size=4, kl_coef=0.1)])
def test_one_step_is_one_forward_pass(tiny_model: Any, algorithm: Any) -> None:
    seen, history, steps = passes(tiny_model, algorithm, MismatchSection())
    assert all(seen) and steps == 2, "no pass without a gradient"
    assert len(seen) == 2 * steps, "a step has two microbatches"
    for metrics in history:
        assert metrics["rollout/rescored_share"] == 0 and metrics["rollout/logprob_diff_max"] < 1e-4
        assert metrics["rollout/effective_share"] == pytest.approx(1.0, abs=1e-4)
        assert metrics["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-6)
        assert "rollout/weight_square" not in metrics


@pytest.mark.parametrize(
    ("algorithm", "section"),
    [
        (GRPO(group_size=4, minibatches=2), MismatchSection()),
        (GRPO(group_size=4), MismatchSection(correction="drop")),
        (GRPO(group_size=4), MismatchSection(max_staleness=1)),
    ],
)
def test_where_old_log_probs_are_needed_some_rows_are_scored(tiny_model: Any, algorithm: Any, section: Any) -> None:
    seen, _, _ = passes(tiny_model, algorithm, section)
    assert seen.count(False) == 2, "one row in eight, in each of two iterations"


@pytest.mark.parametrize("correction", ["none", "truncate", "mask", "truncate_sequence", "mask_geometric"])
def test_the_gradient_and_the_metrics_are_those_of_a_scored_batch(tiny_model: Any, correction: Any) -> None:
    section, algorithm = MismatchSection(correction=correction, weight_high=1.3), GRPO(group_size=2, kl_coef=0.0)
    learner: LocalLearner = build(tiny_model, "policy", RATE, 8)
    torch.manual_seed(0)
    tokens = torch.randint(4, 14, (4, 7))
    mask = torch.arange(7).expand(4, 7) > torch.tensor([[2], [2], [3], [3]])
    batch = algorithm.weights(
        Experience(tokens, torch.ones_like(mask), mask, advantages=torch.randn(4, 1).expand(4, 7) * mask)
    )
    [old] = learner.read(batch, "logprobs")
    batch = batch.replace(sampled_logprobs=torch.where(mask, old + 0.3 * torch.randn(4, 7), 0.0))
    scored, expected = correct_mismatch(batch.replace(old_logprobs=old), section)
    gradients, metrics = [], {}
    learner.optimizer.zero_grad = lambda **_: None  # type: ignore[method-assign]
    learner.optimizer.step = lambda: None  # type: ignore[method-assign]
    for given, loss in ((scored, algorithm.loss), (batch, OnlyUpdate(algorithm.loss, section))):
        metrics = learner.update(given, loss)
        gradients.append(torch.cat([p.grad.flatten() for p in learner.parameters.values()]))
        for p in learner.parameters.values():
            p.grad = None
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)
    found = with_shares(metrics)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
