import pytest
import torch
from torch import nn

from plaudit.backends.local.learner import build_optimizer, learning_rate
from plaudit.config.sections import OptimizerSection


def rates(**changes):
    section = OptimizerSection(**({"lr": 1.0, "warmup_fraction": 0.0} | changes))
    return [learning_rate(step, 10, section) for step in range(10)]


def test_cosine_starts_at_the_peak_and_heads_for_a_tenth():
    assert rates()[0] == 1.0 and rates()[5] == pytest.approx(0.55)
    assert learning_rate(10, 10, OptimizerSection(lr=1.0, warmup_fraction=0.0)) == pytest.approx(0.1)


def test_warmup_never_starts_at_zero():
    assert rates(warmup_fraction=0.2, schedule="constant")[:3] == [0.5, 1.0, 1.0]


def test_linear_reaches_zero_after_the_last_step():
    assert rates(schedule="linear")[-1] == pytest.approx(0.1)


@pytest.mark.parametrize(("schedule", "end"), [("linear", 0.0), ("cosine", 0.1)])
def test_past_the_end_the_rate_stays_and_never_turns_negative(schedule, end):
    section = OptimizerSection(lr=1.0, schedule=schedule, warmup_fraction=0.0)
    assert learning_rate(25, 10, section) == pytest.approx(end)


def test_biases_and_norms_do_not_decay():
    groups = build_optimizer(
        nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), OptimizerSection(lr=1e-5, weight_decay=0.1)
    ).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.1), (3, 0.0)]


def test_one_kernel_does_the_steps_of_the_plain_one():
    """By hand for the first step: after bias correction it is lr * sign(gradient), after a decay by 1 - 0.1 lr."""
    weights = [torch.tensor([[1.0, -2.0]]), torch.tensor([[1.0, -2.0]])]
    section = OptimizerSection(lr=0.01, weight_decay=0.1)
    ours, plain = (nn.Linear(2, 1, bias=False) for _ in range(2))
    for module, weight in zip((ours, plain), weights, strict=True):
        module.weight = nn.Parameter(weight)
    optimizers = [
        build_optimizer(ours, section),
        torch.optim.AdamW(
            plain.parameters(), lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=False
        ),
    ]
    assert optimizers[0].defaults["fused"] is True
    for step in range(20):
        for module, optimizer in zip((ours, plain), optimizers, strict=True):
            module.weight.grad = torch.tensor([[0.5 + step, -3.0]])
            optimizer.step()
        if step == 0:
            expected = [1.0 * 0.999 - 0.01, -2.0 * 0.999 + 0.01]
            assert ours.weight[0].tolist() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(ours.weight, plain.weight, rtol=0, atol=1e-6)
