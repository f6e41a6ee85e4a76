"""The KL-regularised bandit of algorithms.md 3.6 with exact expectations: where each form of the KL leads PPO.

One row for each arm, weighted by its probability: the gradient has no noise, so the limit is exact.
"""

import pytest
import torch

from plaudit.algorithms.ppo import PPO
from plaudit.experience import Experience, Outputs
from plaudit.functional.kl import full_kl

REWARDS, BETA = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), 0.5
REVERSE, FORWARD = [0.786986, 0.106507, 0.106507], [0.728714, 0.135643, 0.135643]
PLAIN = {
    "kl_coef": BETA,
    "reward_scaling": "none",
    "reward_clip": 0.0,
    "whiten_advantages": "none",
    "value_clip": 0.0,
}


def arms(logits):
    """All arms once, as a batch of the current policy against the uniform reference."""
    column = lambda x: torch.stack([torch.zeros_like(x), x], -1)  # noqa: E731
    logp, ref = logits.detach().log_softmax(-1), torch.full((3,), 1 / 3, dtype=torch.float64).log()
    mask = torch.tensor([[False, True]]).expand(3, 2)
    return Experience(
        tokens=torch.zeros(3, 2, dtype=torch.long), attention_mask=torch.ones(3, 2, dtype=torch.bool),
        response_mask=mask, rewards=REWARDS, old_logprobs=column(logp), ref_logprobs=column(ref),
        values=torch.zeros(3, 2, dtype=torch.float64),
        full_kl=column(full_kl(logits.detach()[None], ref[None]).expand(3)),
    )  # fmt: skip


def limit(algorithm, steps=120, lr=3.0):
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        batch = algorithm.credit(arms(logits), algorithm.start()).batch
        batch = batch.replace(loss_weights=batch.old_logprobs.exp() * batch.response_mask)
        logp = logits.log_softmax(-1)
        out = Outputs(
            logprobs=torch.stack([torch.zeros_like(logp), logp], -1), entropy=torch.zeros(3, 2).double()
        )
        algorithm.loss(batch, out).value.backward()
        with torch.no_grad():
            logits -= lr * logits.grad
            logits.grad = None
    return logits.softmax(-1).tolist()


@pytest.mark.parametrize(
    ("form", "optimum"),
    [
        ({"kl_estimator": "k1"}, REVERSE),
        ({"kl_estimator": "full"}, REVERSE),
        ({"kl_in": "loss", "kl_estimator": "k1"}, REVERSE),
        ({"kl_in": "loss", "kl_estimator": "k2"}, REVERSE),
        ({"kl_in": "loss", "kl_estimator": "k2_naive"}, REVERSE),
        ({"kl_in": "loss", "kl_estimator": "k3"}, REVERSE),
        ({"kl_in": "loss", "kl_estimator": "k3_naive"}, FORWARD),
    ],
    ids=str,
)
def test_the_limit_of_each_form_of_the_kl(form, optimum):
    assert limit(PPO(**PLAIN, **form)) == pytest.approx(optimum, abs=1e-4)


def test_without_a_kl_the_best_arm_takes_all():
    assert limit(PPO(**(PLAIN | {"kl_coef": 0.0})))[0] > 0.99
