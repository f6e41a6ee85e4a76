"""Two tokens, three steps, eight sequences: everything can be enumerated, so gradients are compared with exact ones.

The policy is a table of logits, one pair for each of the 7 prefixes. The reward comes with the last token.
"""

from itertools import product

import pytest
import torch

from plaudit.algorithms.grpo import DrGRPO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.reinforce import REINFORCE
from plaudit.algorithms.rloo import RLOO
from plaudit.experience import Experience, Outputs
from plaudit.functional.advantages import gae, rewards_to_go

LENGTH = 3
SEQUENCES = torch.tensor(list(product((0, 1), repeat=LENGTH)))  # [8, 3]
REWARDS = torch.tensor([0.3, -1.0, 2.0, 0.5, -0.7, 1.5, 0.0, 1.0], dtype=torch.float64)
PLAIN = {
    "reward_scaling": "none", "reward_clip": 0.0, "whiten_advantages": "none", "value_clip": 0.0,
    "missing_eos_penalty": 0.0,
}  # fmt: skip
KL_COEF = 0.3


def prefixes(sequences):
    """``[N, 3]`` index of the prefix before each token: 0; 1, 2; 3 to 6."""
    first, second = sequences[:, 0], sequences[:, 1]
    return torch.stack([torch.zeros_like(first), 1 + first, 3 + 2 * first + second], 1)


def logits(seed):
    return torch.randn(7, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logprobs(table, sequences):
    """``[N, 3]``."""
    return table.log_softmax(-1)[prefixes(sequences), sequences]


def probabilities(table):
    """``[8]``."""
    return logprobs(table, SEQUENCES).sum(1).exp()


def exact_gradient(table, ref=None, kl_coef=0.0):
    """Gradient of ``E[R] - kl_coef KL(policy || ref)`` over whole sequences, ``[7, 2]``."""
    table = table.clone().requires_grad_()
    log_law = logprobs(table, SEQUENCES).sum(1)
    objective = (log_law.exp() * REWARDS).sum()
    if ref is not None:
        objective = objective - kl_coef * (log_law.exp() * (log_law - logprobs(ref, SEQUENCES).sum(1))).sum()
    return torch.autograd.grad(objective, table)[0]


def expected_values(table, rewards, gamma=1.0):
    """``[8, 3]`` expected discounted rest of ``rewards [8, 3]``, given the prefix before each token."""
    law, places = probabilities(table), prefixes(SEQUENCES)
    togo = rewards_to_go(rewards, torch.ones_like(SEQUENCES, dtype=torch.bool), gamma)
    values = torch.zeros(7, dtype=torch.float64)
    for prefix in range(7):
        here = places == prefix
        values[prefix] = (law[:, None] * togo)[here].sum() / (law[:, None] * torch.ones_like(togo))[
            here
        ].sum()
    return values[places]


def experience(table, ref, rows, values=None):
    """Rows of one prompt token and the three tokens of the sequences with these numbers."""
    sequences = SEQUENCES[rows]

    def padded(x):
        return torch.cat([torch.zeros(len(rows), 1, dtype=x.dtype), x], 1)

    mask = torch.ones(len(rows), 1 + LENGTH, dtype=torch.bool)
    response = mask.clone()
    response[:, 0] = False
    old = padded(logprobs(table, sequences))
    return Experience(
        padded(sequences), mask, response,
        group_ids=torch.zeros(len(rows), dtype=torch.long), rewards=REWARDS[rows], old_logprobs=old,
        ref_logprobs=padded(logprobs(ref, sequences)), truncated=torch.zeros(len(rows), dtype=torch.bool),
        values=None if values is None else padded(values[rows]),
        length_limits=torch.full((len(rows),), LENGTH),
    )  # fmt: skip


def per_row_gradients(algorithm, table, batch):
    """``[B, 7, 2]`` gradient of minus the loss that comes from each row; they add up to the gradient of the step."""
    credit = algorithm.credit(batch, algorithm.start())
    step = algorithm.weights(credit.batch)
    own = table.repeat(len(batch), 1, 1).requires_grad_()  # a copy a row keeps the rows' gradients apart
    rows = torch.arange(len(batch))[:, None]
    sequences = batch.tokens[:, 1:]
    taken = own.log_softmax(-1)[rows, prefixes(sequences), sequences]
    taken = torch.cat([torch.zeros(len(batch), 1, dtype=taken.dtype), taken], 1)
    out = Outputs(logprobs=taken, entropy=torch.zeros_like(taken))
    return -torch.autograd.grad(algorithm.loss(step, out).value, own)[0]


def values_with_kl(table, ref):
    kl = logprobs(table, SEQUENCES) - logprobs(ref, SEQUENCES)
    rewards = -KL_COEF * kl
    rewards[:, -1] += REWARDS
    return expected_values(table, rewards)


CASES = {
    "reinforce return": (REINFORCE(rewards_to_go=False, baseline="none", kl_coef=KL_COEF), 1),
    "reinforce to go": (REINFORCE(baseline="none", kl_coef=KL_COEF), 1),
    "reinforce value": (REINFORCE(baseline="value", kl_coef=KL_COEF), 1),
    # The mean over tokens is a third of the sum over the three tokens of a response.
    "ppo lambda 0": (PPO(kl_coef=KL_COEF, gae_lambda=0.0, **PLAIN), LENGTH),
    "ppo lambda 0.95": (PPO(kl_coef=KL_COEF, gae_lambda=0.95, **PLAIN), LENGTH),
    "ppo lambda 1": (PPO(kl_coef=KL_COEF, gae_lambda=1.0, **PLAIN), LENGTH),
    "ppo kl in loss": (
        PPO(kl_coef=KL_COEF, kl_in="loss", kl_estimator="k3", gae_lambda=1.0, **PLAIN),
        LENGTH,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_expected_gradient_is_the_exact_one(name):
    """Every sequence once, weighted by its probability: no sampling, hence no tolerance for it."""
    algorithm, scale = CASES[name]
    table, ref = logits(0), logits(1)
    batch = experience(table, ref, torch.arange(8), values_with_kl(table, ref))
    rows = 8 * scale * per_row_gradients(algorithm, table, batch)
    found = torch.einsum("b,bsa->sa", probabilities(table), rows)
    exact = exact_gradient(table, ref, KL_COEF)
    if name == "ppo kl in loss":
        # The loss of a token knows the KL at its own place only: no credit for where it leads.
        exact = exact_gradient(table) - KL_COEF * kl_gradient_place_by_place(table, ref)
    assert torch.allclose(found, exact, atol=1e-5), (found, exact)


def kl_gradient_place_by_place(table, ref):
    """``sum_t E over prefixes [grad KL(policy || ref at the prefix)]``, prefixes drawn but not differentiated."""
    moving = table.clone().requires_grad_()
    law, places = probabilities(table), prefixes(SEQUENCES)
    visits = torch.zeros(7, dtype=torch.float64).index_add(
        0, places.flatten(), law[:, None].expand(8, LENGTH).flatten()
    )
    logp, ref_logp = moving.log_softmax(-1), ref.log_softmax(-1)
    return torch.autograd.grad((visits * (logp.exp() * (logp - ref_logp)).sum(-1)).sum(), moving)[0]


@pytest.mark.parametrize("name", ["reinforce to go", "reinforce value", "ppo lambda 0.95"])
def test_sampled_mean_gradient(name):
    """1e5 samples, the whole batch path: within 4 standard errors of the exact gradient, which are small."""
    algorithm, scale = CASES[name]
    table, ref = logits(0), logits(1)
    draw = torch.Generator().manual_seed(2)
    rows = torch.multinomial(probabilities(table), 100_000, replacement=True, generator=draw)
    batch = experience(table, ref, rows, values_with_kl(table, ref))
    samples = len(rows) * scale * per_row_gradients(algorithm, table, batch)
    error = samples.std(0) / len(rows) ** 0.5
    exact = exact_gradient(table, ref, KL_COEF)
    assert ((samples.mean(0) - exact).abs() <= 4 * error + 1e-6).all()
    assert error.max() < 0.02 < exact.abs().max()


@pytest.mark.parametrize(
    ("algorithm", "scale"),
    [(RLOO(kl_coef=KL_COEF), 1.0), (DrGRPO(kl_coef=0.0), 1.0)],
    ids=["rloo", "dr_grpo"],
)
def test_group_methods_over_all_pairs(algorithm, scale):
    """Groups of two, all 64 pairs: RLOO's mean is exact; the group's own mean as baseline costs a factor 1 - 1/G."""
    table, ref = logits(0), logits(1)
    law = probabilities(table)
    found = torch.zeros_like(table)
    for i, j in product(range(8), repeat=2):
        gradients = per_row_gradients(algorithm, table, experience(table, ref, torch.tensor([i, j])))
        found += law[i] * law[j] * gradients.sum(0)
    if isinstance(algorithm, RLOO):
        assert torch.allclose(found, exact_gradient(table, ref, KL_COEF), atol=1e-5)
    else:
        assert torch.allclose(2 * LENGTH * found, exact_gradient(table), atol=1e-5)


@pytest.mark.parametrize("gamma", [1.0, 0.8])
@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
def test_gae_with_exact_values_is_unbiased_for_every_lambda(gae_lambda, gamma):
    """``E[A_t given prefix and token] = Q - V``, for each of the 14 pairs of prefix and token."""
    table = logits(3)
    rewards = torch.randn(8, LENGTH, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    rewards = of_prefix_and_token(rewards)
    everywhere = torch.ones(8, LENGTH, dtype=torch.bool)
    values = expected_values(table, rewards, gamma)
    found = given_token(table, gae(rewards, values, everywhere, gamma, gae_lambda)[0])
    exact = given_token(table, rewards_to_go(rewards, everywhere, gamma)) - values
    assert torch.allclose(found, exact, atol=1e-10)


def test_gae_with_wrong_values_is_biased_unless_lambda_is_one():
    table, everywhere = logits(3), torch.ones(8, LENGTH, dtype=torch.bool)
    rewards = torch.zeros(8, LENGTH, dtype=torch.float64)
    rewards[:, -1] = REWARDS
    wrong = torch.linspace(-1, 1, 7, dtype=torch.float64)[prefixes(SEQUENCES)]
    exact = given_token(table, rewards_to_go(rewards, everywhere)) - wrong
    for gae_lambda, unbiased in ((1.0, True), (0.95, False), (0.0, False)):
        found = given_token(table, gae(rewards, wrong, everywhere, 1.0, gae_lambda)[0])
        assert torch.allclose(found, exact, atol=1e-8) == unbiased


def of_prefix_and_token(x):
    """The same number wherever prefix and token are the same: that of the first such sequence."""
    keys = 2 * prefixes(SEQUENCES) + SEQUENCES
    first = torch.stack([x[(keys == key)][0] for key in range(14)])
    return first[keys]


def given_token(table, x):
    """``E[x_t given prefix and token at t]``, ``[8, 3]``."""
    law, keys = probabilities(table)[:, None].expand(8, LENGTH), 2 * prefixes(SEQUENCES) + SEQUENCES
    total, mass = torch.zeros(14, dtype=torch.float64), torch.zeros(14, dtype=torch.float64)
    total.index_add_(0, keys.flatten(), (law * x).flatten())
    mass.index_add_(0, keys.flatten(), law.flatten())
    return (total / mass)[keys]
